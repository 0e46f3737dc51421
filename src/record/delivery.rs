//! Lambda's event: the records of a batch, read in one pass. No error quotes their values.
//!
//! The runtime logs why an event does not deserialize, and serde's reasons quote values. Here the reason stays inside:
//! an event that is not from Kinesis deserializes into a [`Delivery`] without a batch. The function then answers with
//! an error of its own.
//!
//! A batch keeps only the fields that the function uses, because a full payload has megabytes of names that are the
//! same in each record. Only the data and the sequence number are required. If any other field is missing or of another
//! type, the record goes without it.
//!
//! Kept by hand, in some 130 lines, so that no error quotes values, and not for speed: reading the event takes 1.3 µs
//! of a change's 87 µs.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::record::json::{self, Text};
use crate::record::sequence::SequenceNumber;

/// An event, with its batch if it is one of Kinesis.
#[derive(Debug)]
pub struct Delivery(Option<Batch>);

/// The records that Lambda delivers together, all of one shard and in its order.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub struct Batch {
    /// The records.
    #[serde(rename = "Records", deserialize_with = "records")]
    pub records: Vec<Record>,
}

/// A Kinesis record, with the stream and the shard that it comes from. The bucket holds it whole, in the JSON of this
/// type, so that it can be processed again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The stream, even if the event names one of its consumers.
    pub stream_arn: Option<Arc<str>>,
    /// The shard.
    pub shard_id: Option<Arc<str>>,
    /// Its number in the shard.
    pub sequence_number: SequenceNumber,
    /// The key by which Kinesis chose the shard.
    pub partition_key: String,
    /// When Kinesis took it, if the event says so: seconds since the epoch, to the millisecond.
    #[serde(default, deserialize_with = "timestamp")]
    pub approximate_arrival_timestamp: Option<f64>,
    /// Its bytes.
    pub data: Data,
}

/// The bytes of a record. In JSON they are in Base64.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Data(pub Vec<u8>);

/// The event does not come from a Kinesis event source mapping. Lambda delivers all of it again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the event of a Kinesis event source mapping: Records, each with kinesis.data in Base64 and kinesis.sequenceNumber; see \
     events/ for samples"
)]
pub struct NoKinesisEvent;

impl Delivery {
    /// The batch.
    ///
    /// # Errors
    /// The event holds no batch.
    pub fn into_batch(self) -> Result<Batch, NoKinesisEvent> {
        self.0.ok_or(NoKinesisEvent)
    }
}

impl<'de> Deserialize<'de> for Delivery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Batch::deserialize(deserializer).ok()))
    }
}

/// A record as the event has it.
#[derive(Deserialize)]
struct WireKinesisRecord<'a> {
    /// Such as `shardId-000000000006:49590338271490256608559692538361571095921575989136588898`.
    #[serde(borrow, default, rename = "eventID")]
    event_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "eventSourceARN")]
    event_source_arn: Option<&'a RawValue>,
    #[serde(borrow)]
    kinesis: WireKinesis<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireKinesis<'a> {
    data: Data,
    #[serde(borrow)]
    sequence_number: Cow<'a, str>,
    #[serde(borrow, default)]
    partition_key: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "timestamp")]
    approximate_arrival_timestamp: Option<f64>,
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let json = Option::<&RawValue>::deserialize(deserializer)?;
    let seconds = json.and_then(|json| json.get().parse().ok()).filter(|seconds: &f64| seconds.is_finite());
    Ok(seconds.map(to_the_millisecond))
}

/// The text, if the value is a string that can be read.
fn text(json: Option<&RawValue>) -> Option<Cow<'_, str>> {
    json.filter(|json| json.get().starts_with('"')).and_then(|json| json::unquoted(json).ok())
}

/// The ARN of the stream that `arn` names. The mapping of a fan-out consumer gives the consumer's ARN, which begins
/// with the stream's (`arn:aws:kinesis:<region>:<account>:stream/<stream>/consumer/<consumer>:<epoch seconds>`).
pub fn stream_of(arn: &str) -> &str {
    const STREAM: &str = ":stream/";
    let name = arn.find(STREAM).map(|at| at + STREAM.len());
    let end = name.and_then(|name| Some(name + arn[name..].find('/')?));
    &arn[..end.unwrap_or(arn.len())]
}

