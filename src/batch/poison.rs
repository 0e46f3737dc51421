//! Which failed records are poison: no repetition can apply them, so they go to the quarantine and hold no shard.
//!
//! If DynamoDB refused every write alike and all other rows were skipped from memory, one of these rows is written
//! again. Only if DynamoDB takes it now are the refused ones poison. What may happen between the refusals and that
//! write:
//! - A misconfiguration begins: the known row is refused too, and nothing is quarantined.
//! - It is mended: what was refused is quarantined, as where that happens between any two writes, and can be replayed.
//! - A newer commit comes, a tombstone expires: the write is that of a function without a memory, and has the condition.
//! - DynamoDB does not answer, the time runs out, the function dies: nothing is concluded, and the records come again.
//!
//! Invariants: pure; a reason that all writes of a batch share is a misconfiguration and not poison.

use std::collections::HashSet;

use crate::batch::coalesce::{Candidate, RowChanges};
use crate::batch::disposition::{Disposition, Failure};
use crate::batch::plan::PlannedRecord;
use crate::item::reserved::DELETED;
use crate::record::tables::SourceTable;

/// The places of the records that are poison before anything is written.
pub fn unreadable(records: &[PlannedRecord<'_>]) -> Vec<usize> {
    places(records, |failure| failure.is_poison() && !matches!(failure, Failure::Refused(_)))
}

/// The places of the records that DynamoDB refused, once all is written.
///
/// None, if it refused every write of two or more for the same reason: that is a misconfiguration (such as an index
/// whose key has another type than the column), which a person mends, and the records are good.
pub fn refused(records: &[PlannedRecord<'_>]) -> Vec<usize> {
    if refuses_everything_alike(records) {
        return Vec::new();
    }
    places(records, |failure| matches!(failure, Failure::Refused(_)))
}

/// Whether [`refused`] leaves out what may be poison, since nothing was written but what DynamoDB refused; other rows
/// are known from before.
pub fn is_undecided(records: &[PlannedRecord<'_>]) -> bool {
    records.iter().any(|record| record.disposition == Disposition::Known) && refuses_everything_alike(records)
}

/// Of the batch's `rows`, a known change whose put decides: one that is most like those that were refused, in its table
/// and its columns, so that what is wrong with these for an index would be wrong with it. One without moved columns, if
/// it can be.
pub fn to_decide(rows: Vec<RowChanges>, records: &[PlannedRecord<'_>]) -> Option<Candidate> {
    let is_refused =
        |record: &&PlannedRecord<'_>| matches!(record.disposition, Disposition::Reported(Failure::Refused(_)));
    let tables: HashSet<_> =
        records.iter().filter(is_refused).filter_map(|record| record.table).map(SourceTable::key_prefix).collect();
    let newest_known = |row: RowChanges| {
        row.into_iter().find(|change| matches!(records[change.record].disposition, Disposition::Known))
    };
    rows.into_iter().filter_map(newest_known).max_by_key(|Candidate { record, item }| {
        let of_their_table = records[*record].table.is_some_and(|table| tables.contains(table.key_prefix()));
        let is_row = !item.attributes.contains_key(DELETED);
        (of_their_table, is_row, item.moved.is_empty(), item.attributes.len())
    })
}

fn places(records: &[PlannedRecord<'_>], is_meant: impl Fn(&Failure) -> bool) -> Vec<usize> {
    let reported = |record: &PlannedRecord<'_>| match &record.disposition {
        Disposition::Reported(failure) => is_meant(failure),
        Disposition::Applied
        | Disposition::Superseded
        | Disposition::Duplicate
        | Disposition::Known
        | Disposition::Filtered
        | Disposition::Kept
        | Disposition::Quarantined(_) => false,
    };
    (0..records.len()).filter(|place| reported(&records[*place])).collect()
}

fn refuses_everything_alike(records: &[PlannedRecord<'_>]) -> bool {
    let mut reasons = Vec::new();
    for record in records {
        match &record.disposition {
            Disposition::Reported(Failure::Refused(reason)) => reasons.push(reason),
            // DynamoDB took a write, or said nothing against one.
            Disposition::Applied | Disposition::Superseded | Disposition::Duplicate => return false,
            // What is known from before says nothing of how DynamoDB takes writes now.
            Disposition::Reported(_)
            | Disposition::Known
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
    use crate::item::overflow::MovedColumn;
    use crate::item::projection::{Notes, ViewItem};
    use crate::record::change::CommitTimestamp;
    use crate::record::envelope::DecodeError;
    use crate::record::tables::SourceTables;

    #[test]
    fn nothing_is_decided_where_all_that_was_written_is_refused_alike_and_the_rest_is_known() {
        let refused = |reason: &str| Disposition::Reported(Failure::Refused(reason.to_owned()));
        for (dispositions, expected) in [
            (vec![refused("a"), Disposition::Known, refused("a")], true),
            (vec![Disposition::Known, refused("a"), refused("a"), Failure::OutOfTime.into()], true),
            (vec![refused("a"), refused("a"), Disposition::Filtered], false),
            (vec![refused("a"), Disposition::Known], false),
            (vec![refused("a"), Disposition::Known, refused("b")], false),
            (vec![refused("a"), Disposition::Known, refused("a"), Disposition::Superseded], false),
            (vec![refused("a"), Disposition::Known, refused("a"), Disposition::Duplicate], false),
        ] {
            let records: Vec<_> = dispositions
                .into_iter()
                .map(|disposition| PlannedRecord { table: None, disposition, write: None })
                .collect();
            assert_eq!(is_undecided(&records), expected, "{records:?}");
        }
    }

    #[test]
    fn the_change_that_decides_is_known_the_newest_of_its_row_and_most_like_what_was_refused() {
        let tables: SourceTables = "a(id), b(id)".parse().unwrap();
        let [a, b] = [0, 1].map(|place| tables.iter().nth(place));
        let refused = || Disposition::Reported(Failure::Refused("why".to_owned()));
        // A record in its row: its table, how it ended, its attributes, whether it has moved columns.
        let (row, deleted) = (["x", "y"].as_slice(), [DELETED, "x", "y"].as_slice());
        let (short, long) = (["x"].as_slice(), ["x", "y", "z"].as_slice());
        for (rows, expected) in [
            (vec![vec![(a, refused(), long, false)], vec![(a, Disposition::Superseded, row, false)]], None),
            (vec![vec![(a, refused(), long, false), (a, Disposition::Known, row, false)]], Some(1)),
            (vec![vec![(a, Disposition::Known, row, false), (a, Disposition::Known, long, false)]], Some(0)),
            (vec![vec![(a, refused(), row, false)], vec![(b, Disposition::Known, deleted, true)]], Some(1)),
            (
                vec![
                    vec![(b, refused(), row, false)],
                    vec![(a, Disposition::Known, long, false)],
                    vec![(b, Disposition::Known, deleted, false)],
                    vec![(a, Disposition::Known, long, false)],
                ],
                Some(2),
            ),
            (
                vec![
                    vec![(a, refused(), row, false)],
                    vec![(a, Disposition::Known, deleted, false)],
                    vec![(a, Disposition::Known, row, true)],
                    vec![(a, Disposition::Known, deleted, false)],
                ],
                Some(2),
            ),
            (
                vec![
                    vec![(a, refused(), row, false)],
                    vec![(a, Disposition::Known, long, true)],
                    vec![(a, Disposition::Known, short, false)],
                    vec![(a, Disposition::Known, row, false)],
                    vec![(a, Disposition::Known, short, false)],
                    vec![(a, Disposition::Known, long, true)],
                ],
                Some(3),
            ),
        ] {
            let mut records = Vec::new();
            let rows = rows.into_iter().map(|row| {
                let row = row.into_iter().map(|(table, disposition, attributes, moves)| {
                    records.push(PlannedRecord { table, disposition, write: None });
                    Candidate { record: records.len() - 1, item: item(attributes, moves) }
                });
                row.collect()
            });
            let rows = rows.collect();
            let found = to_decide(rows, &records).map(|change| change.record);
            assert_eq!(found, expected, "{records:?}");
        }
    }

    fn item(attributes: &[&str], moves: bool) -> ViewItem {
        let attribute = |name: &&str| ((*name).to_owned(), AttributeValue::Bool(true));
        let column = MovedColumn { object: "object".to_owned(), json: "1".to_owned() };
        ViewItem {
            key: "key".to_owned(),
            committed: CommitTimestamp::from_nanoseconds(1).unwrap(),
            creates: false,
            attributes: attributes.iter().map(attribute).collect(),
            moved: moves.then_some(column).into_iter().collect(),
            bytes: 0,
            guard: None,
            notes: Notes::default(),
        }
    }

    #[test]
    fn one_reason_for_every_write_is_a_misconfiguration() {
        let refused = |reason: &str| Disposition::Reported(Failure::Refused(reason.to_owned()));
        let unread = || Disposition::Reported(Failure::Decode(DecodeError::UnknownType));
        for (dispositions, expected_refused, expected_unreadable) in [
            (vec![refused("a")], vec![0], vec![]),
            (vec![refused("a"), refused("a")], vec![], vec![]),
            (vec![refused("a"), refused("b")], vec![0, 1], vec![]),
            (vec![refused("a"), refused("a"), Disposition::Applied], vec![0, 1], vec![]),
            (vec![refused("a"), Disposition::Superseded, refused("a")], vec![0, 2], vec![]),
            (vec![refused("a"), Disposition::Known, refused("a")], vec![], vec![]),
            (vec![unread(), refused("a"), Disposition::Filtered, refused("a")], vec![], vec![0]),
            (vec![unread(), unread(), Disposition::Reported(Failure::Part)], vec![], vec![0, 1]),
            (vec![Disposition::Reported(Failure::OutOfTime), Disposition::Applied], vec![], vec![]),
        ] {
            let records: Vec<_> = dispositions
                .into_iter()
                .map(|disposition| PlannedRecord { table: None, disposition, write: None })
                .collect();
            let found = (super::refused(&records), unreadable(&records));
            assert_eq!(found, (expected_refused, expected_unreadable), "{records:?}");
        }
    }
}
