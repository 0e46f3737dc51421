//! A Kinesis event source mapping like Lambda's, as far as Lambda's is known; deterministic from a seed.
//!
//! Each rule quotes the sentence that it follows, from Lambda's documentation or from a test that was recorded against
//! Lambda. Where no source settles a question, a setting has both answers ([`AfterSplit`], [`PartialWithBisect`],
//! [`UnknownNumber`], [`TooOld`]).
//!
//! The caller drives it, so that it needs no clock and no threads. [`Mapping::next_delivery`] returns the next
//! invocation that Lambda would make, and [`Mapping::settle`] takes its outcome. Between the two, other invocations may
//! be made and settled, for example of other shards.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use crate::kinesis::{self, KinesisRecord, STREAM, shard_id};
use crate::random::Random;

/// A mapping's settings, as `template.yaml` and Lambda's API name them.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// `BatchSize`, 1 to 10,000.
    pub batch_size: usize,
    /// `MaximumBatchingWindowInSeconds`, 0 to 300: how long a batch that is not full waits for more.
    pub window: Duration,
    /// `ParallelizationFactor`, 1 to 10: how many batches of a shard run at a time, each with its own partition keys.
    pub parallelization: u32,
    /// `MaximumRetryAttempts`; `None` is endless, Lambda's default.
    pub maximum_retries: Option<u32>,
    /// `MaximumRecordAgeInSeconds`; `None` is endless, Lambda's default.
    pub maximum_age: Option<Duration>,
    /// `BisectBatchOnFunctionError`.
    pub bisect: bool,
    /// `FunctionResponseTypes: [ReportBatchItemFailures]`.
    pub report_failures: bool,
    /// Whether the halves of a split batch count their retries anew. No source settles it.
    pub after_split: AfterSplit,
    /// Whether an answer that reports failures uses up a retry if the mapping bisects, too. No source settles it.
    pub partial_with_bisect: PartialWithBisect,
    /// Which records of a batch `MaximumRecordAgeInSeconds` gives up. No source settles it.
    pub too_old: TooOld,
    /// The meaning of a reported number that is not in the batch. No source settles it.
    pub unknown_number: UnknownNumber,
}

/// How retries are counted after a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterSplit {
    GoOn,
    StartAnew,
}

/// "Partial failures use up `MaximumRetryAttempts`"; "Bisecting does not"; "With both on, a partial response splits at
/// the reported number".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartialWithBisect {
    /// The answer counts as a partial failure.
    UsesARetry,
    /// The answer counts as a split.
    UsesNone,
}

/// Which records are given up when a record is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooOld {
    /// Its whole batch.
    Batch,
    /// The record and all before it.
    Records,
}

/// The meaning of a number that is not in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownNumber {
    /// All of the batch failed.
    FailsAll,
    /// It is ignored.
    Ignored,
}

impl Default for Settings {
    /// As in `template.yaml`, but with few records a batch.
    fn default() -> Self {
        Self {
            batch_size: 10,
            window: Duration::ZERO,
            parallelization: 2,
            maximum_retries: Some(100),
            maximum_age: None,
            bisect: true,
            report_failures: true,
            after_split: AfterSplit::GoOn,
            partial_with_bisect: PartialWithBisect::UsesARetry,
            too_old: TooOld::Batch,
            unknown_number: UnknownNumber::FailsAll,
        }
    }
}

/// An invocation that Lambda makes.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its records.
    pub records: Vec<KinesisRecord>,
    /// How often they were delivered before, as it counts for the retries.
    pub attempts: u32,
    lane: Lane,
}

impl Delivery {
    /// The event.
    pub fn event(&self) -> Value {
        kinesis::event(&self.records)
    }
}

/// The outcome of an invocation.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The function answered.
    Response(Value),
    /// The function answered with an error, died, or ran out of time.
    Failed,
    /// Lambda or the function's concurrency had no room for the invocation.
    Throttled,
}

/// The records of one shard whose partition keys share a batch. The batches of a lane are delivered one after the
/// other.
type Lane = (u32, u32);

#[derive(Debug, Default)]
struct Queue {
    /// The records that are still in the stream.
    records: VecDeque<(Duration, KinesisRecord)>,
    /// The batches that were delivered and must come again, before anything else.
    again: VecDeque<Batch>,
    in_flight: bool,
}

