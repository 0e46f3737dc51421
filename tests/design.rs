//! The design, checked exhaustively: every interleaving of two functions over one key, with up to four changes, duplicates, crashes,
//! writes that arrive late, functions that remember what was confirmed, and tombstones that expire.
//!
//! It is a model of the rules, not of the code: `CommitTimestamp::supersedes`, the condition on the write, a tombstone for a deletion,
//! a tombstone that outlives what may still be delivered, and a memory of confirmed commits that leaves out writes. Each rule, broken,
//! is caught.

use stateright::{Checker, Model, Property};

/// A change's commit is its place in the history, from 1.
type Commit = u8;

/// The rules, and how they can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Ours,
    /// A deletion removes the item.
    RemoveInsteadOfTombstone,
    /// A change replaces its own commit too.
    EqualReplaces,
    /// A tombstone expires while older changes may still be delivered.
    TombstoneTooShort,
    /// A write that was given up counts as done.
    UnknownIsDone,
    /// A function remembers a change as shown before DynamoDB has answered its write.
    UnknownIsRemembered,
}

#[derive(Debug, Clone)]
struct Design {
    rules: Rules,
    /// Whether each change is a deletion.
    history: Vec<bool>,
    duplicates: u8,
    failures: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Function {
    Idle,
    /// A change was delivered, and is not written yet.
    Holding(Commit),
    /// DynamoDB has answered the write, or it was left out, and Lambda does not know of it yet.
    Written(Commit),
}

/// The newest commit that DynamoDB has confirmed to a function since that came up: as applied, or as superseded. None is 0.
type Known = Commit;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// What stands at the key.
    view: Option<Commit>,
    functions: [Function; 2],
    known: [Known; 2],
    /// Which changes Lambda knows to be done.
    settled: Vec<bool>,
    /// Writes on their way of functions that have given them up, or are dead.
    late: Vec<Commit>,
    duplicates_left: u8,
    failures_left: u8,
    /// Nothing older than this commit is delivered any more.
    horizon: Commit,
    /// The newest commit that the view has ever shown.
    newest_shown: Commit,
    went_back: bool,
    wrote_again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Deliver(usize, Commit),
    Write(usize),
    Answer(usize),
    /// The function dies: what it did stays, Lambda does not know of it, and what was remembered is gone.
    Crash(usize),
    /// The answer is lost on its way to Lambda, and the function lives.
    LoseAnswer(usize),
    /// The write is given up and is still on its way.
    GiveUp(usize),
    LateWrite(usize),
    Expire,
}

impl Design {
    fn is_deletion(&self, commit: Commit) -> bool {
        self.history[usize::from(commit) - 1]
    }

    fn write(&self, state: &mut State, commit: Commit) {
        let replaces = match state.view {
            None => true,
            Some(shown) if self.rules == Rules::EqualReplaces => commit >= shown,
            Some(shown) => commit > shown,
        };
        if !replaces {
            return;
        }
        state.wrote_again |= state.view == Some(commit);
        state.went_back |= commit < state.newest_shown;
        state.newest_shown = state.newest_shown.max(commit);
        let removes = self.rules == Rules::RemoveInsteadOfTombstone && self.is_deletion(commit);
        state.view = (!removes).then_some(commit);
    }

    /// Whether nothing will happen any more but deliveries of what is done.
    fn is_quiet(state: &State) -> bool {
        state.settled.iter().all(|settled| *settled)
            && state.late.is_empty()
            && state.functions.iter().all(|function| *function == Function::Idle)
    }

    /// Whether the view shows the newest change; a deletion shows as a tombstone, or as nothing once that has expired.
    fn has_converged(&self, state: &State) -> bool {
        let newest = Commit::try_from(self.history.len()).expect("a short history");
        state.view == Some(newest) || (state.view.is_none() && self.is_deletion(newest) && state.newest_shown == newest)
    }
}

