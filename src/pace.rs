//! How many writes are in flight: as many as are allowed, fewer while DynamoDB throttles, then more again.
//!
//! A process begins with few: each write beyond the open connections opens one, and a TLS handshake costs more time of the processor than
//! ten writes. A small batch is sooner done over few connections, and a large one soon has all that are allowed.
//!
//! A table that throttles takes a rate of writes, and more of them in flight than that rate needs are only refused. So the number
//! falls step by step as long as writes are throttled, and what comes through stays as it was. Where less comes through with fewer in
//! flight, they are not throttled for their number, as with one hot partition among many: then the last step is taken back.
//!
//! Invariants: at least one, at most as many as are allowed; what is in flight stays so, the number only says whether more may start.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::creates::Creates;

/// What a new process begins with, and how many answers of DynamoDB allow one more.
const FIRST_IN_FLIGHT: usize = 24;
const ANSWERS_FOR_ONE_MORE: usize = 8;

/// An attempt's outcomes are looked at together: as many as are in flight, and no fewer than these.
const SMALLEST_WINDOW: f64 = 8.0;

/// The share of throttled attempts in a window that nothing is changed for.
const HARMLESS: f64 = 0.1;

/// A step down; a step up is an eighth of what is in flight.
const STEP_DOWN: f64 = 0.8;
const STEP_UP: f64 = 1.0 / 8.0;

/// A step down is taken back where less than this share of the writes still comes through.
const NO_LESS: f64 = 0.8;

/// Then no step is tried for so many windows.
const WINDOWS_HELD: u32 = 4;

/// The number of writes that may be in flight at a time.
#[derive(Debug)]
pub struct Pace {
    most: NonZeroUsize,
    now: AtomicUsize,
    window: Mutex<Window>,
    creates: Option<Creates>,
}

/// The attempts since the number was last looked at.
#[derive(Debug)]
struct Window {
    /// Of the whole process; no number is large enough after a throttled one.
    answers: usize,
    in_flight: f64,
    began: Instant,
    attempts: f64,
    throttled: f64,
    before_the_step: Option<Step>,
    held: u32,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    in_flight: f64,
    /// Writes that came through, a second.
    rate: f64,
}

impl Pace {
    /// At most so many writes in flight, and no more than 24 at first.
    pub fn new(most: NonZeroUsize) -> Self {
        let window = Window {
            answers: 0,
            in_flight: as_float(most.get()),
            began: Instant::now(),
            attempts: 0.0,
            throttled: 0.0,
            before_the_step: None,
            held: 0,
        };
        Self { most, now: AtomicUsize::new(most.get().min(FIRST_IN_FLIGHT)), window: Mutex::new(window), creates: None }
    }

    /// The same, with creates sent together where they may be; such a request counts as one write.
    #[must_use]
    pub fn with_creates_together(mut self) -> Self {
        self.creates = Some(Creates::default());
        self
    }

    /// How creates have gone, where they are sent together.
    pub fn creates(&self) -> Option<&Creates> {
        self.creates.as_ref()
    }

    /// The most that there may ever be.
    pub fn most(&self) -> NonZeroUsize {
        self.most
    }

    /// How many may be in flight now.
    pub fn writes_in_flight(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// A batch begins: the time since the last one says nothing about a rate.
    pub fn begin(&self) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        (window.began, window.attempts, window.throttled, window.before_the_step) = (Instant::now(), 0.0, 0.0, None);
    }

    /// DynamoDB has answered an attempt of a write.
    pub fn answered(&self, throttled: bool) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        // A table that throttles is no matter of connections.
        window.answers = if throttled { usize::MAX } else { window.answers.saturating_add(1) };
        let so_early = FIRST_IN_FLIGHT + window.answers / ANSWERS_FOR_ONE_MORE;
        if so_early < self.most.get() {
            // What a step would do does not show yet.
            self.now.store(so_early, Ordering::Relaxed);
            window.began = Instant::now();
            return;
        }
        window.attempts += 1.0;
        window.throttled += f64::from(u8::from(throttled));
        if window.attempts >= window.in_flight.max(SMALLEST_WINDOW) {
            window.end(Instant::now(), as_float(self.most.get()));
        }
        self.now.store(as_number(window.in_flight), Ordering::Relaxed);
    }
}

