//! Decides which failed records are poison. No repetition can apply those, so they go to the quarantine and do not hold
//! a shard.
//!
//! DynamoDB may refuse every write for the same reason while all other rows are skipped from memory. Then the function
//! writes one of the skipped rows again, and the refused records are poison only if DynamoDB takes that row. What may
//! happen between the refusals and that write:
//! - A misconfiguration begins: the known row is refused too, and nothing is quarantined.
//! - Somebody mends it: the refused records are quarantined and can be replayed, as if the repair had come between any
//!   two writes.
//! - A newer commit comes, or a tombstone expires: the write has the condition, like every write of a function without
//!   a memory.
//! - DynamoDB does not answer, the time runs out, or the function dies: nothing is concluded, and the records come
//!   again.
//!
//! Invariants: pure; a reason that all writes of a batch share counts as a misconfiguration, not as poison.

use std::collections::{BTreeSet, HashSet};

use crate::batch::coalesce::{Candidate, RowChanges};
use crate::batch::disposition::{Disposition, Failure, Superseded};
use crate::batch::ledger::{Entry, Ledger, RecordId};
use crate::definitions::source_tables::SourceTable;

/// The records that are poison before anything is written.
pub fn unreadable(ledger: &Ledger<'_>) -> Vec<RecordId> {
    ledger.select(|entry| {
        entry.failure().is_some_and(|failure| failure.is_poison() && !matches!(failure, Failure::Refused(_)))
    })
}

/// The records that are poison because DynamoDB refused them, once all rows are written.
///
/// Each view table counts for itself. None of its records is poison if it refused every write, two or more, for the
/// same reason. That is a misconfiguration, such as an index whose key has another type than the column. Once a person
/// has mended it, the records are good.
pub fn refused(ledger: &Ledger<'_>) -> Vec<RecordId> {
    let views: BTreeSet<usize> = ledger.entries().iter().filter(|entry| is_refused(entry)).map(view).collect();
    let alike: Vec<usize> = views.into_iter().filter(|view| refuses_everything_alike(ledger, *view)).collect();
    ledger.select(|entry| is_refused(entry) && !alike.contains(&view(entry)))
}

/// Whether every write to this view table was refused for the same reason, and its only other rows were skipped from
/// memory. Then nobody can tell a bad index from poison.
pub fn is_undecided(ledger: &Ledger<'_>, of_view: usize) -> bool {
    let is_remembered = |entry: &Entry<'_>| is_remembered(entry) && view(entry) == of_view;
    ledger.entries().iter().any(is_remembered) && refuses_everything_alike(ledger, of_view)
}

/// The place of the view table that a record belongs to.
fn view(entry: &Entry<'_>) -> usize {
    entry.view().unwrap_or_default()
}

/// Picks the change whose second write decides the matter: a remembered one out of the batch's `rows`.
///
/// It resembles the refused ones most, in its table and its columns, so that an index which is wrong for these is wrong
/// for it. A change without moved columns is preferred.
pub fn deciding_change(rows: Vec<RowChanges>, ledger: &Ledger<'_>, of_view: usize) -> Option<Candidate> {
    let entries = ledger.entries();
    let refused = entries.iter().filter(|entry| is_refused(entry) && view(entry) == of_view);
    let tables: HashSet<_> = refused.filter_map(Entry::table).map(SourceTable::key_prefix).collect();
    let newest = |row: RowChanges| {
        row.into_iter().find(|change| change.item.key.view == of_view && is_remembered(&entries[change.id.0]))
    };
    rows.into_iter().filter_map(newest).max_by_key(|Candidate { id, item }| {
        let of_their_table = entries[id.0].table().is_some_and(|table| tables.contains(table.key_prefix()));
        let is_row = !item.tombstone;
        (of_their_table, is_row, item.moved.is_empty(), item.attributes.len())
    })
}

fn is_refused(entry: &Entry<'_>) -> bool {
    matches!(entry.failure(), Some(Failure::Refused(_)))
}

fn is_remembered(entry: &Entry<'_>) -> bool {
    *entry.end() == Disposition::Superseded(Superseded::Remembered)
}

