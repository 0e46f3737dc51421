//! The design, checked exhaustively: every interleaving of two functions over one key, with up to four changes. Changes
//! are delivered again, functions crash and remember what was confirmed, writes arrive late, and tombstones expire.
//!
//! The same with creates, as the function sends them together. Each takes place only where the view has no item, at any
//! time after it was sent, and a put follows unless the create is confirmed. And the same with changes that go into the
//! quarantine and are replayed at any time, even after tombstones have expired. And the same with rows that a definition
//! hides, that come back, and that expire.
//!
//! Each rule is also broken on purpose, and the checks find it.

mod model;

use stateright::{Checker, Model};

use self::model::{Design, Kind, Rules};

const WITHOUT_DEFINITIONS: &[Kind] = &[Kind::Row, Kind::Deletion];
const EVERY_KIND: &[Kind] = &[Kind::Row, Kind::Deletion, Kind::Hidden, Kind::Expiring];

/// All histories of this number of changes of these kinds.
fn histories(changes: u32, kinds: &[Kind]) -> Vec<Vec<Kind>> {
    (0..changes).fold(vec![Vec::new()], |histories, _| {
        let longer = |history: Vec<Kind>| kinds.iter().map(move |kind| [&history[..], &[*kind]].concat());
        histories.into_iter().flat_map(longer).collect()
    })
}

/// Visits all states of all histories of up to this number of changes. Fails if any state violates a property; returns
/// the number of states.
fn states_that_keep_the_promise(
    changes: u32,
    duplicates: u8,
    failures: u8,
    lost_creates: u8,
    quarantines: u8,
) -> usize {
    let all = (1..=changes).flat_map(|changes| histories(changes, WITHOUT_DEFINITIONS));
    states_of(all, duplicates, failures, lost_creates, quarantines)
}

fn states_of(
    histories: impl Iterator<Item = Vec<Kind>>,
    duplicates: u8,
    failures: u8,
    lost_creates: u8,
    quarantines: u8,
) -> usize {
    let design = |history| Design {
        rules: Rules::Ours,
        history,
        duplicates,
        failures,
        lost_creates,
        quarantines,
        clock_behind: None,
    };
    let states = histories.map(|history| {
        let checker = design(history).checker().threads(2).spawn_bfs().join();
        checker.assert_properties();
        checker.unique_state_count()
    });
    states.sum()
}

#[test]
fn every_interleaving_of_up_to_four_changes_keeps_the_promise() {
    let states = states_that_keep_the_promise(4, 1, 2, 0, 0);
    println!("{states} states");
    assert!(states > 100_000, "only {states} states were looked at");
}

#[test]
fn every_interleaving_with_creates_sent_together_keeps_the_promise() {
    let states = states_that_keep_the_promise(3, 1, 2, 2, 0);
    println!("{states} states with creates");
    assert!(states > 100_000, "only {states} states were looked at");
}

#[test]
fn every_interleaving_with_replays_of_the_quarantine_keeps_the_promise() {
    let states = states_that_keep_the_promise(3, 1, 1, 0, 2) + states_that_keep_the_promise(4, 0, 0, 0, 2);
    println!("{states} states with replays");
    assert!(states > 100_000, "only {states} states were looked at");
}

#[test]
fn every_interleaving_with_rows_that_are_hidden_come_back_and_expire_keeps_the_promise() {
    // Histories without such rows are in the tests above.
    let with = |changes| {
        let all = (1..=changes).flat_map(|changes| histories(changes, EVERY_KIND));
        all.filter(|history| history.iter().any(|kind| !WITHOUT_DEFINITIONS.contains(kind)))
    };
    let states = states_of(with(3), 1, 1, 0, 0) + states_of(with(2), 1, 1, 1, 1) + states_of(with(3), 0, 0, 0, 2);
    println!("{states} states with rows that are hidden or expire");
    assert!(states > 100_000, "only {states} states were looked at");
}

/// The properties that a broken rule violates, over all histories of this number of changes.
fn violated(rules: Rules, changes: u32, lost_creates: u8) -> Vec<&'static str> {
    violated_with(rules, changes, lost_creates, 0)
}

fn violated_with(rules: Rules, changes: u32, lost_creates: u8, quarantines: u8) -> Vec<&'static str> {
    violated_by(rules, histories(changes, WITHOUT_DEFINITIONS), lost_creates, quarantines)
}

