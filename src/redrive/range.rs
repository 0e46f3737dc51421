//! The range of records that a message of the on-failure queue names, and the records that the stream no longer holds.
//!
//! Invariants: pure; a range is called complete only if it was read from its first to its last record, without a gap.

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use serde_json::{Value, json};

use crate::record::delivery::stream_of;
use crate::record::sequence::SequenceNumber;

/// A range of records of one shard, including both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRange {
    /// The stream.
    pub stream_arn: String,
    /// The shard.
    pub shard_id: String,
    /// The lowest sequence number, of a record that Lambda has seen.
    pub first: SequenceNumber,
    /// The highest sequence number, of a record that Lambda has seen.
    pub last: SequenceNumber,
    /// When the first record arrived, if the message says so.
    pub arrived: Option<SystemTime>,
}

/// Why a message names no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the message is not what Lambda sends to an on-failure queue: expected KinesisBatchInfo with streamArn, shardId, \
     startSequenceNumber and endSequenceNumber, found {found}; look at it in the dead-letter queue, and remove it there"
)]
pub struct NoRange {
    found: &'static str,
}

impl ShardRange {
    /// The range that a message's body names.
    ///
    /// # Errors
    /// The body names no range.
    pub fn of_message(body: &str) -> Result<Self, NoRange> {
        // Reads the fields by their names, because serde would read a struct from an array as well.
        let message: Value = serde_json::from_str(body).map_err(|_| NoRange { found: "no JSON" })?;
        let batch = message.get("KinesisBatchInfo").ok_or(NoRange { found: "no KinesisBatchInfo" })?;
        let text = |name: &str| batch.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some(stream_arn), Some(shard_id), Some(first), Some(last)) =
            (text("streamArn"), text("shardId"), text("startSequenceNumber"), text("endSequenceNumber"))
        else {
            return Err(NoRange { found: "one without all of these" });
        };
        let (Some(first), Some(last)) = (SequenceNumber::parse(&first), SequenceNumber::parse(&last)) else {
            return Err(NoRange { found: "a sequence number that is no number" });
        };
        if first > last {
            return Err(NoRange { found: "an end before the start" });
        }
        let stream_arn = stream_of(&stream_arn).to_owned();
        let arrived = text("approximateArrivalOfFirstRecord").as_deref().and_then(time);
        Ok(Self { stream_arn, shard_id, first, last, arrived })
    }

    /// The message that tells the dead-letter queue that these records are lost. It has the form of Lambda's message
    /// about failed records, so that it can be redriven again.
    pub fn lost_message(&self) -> String {
        let batch = json!({
            "streamArn": self.stream_arn,
            "shardId": self.shard_id,
            "startSequenceNumber": self.first,
            "endSequenceNumber": self.last,
        });
        json!({ "requestContext": { "condition": "RecordsLost" }, "KinesisBatchInfo": batch }).to_string()
    }

    /// Whether a record with this number belongs to the range.
    pub fn contains(&self, number: &SequenceNumber) -> bool {
        (&self.first..=&self.last).contains(&number)
    }

    /// The part from `first` to `last`, or `None` if it is empty.
    fn part(&self, first: SequenceNumber, last: SequenceNumber) -> Option<Self> {
        let part = Self { first, last, arrived: None, ..self.clone() };
        (part.first <= part.last).then_some(part)
    }
}

fn time(text: &str) -> Option<SystemTime> {
    let milliseconds = u64::try_from(DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds))
}

/// How far a range has been read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Progress {
    lowest: Option<SequenceNumber>,
    highest: Option<SequenceNumber>,
}

impl Progress {
    /// Takes note of a record of the range. Records are read in the order of the shard.
    pub fn read(&mut self, number: &SequenceNumber) {
        self.lowest.get_or_insert_with(|| number.clone());
        self.highest = Some(number.clone());
    }

    /// The number of the record that was read last.
    pub fn highest(&self) -> Option<&SequenceNumber> {
        self.highest.as_ref()
    }

    /// The parts of the range that may be lost. Call it once the shard has been read to its end. Lambda has seen the
    /// first and the last record. If one of them is missing, the records between it and those that were found may be
    /// missing too.
    pub fn lost(&self, range: &ShardRange) -> Vec<ShardRange> {
        let (Some(lowest), Some(highest)) = (&self.lowest, &self.highest) else { return vec![range.clone()] };
        let before = (*lowest != range.first).then(|| range.part(range.first.clone(), lowest.previous()));
        let behind = (*highest != range.last).then(|| range.part(highest.next(), range.last.clone()));
        before.into_iter().chain(behind).flatten().collect()
    }

    /// The part that may be lost of a range whose start expired while it was read. `held` is the first record of the
    /// range that the shard still has.
    pub fn lost_meanwhile(
        &self,
        range: &ShardRange,
        end_of_first_page: &SequenceNumber,
        held: Option<&SequenceNumber>,
    ) -> Option<ShardRange> {
        // If nothing has expired, `held` lies before the end of the first page, and the part is empty.
        let last = held.map_or_else(|| range.last.clone(), SequenceNumber::previous);
        range.part(end_of_first_page.next(), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/dsql-cdc";

    fn number(digits: &str) -> SequenceNumber {
        SequenceNumber::new(digits)
    }

    fn range(first: &str, last: &str) -> ShardRange {
        ShardRange {
            stream_arn: STREAM.to_owned(),
            shard_id: "shardId-000000000001".to_owned(),
            first: number(first),
            last: number(last),
            arrived: None,
        }
    }

    #[test]
    fn a_message_of_lambda_names_its_range() {
        let body = format!(
            r#"{{"requestContext":{{"requestId":"r","functionArn":"f","condition":"RetryAttemptsExhausted","approximateInvokeCount":4}},
            "version":"1.0","timestamp":"2026-07-14T00:38:06.021Z","KinesisBatchInfo":{{"shardId":"shardId-000000000001",
            "startSequenceNumber":"4959","endSequenceNumber":"4961","approximateArrivalOfFirstRecord":"2026-07-14T00:38:04.835Z",
            "approximateArrivalOfLastRecord":"2026-07-14T00:38:05.580Z","batchSize":500,"streamArn":"{STREAM}"}}}}"#
        );
        let found = ShardRange::of_message(&body).unwrap();
        let arrived = SystemTime::UNIX_EPOCH + Duration::from_millis(1_783_989_484_835);
        assert_eq!(found, ShardRange { arrived: Some(arrived), ..range("4959", "4961") });
        assert_eq!(ShardRange::of_message(&found.lost_message()).unwrap(), range("4959", "4961"));
    }

