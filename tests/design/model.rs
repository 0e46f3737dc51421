//! A model of the rules, not of the code. It has `CommitTimestamp::supersedes`, the condition on the write, a tombstone
//! for each deletion, and tombstones that outlive whatever may still be delivered. It also has a memory of confirmed
//! commits, which saves writes; what a create may do and what its answer means; and replays of the quarantine, where a
//! change may have waited for longer than tombstones are kept.
//!
//! A definition hides rows and lets rows expire. A hidden row is a tombstone, as a deleted one is. A row that expires
//! stays for as long as a tombstone would, since it guards against older changes too.

use stateright::{Model, Property};

/// A change's commit: its place in the history, from 1.
pub type Commit = u8;

/// What the view makes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A row.
    Row,
    /// A row that may go after some time.
    Expiring,
    /// A row that the definition's conditions hide: the database has it, and the view does not show it.
    Hidden,
    Deletion,
}

/// The rules, and how they can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    Ours,
    /// A deletion removes the item.
    RemoveInsteadOfTombstone,
    /// A change replaces its own commit too.
    EqualReplaces,
    /// A tombstone expires while older changes may still be delivered.
    TombstoneTooShort,
    /// A write that the function gave up counts as done.
    UnknownIsDone,
    /// A function remembers a change as shown before DynamoDB has answered its write.
    UnknownIsRemembered,
    /// A create takes place even where the view has an item.
    CreateOverwrites,
    /// A create takes place over a tombstone.
    CreateOverTombstone,
    /// A create that finds an item counts as superseded, and no put follows.
    CreateInVainIsDone,
    /// A create without an answer counts as done, and no put follows.
    LostCreateIsDone,
    /// A function remembers a change as shown before DynamoDB has answered its create.
    LostCreateIsRemembered,
    /// A tombstone expires while an older create is still on its way.
    CreateOutlivesTombstone,
    /// A change is ordered by the earlier of its record's timestamps, even where the change stream's clock was behind.
    EarlierTimestamp,
    /// A replay writes an old row like a change of the stream.
    ReplayAsEver,
    /// A replay writes an old row over any older item, even over a tombstone that was itself written late.
    ReplayOverLateTombstone,
    /// A hidden row is skipped: nothing is written, whatever stands there.
    HiddenIsSkipped,
    /// A hidden row is a tombstone only where an item stands: where none does, it seems to make no difference.
    HiddenNeedsAnItem,
    /// A hidden row removes the item.
    HiddenIsRemoved,
    /// A row expires when its column says, even while older changes may still be delivered.
    RowExpiresTooEarly,
}

#[derive(Debug, Clone)]
pub struct Design {
    pub rules: Rules,
    pub history: Vec<Kind>,
    pub duplicates: u8,
    pub failures: u8,
    /// How many creates may stay without an answer; with 0, no creates are sent.
    pub lost_creates: u8,
    /// How many changes may be quarantined.
    pub quarantines: u8,
    /// The change whose record was made while the change stream's clock was behind: its record seems older than the
    /// commit of the change before it.
    pub clock_behind: Option<Commit>,
}

/// A function's request to DynamoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// Replaces an older item, or writes where there is no item.
    Put,
    /// Writes only where there is no item.
    Create,
    /// Replays a row from the quarantine: replaces an older item that exists, if that item proves that the row was not
    /// deleted since.
    Replay,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Function {
    Idle,
    /// A change was delivered and is not written yet.
    Holding(Commit),
    /// The function is about to replay a change from the quarantine.
    Replaying(Commit),
    /// DynamoDB has answered the write, or the function skipped it, and Lambda does not know of it yet.
    Written(Commit),
}

/// The newest commit that DynamoDB has confirmed to a function since the function started, as applied or as superseded;
/// 0 before the first.
pub type Known = Commit;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The commit of the item at the key.
    view: Option<Commit>,
    /// The newest commit whose tombstone had expired when the item at the key was written. An implementation learns it
    /// from the tombstone's own expiry.
    expired_before_view: Commit,
    functions: [Function; 2],
    known: [Known; 2],
    /// Which changes Lambda knows to be done.
    settled: Vec<bool>,
    /// Which changes are in the quarantine.
    quarantined: Vec<bool>,
    /// Writes that are still on their way, though their functions have given them up or are dead.
    late: Vec<(Commit, Request)>,
    duplicates_left: u8,
    failures_left: u8,
    lost_creates_left: u8,
    quarantines_left: u8,
    /// Nothing older than this commit is delivered any more, because a tombstone or a row of this commit has expired.
    horizon: Commit,
    /// The newest commit that the view has ever shown.
    newest_shown: Commit,
    went_back: bool,
    wrote_again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Deliver(usize, Commit),
    Write(usize),
    /// DynamoDB answers a create. If the create found an item, the function still holds the change.
    Create(usize),
    /// A create gets no answer, and takes place now or later; the function still holds the change.
    LoseCreate(usize),
    Answer(usize),
    /// The function dies. What it did stays, Lambda does not know of it, and the function's memory is gone.
    Crash(usize),
    /// The answer is lost on its way to Lambda, and the function lives on.
    LoseAnswer(usize),
    /// The function gives up the write, which is still on its way.
    GiveUp(usize),
    /// The time runs out before the put that follows a create.
    Stop(usize),
    LateWrite(usize),
    /// The change goes into the quarantine, for example because a column had a name that the view keeps for itself.
    Quarantine(usize),
    /// Somebody replays a change of the quarantine.
    BeginReplay(usize, Commit),
    Expire,
}