impl Queue {
    fn has_records(&self) -> bool {
        !self.records.is_empty() || !self.again.is_empty()
    }

    /// "invoked at 6 MB, count or window"
    fn is_due(&self, settings: &Settings, now: Duration) -> bool {
        let Some((arrived, _)) = self.records.front() else { return false };
        now.saturating_sub(*arrived) >= settings.window
            || self.records.len() >= settings.batch_size
            || self.full_batch(settings) < self.records.len()
    }

    /// How many of the records in the stream the next batch takes; at least one, if there is one.
    fn full_batch(&self, settings: &Settings) -> usize {
        let mut payload = kinesis::event(&[]).to_string().len();
        let fits = |(_, record): &&(Duration, KinesisRecord)| {
            payload += record.size_in_event() + 1;
            payload <= LARGEST_PAYLOAD
        };
        let fitting = self.records.iter().take(settings.batch_size).take_while(fits).count();
        fitting.max(1).min(self.records.len())
    }
}

#[derive(Debug, Clone)]
struct Batch {
    records: Vec<(Duration, KinesisRecord)>,
    attempts: u32,
}

/// The mapping.
#[derive(Debug)]
pub struct Mapping {
    settings: Settings,
    random: Random,
    now: Duration,
    lanes: Vec<(Lane, Queue)>,
    place_of_lane: HashMap<Lane, usize>,
    in_flight: HashMap<Lane, Batch>,
    on_failure: Vec<Value>,
}

/// "The payload limit is 6 MiB INCLUDING Base64 and metadata."
const LARGEST_PAYLOAD: usize = 6 * 1024 * 1024;

