//! The outcome of the requests to DynamoDB: how long each attempt took, and how many were throttled.

use std::sync::Mutex;
use std::time::Duration;

use metrique::unit::Count;
use metrique::unit_of_work::metrics;

use crate::batch::tally::Distribution;
use crate::lock::lock;

/// Counts the attempts of a client until somebody takes the counts.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<Attempted>);

/// The attempts of a batch, as metrics.
#[metrics(subfield_owned)]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attempted {
    /// How long each attempt took, with or without an answer.
    pub dynamo_db_time: Distribution<1000>,
    /// How many of them were throttled.
    #[metrics(unit = Count)]
    pub throttled: usize,
}

impl Attempted {
    /// Adds the attempts at another table.
    pub fn add(&mut self, other: &Self) {
        self.dynamo_db_time.add(&other.dynamo_db_time);
        self.throttled += other.throttled;
    }
}

impl Attempts {
    /// Counts an attempt that ended after this time.
    pub fn ended(&self, after: Duration, throttled: bool) {
        let mut attempted = lock(&self.0);
        attempted.dynamo_db_time.record(after);
        attempted.throttled += usize::from(throttled);
    }

    /// Returns the attempts since the last call, and begins to count anew.
    pub fn take(&self) -> Attempted {
        std::mem::take(&mut lock(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tally::Group;

    #[test]
    fn what_was_taken_is_not_counted_again() {
        let attempts = Attempts::default();
        attempts.ended(Duration::from_micros(7), false);
        attempts.ended(Duration::from_micros(7), true);
        let taken = attempts.take();
        assert_eq!((taken.dynamo_db_time.groups(100), taken.throttled), (vec![Group { count: 2, sum: 14 }], 1));
        assert_eq!(attempts.take(), Attempted::default());
    }
}
