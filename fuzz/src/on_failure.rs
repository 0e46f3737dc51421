//! The redrive function's inputs: messages of the on-failure queue and the ranges that they name, replays, and records
//! in the bucket's form.
//!
//! Each of these checks reads the input as its own kind of text. An input that begins with a NUL is a range and the
//! records that were read of it, by `arbitrary`.

use arbitrary::{Arbitrary, Unstructured};
use dsql_view::record::delivery::Record;
use dsql_view::record::sequence::SequenceNumber;
use dsql_view::redrive::Invocation;
use dsql_view::redrive::range::{Progress, ShardRange};

use super::json::{Document, Is, Value};

/// Checks the result of an input.
pub fn check(data: &[u8]) {
    if let [0, structured @ ..] = data {
        let case = Case::arbitrary(&mut Unstructured::new(structured));
        return case.iter().for_each(Case::check);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        // The runtime passes bytes on.
        assert!(matches!(invocation(data), Invocation::Unknown), "what is no UTF-8 asks for nothing");
        return;
    };
    let document = Document::read(text);
    let root = document.as_ref().map(Document::root);
    check_message(text, root);
    check_invocation(text, root);
    check_record(text);
}

/// Checks that a range is the one that the message names, and that otherwise the error is one of five that quote
/// nothing.
fn check_message(text: &str, root: Option<Value<'_>>) {
    let batch = root.and_then(|root| root.member("KinesisBatchInfo"));
    let field = |name| batch.and_then(|batch| batch.member(name)).and_then(Value::text);
    match ShardRange::of_message(text) {
        Ok(range) => {
            assert_eq!(Some(range.stream_arn.clone()), field("streamArn").map(stream));
            assert_eq!(Some(range.shard_id.as_str()), field("shardId"));
            assert_eq!(Some(range.first.as_str()), field("startSequenceNumber"));
            assert_eq!(Some(range.last.as_str()), field("endSequenceNumber"));
            let ends = [&range.first, &range.last].map(SequenceNumber::as_str);
            assert!(ends.iter().all(|end| is_number(end)) && !exceeds(ends[0], ends[1]));
            assert!(range.arrived.is_none() || field("approximateArrivalOfFirstRecord").is_some());
            assert!(range.contains(&range.first) && range.contains(&range.last));
            let lost = range.lost_message();
            assert_eq!(ShardRange::of_message(&lost), Ok(ShardRange { arrived: None, ..range }));
        }
        Err(error) => {
            let message = error.to_string();
            let found = [
                "no JSON",
                "no KinesisBatchInfo",
                "one without all of these",
                "a sequence number that is no number",
                "an end before the start",
            ];
            let told = found.map(|found| {
                format!(
                    "the message is not what Lambda sends to an on-failure queue: expected KinesisBatchInfo with streamArn, shardId, \
                     startSequenceNumber and endSequenceNumber, found {found}; look at it in the dead-letter queue, and remove it there"
                )
            });
            assert!(told.contains(&message), "{message}");
        }
    }
}

/// Checks that the invocation is the one that the text asks for.
fn check_invocation(text: &str, root: Option<Value<'_>>) {
    let field = |name| root.and_then(|root| root.member(name));
    match invocation(text.as_bytes()) {
        Invocation::Messages(messages) => {
            let Some(Is::Array(records)) = field("Records").map(Value::is) else { panic!("messages of no Records") };
            assert_eq!(messages.len(), records.len());
            for (message, record) in messages.iter().zip(records) {
                let field = |name| record.member(name).and_then(Value::text);
                assert_eq!(Some(message.message_id.as_str()), field("messageId"));
                assert_eq!(message.body, field("body").unwrap_or_default());
                assert_eq!(message.queue_arn, field("eventSourceARN").unwrap_or_default());
                assert!((60..=7200).contains(&message.wait().as_secs()), "{:?}", message.wait());
            }
            assert!(field("replay").is_none() && field("check").is_none());
        }
        Invocation::Replay(replay) => {
            assert_eq!(Some(replay.prefix.as_str()), field("replay").and_then(Value::text));
            assert_eq!(replay.after.as_deref(), field("after").and_then(Value::text));
            assert!(field("Records").is_none() && field("check").is_none());
        }
        check @ (Invocation::CheckFragments | Invocation::CheckQuarantine) => {
            let what = if matches!(check, Invocation::CheckFragments) { "fragments" } else { "quarantine" };
            assert_eq!(field("check").and_then(Value::text), Some(what));
            assert!(field("Records").is_none() && field("replay").is_none());
        }
        Invocation::Unknown => {}
    }
}

/// The invocation, as the runtime reads it.
fn invocation(event: &[u8]) -> Invocation {
    serde_json::from_slice(event).unwrap_or(Invocation::Unknown)
}