impl Mapping {
    /// A mapping that has read nothing yet.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            random: Random::new(seed),
            now: Duration::ZERO,
            lanes: Vec::new(),
            place_of_lane: HashMap::new(),
            in_flight: HashMap::new(),
            on_failure: Vec::new(),
        }
    }

    /// Puts a record into its shard, behind the others.
    ///
    /// "`ParallelizationFactor` 1 to 10 (order is kept per partition key only …)": the key decides the record's lane
    /// within its shard.
    pub fn put(&mut self, record: KinesisRecord) {
        let way =
            record.partition_key.bytes().fold(0_u32, |hash, next| hash.wrapping_mul(31).wrapping_add(next.into()));
        let lane = (record.shard, way % self.settings.parallelization);
        let lanes = &mut self.lanes;
        let place = *self.place_of_lane.entry(lane).or_insert_with(|| {
            lanes.push((lane, Queue::default()));
            lanes.len() - 1
        });
        self.lanes[place].1.records.push_back((self.now, record));
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// The messages that the on-failure queue has received since the last call.
    pub fn on_failure(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.on_failure)
    }

    /// Whether all records were delivered for good or given up to the on-failure queue.
    pub fn is_through(&self) -> bool {
        self.lanes.iter().all(|(_, queue)| !queue.in_flight && !queue.has_records())
    }

    /// How many records have not been delivered for good, without those in flight.
    pub fn backlog(&self) -> usize {
        let waiting =
            |queue: &Queue| queue.records.len() + queue.again.iter().map(|batch| batch.records.len()).sum::<usize>();
        self.lanes.iter().map(|(_, queue)| waiting(queue)).sum()
    }

    /// The next invocation, of any lane that has no invocation in flight. `None` if all records that are left are in
    /// flight or wait for their window.
    pub fn next_delivery(&mut self) -> Option<Delivery> {
        loop {
            let is_waiting = |(_, queue): &&(Lane, Queue)| {
                !queue.in_flight && (!queue.again.is_empty() || queue.is_due(&self.settings, self.now))
            };
            let waiting: Vec<Lane> = self.lanes.iter().filter(is_waiting).map(|(lane, _)| *lane).collect();
            let lane = *waiting.get(self.random.below(waiting.len().max(1)))?;
            let Some(batch) = self.take(lane) else { continue };
            self.lanes[self.place_of_lane[&lane]].1.in_flight = true;
            let records = batch.records.iter().map(|(_, record)| record.clone()).collect();
            let delivery = Delivery { records, attempts: batch.attempts, lane };
            self.in_flight.insert(lane, batch);
            return Some(delivery);
        }
    }

    /// The next batch of a lane; `None` if the first records went to the on-failure queue.
    fn take(&mut self, lane: Lane) -> Option<Batch> {
        let settings = &self.settings;
        let queue = &mut self.lanes[self.place_of_lane[&lane]].1;
        let mut batch = queue.again.pop_front().unwrap_or_else(|| {
            let records = queue.records.drain(..queue.full_batch(settings)).collect();
            Batch { records, attempts: 0 }
        });
        // "a Kinesis record over about 4.5 MB never reaches the function. It goes only to the on-failure destination"
        if let [(_, record)] = batch.records.as_slice()
            && kinesis::event(&[]).to_string().len() + record.size_in_event() > LARGEST_PAYLOAD
        {
            self.give_up(&batch, "PayloadLimitExceeded");
            return None;
        }
        let now = self.now;
        if let Some(maximum) = self.settings.maximum_age
            && let Some(last) = batch.records.iter().rposition(|(arrived, _)| now.saturating_sub(*arrived) > maximum)
        {
            let young = match self.settings.too_old {
                TooOld::Batch => Vec::new(),
                TooOld::Records => batch.records.split_off(last + 1),
            };
            self.give_up(&batch, "RecordAgeExceeded");
            if young.is_empty() {
                return None;
            }
            batch.records = young;
        }
        Some(batch)
    }

    /// Takes the outcome of an invocation. Returns how many of its records, from the first on, are done.
    pub fn settle(&mut self, delivery: &Delivery, outcome: &Outcome) -> usize {
        let lane = delivery.lane;
        self.lanes[self.place_of_lane[&lane]].1.in_flight = false;
        let Some(batch) = self.in_flight.remove(&lane) else { panic!("a delivery is settled twice") };
        let count = batch.records.len();
        let verdict = self.verdict(&batch, outcome);
        let done = match verdict {
            Verdict::Done => count,
            Verdict::FailedFrom(place) => place,
            Verdict::Again | Verdict::FailedAsAWhole => 0,
        };
        match verdict {
            Verdict::Done => {}
            // "Throttles and service errors are not counted as retries."
            Verdict::Again => self.again(lane, [batch]),
            Verdict::FailedFrom(place) => {
                // "the LOWEST reported sequence number becomes the checkpoint; that record and everything after it in
                // the batch is delivered again, also what had succeeded."
                let is_split = self.settings.bisect
                    && self.settings.partial_with_bisect == PartialWithBisect::UsesNone
                    && place > 0;
                let attempts = batch.attempts + u32::from(!is_split);
                let rest = Batch { records: batch.records[place..].to_vec(), attempts };
                self.retry(lane, rest);
            }
            Verdict::FailedAsAWhole if self.settings.bisect && batch.records.len() > 1 => {
                // "Bisecting does not [use up retries]."
                let attempts = match self.settings.after_split {
                    AfterSplit::GoOn => batch.attempts,
                    AfterSplit::StartAnew => 0,
                };
                // No source says where; in the middle, as Lambda's documentation calls it bisecting.
                let (first, second) = batch.records.split_at(batch.records.len() / 2);
                self.again(lane, [first, second].map(|half| Batch { records: half.to_vec(), attempts }));
            }
            Verdict::FailedAsAWhole => {
                let attempts = batch.attempts + 1;
                self.retry(lane, Batch { attempts, ..batch });
            }
        }
        done
    }

    fn verdict(&self, batch: &Batch, outcome: &Outcome) -> Verdict {
        let answer = match outcome {
            Outcome::Throttled => return Verdict::Again,
            Outcome::Failed => return Verdict::FailedAsAWhole,
            // "Not enabled on the mapping: ignored."
            Outcome::Response(_) if !self.settings.report_failures => return Verdict::Done,
            Outcome::Response(answer) => answer,
        };
        // "Empty or null list, empty response: success."
        let failures = match answer {
            Value::Null => return Verdict::Done,
            Value::String(text) if text.is_empty() => return Verdict::Done,
            Value::Object(members) => match members.get("batchItemFailures") {
                None | Some(Value::Null) => return Verdict::Done,
                Some(Value::Array(failures)) => failures,
                Some(_) => return Verdict::FailedAsAWhole,
            },
            _ => return Verdict::FailedAsAWhole,
        };
        // "An empty or null itemIdentifier, or a malformed response: the whole batch failed."
        let mut places = Vec::new();
        for failure in failures {
            let Some(number) = failure["itemIdentifier"].as_str().filter(|number| !number.is_empty()) else {
                return Verdict::FailedAsAWhole;
            };
            match batch.records.iter().position(|(_, record)| record.sequence_number == number) {
                Some(place) => places.push(place),
                None if self.settings.unknown_number == UnknownNumber::Ignored => {}
                None => return Verdict::FailedAsAWhole,
            }
        }
        // A batch has its shard's order, so the lowest number is at the first place.
        places.into_iter().min().map_or(Verdict::Done, Verdict::FailedFrom)
    }

    /// "By default retries are endless"
    fn retry(&mut self, lane: Lane, batch: Batch) {
        if self.settings.maximum_retries.is_some_and(|most| batch.attempts > most) {
            self.give_up(&batch, "RetryAttemptsExhausted");
        } else {
            self.again(lane, [batch]);
        }
    }

    fn again<const N: usize>(&mut self, lane: Lane, batches: [Batch; N]) {
        let queue = &mut self.lanes[self.place_of_lane[&lane]].1;
        for batch in batches.into_iter().rev() {
            queue.again.push_front(batch);
        }
    }

    /// "On-failure to SQS: metadata only, read the records again before retention ends"
    fn give_up(&mut self, batch: &Batch, condition: &str) {
        let (Some((_, first)), Some((_, last))) = (batch.records.first(), batch.records.last()) else { return };
        self.on_failure.push(json!({
            "requestContext": {
                "requestId": "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
                "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:dsql-view",
                "condition": condition,
                "approximateInvokeCount": batch.attempts,
            },
            "version": "1.0",
            "KinesisBatchInfo": {
                "shardId": shard_id(first.shard),
                "startSequenceNumber": first.sequence_number,
                "endSequenceNumber": last.sequence_number,
                "approximateArrivalOfFirstRecord": "2026-03-18T14:24:01.500Z",
                "approximateArrivalOfLastRecord": "2026-03-18T14:24:01.500Z",
                "batchSize": batch.records.len(),
                "streamArn": STREAM,
            },
        }));
    }
}

