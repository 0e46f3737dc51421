//! How many writes are in flight: as many as are allowed, fewer while DynamoDB throttles, then more again.
//!
//! A process begins with few. Each write beyond the open connections opens another one, and a TLS handshake costs more
//! processor time than ten writes. A small batch is done sooner over few connections, and a large one soon has all that
//! are allowed.
//!
//! Tables throttle in two ways. One table takes a certain rate of writes, and more writes in flight than that rate
//! needs are only refused. Another throttles a share of the writes whatever their number, for example because of one
//! hot partition among many. Such a table takes fewer writes a second the fewer are in flight.
//!
//! So while writes are throttled, the number takes a step down or up, and the rate of writes that come through tells
//! whether that was right. A step down that costs little is followed by another, and so is a step up that gains much.
//! After any other step, the number goes one step back and stays there for a while. This finds the way back even if
//! chance in the measurements has led far off.
//!
//! A DynamoDB that fails or does not answer counts as one that throttles. The number comes down to one while no write
//! comes through, and goes up again with those that do.
//!
//! Kept by hand, in some 130 lines, because we know of no well-kept crate that limits writes by what comes through.
//!
//! Invariants: the number is at least one, and at most as many as are allowed. Writes in flight stay in flight; the
//! number only says whether more may start.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::write::creates::Creates;

/// How many writes a new process begins with, and how many each answer of DynamoDB adds.
const FIRST_IN_FLIGHT: usize = 24;
const MORE_FOR_AN_ANSWER: f64 = 1.0 / 8.0;

/// How many writes the first throttled answer allows at once. Throttling does not depend on the number of connections,
/// and a table that throttles a share of the writes needs many in flight. But each connection costs a handshake when it
/// is opened, and the setting may allow a thousand.
const ALLOWED_AT_ONCE: f64 = 64.0;

/// The outcomes of attempts are judged together, in windows. A window has as many attempts as writes are in flight, and
/// at least `SMALLEST_WINDOW`, or `SMALLEST_REFUSED_WINDOW` if one was refused. Fewer say too little about a rate.
const SMALLEST_WINDOW: f64 = 8.0;
const SMALLEST_REFUSED_WINDOW: f64 = 48.0;

/// The share of refused attempts up to which a window counts as free of throttling.
const HARMLESS: f64 = 0.1;

/// The factor of a step down. A step up divides by it.
const STEP: f64 = 0.6;

/// A step down was right if at least this share of the writes still comes through, and a step up if the inverse does.
/// The share is [`STEP`] if writes come through in proportion to their number, and 1 if they do not depend on it.
const NO_LESS: f64 = 0.72;

/// After a wrong step, and at either end of the range, the next step waits for this many windows.
const WINDOWS_HELD: u32 = 4;

/// The number grows by this share once nothing is refused any more.
const GROWTH: f64 = 1.0 / 8.0;

/// The number of writes that may be in flight at a time.
#[derive(Debug)]
pub struct Pace {
    most: NonZeroUsize,
    now: AtomicUsize,
    window: Mutex<Window>,
    creates: Option<Creates>,
}

/// The attempts since the number was last judged.
#[derive(Debug)]
struct Window {
    /// Whether the process is opening its first connections: each answer allows more, and no attempt was refused.
    opens: bool,
    in_flight: f64,
    began: Instant,
    attempts: f64,
    refused: f64,
    /// How many writes a second came through before the last step, while some were refused.
    before_the_step: Option<f64>,
    /// The direction of the last step, and of the next one if that was right.
    up: bool,
    held: u32,
}

impl Pace {
    /// At most `most` writes in flight, and no more than 24 at first.
    pub fn new(most: NonZeroUsize) -> Self {
        let first = most.get().min(FIRST_IN_FLIGHT);
        let window = Window {
            opens: first < most.get(),
            in_flight: as_float(first),
            began: Instant::now(),
            attempts: 0.0,
            refused: 0.0,
            before_the_step: None,
            up: false,
            held: 0,
        };
        Self { most, now: AtomicUsize::new(first), window: Mutex::new(window), creates: None }
    }

    /// The same pace, with creates sent together if they may be. Such a request counts as one write.
    #[must_use]
    pub fn with_creates_together(mut self) -> Self {
        self.creates = Some(Creates::default());
        self
    }

    /// How creates have gone, if they are sent together.
    pub fn creates(&self) -> Option<&Creates> {
        self.creates.as_ref()
    }

    /// The most writes that may ever be in flight.
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
        (window.began, window.attempts, window.refused, window.before_the_step) = (Instant::now(), 0.0, 0.0, None);
    }

    /// DynamoDB has answered an attempt of a write.
    pub fn answered(&self, throttled: bool) {
        self.count(throttled, ALLOWED_AT_ONCE);
    }

    /// DynamoDB has failed at an attempt of a write, or has not answered.
    pub fn failed(&self) {
        self.count(true, 0.0);
    }

    fn count(&self, refused: bool, allowed_at_once: f64) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let most = as_float(self.most.get());
        if window.opens {
            // The effect of a step does not show yet.
            let more = window.in_flight + MORE_FOR_AN_ANSWER;
            window.in_flight = if refused { window.in_flight.max(allowed_at_once) } else { more }.min(most);
            window.opens = !refused && window.in_flight < most;
            window.began = Instant::now();
        } else {
            window.attempts += 1.0;
            window.refused += f64::from(u8::from(refused));
            let smallest = if window.refused > 0.0 { SMALLEST_REFUSED_WINDOW } else { SMALLEST_WINDOW };
            if window.attempts >= window.in_flight.max(smallest) {
                window.end(Instant::now(), most);
            }
        }
        self.now.store(as_number(window.in_flight), Ordering::Relaxed);
    }
}