fn violated_by(rules: Rules, histories: Vec<Vec<Kind>>, lost_creates: u8, quarantines: u8) -> Vec<&'static str> {
    let mut violated = Vec::new();
    for history in histories {
        let clock_behind = Some(2);
        let design = Design { rules, history, duplicates: 1, failures: 1, lost_creates, quarantines, clock_behind };
        let checker = design.checker().spawn_bfs().join();
        violated.extend(checker.discoveries().into_keys().filter(|name| *name != "all is done"));
    }
    violated.sort_unstable();
    violated.dedup();
    violated
}

#[test]
fn removing_an_item_instead_of_leaving_a_tombstone_is_caught() {
    let violated = violated(Rules::RemoveInsteadOfTombstone, 3, 0);
    assert!(
        violated.contains(&"the view converges") && violated.contains(&"never a step back in commit time"),
        "{violated:?}"
    );
}

#[test]
fn an_equal_commit_that_replaces_is_caught() {
    assert_eq!(violated(Rules::EqualReplaces, 3, 0), ["no commit is written twice"]);
}

#[test]
fn a_tombstone_shorter_than_what_may_still_be_delivered_is_caught() {
    let violated = violated(Rules::TombstoneTooShort, 3, 0);
    assert!(
        violated.contains(&"the view converges") && violated.contains(&"never a step back in commit time"),
        "{violated:?}"
    );
}

#[test]
fn an_unknown_outcome_that_is_taken_for_done_is_caught() {
    assert_eq!(violated(Rules::UnknownIsDone, 3, 0), ["no record is unaccounted for"]);
}

#[test]
fn a_memory_of_what_is_not_confirmed_is_caught() {
    assert_eq!(violated(Rules::UnknownIsRemembered, 3, 0), ["no record is unaccounted for"]);
}

#[test]
fn a_create_that_does_or_says_what_it_may_not_is_caught() {
    const UNACCOUNTED: &str = "no record is unaccounted for";
    const STEP_BACK: &str = "never a step back in commit time";
    const TWICE: &str = "no commit is written twice";
    const CONVERGES: &str = "the view converges";
    for (rules, expected) in [
        (Rules::CreateOverwrites, &[STEP_BACK, TWICE, CONVERGES][..]),
        (Rules::CreateOverTombstone, &[STEP_BACK, CONVERGES]),
        (Rules::CreateOutlivesTombstone, &[STEP_BACK, CONVERGES]),
        (Rules::CreateInVainIsDone, &[UNACCOUNTED, CONVERGES]),
        (Rules::LostCreateIsDone, &[UNACCOUNTED, CONVERGES]),
        (Rules::LostCreateIsRemembered, &[UNACCOUNTED, CONVERGES]),
    ] {
        assert_eq!(violated(rules, 2, 1), expected, "{rules:?}");
    }
}

#[test]
fn an_order_by_a_clock_that_is_behind_is_caught() {
    let violated = violated(Rules::EarlierTimestamp, 2, 0);
    assert_eq!(violated, ["never a step back in commit time", "no record is unaccounted for", "the view converges"]);
}

#[test]
fn a_replay_that_brings_a_deleted_row_back_is_caught() {
    const RESURRECTED: [&str; 2] = ["never a step back in commit time", "the view converges"];
    assert_eq!(violated_with(Rules::ReplayAsEver, 2, 0, 1), RESURRECTED);
    // Also replays an old deletion from the quarantine, and then an old row over its tombstone.
    assert_eq!(violated_with(Rules::ReplayOverLateTombstone, 3, 0, 2), RESURRECTED);
}

#[test]
fn a_hidden_or_expiring_row_that_does_not_guard_is_caught() {
    const CONVERGES: &str = "the view converges";
    const STEP_BACK: &str = "never a step back in commit time";
    const UNACCOUNTED: &str = "no record is unaccounted for";
    for (rules, kind, expected) in [
        (Rules::HiddenIsSkipped, Kind::Hidden, &[STEP_BACK, UNACCOUNTED, CONVERGES][..]),
        (Rules::HiddenNeedsAnItem, Kind::Hidden, &[STEP_BACK, CONVERGES]),
        (Rules::HiddenIsRemoved, Kind::Hidden, &[STEP_BACK, CONVERGES]),
        (Rules::RowExpiresTooEarly, Kind::Expiring, &[STEP_BACK, CONVERGES]),
    ] {
        let all = || histories(2, &[Kind::Row, kind]);
        assert_eq!(violated_by(rules, all(), 0, 0), expected, "{rules:?}");
        assert_eq!(violated_by(Rules::Ours, all(), 0, 0), [""; 0], "{rules:?}");
    }
}

#[test]
fn the_rules_as_they_are_violate_nothing() {
    assert_eq!(violated(Rules::Ours, 3, 0), [""; 0]);
    assert_eq!(violated(Rules::Ours, 2, 1), [""; 0]);
}