impl Design {
    fn kind(&self, commit: Commit) -> Kind {
        self.history[usize::from(commit) - 1]
    }

    /// Whether a tombstone shows the change.
    fn is_tombstone(&self, commit: Commit) -> bool {
        matches!(self.kind(commit), Kind::Hidden | Kind::Deletion)
    }

    /// Whether the item of this commit goes while older changes may still be delivered.
    fn goes_too_early(&self, commit: Commit) -> bool {
        match self.kind(commit) {
            Kind::Row => false,
            Kind::Expiring => self.rules == Rules::RowExpiresTooEarly,
            Kind::Hidden | Kind::Deletion => self.rules == Rules::TombstoneTooShort,
        }
    }

    /// The order of a change: its commit, whatever the change stream's clock says.
    fn filed(&self, commit: Commit) -> u8 {
        let is_early = self.rules == Rules::EarlierTimestamp && self.clock_behind == Some(commit);
        if is_early { (2 * commit).saturating_sub(3) } else { 2 * commit }
    }

    /// Performs the request; false if DynamoDB refuses it.
    fn write(&self, state: &mut State, commit: Commit, request: Request) -> bool {
        let replaces = match (request, state.view) {
            (Request::Replay, shown) if self.is_old(state, commit) => {
                shown.is_some_and(|shown| commit > shown && self.vouches(state, shown, commit))
            }
            (_, None) => true,
            (Request::Put, Some(shown)) if self.rules == Rules::EqualReplaces => commit >= shown,
            (Request::Put | Request::Replay, Some(shown)) => self.filed(commit) > self.filed(shown),
            (Request::Create, Some(shown)) => match self.rules {
                Rules::CreateOverwrites => true,
                Rules::CreateOverTombstone => self.is_tombstone(shown),
                _ => false,
            },
        };
        if !replaces {
            return false;
        }
        let is_skipped = self.kind(commit) == Kind::Hidden
            && match self.rules {
                Rules::HiddenIsSkipped => true,
                Rules::HiddenNeedsAnItem => state.view.is_none(),
                _ => false,
            };
        state.wrote_again |= state.view == Some(commit);
        // A deletion where no row is left changes nothing that the view shows.
        let shows_as_before = self.is_tombstone(commit) && state.view.is_none_or(|shown| self.is_tombstone(shown));
        if is_skipped {
            // A view without the row is right, as long as nothing older comes.
            if shows_as_before {
                state.newest_shown = state.newest_shown.max(commit);
            }
            return true;
        }
        state.went_back |= commit < state.newest_shown && !shows_as_before;
        state.expired_before_view = state.horizon;
        state.newest_shown = state.newest_shown.max(commit);
        let removes = match self.kind(commit) {
            Kind::Row | Kind::Expiring => false,
            Kind::Hidden => self.rules == Rules::HiddenIsRemoved,
            Kind::Deletion => self.rules == Rules::RemoveInsteadOfTombstone,
        };
        state.view = (!removes).then_some(commit);
        true
    }

    /// Whether a row of the quarantine is so old that a later deletion's tombstone may have expired. The implementation
    /// only knows that no tombstone newer than a young enough change has expired. The model knows it exactly, which is
    /// the hardest case.
    fn is_old(&self, state: &State, commit: Commit) -> bool {
        self.rules != Rules::ReplayAsEver && !self.is_tombstone(commit) && state.horizon > commit
    }

    /// Whether the item at the key proves that the row of this commit was not deleted since.
    fn vouches(&self, state: &State, shown: Commit, commit: Commit) -> bool {
        let is_late = self.is_tombstone(shown) && state.expired_before_view > commit;
        !is_late || self.rules == Rules::ReplayOverLateTombstone
    }

    /// Sorts the two functions: they are alike, so it makes no difference which one is the first.
    fn in_order(mut state: State) -> State {
        if (&state.functions[1], state.known[1]) < (&state.functions[0], state.known[0]) {
            state.functions.swap(0, 1);
            state.known.swap(0, 1);
        }
        state
    }