/// Checks that a record from the bucket is the record that was put there.
fn check_record(text: &str) {
    let Ok(record) = serde_json::from_str::<Record>(text) else { return };
    let again = serde_json::to_string(&record).expect("a record is JSON");
    assert_eq!(serde_json::from_str::<Record>(&again).expect("what was written can be read"), record);
}

/// A range, and the numbers of the records that were read of it, in the shard's order.
#[derive(Debug, Arbitrary)]
struct Case {
    stream: String,
    shard: String,
    first: u64,
    length: u16,
    steps: Vec<u8>,
    zeros: u8,
    end_of_first_page: u8,
    held: Option<u16>,
}

impl Case {
    fn check(&self) {
        let number = |number: u128| format!("{}{number}", "0".repeat(self.zeros.into()));
        let (first, last) = (u128::from(self.first), u128::from(self.first) + u128::from(self.length));
        let body = serde_json::json!({ "KinesisBatchInfo": {
            "streamArn": self.stream, "shardId": self.shard,
            "startSequenceNumber": number(first), "endSequenceNumber": number(last),
        } });
        let range = ShardRange::of_message(&body.to_string()).expect("a range");
        assert_eq!((&range.stream_arn, &range.shard_id), (&stream(&self.stream), &self.shard));
        assert_eq!((value(&range.first), value(&range.last)), (first, last));
        if self.length > 0 {
            let backwards = body
                .to_string()
                .replace("startSequenceNumber", "x")
                .replace("end", "start")
                .replace("\"x\"", "\"endSequenceNumber\"");
            assert!(ShardRange::of_message(&backwards).is_err(), "{backwards}");
        }

        let mut read: Vec<u128> = Vec::new();
        let mut progress = Progress::default();
        for step in &self.steps {
            let next = read.last().map_or(first, |last| last + 1) + u128::from(*step);
            assert_eq!(range.contains(&SequenceNumber::new(next.to_string())), next <= last);
            if next > last {
                break;
            }
            read.push(next);
            progress.read(&SequenceNumber::new(if next.is_multiple_of(2) { number(next) } else { next.to_string() }));
        }
        assert_eq!(progress.highest().map(value), read.last().copied());
        self.check_lost(&range, &progress, &read);
        self.check_lost_meanwhile(&range, &progress);
    }

    /// Checks the lost ranges: everything before the first and behind the last record that was read, within the range
    /// that Lambda named.
    fn check_lost(&self, range: &ShardRange, progress: &Progress, read: &[u128]) {
        let ends = (value(&range.first), value(&range.last));
        let expected: Vec<(u128, u128)> = match (read.first(), read.last()) {
            (Some(lowest), Some(highest)) => {
                let before = (*lowest > ends.0).then(|| (ends.0, lowest - 1));
                let behind = (*highest < ends.1).then(|| (highest + 1, ends.1));
                before.into_iter().chain(behind).collect()
            }
            _ => vec![ends],
        };
        let lost = progress.lost(range);
        assert_eq!(lost.iter().map(|part| (value(&part.first), value(&part.last))).collect::<Vec<_>>(), expected);
        assert!(lost.iter().all(|part| part.stream_arn == stream(&self.stream) && part.shard_id == self.shard));
    }

    /// Checks what expired during the reading: the records between the first page and the first one that the shard
    /// still holds.
    fn check_lost_meanwhile(&self, range: &ShardRange, progress: &Progress) {
        let (first, last) = (value(&range.first), value(&range.last));
        let end_of_page = (first + u128::from(self.end_of_first_page)).min(last);
        let held = self.held.map(|held| (first + u128::from(held)).min(last));
        let found = progress.lost_meanwhile(
            range,
            &SequenceNumber::new(end_of_page.to_string()),
            held.map(|held| SequenceNumber::new(held.to_string())).as_ref(),
        );
        let until = held.map_or(last, |held| held.saturating_sub(1));
        let expected = (until > end_of_page).then_some((end_of_page + 1, until));
        assert_eq!(found.map(|part| (value(&part.first), value(&part.last))), expected);
    }
}

/// The stream of an ARN. A consumer's name follows the stream's name.
fn stream(arn: &str) -> String {
    let Some((before, behind)) = arn.split_once(":stream/") else { return arn.to_owned() };
    format!("{before}:stream/{}", behind.split('/').next().unwrap_or_default())
}

fn value(number: &SequenceNumber) -> u128 {
    number.as_str().parse().expect("a number that was made of one")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|next| next.is_ascii_digit())
}

/// Whether a decimal number of any length is larger than another.
fn exceeds(a: &str, b: &str) -> bool {
    let width = a.len().max(b.len());
    format!("{a:0>width$}") > format!("{b:0>width$}")
}
