//! One write per row of a batch: groups the changes by key, the newest first.
//!
//! The older changes stay at hand. If DynamoDB refuses the newest because of its content, the view must show the next
//! one. An older change counts as superseded only once a newer one stands in the view.
//!
//! Invariants: pure; every change that comes in goes out exactly once; of two changes with the same commit, the one
//! delivered first stands first.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::batch::ledger::RecordId;
use crate::item::key::ItemKey;
use crate::item::projection::ViewItem;

/// An item to write, and the record that it comes from.
#[derive(Debug, PartialEq)]
pub struct Candidate {
    /// The record.
    pub id: RecordId,
    /// The item that the record makes of its row.
    pub item: ViewItem,
}

/// The changes of one row in a batch, the newest first; at least one.
pub type RowChanges = Vec<Candidate>;

/// Groups changes by row. The rows stand in the order of their first appearance.
pub fn coalesce(candidates: impl IntoIterator<Item = Candidate>) -> Vec<RowChanges> {
    let mut rows: Vec<RowChanges> = Vec::new();
    let mut place_of_key: HashMap<ItemKey, usize> = HashMap::new();
    for candidate in candidates {
        if let Some(&place) = place_of_key.get(&candidate.item.key) {
            rows[place].push(candidate);
        } else {
            place_of_key.insert(candidate.item.key.clone(), rows.len());
            rows.push(vec![candidate]);
        }
    }
    for row in &mut rows {
        // The sort is stable: changes of the same commit keep the order of their delivery.
        row.sort_by_key(|candidate| Reverse(candidate.item.committed));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::order::CommitTimestamp;

    fn candidate(record: usize, key: &str, committed: u64) -> Candidate {
        let committed = CommitTimestamp::from_nanoseconds(committed).unwrap();
        Candidate { id: RecordId(record), item: ViewItem::without_attributes(key.to_owned(), committed) }
    }

    fn check(changes: &[(&str, u64)], expected: &[&[usize]]) {
        let candidates =
            changes.iter().enumerate().map(|(record, (key, committed))| candidate(record, key, *committed));
        let rows: Vec<Vec<usize>> =
            coalesce(candidates).iter().map(|row| row.iter().map(|candidate| candidate.id.0).collect()).collect();
        assert_eq!(rows, expected, "{changes:?}");
    }

    #[test]
    fn the_newest_change_of_a_row_leads_and_the_others_follow_from_new_to_old() {
        check(&[], &[]);
        check(&[("a", 1)], &[&[0]]);
        check(&[("a", 1), ("b", 1), ("a", 2)], &[&[2, 0], &[1]]);
        check(&[("a", 3), ("a", 1), ("a", 2)], &[&[0, 2, 1]]);
        check(&[("a", 2), ("a", 1), ("a", 4), ("a", 3)], &[&[2, 3, 0, 1]]);
    }

    #[test]
    fn of_the_same_commit_the_first_delivered_leads() {
        check(&[("a", 1), ("a", 1)], &[&[0, 1]]);
        check(&[("a", 1), ("a", 2), ("a", 2), ("a", 1)], &[&[1, 2, 0, 3]]);
    }
}
