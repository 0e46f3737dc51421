//! A DynamoDB that answers without storing. It is as fast as its settings say, and throttles and refuses as they say,
//! so that the bench measures the client. This library makes the decisions; the binary has the HTTP.
//!
//! Invariant: the same settings and the same requests, in the same order and at the same times, get the same answers.

use std::time::Instant;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

mod bucket;
mod item;
mod ledger;
mod settings;

use bucket::TokenBucket;
pub use bucket::burst;
pub use item::size as item_size;
use ledger::Ledger;
pub use settings::{Settings, SettingsError};

/// The number of requests that it has had, and their results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the count of what it is named for")]
pub struct Counts {
    pub connections: u64,
    pub describe_table: u64,
    pub put_item: u64,
    /// The bytes of their bodies.
    pub put_item_bytes: u64,
    pub batch_execute_statement: u64,
    pub statements: u64,
    /// Puts and statements that were done.
    pub applied: u64,
    /// Puts and statements whose condition was not met.
    pub failed_conditions: u64,
    pub throttled: u64,
    /// The units that DynamoDB bills for the puts and statements, if the stub remembers items.
    pub write_units: u64,
    /// The bytes of the items of all puts, as DynamoDB counts them, if the stub remembers items.
    pub item_bytes: u64,
    /// The most requests that waited for their answers at the same time.
    pub most_in_flight: u64,
    /// The number of requests that wait for their answers now.
    pub in_flight: u64,
}

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is done.
    Applied,
    /// Its condition is not met.
    ConditionFailed,
    /// It exceeded the rate or fell into the throttled share.
    Throttled,
}

/// The stub's state.
#[derive(Debug)]
pub struct Stub {
    settings: Settings,
    counts: Counts,
    random: Rng,
    bucket: Option<TokenBucket>,
    ledger: Ledger,
}

/// A request that the stub cannot answer.
#[derive(Debug, PartialEq, Eq)]
pub struct NotUnderstood(pub String);

