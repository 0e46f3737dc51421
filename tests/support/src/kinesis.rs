//! Lambda events as a Kinesis event source mapping delivers them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// The stream of all records.
pub const STREAM: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/dsql-cdc";
const ROLE: &str = "arn:aws:iam::123456789012:role/dsql-view";

/// Kinesis gives the records of a shard decimal numbers of 56 digits that only grow.
const SEQUENCE_NUMBER_PREFIX: &str = "4966531847260351984703615892614730269483";
const FIRST: u64 = 1_234_567;
const STEP: u64 = 1_048_583;

/// The sequence number of the record at this place in its shard.
pub fn sequence_number(place: u64) -> String {
    format!("{SEQUENCE_NUMBER_PREFIX}{:016}", FIRST + place * STEP)
}

/// The place of the record with a number of [`sequence_number`].
pub fn place(sequence_number: &str) -> Option<u64> {
    let number: u64 = sequence_number.strip_prefix(SEQUENCE_NUMBER_PREFIX)?.parse().ok()?;
    Some(number.checked_sub(FIRST)? / STEP)
}

/// A shard's name.
pub fn shard_id(shard: u32) -> String {
    format!("shardId-{shard:012}")
}

/// The message that Lambda sends to the on-failure queue for the records between two places of a shard.
pub fn on_failure(shard: u32, first: u64, last: u64) -> Value {
    json!({
        "requestContext": {
            "requestId": "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:dsql-view",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 4,
        },
        "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": null },
        "version": "1.0",
        "timestamp": "2026-03-18T14:24:03.625Z",
        "KinesisBatchInfo": {
            "shardId": shard_id(shard),
            "startSequenceNumber": sequence_number(first),
            "endSequenceNumber": sequence_number(last),
            "approximateArrivalOfFirstRecord": "2026-03-18T14:24:01.500Z",
            "approximateArrivalOfLastRecord": "2026-03-18T14:24:01.500Z",
            "batchSize": last - first + 1,
            "streamArn": STREAM,
        },
    })
}

/// A record of a Lambda event.
#[derive(Debug, Clone)]
pub struct KinesisRecord {
    pub shard: u32,
    pub sequence_number: String,
    pub partition_key: String,
    /// Seconds since the epoch.
    pub arrival: f64,
    pub data: Vec<u8>,
}

impl KinesisRecord {
    /// A record at this place of the first shard.
    pub fn at(place: u64, data: impl Into<Vec<u8>>) -> Self {
        Self {
            shard: 0,
            sequence_number: sequence_number(place),
            partition_key: format!("{:032x}", u128::from(place) * 0x9e37_79b9_7f4a_7c15_f39c_c060),
            arrival: 1_773_843_841.5,
            data: data.into(),
        }
    }

    /// A record as it was read from a shard.
    ///
    /// # Errors
    /// It has no partition key.
    pub fn read(shard: u32, record: aws_sdk_kinesis::types::Record) -> Result<Self, &'static str> {
        Ok(Self {
            shard,
            sequence_number: record.sequence_number,
            partition_key: record.partition_key.ok_or("a record without a partition key")?,
            arrival: record.approximate_arrival_timestamp.map_or(0.0, |time| time.as_secs_f64()),
            data: record.data.into_inner(),
        })
    }

    /// The bytes that the record takes in an event. This is more than its data, which the event has in Base64.
    pub fn size_in_event(&self) -> usize {
        self.json_with("").to_string().len() + self.data.len().div_ceil(3) * 4
    }

    fn to_json(&self) -> Value {
        self.json_with(&BASE64_STANDARD.encode(&self.data))
    }

    fn json_with(&self, data: &str) -> Value {
        let shard = shard_id(self.shard);
        json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": self.partition_key,
                "sequenceNumber": self.sequence_number,
                "data": data,
                "approximateArrivalTimestamp": self.arrival,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": format!("{shard}:{}", self.sequence_number),
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": ROLE,
            "awsRegion": "us-east-1",
            "eventSourceARN": STREAM,
        })
    }
}

/// The Lambda event of a batch.
pub fn event(records: &[KinesisRecord]) -> Value {
    json!({ "Records": records.iter().map(KinesisRecord::to_json).collect::<Vec<_>>() })
}

/// The Lambda event of a batch of these data, numbered from 0.
pub fn event_of<D: AsRef<[u8]>>(data: impl IntoIterator<Item = D>) -> Value {
    let records: Vec<KinesisRecord> =
        (0..).zip(data).map(|(place, data)| KinesisRecord::at(place, data.as_ref())).collect();
    event(&records)
}

/// The places of the records that an answer reports, for an event of [`event_of`].
pub fn reported(answer: &Value) -> Vec<u64> {
    let failures = answer["batchItemFailures"].as_array().expect("a list of batch item failures");
    let number = |failure: &Value| failure["itemIdentifier"].as_str().and_then(place);
    failures.iter().map(|failure| number(failure).expect("a sequence number of this event")).collect()
}