impl Window {
    fn end(&mut self, now: Instant, most: f64) {
        let seconds = now.duration_since(self.began).as_secs_f64().max(1e-6);
        let rate = (self.attempts - self.refused) / seconds;
        if self.refused <= self.attempts * HARMLESS {
            self.in_flight = (self.in_flight + (self.in_flight * GROWTH).max(1.0)).min(most);
            (self.before_the_step, self.up, self.held) = (None, false, 0);
        } else if self.held > 0 {
            self.held -= 1;
        } else {
            let expected = if self.up { 1.0 / NO_LESS } else { NO_LESS };
            let was_wrong = self.before_the_step.is_some_and(|before| rate < before * expected);
            // If no write comes through, fewer in flight are enough.
            self.up = self.up != was_wrong && self.refused < self.attempts;
            // Each step changes the number by one write at least.
            let next = if self.up { (self.in_flight / STEP).ceil() } else { (self.in_flight * STEP).floor() };
            if self.up && next >= most || !self.up && next < 1.0 {
                // A step that a limit cuts short says nothing.
                (self.before_the_step, self.up, self.held) = (None, !self.up, WINDOWS_HELD);
            } else {
                // After a wrong step, the number before it was right, and is kept for a while.
                (self.before_the_step, self.held) = if was_wrong { (None, WINDOWS_HELD) } else { (Some(rate), 0) };
            }
            self.in_flight = next.clamp(1.0, most);
        }
        (self.began, self.attempts, self.refused) = (now, 0.0, 0.0);
    }
}

/// The settings allow 1,024 at most.
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

    /// Answers windows of attempts in a process that already has all that is allowed. Each window has a number of
    /// attempts, the milliseconds that they took, and the number of them that were throttled. Returns how many writes
    /// may be in flight after each window.
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

        // The first throttled answer allows many at once, but not a thousand. A failed one allows no more than there
        // are.
        for (most, answers, at_once) in [(32, 0, 32), (64, 0, 64), (1024, 0, 64), (1024, 4_000, 524)] {
            let [throttled, failed] = [(); 2].map(|()| {
                let pace = Pace::new(NonZeroUsize::new(most).unwrap());
                (0..answers).for_each(|_| pace.answered(false));
                pace
            });
            let before = failed.writes_in_flight();
            throttled.answered(true);
            failed.failed();
            assert_eq!((throttled.writes_in_flight(), failed.writes_in_flight()), (at_once, before));
        }
        // If no more are allowed than a process begins with, the first answer already counts.
        let begins_with_all = Pace::new(NonZeroUsize::new(FIRST_IN_FLIGHT).unwrap());
        (0..2 * FIRST_IN_FLIGHT).for_each(|attempt| begins_with_all.answered(attempt >= 5));
        assert_eq!(begins_with_all.writes_in_flight(), 14);
    }

    #[tokio::test(start_paused = true)]
    async fn without_throttling_all_that_is_allowed_is_in_flight() {
        assert_eq!(after(64, &[(64, 5, 0), (64, 5, 6), (63, 5, 63)]).await, [64, 64, 64]);
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_writes_become_fewer_while_as_many_come_through_and_then_more_again() {
        // Some 50 in 10 ms come through.
        let fewer = [(64, 10, 14), (48, 8, 8), (24, 5, 0), (26, 5, 0)];
        assert_eq!(after(64, &fewer).await, [38, 22, 24, 27]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_after_which_less_comes_through_is_taken_back_and_held() {
        let mut hot_partition = vec![(64, 10, 20); 12];
        hot_partition[1] = (48, 13, 15);
        assert_eq!(after(64, &hot_partition).await, [38, 64, 64, 64, 64, 64, 38, 64, 64, 64, 64, 64]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_recovers_from_few_to_many_if_more_writes_come_through() {
        let pace = Pace::new(NonZeroUsize::new(64).unwrap());
        (0..10_000).for_each(|_| pace.answered(true));
        assert_eq!(pace.writes_in_flight(), 1);
        let mut found = Vec::new();
        for _ in 0..100 {
            let in_flight = pace.writes_in_flight();
            let attempts = in_flight.max(48);
            // Each takes 5 ms, and 3 of 10 are throttled.
            tokio::time::advance(Duration::from_micros((attempts * 5_000 / in_flight) as u64)).await;
            (0..attempts).for_each(|attempt| pace.answered(attempt % 10 < 3));
            found.push(pace.writes_in_flight());
        }
        let late = &found[50..];
        assert!(late.iter().sum::<usize>() > 50 * late.len(), "{found:?}");
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
    async fn while_dynamodb_fails_one_write_is_in_flight_and_soon_all_again_when_it_answers() {
        let pace = Pace::new(NonZeroUsize::new(64).unwrap());
        (0..320).for_each(|_| pace.answered(false));
        (0..600).for_each(|_| pace.failed());
        assert_eq!(pace.writes_in_flight(), 1);
        (0..800).for_each(|_| pace.answered(false));
        assert_eq!(pace.writes_in_flight(), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_between_two_batches_is_not_counted() {
        let pace = Pace::new(NonZeroUsize::new(8).unwrap());
        let window = async |milliseconds| {
            tokio::time::advance(Duration::from_millis(milliseconds)).await;
            (0..48).for_each(|attempt| pace.answered(attempt < 24));
            pace.writes_in_flight()
        };
        assert_eq!(window(10).await, 4);
        tokio::time::advance(Duration::from_secs(60)).await;
        pace.begin();
        assert_eq!(window(10).await, 2);
    }
}