impl Window {
    fn end(&mut self, now: Instant, most: f64) {
        let seconds = now.duration_since(self.began).as_secs_f64().max(1e-6);
        let rate = (self.attempts - self.throttled) / seconds;
        if self.throttled <= self.attempts * HARMLESS {
            self.in_flight = (self.in_flight + (self.in_flight * STEP_UP).max(1.0)).min(most);
            (self.before_the_step, self.held) = (None, 0);
        } else if self.held > 0 {
            self.held -= 1;
        } else if let Some(before) = self.before_the_step.take_if(|before| rate < before.rate * NO_LESS) {
            (self.in_flight, self.held) = (before.in_flight, WINDOWS_HELD);
        } else {
            self.before_the_step = Some(Step { in_flight: self.in_flight, rate });
            self.in_flight = (self.in_flight * STEP_DOWN).max(1.0);
        }
        (self.began, self.attempts, self.throttled) = (now, 0.0, 0.0);
    }
}

/// Settings allow a few hundred.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
fn as_float(number: usize) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at least 1, and no more than was a number"
)]
fn as_number(float: f64) -> usize {
    float as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// In a process that has all that is allowed: windows of answered attempts, each of so many that took so many milliseconds, a share of
    /// them throttled: what may be in flight after each.
    async fn after(most: usize, windows: &[(usize, u64, usize)]) -> Vec<usize> {
        let pace = Pace::new(NonZeroUsize::new(most).unwrap());
        (0..1_000).for_each(|_| pace.answered(false));
        pace.begin();
        let mut found = Vec::new();
        for (attempts, milliseconds, throttled) in windows {
            tokio::time::advance(Duration::from_millis(*milliseconds)).await;
            for attempt in 0..*attempts {
                pace.answered(attempt < *throttled);
            }
            found.push(pace.writes_in_flight());
        }
        found
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_begins_with_few_and_has_all_that_are_allowed_after_a_batch() {
        let pace = Pace::new(NonZeroUsize::new(64).unwrap());
        let mut found = vec![pace.writes_in_flight()];
        for _ in 0..500 {
            pace.answered(false);
            found.push(pace.writes_in_flight());
        }
        assert!(found.is_sorted(), "{found:?}");
        assert_eq!((found[0], found[100], found[319], found[320], found[500]), (24, 36, 63, 64, 64));
        assert_eq!(Pace::new(NonZeroUsize::new(3).unwrap()).writes_in_flight(), 3);

        let throttled = Pace::new(NonZeroUsize::new(64).unwrap());
        throttled.answered(true);
        assert_eq!(throttled.writes_in_flight(), 64);
        // With no more than a process begins with, the first answer counts already.
        let begins_with_all = Pace::new(NonZeroUsize::new(FIRST_IN_FLIGHT).unwrap());
        (0..FIRST_IN_FLIGHT).for_each(|attempt| begins_with_all.answered(attempt >= 5));
        assert_eq!(begins_with_all.writes_in_flight(), 19);
    }

    #[tokio::test(start_paused = true)]
    async fn without_throttling_all_that_is_allowed_is_in_flight() {
        assert_eq!(after(64, &[(64, 5, 0), (64, 5, 6), (63, 5, 63)]).await, [64, 64, 64]);
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_writes_become_fewer_while_as_many_come_through_and_then_more_again() {
        // Some 50 a window of 10 ms come through.
        let fewer = [(64, 10, 14), (52, 8, 12), (41, 7, 6), (33, 6, 0), (37, 5, 0)];
        assert_eq!(after(64, &fewer).await, [51, 40, 32, 36, 41]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_after_which_less_comes_through_is_taken_back_and_held() {
        let hot_partition =
            [(64, 10, 20), (52, 10, 17), (64, 10, 20), (64, 10, 20), (64, 10, 20), (64, 10, 20), (64, 10, 20)];
        assert_eq!(after(64, &hot_partition).await, [51, 64, 64, 64, 64, 64, 51]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_write_is_always_allowed_and_never_more_than_most() {
        let all_throttled: Vec<_> = (0..100).map(|_| (64, 10, 64)).collect();
        assert_eq!(after(64, &all_throttled).await.last(), Some(&1));
        let recovers: Vec<_> = [(3, 10, 3); 8].into_iter().chain([(8, 10, 0); 20]).collect();
        assert!(after(3, &recovers).await.ends_with(&[3, 3]));
        assert_eq!(after(1, &[(8, 10, 8), (8, 10, 0)]).await, [1, 1]);
        let three = NonZeroUsize::new(3).unwrap();
        assert_eq!(Pace::new(three).most(), three);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_between_two_batches_is_not_counted() {
        let pace = Pace::new(NonZeroUsize::new(8).unwrap());
        let window = async |milliseconds| {
            tokio::time::advance(Duration::from_millis(milliseconds)).await;
            (0..8).for_each(|attempt| pace.answered(attempt < 4));
            pace.writes_in_flight()
        };
        assert_eq!(window(10).await, 6);
        tokio::time::advance(Duration::from_secs(60)).await;
        pace.begin();
        assert_eq!(window(10).await, 5);
    }
}