    fn give_up(state: &mut State, commit: Commit, request: Request) {
        state.late.push((commit, request));
        state.late.sort_unstable();
    }

    /// Whether nothing can happen any more except repeated deliveries of finished changes.
    fn is_quiet(state: &State) -> bool {
        state.settled.iter().all(|settled| *settled)
            && state.late.is_empty()
            && state.functions.iter().all(|function| *function == Function::Idle)
    }

    /// Whether the view shows the newest change. A deletion or a hidden row shows as a tombstone, or as nothing once the
    /// tombstone has expired. A row that has expired shows as nothing, or as an older tombstone that was replayed since.
    ///
    /// Changes in the quarantine are not shown, as the documentation says.
    fn has_converged(&self, state: &State) -> bool {
        let waits = |commit: Commit| state.quarantined[usize::from(commit) - 1] && commit > state.newest_shown;
        let changes = Commit::try_from(self.history.len()).expect("a short history");
        let Some(newest) = (1..=changes).rfind(|commit| !waits(*commit)) else { return state.view.is_none() };
        let shows_no_row = state.view.is_none_or(|shown| self.is_tombstone(shown));
        let may_be_gone = self.kind(newest) != Kind::Row;
        state.view == Some(newest) || (shows_no_row && may_be_gone && state.newest_shown == newest)
    }
}