enum Verdict {
    Done,
    Again,
    FailedFrom(usize),
    FailedAsAWhole,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(settings: Settings, records: u64) -> Mapping {
        let mut mapping = Mapping::new(Settings { parallelization: 1, ..settings }, 1);
        for place in 0..records {
            mapping.put(KinesisRecord::at(place, format!("record {place}")));
        }
        mapping
    }

    fn places(delivery: &Delivery) -> Vec<u64> {
        delivery.records.iter().filter_map(|record| kinesis::place(&record.sequence_number)).collect()
    }

    fn reported(places: &[u64]) -> Outcome {
        let failure = |place: &u64| json!({ "itemIdentifier": kinesis::sequence_number(*place) });
        Outcome::Response(json!({ "batchItemFailures": places.iter().map(failure).collect::<Vec<_>>() }))
    }

    /// The batches that are delivered while their outcomes are these; later outcomes are successes.
    fn batches(mapping: &mut Mapping, ends: impl IntoIterator<Item = Outcome>) -> Vec<Vec<u64>> {
        let mut ends = ends.into_iter();
        let mut batches = Vec::new();
        while let Some(delivery) = mapping.next_delivery() {
            batches.push(places(&delivery));
            mapping.settle(&delivery, &ends.next().unwrap_or(reported(&[])));
        }
        assert!(mapping.is_through());
        batches
    }

    #[test]
    fn the_lowest_reported_number_is_the_checkpoint_and_all_behind_it_comes_again() {
        let mut mapping = mapping(Settings::default(), 5);
        assert_eq!(batches(&mut mapping, [reported(&[3, 1])]), [vec![0, 1, 2, 3, 4], vec![1, 2, 3, 4]]);
    }

    #[test]
    fn what_stands_before_the_lowest_reported_number_is_done_with() {
        for (outcome, done) in [
            (reported(&[]), 5),
            (reported(&[3, 1]), 1),
            (reported(&[0]), 0),
            (Outcome::Failed, 0),
            (Outcome::Throttled, 0),
        ] {
            let mut mapping = mapping(Settings::default(), 5);
            let delivery = mapping.next_delivery().unwrap();
            assert_eq!(mapping.settle(&delivery, &outcome), done, "{outcome:?}");
        }
    }