    #[test]
    fn a_message_of_a_fan_out_consumer_names_the_stream() {
        let body = format!(
            r#"{{"KinesisBatchInfo":{{"streamArn":"{STREAM}/consumer/c:1700000000","shardId":"shardId-000000000001",
            "startSequenceNumber":"1","endSequenceNumber":"2"}}}}"#
        );
        assert_eq!(ShardRange::of_message(&body), Ok(range("1", "2")));
    }

    #[test]
    fn a_message_without_a_range_is_refused_without_its_text() {
        let batch = |first: &str, last: &str| {
            format!(
                r#"{{"KinesisBatchInfo":{{"streamArn":"s","shardId":"x","startSequenceNumber":{first},"endSequenceNumber":{last}}}}}"#
            )
        };
        for (body, found) in [
            ("secret".to_owned(), "no JSON"),
            ("[]".to_owned(), "no KinesisBatchInfo"),
            ("{}".to_owned(), "no KinesisBatchInfo"),
            (r#"{"DDBStreamBatchInfo":{}}"#.to_owned(), "no KinesisBatchInfo"),
            (batch("null", r#""1""#), "one without all of these"),
            (batch(r#""secret""#, r#""1""#), "no number"),
            (batch(r#""""#, r#""1""#), "no number"),
            (batch("1", "2"), "one without all of these"),
            (batch(r#""10""#, r#""9""#), "an end before the start"),
        ] {
            let error = ShardRange::of_message(&body).expect_err(&body).to_string();
            assert!(error.contains(found) && !error.contains("secret"), "{body} gave: {error}");
        }
    }

    #[test]
    fn regression_a_range_is_read_by_the_names_of_its_fields_alone() {
        for (body, found) in [
            (r#"[null,["arn","shard","1","2",null]]"#, "no KinesisBatchInfo"),
            (r#"{"KinesisBatchInfo":["arn","shard","1","2",null]}"#, "one without all of these"),
        ] {
            let error = ShardRange::of_message(body).expect_err(body).to_string();
            assert!(error.contains(found), "{body} gave: {error}");
        }
    }

    #[test]
    fn a_part_of_a_range_is_of_its_shard_and_not_empty() {
        let whole = ShardRange { arrived: Some(SystemTime::UNIX_EPOCH), ..range("10", "30") };
        let part = |first: &str, last: &str| whole.part(number(first), number(last));
        assert_eq!(part("9", "12"), Some(range("9", "12")));
        assert_eq!(part("12", "12"), Some(range("12", "12")));
        assert_eq!(part("13", "12"), None);
    }

    #[test]
    fn reading_goes_on_after_the_last_record_that_was_read() {
        let mut progress = Progress::default();
        assert_eq!(progress.highest(), None);
        for number in ["10", "12", "17"].map(number) {
            progress.read(&number);
            assert_eq!(progress.highest(), Some(&number));
        }
    }

    /// The parts of the range 10 to 30 that are lost if these records were read.
    fn lost(read: &[&str]) -> Vec<(SequenceNumber, SequenceNumber)> {
        let mut progress = Progress::default();
        for digits in read {
            progress.read(&number(digits));
        }
        progress.lost(&range("10", "30")).into_iter().map(|part| (part.first, part.last)).collect()
    }

    #[test]
    fn missing_ends_show_which_records_the_stream_no_longer_holds() {
        let part = |first: &str, last: &str| (number(first), number(last));
        assert_eq!(lost(&["10", "12", "30"]), []);
        assert_eq!(lost(&[]), [part("10", "30")]);
        assert_eq!(lost(&["20", "30"]), [part("10", "19")]);
        assert_eq!(lost(&["10", "19"]), [part("20", "30")]);
        assert_eq!(lost(&["15"]), [part("10", "14"), part("16", "30")]);
    }

    #[test]
    fn the_parts_of_a_range_do_not_have_its_time_of_arrival() {
        let range = ShardRange { arrived: Some(SystemTime::UNIX_EPOCH), ..range("10", "30") };
        let mut progress = Progress::default();
        progress.read(&number("20"));
        let arrived: Vec<_> = progress.lost(&range).into_iter().map(|part| part.arrived).collect();
        assert_eq!(arrived, [None, None]);
    }

    #[test]
    fn a_start_that_expires_while_its_range_is_read_is_noticed() {
        let lost = |held: Option<&str>| {
            let held = held.map(number);
            let lost = Progress::default().lost_meanwhile(&range("10", "30"), &number("14"), held.as_ref());
            lost.map(|part| (part.first, part.last))
        };
        assert_eq!(lost(Some("10")), None);
        assert_eq!(lost(Some("12")), None);
        assert_eq!(lost(Some("20")), Some((number("15"), number("19"))));
        assert_eq!(lost(None), Some((number("15"), number("30"))));
    }
}