/// Rounds a timestamp to the millisecond, so that it is written with as many digits as it was read with.
pub(crate) fn to_the_millisecond(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn records<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Record>, D::Error> {
    struct Records;

    impl<'de> Visitor<'de> for Records {
        type Value = Vec<Record>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the records of a Kinesis event")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut wire: A) -> Result<Self::Value, A::Error> {
            let mut records: Vec<Record> = Vec::new();
            while let Some(WireKinesisRecord { event_id, event_source_arn, kinesis }) = wire.next_element()? {
                let last = records.last();
                let (event_id, stream_arn) = (text(event_id), text(event_source_arn));
                let shard = event_id.as_ref().and_then(|id| Some(id.split_once(':')?.0));
                let record = Record {
                    stream_arn: shared(
                        stream_arn.as_deref().map(stream_of),
                        last.and_then(|last| last.stream_arn.as_ref()),
                    ),
                    shard_id: shared(shard, last.and_then(|last| last.shard_id.as_ref())),
                    sequence_number: SequenceNumber::new(kinesis.sequence_number),
                    partition_key: text(kinesis.partition_key).map_or_else(String::new, Cow::into_owned),
                    approximate_arrival_timestamp: kinesis.approximate_arrival_timestamp,
                    data: kinesis.data,
                };
                records.push(record);
            }
            Ok(records)
        }
    }

    deserializer.deserialize_seq(Records)
}

