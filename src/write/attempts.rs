//! What became of the requests to DynamoDB: how long each attempt took, and how many were throttled.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::batch::tally::Distribution;

/// Counts the attempts of a client, for whoever asks next.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<Attempted>);

/// The attempts of some time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attempted {
    /// How many microseconds each took, answered or not.
    pub microseconds: Distribution,
    /// How many of them were throttled.
    pub throttled: usize,
}

impl Attempts {
    /// An attempt has ended.
    pub fn ended(&self, after: Duration, throttled: bool) {
        self.with(|attempted| {
            attempted.microseconds.record(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
            attempted.throttled += usize::from(throttled);
        });
    }

    /// The attempts since this was last asked.
    pub fn take(&self) -> Attempted {
        self.with(std::mem::take)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Attempted) -> T) -> T {
        // Numbers are written whole: a panic elsewhere leaves no half of one.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
        assert_eq!((taken.microseconds.groups(100), taken.throttled), (vec![Group { count: 2, sum: 14 }], 1));
        assert_eq!(attempts.take(), Attempted::default());
    }
}
