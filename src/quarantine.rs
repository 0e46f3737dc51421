//! The quarantine for poison records, so that they hold no shard. Each is one object in `OBJECTS_BUCKET`, whole, with
//! the reason.
//!
//! The key is `quarantine/<schema>.<table>/<stream>/<shard>/<sequence number>.json`, or `quarantine/unread/…` if the
//! table is not known. A record has one key, however often it is delivered.
//!
//! What may happen between the object and the answer: the function dies, the record comes again, and it is written to
//! the same key. A record whose object is not confirmed is reported.

use serde::Serialize;

use crate::aws::service_error::ServiceError;
use crate::batch::disposition::Failure;
use crate::batch::ledger::{Ledger, RecordId};
use crate::bucket::{self, OBJECTS_BUCKET, Objects, segment, table_folder};
use crate::definitions::source_tables::SourceTable;
use crate::record::delivery::{Record, stream_of};

/// The prefix of all its objects.
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
struct Body<'a> {
    reason: String,
    stage: String,
    #[serde(flatten)]
    record: &'a Record,
}

/// The key of a record's object; `table` is `None` if it is not known.
pub fn key(record: &Record, table: Option<&SourceTable>) -> String {
    let stream = record.stream_arn.as_deref().and_then(|arn| Some(stream_of(arn).rsplit_once('/')?.1));
    let folder = table.map_or("unread".to_owned(), |table| table_folder(table.key_prefix()));
    format!(
        "{QUARANTINE}{folder}/{}/{}/{}.json",
        segment(stream.unwrap_or("unknown-stream")),
        segment(record.shard_id.as_deref().unwrap_or("unknown-shard")),
        segment(record.sequence_number.as_str())
    )
}

/// The object for a record with this failure; `table` is `None` if it is not known.
///
/// # Errors
/// The record cannot be written as JSON.
pub fn object(record: &Record, table: Option<&SourceTable>, failure: &Failure) -> serde_json::Result<QuarantineObject> {
    let quarantined = Body { reason: failure.to_string(), stage: failure.stage().to_string(), record };
    Ok(QuarantineObject { key: key(record, table), body: serde_json::to_vec_pretty(&quarantined)? })
}

/// Puts a reported record into the quarantine, and notes that in the ledger. For a refused split change, the records of
/// its set go there instead.
///
/// # Errors
/// The record is not confirmed to be there, and stays reported.
pub async fn take<O: Objects>(objects: &O, ledger: &Ledger<'_>, id: RecordId) -> Result<(), ServiceError> {
    let (delivered, table, failure, set) = {
        let entry = ledger.entry(id);
        let Some(failure) = entry.failure() else { return Ok(()) };
        (entry.delivered(), entry.table(), failure.clone(), entry.refused_set().to_vec())
    };
    if set.is_empty() {
        put(objects, delivered, table, &failure).await?;
    } else {
        copy_set(objects, &set, table, &failure).await?;
    }
    ledger.quarantine(id);
    Ok(())
}

/// Copies records of a set into the quarantine, each as an object of its own, with the failure as the reason.
///
/// # Errors
/// Not all of them are confirmed to be there.
pub async fn copy_set<O: Objects>(
    objects: &O,
    set: &[String],
    table: Option<&SourceTable>,
    failure: &Failure,
) -> Result<(), ServiceError> {
    for key in set {
        put(objects, &kept_record(objects, key).await?, table, failure).await?;
    }
    Ok(())
}

async fn put<O: Objects>(
    objects: &O,
    record: &Record,
    table: Option<&SourceTable>,
    failure: &Failure,
) -> Result<(), ServiceError> {
    let QuarantineObject { key, body } = object(record, table, failure).map_err(bucket::not_json)?;
    objects.put(&key, body).await
}

/// A record that the bucket keeps.
///
/// # Errors
/// The bucket did not give it, or the object is not a record.
pub async fn kept_record<O: Objects>(objects: &O, key: &str) -> Result<Record, ServiceError> {
    let unreadable = || ServiceError {
        service: OBJECTS_BUCKET,
        action: "give a record that was kept",
        reason: format!("{key} is gone, or was changed by someone else"),
    };
    let body = objects.get(key).await?.ok_or_else(unreadable)?;
    serde_json::from_slice(&body).map_err(|_| unreadable())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::source_tables::SourceTables;
    use crate::record::envelope::DecodeError;
    use crate::record::sequence::SequenceNumber;

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
        record.sequence_number = SequenceNumber::new("../../4959");
        record.shard_id = Some("../x".into());
        record.stream_arn = Some("..".into());
        let object = object(&record, tables.iter().next(), &Failure::NoBucket).unwrap();
        assert_eq!(object.key, "quarantine/a%2Fb.%2E%2E%2Fc/unknown-stream/%2E%2E%2Fx/%2E%2E%2F%2E%2E%2F4959.json");
    }
}