    #[test]
    fn a_batch_waits_for_its_window_or_until_it_is_full() {
        let window = Duration::from_secs(5);
        let settings = Settings { batch_size: 3, window, ..Settings::default() };
        let mut mapping = mapping(settings, 4);
        let delivery = mapping.next_delivery().unwrap();
        assert_eq!(places(&delivery), [0, 1, 2]);
        mapping.settle(&delivery, &Outcome::Failed);
        assert_eq!(places(&mapping.next_delivery().unwrap()), [0], "what comes again waits for nothing");

        let mut mapping = Mapping::new(Settings { parallelization: 1, ..settings }, 1);
        mapping.put(KinesisRecord::at(0, "x"));
        assert!(mapping.next_delivery().is_none() && !mapping.is_through());
        mapping.pass(window);
        assert_eq!(places(&mapping.next_delivery().unwrap()), [0]);

        let mut large = Mapping::new(Settings { parallelization: 1, ..settings }, 1);
        large.put(KinesisRecord::at(0, vec![b'x'; 3_000_000]));
        large.put(KinesisRecord::at(1, vec![b'x'; 3_000_000]));
        assert_eq!(places(&large.next_delivery().unwrap()), [0]);
    }

    #[test]
    fn a_record_is_as_large_in_an_event_as_it_says() {
        for data in ["", "x", "xy", "xyz", "wxyz"] {
            let record = KinesisRecord::at(0, data);
            let event = |count| kinesis::event(&vec![record.clone(); count]).to_string().len();
            assert_eq!(event(2) - event(1), record.size_in_event() + 1);
        }
    }

    #[test]
    fn an_empty_answer_is_success_and_a_malformed_one_fails_all() {
        let settings = Settings { bisect: false, ..Settings::default() };
        for (answer, again) in [
            (json!(null), false),
            (json!(""), false),
            (json!({}), false),
            (json!({ "batchItemFailures": null }), false),
            (json!({ "batchItemFailures": [] }), false),
            (json!({ "batchItemFailures": [{ "itemIdentifier": "" }] }), true),
            (json!({ "batchItemFailures": [{ "itemIdentifier": null }] }), true),
            (json!({ "batchItemFailures": [{}] }), true),
            (json!({ "batchItemFailures": "x" }), true),
            (json!([]), true),
            (json!("x"), true),
        ] {
            let mut mapping = mapping(settings, 2);
            let delivered = batches(&mut mapping, [Outcome::Response(answer.clone())]).len();
            assert_eq!(delivered == 2, again, "{answer}");
        }
    }

    #[test]
    fn a_number_that_is_not_in_the_batch_fails_all_or_is_ignored() {
        for (unknown_number, expected) in [(UnknownNumber::FailsAll, 2), (UnknownNumber::Ignored, 1)] {
            let settings = Settings { bisect: false, unknown_number, ..Settings::default() };
            assert_eq!(batches(&mut mapping(settings, 2), [reported(&[77])]).len(), expected);
        }
    }

    #[test]
    fn what_is_reported_is_ignored_where_the_mapping_does_not_ask_for_it() {
        let settings = Settings { report_failures: false, ..Settings::default() };
        assert_eq!(batches(&mut mapping(settings, 3), [reported(&[0])]), [vec![0, 1, 2]]);
    }

    #[test]
    fn a_batch_that_fails_is_split_and_its_halves_come_in_their_order() {
        let ends = [Outcome::Failed, reported(&[]), Outcome::Failed];
        let expected = [vec![0, 1, 2, 3], vec![0, 1], vec![2, 3], vec![2], vec![3]];
        assert_eq!(batches(&mut mapping(Settings::default(), 4), ends), expected);
        let settings = Settings { bisect: false, ..Settings::default() };
        assert_eq!(batches(&mut mapping(settings, 4), [Outcome::Failed]), [vec![0, 1, 2, 3], vec![0, 1, 2, 3]]);
    }

