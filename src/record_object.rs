//! A Kinesis record as an object of the bucket holds it: whole, with where it came from, so that it can be sent through again.

use std::borrow::Cow;

use aws_lambda_events::encodings::{Base64Data, SecondTimestamp};
use aws_lambda_events::event::kinesis::KinesisEventRecord;
use chrono::DateTime;
use serde::{Deserialize, Serialize};

use crate::delivery::shard_id;

/// A record, borrowed where it comes from a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordObject<'a> {
    /// The stream.
    pub stream_arn: Option<Cow<'a, str>>,
    /// The shard.
    pub shard_id: Option<Cow<'a, str>>,
    /// Its number in the shard.
    pub sequence_number: Cow<'a, str>,
    /// What Kinesis chose the shard by.
    pub partition_key: Cow<'a, str>,
    /// Seconds since the epoch, to the millisecond.
    pub approximate_arrival_timestamp: f64,
    /// Its bytes.
    pub data: Cow<'a, Base64Data>,
}

impl<'a> From<&'a KinesisEventRecord> for RecordObject<'a> {
    fn from(record: &'a KinesisEventRecord) -> Self {
        let kinesis = &record.kinesis;
        Self {
            stream_arn: record.event_source_arn.as_deref().map(Cow::Borrowed),
            shard_id: shard_id(record).map(Cow::Borrowed),
            sequence_number: Cow::Borrowed(&kinesis.sequence_number),
            partition_key: Cow::Borrowed(&kinesis.partition_key),
            approximate_arrival_timestamp: seconds(kinesis.approximate_arrival_timestamp.timestamp_millis()),
            data: Cow::Borrowed(&kinesis.data),
        }
    }
}

impl From<RecordObject<'_>> for KinesisEventRecord {
    fn from(object: RecordObject<'_>) -> Self {
        let mut record = Self::default();
        record.event_id = object.shard_id.map(|shard| format!("{shard}:{}", object.sequence_number));
        record.event_source_arn = object.stream_arn.map(Cow::into_owned);
        record.kinesis.sequence_number = object.sequence_number.into_owned();
        record.kinesis.partition_key = object.partition_key.into_owned();
        record.kinesis.data = object.data.into_owned();
        record.kinesis.approximate_arrival_timestamp = timestamp(object.approximate_arrival_timestamp);
        record
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch have 13 digits, a double holds 15")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[expect(clippy::cast_possible_truncation, reason = "a number that no date has becomes none below")]
fn timestamp(seconds: f64) -> SecondTimestamp {
    SecondTimestamp(DateTime::from_timestamp_millis((seconds * 1000.0).round() as i64).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_put() {
        let mut record = KinesisEventRecord::default();
        record.event_id = Some("shardId-000000000006:4959".to_owned());
        record.event_source_arn = Some("arn:aws:kinesis:us-east-1:123456789012:stream/dsql-cdc".to_owned());
        record.kinesis.sequence_number = "4959".to_owned();
        record.kinesis.partition_key = "grün/1".to_owned();
        record.kinesis.data.0 = vec![0, 255, 10];
        record.kinesis.approximate_arrival_timestamp = timestamp(1_773_843_841.125);

        let json = serde_json::to_string(&RecordObject::from(&record)).unwrap();
        assert!(json.contains(r#""approximateArrivalTimestamp":1773843841.125,"data":"AP8K""#), "{json}");
        let object: RecordObject<'_> = serde_json::from_str(&json).unwrap();
        assert_eq!(KinesisEventRecord::from(object), record);
    }
}