impl Model for Design {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            view: None,
            functions: [Function::Idle, Function::Idle],
            known: [0, 0],
            settled: vec![false; self.history.len()],
            late: Vec::new(),
            duplicates_left: self.duplicates,
            failures_left: self.failures,
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
                }
                Function::Holding(_) => {
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
        if let Some(shown) = state.view.filter(|shown| self.is_deletion(*shown)) {
            let is_older = |commit: &Commit| *commit < shown;
            let held = state.functions.iter().any(|function| match function {
                Function::Idle => false,
                Function::Holding(commit) | Function::Written(commit) => is_older(commit),
            });
            let undelivered = (1..shown).any(|commit| !state.settled[usize::from(commit) - 1]);
            let nothing_older_is_left = !held && !undelivered && !state.late.iter().any(is_older);
            if nothing_older_is_left || self.rules == Rules::TombstoneTooShort {
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
                let Function::Holding(commit) = state.functions[place] else { return None };
                if commit > state.known[place] {
                    self.write(&mut state, commit);
                    state.known[place] = commit;
                }
                state.functions[place] = Function::Written(commit);
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
            Action::LoseAnswer(place) => {
                state.failures_left -= 1;
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
                state.late.push(commit);
                state.late.sort_unstable();
                state.functions[place] = Function::Idle;
            }
            Action::LateWrite(place) => {
                let commit = state.late.remove(place);
                self.write(&mut state, commit);
            }
            Action::Expire => {
                if self.rules != Rules::TombstoneTooShort {
                    state.horizon = state.view?;
                }
                state.view = None;
            }
        }
        // Two functions are alike: which one is the first makes no difference.
        if (&state.functions[1], state.known[1]) < (&state.functions[0], state.known[0]) {
            state.functions.swap(0, 1);
            state.known.swap(0, 1);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the view converges", |design: &Design, state: &State| {
                !Design::is_quiet(state) || design.has_converged(state)
            }),
            // A row from the dead is a step back too: its deletion was shown, and an older commit is.
            Property::always("never a step back in commit time", |_, state: &State| !state.went_back),
            Property::always("no commit is written twice", |_, state: &State| !state.wrote_again),
            // What Lambda was told to be done has been shown, or a newer commit; all else can still be delivered.
            Property::always("no record is unaccounted for", |_, state: &State| {
                (1..).zip(&state.settled).all(|(commit, settled): (Commit, &bool)| {
                    if *settled { state.newest_shown >= commit } else { commit >= state.horizon }
                })
            }),
            Property::sometimes("all is done", |_, state: &State| Design::is_quiet(state)),
        ]
    }
}

/// All histories of so many changes.
fn histories(changes: u32) -> impl Iterator<Item = Vec<bool>> {
    (0..1_u32 << changes).map(move |kinds| (0..changes).map(|place| kinds >> place & 1 == 1).collect())
}

#[test]
fn every_interleaving_of_up_to_four_changes_keeps_the_promise() {
    let mut states = 0;
    for history in (1..=4).flat_map(histories) {
        let design = Design { rules: Rules::Ours, history, duplicates: 1, failures: 2 };
        let checker = design.checker().threads(2).spawn_bfs().join();
        checker.assert_properties();
        states += checker.unique_state_count();
    }
    println!("{states} states");
    assert!(states > 100_000, "only {states} states were looked at");
}

/// The properties that a broken rule violates, over all histories of three changes.
fn violated(rules: Rules) -> Vec<&'static str> {
    let mut violated = Vec::new();
    for history in histories(3) {
        let checker = Design { rules, history, duplicates: 1, failures: 1 }.checker().spawn_bfs().join();
        violated.extend(checker.discoveries().into_keys().filter(|name| *name != "all is done"));
    }
    violated.sort_unstable();
    violated.dedup();
    violated
}

#[test]
fn removing_an_item_instead_of_leaving_a_tombstone_is_caught() {
    let violated = violated(Rules::RemoveInsteadOfTombstone);
    assert!(
        violated.contains(&"the view converges") && violated.contains(&"never a step back in commit time"),
        "{violated:?}"
    );
}

#[test]
fn an_equal_commit_that_replaces_is_caught() {
    assert_eq!(violated(Rules::EqualReplaces), ["no commit is written twice"]);
}

#[test]
fn a_tombstone_shorter_than_what_may_still_be_delivered_is_caught() {
    let violated = violated(Rules::TombstoneTooShort);
    assert!(
        violated.contains(&"the view converges") && violated.contains(&"never a step back in commit time"),
        "{violated:?}"
    );
}

#[test]
fn an_unknown_outcome_that_is_taken_for_done_is_caught() {
    assert_eq!(violated(Rules::UnknownIsDone), ["no record is unaccounted for"]);
}

#[test]
fn a_memory_of_what_is_not_confirmed_is_caught() {
    assert_eq!(violated(Rules::UnknownIsRemembered), ["no record is unaccounted for"]);
}

#[test]
fn the_rules_as_they_are_violate_nothing() {
    assert_eq!(violated(Rules::Ours), [""; 0]);
}
