//! A rate with a small burst, as a token bucket.

use std::time::{Duration, Instant};

/// A bucket holds the tokens of this time; older ones are gone.
const BURST: Duration = Duration::from_millis(50);

/// The most tokens that a bucket of this rate holds; it starts with as many. At least one, because a slow rate would
/// otherwise never give any.
pub fn burst(per_second: f64) -> f64 {
    (per_second * BURST.as_secs_f64()).max(1.0)
}

/// Tokens that come at a rate.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A bucket with its whole burst in it.
    pub fn full(per_second: f64, now: Instant) -> Self {
        Self { per_second, tokens: burst(per_second), filled: now }
    }

    /// Takes this number of tokens, or none if there are not enough. A full bucket gives even more tokens than it
    /// holds, and then owes them.
    pub fn take(&mut self, tokens: u32, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * self.per_second).min(burst(self.per_second));
        self.filled = self.filled.max(now);
        let is_there = self.tokens >= f64::from(tokens).min(burst(self.per_second));
        if is_there {
            self.tokens -= f64::from(tokens);
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_there_at_once_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(1_000.0, start);
        let burst = (0..200).filter(|_| bucket.take(1, start)).count();
        assert_eq!(burst, 50);
        let after_10_ms = start + Duration::from_millis(10);
        assert_eq!((0..200).filter(|_| bucket.take(1, after_10_ms)).count(), 10);
        let after_an_hour = start + Duration::from_hours(1);
        assert_eq!((0..200).filter(|_| bucket.take(1, after_an_hour)).count(), 50);
    }

    #[test]
    fn a_slow_rate_gives_one_at_a_time() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(2.0, start);
        let taken: Vec<u64> = (0..3_000).filter(|ms| bucket.take(1, start + Duration::from_millis(*ms))).collect();
        assert_eq!(taken, [0, 500, 1_000, 1_500, 2_000, 2_500]);
    }

    #[test]
    fn more_than_it_ever_holds_waits_for_the_debt_to_be_paid() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(100.0, start);
        assert!(bucket.take(25, start));
        assert!(!bucket.take(1, start + Duration::from_millis(200)));
        assert!(bucket.take(1, start + Duration::from_millis(211)));
    }
}
