//! What has happened so far, and how fast.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many seconds are remembered one by one.
pub const SECONDS: usize = 20;
/// A rate is the mean of so many seconds, and a time is one of the last ones.
const LATELY: Duration = Duration::from_secs(10);

/// All of it.
#[derive(Debug)]
pub struct Figures {
    pub workload: crate::workload::Counts,
    /// Records that Kinesis has taken.
    pub put: Pace,
    /// Records that were read from it.
    pub read: u64,
    /// Records that the mapping is done with.
    pub done: Pace,
    pub batches: u64,
    /// Batches for which the function had an error, or no answer; and what was said last.
    pub failed_batches: u64,
    pub last_failure: Option<String>,
    /// Records that the function asked to be given again.
    pub reported: u64,
    /// Ranges that went to the on-failure queue, with their records.
    pub ranges: u64,
    pub given_up: u64,
    /// From the commit to the view, and from the stream to the view, in seconds, of what the view shows then. What
    /// comes too late or again it does not show.
    pub since_commit: Times,
    pub since_arrival: Times,
    /// As they were when last looked at.
    pub items: u64,
    pub quarantined: u64,
    pub on_failure: u64,
    pub dead_letters: u64,
}

impl Figures {
    pub fn new() -> Self {
        Self {
            workload: crate::workload::Counts::default(),
            put: Pace::new(),
            read: 0,
            done: Pace::new(),
            batches: 0,
            failed_batches: 0,
            last_failure: None,
            reported: 0,
            ranges: 0,
            given_up: 0,
            since_commit: Times::default(),
            since_arrival: Times::default(),
            items: 0,
            quarantined: 0,
            on_failure: 0,
            dead_letters: 0,
        }
    }

    /// What must not be on a machine that is well.
    pub fn failures(&self) -> u64 {
        self.failed_batches + self.reported + self.dead_letters
    }

    /// Records that wait for the function, or are with it.
    pub fn waiting(&self) -> u64 {
        self.put.total().saturating_sub(self.done.total() + self.given_up)
    }
}

/// A count, and how fast it grows.
#[derive(Debug)]
pub struct Pace {
    total: u64,
    began: Instant,
    /// The last full seconds, the oldest first, and the one that is not over.
    seconds: VecDeque<u64>,
    second: u64,
    in_second: u64,
}

impl Pace {
    fn new() -> Self {
        Self { total: 0, began: Instant::now(), seconds: VecDeque::new(), second: 0, in_second: 0 }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn add(&mut self, count: u64) {
        self.pass(self.began.elapsed());
        self.total += count;
        self.in_second += count;
    }

    /// So much time has passed since the beginning.
    fn pass(&mut self, time: Duration) {
        while self.second < time.as_secs() {
            self.second += 1;
            self.seconds.push_back(std::mem::take(&mut self.in_second));
            if self.seconds.len() > SECONDS {
                self.seconds.pop_front();
            }
        }
    }

    /// The mean of the last seconds.
    pub fn a_second(&mut self) -> u64 {
        self.pass(self.began.elapsed());
        let last = self.seconds.iter().rev().take(usize::try_from(LATELY.as_secs()).unwrap_or(1));
        let (seconds, sum) = last.fold((0, 0), |(seconds, sum), count| (seconds + 1, sum + count));
        sum / seconds.max(1)
    }

    /// The last seconds, a bar each.
    pub fn curve(&mut self) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        self.pass(self.began.elapsed());
        let most = self.seconds.iter().copied().max().unwrap_or_default().max(1);
        let bar = |count: &u64| BARS[usize::try_from(count * (BARS.len() as u64 - 1) / most).unwrap_or_default()];
        self.seconds.iter().map(bar).collect()
    }
}

/// Times, of which the last ones are looked at alone too.
#[derive(Debug, Default)]
pub struct Times {
    all: Vec<f64>,
    lately: VecDeque<(Instant, f64)>,
}

impl Times {
    pub fn add(&mut self, seconds: f64) {
        let now = Instant::now();
        self.all.push(seconds);
        self.lately.push_back((now, seconds));
        while self.lately.front().is_some_and(|(at, _)| now - *at > LATELY) {
            self.lately.pop_front();
        }
    }

    /// The 50th and the 99th in a hundred of the last times; none, where there are none.
    pub fn lately(&self) -> Option<(f64, f64)> {
        percentiles(self.lately.iter().filter(|(at, _)| at.elapsed() <= LATELY).map(|(_, time)| *time).collect())
    }

    /// The same of all times.
    pub fn in_all(&self) -> Option<(f64, f64)> {
        percentiles(self.all.clone())
    }
}

fn percentiles(mut times: Vec<f64>) -> Option<(f64, f64)> {
    times.sort_by(f64::total_cmp);
    let of = |percent: usize| times.get((times.len() * percent).div_ceil(100).checked_sub(1)?).copied();
    Some((of(50)?, of(99)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_the_mean_of_the_last_full_seconds() {
        let mut pace = Pace::new();
        // Nothing passes by itself in so short a time.
        pace.began = Instant::now() + Duration::from_secs(3600);
        for second in 1..=12 {
            pace.total += second;
            pace.in_second += second;
            pace.pass(Duration::from_secs(second));
        }
        pace.in_second += 1000;
        assert_eq!((pace.total(), pace.a_second()), (78, 7));
        assert_eq!(pace.curve().chars().count(), 12);
        assert!(pace.curve().starts_with('▁') && pace.curve().ends_with('█'));
        pace.pass(Duration::from_secs(100));
        assert_eq!((pace.a_second(), pace.curve().chars().count()), (0, SECONDS));
    }

    #[test]
    fn percentiles_are_times_that_there_were() {
        assert_eq!(percentiles(Vec::new()), None);
        assert_eq!(percentiles(vec![5.0]), Some((5.0, 5.0)));
        assert_eq!(percentiles((1..=200).rev().map(f64::from).collect()), Some((100.0, 198.0)));
    }
}