    #[test]
    fn retries_are_used_up_by_failures_but_not_by_throttles_and_then_the_shard_goes_on() {
        let settings = Settings { batch_size: 1, maximum_retries: Some(2), ..Settings::default() };
        let failed = || reported(&[0]);
        let mut mapping = mapping(settings, 2);
        let ends = [failed(), Outcome::Throttled, Outcome::Throttled, failed(), Outcome::Failed];
        assert_eq!(batches(&mut mapping, ends), [vec![0], vec![0], vec![0], vec![0], vec![0], vec![1]]);
        let told = mapping.on_failure();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["requestContext"]["condition"], "RetryAttemptsExhausted");
        assert_eq!(told[0]["KinesisBatchInfo"]["endSequenceNumber"], kinesis::sequence_number(0));
        assert!(mapping.on_failure().is_empty());
    }

    #[test]
    fn a_split_goes_on_counting_or_starts_anew() {
        // A batch is reported once and then fails as a whole: its halves count one retry, or start at zero.
        for (after_split, deliveries) in [(AfterSplit::GoOn, 4), (AfterSplit::StartAnew, 6)] {
            let settings = Settings { maximum_retries: Some(1), after_split, ..Settings::default() };
            let mut mapping = mapping(settings, 2);
            let ends = [reported(&[0]), Outcome::Failed, reported(&[0]), reported(&[0]), Outcome::Failed];
            assert_eq!(batches(&mut mapping, ends).len(), deliveries, "{after_split:?}");
            assert!(!mapping.on_failure().is_empty());
        }
    }

    #[test]
    fn what_is_reported_uses_a_retry_or_none_where_the_mapping_bisects() {
        for (partial_with_bisect, deliveries) in [(PartialWithBisect::UsesARetry, 2), (PartialWithBisect::UsesNone, 4)]
        {
            let settings = Settings { maximum_retries: Some(1), partial_with_bisect, ..Settings::default() };
            let mut mapping = mapping(settings, 4);
            let ends = [reported(&[1]), reported(&[2]), reported(&[2]), reported(&[2])];
            assert_eq!(batches(&mut mapping, ends).len(), deliveries, "{partial_with_bisect:?}");
            assert_eq!(mapping.on_failure().len(), 1);
        }
    }

    #[test]
    fn what_is_too_old_goes_with_its_batch_or_without() {
        for (too_old, delivered) in [(TooOld::Batch, None), (TooOld::Records, Some(vec![1]))] {
            let settings = Settings { maximum_age: Some(Duration::from_secs(60)), too_old, ..Settings::default() };
            let mut mapping = mapping(settings, 1);
            mapping.pass(Duration::from_secs(50));
            mapping.put(KinesisRecord::at(1, "x"));
            mapping.pass(Duration::from_secs(20));
            assert_eq!(mapping.next_delivery().map(|delivery| places(&delivery)), delivered);
            let last = u64::from(too_old == TooOld::Batch);
            assert_eq!(
                mapping.on_failure()[0]["KinesisBatchInfo"]["endSequenceNumber"],
                kinesis::sequence_number(last)
            );
        }
    }

    #[test]
    fn a_record_that_is_too_old_or_too_large_is_only_told_of() {
        let mut old = mapping(Settings { maximum_age: Some(Duration::from_secs(60)), ..Settings::default() }, 1);
        old.pass(Duration::from_secs(61));
        assert!(old.next_delivery().is_none());
        assert_eq!(old.on_failure()[0]["requestContext"]["condition"], "RecordAgeExceeded");

        let mut large = mapping(Settings::default(), 1);
        large.put(KinesisRecord::at(1, vec![b'x'; 4_800_000]));
        large.put(KinesisRecord::at(2, vec![b'x'; 3_000_000]));
        large.put(KinesisRecord::at(3, vec![b'x'; 3_000_000]));
        assert_eq!(batches(&mut large, []), [vec![0], vec![2], vec![3]]);
        assert_eq!(large.on_failure()[0]["KinesisBatchInfo"]["startSequenceNumber"], kinesis::sequence_number(1));
    }

    #[test]
    fn a_shard_has_as_many_batches_at_a_time_as_its_parallelization_and_a_seed_repeats_itself() {
        let run = |seed: u64| {
            let mut mapping =
                Mapping::new(Settings { parallelization: 10, batch_size: 3, ..Settings::default() }, seed);
            for place in 0..200 {
                mapping
                    .put(KinesisRecord { shard: u32::try_from(place % 2).unwrap(), ..KinesisRecord::at(place, "x") });
            }
            let mut at_a_time = Vec::new();
            while let Some(delivery) = mapping.next_delivery() {
                at_a_time.push(delivery);
            }
            assert_eq!(at_a_time.len(), 20);
            let order: Vec<Vec<u64>> = at_a_time.iter().map(places).collect();
            for delivery in &at_a_time {
                mapping.settle(delivery, &reported(&[]));
            }
            assert!(!mapping.is_through());
            order
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
