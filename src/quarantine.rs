//! Where poison records go, so that they hold no shard: one object each in `OBJECTS_BUCKET`, whole, with the reason.
//!
//! `quarantine/<schema>.<table>/<stream>/<shard>/<sequence number>.json`, or `quarantine/unread/…` where the table is
//! not known. A record has one key however often it is delivered.
//!
//! What may happen between the object and the answer: the function dies, and the record comes again; it is written to
//! the same key again. A record whose object is not confirmed is reported.
//!
//! Where DynamoDB has refused every write alike, and the other rows are known from before, one of them is put after
//! all: only if it is taken now, the refused ones are poison. What may happen between the refusals and that put:
//! - A misconfiguration begins: the known row is refused too, and nothing is quarantined.
//! - It is mended: what was refused is quarantined, as where that happens between any two writes, and can be replayed.
//! - A newer commit comes, a tombstone expires: the put is what a function does that knows nothing, and has the
//!   condition.
//! - DynamoDB does not answer, the time runs out, the function dies: nothing is concluded, and the records come again.

use std::collections::HashSet;

use serde::Serialize;

use crate::coalesce::{Candidate, RowChanges};
use crate::config::SourceTable;
use crate::delivery::{Record, stream_of};
use crate::disposition::{Disposition, Failure};
use crate::objects::{Objects, ObjectsError, segment, table_folder};
use crate::plan::PlannedRecord;
use crate::projection::DELETED;

/// Where all of it is.
pub const QUARANTINE: &str = "quarantine/";

/// An object of the quarantine, ready to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct QuarantineObject {
    /// Its key in the bucket.
    pub key: String,
    /// Its JSON.
    pub body: Vec<u8>,
}

#[derive(Serialize)]
struct Quarantined<'a> {
    reason: String,
    stage: String,
    #[serde(flatten)]
    record: &'a Record,
}

/// The key of a record's object; `table` as far as it is known.
pub fn key(record: &Record, table: Option<&SourceTable>) -> String {
    let stream = record.stream_arn.as_deref().and_then(|arn| Some(stream_of(arn).rsplit_once('/')?.1));
    let folder = table.map_or("unread".to_owned(), |table| table_folder(table.key_prefix()));
    format!(
        "{QUARANTINE}{folder}/{}/{}/{}.json",
        segment(stream.unwrap_or("unknown-stream")),
        segment(record.shard_id.as_deref().unwrap_or("unknown-shard")),
        segment(&record.sequence_number)
    )
}

/// The object for a record that failed in this way; `table` as far as it is known.
///
/// # Errors
/// The record cannot be written as JSON.
pub fn object(record: &Record, table: Option<&SourceTable>, failure: &Failure) -> serde_json::Result<QuarantineObject> {
    let quarantined = Quarantined { reason: failure.to_string(), stage: failure.stage().to_string(), record };
    Ok(QuarantineObject { key: key(record, table), body: serde_json::to_vec_pretty(&quarantined)? })
}

/// Puts a record that failed in this way into the quarantine; `table` as far as it is known.
///
/// # Errors
/// It is not confirmed to be there.
pub async fn put<O: Objects>(
    objects: &O,
    record: &Record,
    table: Option<&SourceTable>,
    failure: &Failure,
) -> Result<(), ObjectsError> {
    let not_json = |_| ObjectsError { action: "take an object", reason: "it is no JSON".to_owned() };
    let QuarantineObject { key, body } = object(record, table, failure).map_err(not_json)?;
    objects.put(&key, body).await
}

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
    use crate::change::CommitTimestamp;
    use crate::config::SourceTables;
    use crate::envelope::DecodeError;
    use crate::overflow::MovedColumn;
    use crate::projection::{Notes, ViewItem};

    fn record() -> Record {
        let record = r#"{"streamArn":"arn:aws:kinesis:us-east-1:123456789012:stream/dsql-cdc","shardId":"shardId-000000000006",
            "sequenceNumber":"4959","partitionKey":"p/1","approximateArrivalTimestamp":1773843841.125,"data":"AP8="}"#;
        serde_json::from_str(record).unwrap()
    }

    #[test]
    fn an_object_holds_the_record_whole_with_its_reason() {
        let failure = Failure::Decode(DecodeError::UnknownType);
        let object = object(&record(), None, &failure).unwrap();
        assert_eq!(object.key, "quarantine/unread/dsql-cdc/shardId-000000000006/4959.json");
        let body: serde_json::Value = serde_json::from_slice(&object.body).unwrap();
        let expected = serde_json::json!({
            "reason": failure.to_string(),
            "stage": "decode",
            "streamArn": "arn:aws:kinesis:us-east-1:123456789012:stream/dsql-cdc",
            "shardId": "shardId-000000000006",
            "sequenceNumber": "4959",
            "partitionKey": "p/1",
            "approximateArrivalTimestamp": 1_773_843_841.125,
            "data": "AP8=",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_fan_out_consumer_s_records_stand_in_the_stream_s_folder() {
        let mut record = record();
        record.stream_arn = Some("arn:aws:kinesis:us-east-1:123456789012:stream/cdc/consumer/c:1700000000".into());
        assert_eq!(key(&record, None), "quarantine/unread/cdc/shardId-000000000006/4959.json");
    }

    #[test]
    fn nothing_leaves_its_folder() {
        let tables: SourceTables = r#""a/b"."../c"(id)"#.parse().unwrap();
        let mut record = record();
        record.sequence_number = "../../4959".to_owned();
        record.shard_id = Some("../x".into());
        record.stream_arn = Some("..".into());
        let object = object(&record, tables.iter().next(), &Failure::Part).unwrap();
        assert_eq!(object.key, "quarantine/a%2Fb.%2E%2E%2Fc/unknown-stream/%2E%2E%2Fx/%2E%2E%2F%2E%2E%2F4959.json");
    }

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