impl Stub {
    /// A stub that has had no requests.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            random: Rng::with_seed(settings.seed),
            bucket: settings.rate.map(|rate| TokenBucket::full(rate, now)),
            counts: Counts::default(),
            ledger: Ledger::default(),
            settings,
        }
    }

    /// Its current settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes its settings; the counts and the remembered items stay.
    pub fn set(&mut self, settings: Settings, now: Instant) {
        let before = std::mem::replace(self, Self::new(settings, now));
        self.counts = before.counts;
        self.ledger = before.ledger;
    }

    /// Forgets the counts and the items.
    pub fn reset(&mut self, now: Instant) {
        let in_flight = self.counts.in_flight;
        *self = Self::new(self.settings.clone(), now);
        self.counts.in_flight = in_flight;
        self.counts.most_in_flight = in_flight;
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Counts a connection.
    pub fn connected(&mut self) {
        self.counts.connections += 1;
    }

    /// Counts a request for the table's description.
    pub fn described(&mut self) {
        self.counts.describe_table += 1;
    }

    /// Counts a request that waits for its answer from now on.
    pub fn came_in(&mut self) {
        self.counts.in_flight += 1;
        self.counts.most_in_flight = self.counts.most_in_flight.max(self.counts.in_flight);
    }

    /// Counts the answer to a request.
    pub fn went_out(&mut self) {
        self.counts.in_flight -= 1;
    }

    /// The result of a PutItem with this body.
    ///
    /// # Errors
    /// Items are remembered, and the body is not a conditional put's.
    pub fn put(&mut self, body: &[u8], now: Instant) -> Result<Decision, NotUnderstood> {
        self.counts.put_item += 1;
        self.counts.put_item_bytes += body.len() as u64;
        if self.is_throttled(1, now) {
            return Ok(Decision::Throttled);
        }
        let fails = self.happens(self.settings.failed_share);
        let is_done = if self.settings.remember {
            let put = self.ledger.put(body)?;
            self.counts.write_units += put.write_units;
            self.counts.item_bytes += put.item_bytes;
            put.is_done
        } else {
            !fails
        };
        Ok(self.settle(is_done))
    }

    /// The result of each statement of a BatchExecuteStatement, which is throttled as a whole.
    pub fn execute(&mut self, statements: usize, now: Instant) -> Vec<Decision> {
        let count = u32::try_from(statements).unwrap_or(u32::MAX);
        self.counts.batch_execute_statement += 1;
        self.counts.statements += u64::from(count);
        if self.is_throttled(count, now) {
            return vec![Decision::Throttled; statements];
        }
        let share = self.settings.statement_hits;
        let decisions: Vec<Decision> = (0..statements)
            .map(|_| {
                let hits = self.happens(share);
                self.settle(hits)
            })
            .collect();
        if self.settings.remember {
            self.counts.write_units += u64::from(count);
        }
        decisions
    }

    /// Whether this number of writes is too many now. Each request is throttled or not on its own, and a throttled one
    /// uses up nothing of the rate.
    fn is_throttled(&mut self, writes: u32, now: Instant) -> bool {
        let is_over = self.bucket.as_mut().is_some_and(|bucket| !bucket.take(writes, now));
        let is_throttled = is_over || self.happens(self.settings.throttled_share);
        self.counts.throttled += u64::from(is_throttled);
        is_throttled
    }

    fn settle(&mut self, is_done: bool) -> Decision {
        if is_done {
            self.counts.applied += 1;
            Decision::Applied
        } else {
            self.counts.failed_conditions += 1;
            Decision::ConditionFailed
        }
    }

    /// True in this share of the calls. A share of 0 or 1 uses no random number.
    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && (share >= 1.0 || self.random.f64() < share)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stub(settings: Settings) -> Stub {
        Stub::new(settings, Instant::now())
    }

    fn puts(stub: &mut Stub, count: usize) -> Vec<Decision> {
        let now = Instant::now();
        (0..count).map(|_| stub.put(b"", now).unwrap()).collect()
    }

    #[test]
    fn shares_come_out_as_they_are_set_and_the_same_each_time() {
        let settings = Settings { failed_share: 0.95, throttled_share: 0.3, ..Settings::default() };
        let decisions = puts(&mut stub(settings.clone()), 20_000);
        assert_eq!(decisions, puts(&mut stub(settings), 20_000));
        let count = |kind: Decision| decisions.iter().filter(|decision| **decision == kind).count();
        let (throttled, failed) = (count(Decision::Throttled), count(Decision::ConditionFailed));
        assert!((5_800..6_200).contains(&throttled), "{throttled} of 20,000 throttled");
        let share = failed * 1000 / (20_000 - throttled);
        assert!((940..960).contains(&share), "{share} of 1,000 others failed");
    }

    #[test]
    fn a_share_of_0_fails_no_put_and_a_share_of_1_fails_every_put() {
        for (failed_share, expected) in [(0.0, Decision::Applied), (1.0, Decision::ConditionFailed)] {
            let mut stub = stub(Settings { failed_share, ..Settings::default() });
            assert!(puts(&mut stub, 1_000).iter().all(|decision| *decision == expected));
        }
    }

    #[test]
    fn each_request_is_counted_once_and_by_its_end() {
        let settings = Settings { failed_share: 0.5, throttled_share: 0.5, statement_hits: 0.5, ..Settings::default() };
        let mut stub = stub(settings);
        puts(&mut stub, 1_000);
        let alone = stub.counts();
        assert_eq!(alone.applied + alone.failed_conditions + alone.throttled, 1_000);
        let mut ends = 0;
        for _ in 0..100 {
            ends += stub.execute(25, Instant::now()).iter().filter(|end| **end != Decision::Throttled).count() as u64;
        }
        let counts = stub.counts();
        assert_eq!((counts.put_item, counts.batch_execute_statement, counts.statements), (1_000, 100, 2_500));
        assert_eq!(counts.applied + counts.failed_conditions - alone.applied - alone.failed_conditions, ends);
        assert_eq!(ends + 25 * (counts.throttled - alone.throttled), 2_500);
    }

    #[test]
    fn new_settings_keep_the_counts_and_a_reset_keeps_the_settings() {
        let now = Instant::now();
        let mut stub = stub(Settings::default());
        puts(&mut stub, 10);
        stub.set(Settings { failed_share: 1.0, ..Settings::default() }, now);
        puts(&mut stub, 5);
        assert_eq!((stub.counts().applied, stub.counts().failed_conditions), (10, 5));
        stub.reset(now);
        assert_eq!(stub.counts(), Counts::default());
        puts(&mut stub, 5);
        assert_eq!((stub.counts().applied, stub.counts().failed_conditions), (0, 5));
    }

    #[test]
    fn over_the_rate_is_throttled_and_what_is_throttled_takes_nothing_of_it() {
        let start = Instant::now();
        let mut stub = Stub::new(Settings { rate: Some(1_000.0), ..Settings::default() }, start);
        // Four times the rate, for two seconds.
        for put in 0..8_000 {
            stub.put(b"", start + Duration::from_micros(250 * put)).unwrap();
        }
        let applied = stub.counts().applied;
        assert!((2_000..=2_051).contains(&applied), "{applied}");
        assert_eq!(stub.counts().throttled, 8_000 - applied);
    }
}