impl Model for Design {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            view: None,
            expired_before_view: 0,
            functions: [Function::Idle, Function::Idle],
            known: [0, 0],
            settled: vec![false; self.history.len()],
            quarantined: vec![false; self.history.len()],
            late: Vec::new(),
            duplicates_left: self.duplicates,
            failures_left: self.failures,
            lost_creates_left: self.lost_creates,
            quarantines_left: self.quarantines,
            horizon: 0,
            newest_shown: 0,
            went_back: false,
            wrote_again: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (place, function) in state.functions.iter().enumerate() {
            match function {
                Function::Idle => {
                    let deliverable = (1..).zip(&state.settled).filter(|(commit, settled)| {
                        *commit >= state.horizon && (!**settled || state.duplicates_left > 0)
                    });
                    actions.extend(deliverable.map(|(commit, _)| Action::Deliver(place, commit)));
                    let replayable = (1..).zip(&state.quarantined).filter(|(_, waits)| **waits);
                    actions.extend(replayable.map(|(commit, _)| Action::BeginReplay(place, commit)));
                }
                Function::Holding(commit) => {
                    actions.push(Action::Write(place));
                    if state.quarantines_left > 0 {
                        actions.push(Action::Quarantine(place));
                    }
                    if state.failures_left > 0 {
                        actions.extend([Action::Crash(place), Action::GiveUp(place)]);
                    }
                    // A known change is not created, and no deletion creates a row. A row may be hidden from its beginning.
                    let may_create = *commit > state.known[place] && self.kind(*commit) != Kind::Deletion;
                    if self.lost_creates > 0 && may_create {
                        actions.push(Action::Create(place));
                        if state.lost_creates_left > 0 {
                            actions.push(Action::LoseCreate(place));
                        }
                        if state.failures_left > 0 {
                            actions.push(Action::Stop(place));
                        }
                    }
                }
                Function::Replaying(_) => {
                    actions.push(Action::Write(place));
                    if state.failures_left > 0 {
                        actions.extend([Action::Crash(place), Action::GiveUp(place)]);
                    }
                }
                Function::Written(_) => {
                    actions.push(Action::Answer(place));
                    if state.failures_left > 0 {
                        actions.extend([Action::Crash(place), Action::LoseAnswer(place)]);
                    }
                }
            }
        }
        actions.extend((0..state.late.len()).map(Action::LateWrite));
        if let Some(shown) = state.view.filter(|shown| self.kind(*shown) != Kind::Row) {
            let is_older = |commit: &Commit| *commit < shown;
            // A change that was young enough when its replay began is written well before a later tombstone expires.
            let held = state.functions.iter().any(|function| match function {
                Function::Idle => false,
                Function::Replaying(commit) => is_older(commit) && !self.is_old(state, *commit),
                Function::Holding(commit) | Function::Written(commit) => is_older(commit),
            });
            let undelivered = (1..shown).any(|commit| !state.settled[usize::from(commit) - 1]);
            let is_awaited = |request| self.rules != Rules::CreateOutlivesTombstone || request == Request::Put;
            let is_guarded = |commit, request| request == Request::Replay && self.is_old(state, commit);
            let is_on_its_way = state
                .late
                .iter()
                .any(|(commit, request)| is_older(commit) && is_awaited(*request) && !is_guarded(*commit, *request));
            let nothing_older_is_left = !held && !undelivered && !is_on_its_way;
            if nothing_older_is_left || self.goes_too_early(shown) {
                actions.push(Action::Expire);
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(place, commit) => {
                if state.settled[usize::from(commit) - 1] {
                    state.duplicates_left -= 1;
                }
                state.functions[place] = Function::Holding(commit);
            }
            Action::Write(place) => {
                if let Function::Replaying(commit) = state.functions[place] {
                    let applied = commit <= state.known[place] || self.write(&mut state, commit, Request::Replay);
                    // An item of the same change or of a newer one supersedes it.
                    let is_done = applied || state.view.is_some_and(|shown| shown >= commit);
                    if is_done {
                        state.known[place] = state.known[place].max(commit);
                        state.quarantined[usize::from(commit) - 1] = false;
                    }
                    state.functions[place] = Function::Idle;
                    return Some(Self::in_order(state));
                }
                let Function::Holding(commit) = state.functions[place] else { return None };
                if commit > state.known[place] {
                    self.write(&mut state, commit, Request::Put);
                    state.known[place] = commit;
                }
                state.functions[place] = Function::Written(commit);
            }
            Action::Create(place) => {
                let Function::Holding(commit) = state.functions[place] else { return None };
                if self.write(&mut state, commit, Request::Create) {
                    state.known[place] = commit;
                } else if self.rules != Rules::CreateInVainIsDone {
                    return None;
                }
                state.functions[place] = Function::Written(commit);
            }
            Action::LoseCreate(place) => {
                let Function::Holding(commit) = state.functions[place] else { return None };
                state.lost_creates_left -= 1;
                Self::give_up(&mut state, commit, Request::Create);
                match self.rules {
                    Rules::LostCreateIsDone => state.functions[place] = Function::Written(commit),
                    Rules::LostCreateIsRemembered => state.known[place] = commit,
                    _ => {}
                }
            }
            Action::Answer(place) => {
                let Function::Written(commit) = state.functions[place] else { return None };
                state.settled[usize::from(commit) - 1] = true;
                state.functions[place] = Function::Idle;
            }
            Action::Crash(place) => {
                state.failures_left -= 1;
                state.known[place] = 0;
                state.functions[place] = Function::Idle;
            }
            Action::LoseAnswer(place) | Action::Stop(place) => {
                state.failures_left -= 1;
                state.functions[place] = Function::Idle;
            }
            Action::Quarantine(place) => {
                let Function::Holding(commit) = state.functions[place] else { return None };
                state.quarantines_left -= 1;
                state.quarantined[usize::from(commit) - 1] = true;
                state.functions[place] = Function::Written(commit);
            }
            Action::BeginReplay(place, commit) => state.functions[place] = Function::Replaying(commit),
            Action::GiveUp(place) if matches!(state.functions[place], Function::Replaying(_)) => {
                let Function::Replaying(commit) = state.functions[place] else { return None };
                state.failures_left -= 1;
                Self::give_up(&mut state, commit, Request::Replay);
                state.functions[place] = Function::Idle;
            }
            Action::GiveUp(place) => {
                let Function::Holding(commit) = state.functions[place] else { return None };
                state.failures_left -= 1;
                match self.rules {
                    Rules::UnknownIsDone => state.settled[usize::from(commit) - 1] = true,
                    Rules::UnknownIsRemembered => state.known[place] = state.known[place].max(commit),
                    _ => {}
                }
                Self::give_up(&mut state, commit, Request::Put);
                state.functions[place] = Function::Idle;
            }
            Action::LateWrite(place) => {
                let (commit, request) = state.late.remove(place);
                self.write(&mut state, commit, request);
            }
            Action::Expire => {
                let shown = state.view?;
                if !self.goes_too_early(shown) {
                    state.horizon = state.horizon.max(shown);
                }
                state.view = None;
            }
        }
        Some(Self::in_order(state))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the view converges", |design: &Design, state: &State| {
                !Design::is_quiet(state) || design.has_converged(state)
            }),
            // A deleted row that comes back is a step back too: the view showed its deletion, and now an older commit.
            Property::always("never a step back in commit time", |_, state: &State| !state.went_back),
            Property::always("no commit is written twice", |_, state: &State| !state.wrote_again),
            // If Lambda was told that a change is done, the view has shown it or a newer commit; all other changes can
            // still be delivered.
            Property::always("no record is unaccounted for", |_, state: &State| {
                (1..).zip(&state.settled).all(|(commit, settled): (Commit, &bool)| {
                    let waits = state.quarantined[usize::from(commit) - 1];
                    if *settled { waits || state.newest_shown >= commit } else { commit >= state.horizon }
                })
            }),
            Property::sometimes("all is done", |_, state: &State| Design::is_quiet(state)),
        ]
    }
}