/// The name, shared with the last record if that has the same. All records but the first usually share their names.
fn shared(name: Option<&str>, last: Option<&Arc<str>>) -> Option<Arc<str>> {
    let name = name?;
    Some(last.filter(|last| &***last == name).map_or_else(|| Arc::from(name), Arc::clone))
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(&self.0, &BASE64_STANDARD))
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        BASE64_STANDARD.decode(&*text).map(Self).map_err(|_| D::Error::custom("no Base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(event: &str) -> Result<Batch, NoKinesisEvent> {
        // Like the runtime, which does not check where the text ends.
        let mut deserializer = serde_json::Deserializer::from_str(event);
        Delivery::deserialize(&mut deserializer).unwrap().into_batch()
    }

    const RECORD: &str = r#"{"kinesis":{"data":"e30=","sequenceNumber":"1","approximateArrivalTimestamp":1.5}}"#;

    #[test]
    fn only_a_kinesis_event_is_a_batch() {
        let records = |event: &str| batch(event).map(|batch| batch.records.len());
        assert_eq!(records(r#"{"Records":[]}"#), Ok(0));
        assert_eq!(records(&format!(r#"{{"Records":[{RECORD},{RECORD}]}}"#)), Ok(2));
        for other in [
            "",
            "null",
            "{}",
            r#"{"Records":[{"body":"{}"}]}"#,
            &format!(r#"{{"Records":[{}]}}"#, RECORD.replace("e30=", "not Base64!")),
            &format!(r#"{{"Records":[{}]}}"#, RECORD.replace(r#""sequenceNumber":"1","#, "")),
            &format!(r#"{{"Records":[{RECORD}"#),
        ] {
            assert_eq!(records(other), Err(NoKinesisEvent), "{other}");
        }
    }

    #[test]
    fn a_record_has_its_bytes_and_where_it_comes_from() {
        let event = r#"{"Records":[
            {"eventID":"shardId-000000000006:4959","eventSourceARN":"arn:aws:kinesis:us-east-1:123456789012:stream/dsql-cdc",
             "eventName":"aws:kinesis:record","kinesis":{"kinesisSchemaVersion":"1.0","data":"AP8\/","sequenceNumber":"4959",
             "partitionKey":"gr\u00fcn/1","approximateArrivalTimestamp":1773843841.7,"encryptionType":"NEW"}},
            {"eventID":"shardId-000000000006:4960","eventSourceARN":"arn:aws:kinesis:us-east-1:123456789012:stream/other",
             "kinesis":{"data":"","sequenceNumber":"4960","approximateArrivalTimestamp":1773843842}},
            {"eventID":null,"kinesis":{"data":"","sequenceNumber":"4961","partitionKey":null,"approximateArrivalTimestamp":0}}]}"#;
        let records = batch(event).unwrap().records;
        let record =
            |stream: Option<&str>, shard: Option<&str>, number: &str, key: &str, arrival, data: &[u8]| Record {
                stream_arn: stream.map(|name| format!("arn:aws:kinesis:us-east-1:123456789012:stream/{name}").into()),
                shard_id: shard.map(Arc::from),
                sequence_number: SequenceNumber::new(number),
                partition_key: key.to_owned(),
                approximate_arrival_timestamp: Some(arrival),
                data: Data(data.to_vec()),
            };
        let shard = Some("shardId-000000000006");
        let expected = [
            record(Some("dsql-cdc"), shard, "4959", "grün/1", 1_773_843_841.7, &[0, 255, 63]),
            record(Some("other"), shard, "4960", "", 1_773_843_842.0, &[]),
            record(None, None, "4961", "", 0.0, &[]),
        ];
        assert_eq!(records, expected);
        assert!(Arc::ptr_eq(records[0].shard_id.as_ref().unwrap(), records[1].shard_id.as_ref().unwrap()));
    }

    #[test]
    fn fields_that_the_function_does_not_need_may_be_missing_or_wrong() {
        let needed = r#""data":"e30=","sequenceNumber":"1""#;
        for (unneeded, arrival) in [
            ("", None),
            (r#","approximateArrivalTimestamp":null,"partitionKey":7"#, None),
            (r#","approximateArrivalTimestamp":"2026-05-28T20:26:40Z","partitionKey":["p"]"#, None),
            (r#","approximateArrivalTimestamp":"1780000000.5""#, None),
            (r#","approximateArrivalTimestamp":{"seconds":1}"#, None),
            (r#","approximateArrivalTimestamp":1780000000500,"partitionKey":null"#, Some(1_780_000_000_500.0)),
            (r#","approximateArrivalTimestamp":1780000000.5,"partitionKey":true"#, Some(1_780_000_000.5)),
            (r#","approximateArrivalTimestamp":1e999,"partitionKey":"\ud800""#, None),
            (r#","approximateArrivalTimestamp":[{"\udc00":1}],"partitionKey":{"a":1,"a":2}"#, None),
        ] {
            for around in ["", r#""eventID":7,"eventSourceARN":{},"#, r#""eventID":"no colon","eventVersion":1.0,"#] {
                let event = format!(r#"{{"Records":[{{{around}"kinesis":{{{needed}{unneeded}}}}}]}}"#);
                let record = batch(&event).unwrap().records.remove(0);
                let expected = Record {
                    stream_arn: None,
                    shard_id: None,
                    sequence_number: SequenceNumber::new("1"),
                    partition_key: String::new(),
                    approximate_arrival_timestamp: arrival,
                    data: Data(b"{}".to_vec()),
                };
                assert_eq!(record, expected, "{event}");
                // The bucket keeps the same record.
                let kept = serde_json::to_vec(&record).unwrap();
                assert_eq!(serde_json::from_slice::<Record>(&kept).unwrap(), record);
            }
        }
    }

    #[test]
    fn the_stream_of_a_fan_out_consumer_is_the_stream() {
        let stream = "arn:aws:kinesis:us-east-1:123456789012:stream/cdc";
        let consumer = format!("{stream}/consumer/c:1700000000");
        assert_eq!([stream_of(&consumer), stream_of(stream), stream_of("no ARN/x")], [stream, stream, "no ARN/x"]);
        let event =
            format!(r#"{{"Records":[{}]}}"#, RECORD.replacen('{', &format!(r#"{{"eventSourceARN":"{consumer}","#), 1));
        assert_eq!(batch(&event).unwrap().records[0].stream_arn.as_deref(), Some(stream));
    }

    #[test]
    fn a_record_comes_back_as_it_was_put() {
        let record = Record {
            stream_arn: Some("arn:aws:kinesis:us-east-1:123456789012:stream/dsql-cdc".into()),
            shard_id: Some("shardId-000000000006".into()),
            sequence_number: SequenceNumber::new("4959"),
            partition_key: "grün/1".to_owned(),
            approximate_arrival_timestamp: Some(1_773_843_841.125),
            data: Data(vec![0, 255, 10]),
        };
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.contains(r#""approximateArrivalTimestamp":1773843841.125,"data":"AP8K""#), "{json}");
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
        assert_eq!(format!("{:?}", record.data), "3 bytes");
    }
}
