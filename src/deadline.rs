//! How much time an invocation has left for its writes and its answer.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// In this time before the end of an invocation, no write is started any more. A short invocation keeps a quarter of
/// its time instead.
const STOP_STARTING_BEFORE: Duration = Duration::from_millis(1500);
/// This long before the end of an invocation, the answer is given, whatever is still in flight. A short invocation
/// keeps a tenth of its time instead.
const ANSWER_BEFORE: Duration = Duration::from_millis(500);

/// Lambda's longest time-out.
const LONGEST_INVOCATION: Duration = Duration::from_secs(900);

/// The times that an invocation sets for its writes.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// No write is started from this time on.
    pub stop_starting: Instant,
    /// The answer is given at this time; writes in flight are reported.
    pub answer_by: Instant,
}

impl Deadline {
    /// The times for an invocation that Lambda ends at `ends_at`, in milliseconds since the epoch (its
    /// `Lambda-Runtime-Deadline-Ms`).
    pub fn of_invocation(ends_at: u64) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_millis(ends_at).saturating_sub(now);
        // Lambda starts no invocation whose time is over. Such an end comes from an emulator that does not count time.
        Self::after(if left.is_zero() { LONGEST_INVOCATION } else { left })
    }

    /// The times for an invocation that has `left` from now.
    pub fn after(left: Duration) -> Self {
        let now = Instant::now();
        Self {
            stop_starting: now + left.saturating_sub(STOP_STARTING_BEFORE.min(left / 4)),
            answer_by: now + left.saturating_sub(ANSWER_BEFORE.min(left / 10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_leaves_time_to_answer_and_an_end_in_the_past_does_not_count() {
        let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        for (ends_at_ms, stop_starting_ms, answer_by_ms) in [
            (now_ms + 60_000, 58_500, 59_500),
            (now_ms + 3_000, 2_250, 2_700),
            (now_ms - 1, 898_500, 899_500),
            (600_000, 898_500, 899_500),
        ] {
            let deadline = Deadline::of_invocation(u64::try_from(ends_at_ms).unwrap());
            for (found, expected) in [(deadline.stop_starting, stop_starting_ms), (deadline.answer_by, answer_by_ms)] {
                let found = found.duration_since(Instant::now()).as_millis();
                assert!((expected - 1_000..=expected).contains(&found), "{found} ms, expected {expected}");
            }
        }
    }
}