fn refuses_everything_alike(ledger: &Ledger<'_>, of_view: usize) -> bool {
    let entries = ledger.entries();
    let mut reasons = Vec::new();
    for entry in entries.iter().filter(|entry| view(entry) == of_view) {
        match entry.end() {
            Disposition::Reported(Failure::Refused(reason)) => reasons.push(reason),
            // DynamoDB took a write, or did not object to one.
            Disposition::Applied | Disposition::Superseded(Superseded::Told | Superseded::Same) => return false,
            // The memory does not show whether DynamoDB takes writes now.
            Disposition::Superseded(Superseded::Remembered)
            | Disposition::Reported(_)
            | Disposition::Filtered
            | Disposition::Kept
            | Disposition::Quarantined(_) => {}
        }
    }
    reasons.len() >= 2 && reasons.windows(2).all(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;
    use crate::batch::ledger::tests::ended;
    use crate::definitions::source_tables::SourceTables;
    use crate::item::large_rows::MovedColumn;
    use crate::item::projection::ViewItem;
    use crate::record::delivery::Record;
    use crate::record::envelope::DecodeError;
    use crate::record::order::CommitTimestamp;

    const TOLD: Disposition = Disposition::Superseded(Superseded::Told);
    const SAME: Disposition = Disposition::Superseded(Superseded::Same);
    const KNOWN: Disposition = Disposition::Superseded(Superseded::Remembered);

    #[test]
    fn nothing_is_decided_if_all_writes_are_refused_alike_and_the_rest_is_remembered() {
        let record = Record::default();
        let refused = |reason: &str| Disposition::Reported(Failure::Refused(reason.to_owned()));
        for (ends, expected) in [
            (vec![refused("a"), KNOWN, refused("a")], true),
            (vec![KNOWN, refused("a"), refused("a"), Failure::OutOfTime.into()], true),
            (vec![refused("a"), refused("a"), Disposition::Filtered], false),
            (vec![refused("a"), KNOWN], false),
            (vec![refused("a"), KNOWN, refused("b")], false),
            (vec![refused("a"), KNOWN, refused("a"), TOLD], false),
            (vec![refused("a"), KNOWN, refused("a"), SAME], false),
        ] {
            let ledger = ended(&record, ends.into_iter().map(|end| (None, end)));
            assert_eq!(is_undecided(&ledger, 0), expected, "{ledger:?}");
        }
    }

    #[test]
    fn the_deciding_change_is_remembered_the_newest_of_its_row_and_most_like_the_refused_ones() {
        let tables: SourceTables = "a(id), b(id)".parse().unwrap();
        let [a, b] = [0, 1].map(|place| tables.iter().nth(place));
        let record = Record::default();
        let refused = || Disposition::Reported(Failure::Refused("why".to_owned()));
        // A record in its row: its table, how it ended, its attributes, whether it has moved columns.
        let (row, deleted) = (["x", "y"].as_slice(), ["_deleted", "x", "y"].as_slice());
        let (short, long) = (["x"].as_slice(), ["x", "y", "z"].as_slice());
        for (rows, expected) in [
            (vec![vec![(a, refused(), long, false)], vec![(a, TOLD, row, false)]], None),
            (vec![vec![(a, refused(), long, false), (a, KNOWN, row, false)]], Some(1)),
            (vec![vec![(a, KNOWN, row, false), (a, KNOWN, long, false)]], Some(0)),
            (vec![vec![(a, refused(), row, false)], vec![(b, KNOWN, deleted, true)]], Some(1)),
            (
                vec![
                    vec![(b, refused(), row, false)],
                    vec![(a, KNOWN, long, false)],
                    vec![(b, KNOWN, deleted, false)],
                    vec![(a, KNOWN, long, false)],
                ],
                Some(2),
            ),
            (
                vec![
                    vec![(a, refused(), row, false)],
                    vec![(a, KNOWN, deleted, false)],
                    vec![(a, KNOWN, row, true)],
                    vec![(a, KNOWN, deleted, false)],
                ],
                Some(2),
            ),
            (
                vec![
                    vec![(a, refused(), row, false)],
                    vec![(a, KNOWN, long, true)],
                    vec![(a, KNOWN, short, false)],
                    vec![(a, KNOWN, row, false)],
                    vec![(a, KNOWN, short, false)],
                    vec![(a, KNOWN, long, true)],
                ],
                Some(3),
            ),
        ] {
            let mut ends = Vec::new();
            let rows: Vec<RowChanges> = rows
                .into_iter()
                .map(|row| {
                    let row = row.into_iter().map(|(table, end, attributes, moves)| {
                        ends.push((table, end));
                        Candidate { id: RecordId(ends.len() - 1), item: item(attributes, moves) }
                    });
                    row.collect()
                })
                .collect();
            let ledger = ended(&record, ends);
            let found = deciding_change(rows, &ledger, 0).map(|change| change.id.0);
            assert_eq!(found, expected, "{ledger:?}");
        }
    }

    fn item(attributes: &[&str], moves: bool) -> ViewItem {
        let attribute = |name: &&str| ((*name).to_owned(), AttributeValue::Bool(true));
        let column = MovedColumn { object: "object".to_owned(), json: "1".to_owned() };
        ViewItem {
            tombstone: attributes.contains(&"_deleted"),
            attributes: attributes.iter().map(attribute).collect(),
            moved: moves.then_some(column).into_iter().collect(),
            ..ViewItem::without_attributes("key".to_owned(), CommitTimestamp::from_nanoseconds(1).unwrap())
        }
    }

    #[test]
    fn one_reason_for_every_write_is_a_misconfiguration() {
        let record = Record::default();
        let refused = |reason: &str| Disposition::Reported(Failure::Refused(reason.to_owned()));
        let unread = || Disposition::Reported(Failure::Decode(DecodeError::UnknownType));
        for (ends, expected_refused, expected_unreadable) in [
            (vec![refused("a")], vec![0], vec![]),
            (vec![refused("a"), refused("a")], vec![], vec![]),
            (vec![refused("a"), refused("b")], vec![0, 1], vec![]),
            (vec![refused("a"), refused("a"), Disposition::Applied], vec![0, 1], vec![]),
            (vec![refused("a"), TOLD, refused("a")], vec![0, 2], vec![]),
            (vec![refused("a"), KNOWN, refused("a")], vec![], vec![]),
            (vec![unread(), refused("a"), Disposition::Filtered, refused("a")], vec![], vec![0]),
            (vec![unread(), unread(), Disposition::Reported(Failure::NoBucket)], vec![], vec![0, 1]),
            (vec![Disposition::Reported(Failure::OutOfTime), Disposition::Applied], vec![], vec![]),
        ] {
            let ledger = ended(&record, ends.into_iter().map(|end| (None, end)));
            let found = [super::refused(&ledger), unreadable(&ledger)];
            let expected = [expected_refused, expected_unreadable];
            assert_eq!(
                found,
                expected.map(|places| places.into_iter().map(RecordId).collect::<Vec<_>>()),
                "{ledger:?}"
            );
        }
    }
}
