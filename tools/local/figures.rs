//! Counts and times of the run so far, and its speed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many seconds are remembered one by one.
pub const SECONDS: usize = 20;
/// A rate is the mean over this last time. The recent times are those that were taken within it.
const LATELY: Duration = Duration::from_secs(10);

/// All figures of a run.
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
    /// Batches for which the function had an error or no answer, and the last of these errors.
    pub failed_batches: u64,
    pub last_failure: Option<String>,
    /// Records that the function asked to be given again.
    pub reported: u64,
    /// Ranges that went to the on-failure queue, with their records.
    pub ranges: u64,
    pub given_up: u64,
    /// The seconds from the commit to the view, and from the stream to the view. They are those of changes that the
    /// view shows then. A record that comes too late or again does not count.
    pub since_commit: Times,
    pub since_arrival: Times,
    /// The counts of the last look.
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

    /// The number of events that must not happen on a machine that is well.
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
    /// The last full seconds, the oldest first, and then the second that is not over.
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

    /// Goes on to this time after the beginning.
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

    /// The last seconds as a curve with a bar for each.
    pub fn curve(&mut self) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        self.pass(self.began.elapsed());
        let most = self.seconds.iter().copied().max().unwrap_or_default().max(1);
        let bar = |count: &u64| BARS[usize::try_from(count * (BARS.len() as u64 - 1) / most).unwrap_or_default()];
        self.seconds.iter().map(bar).collect()
    }
}

/// Times. The last ones are also looked at alone.
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

    /// The 50th and the 99th percentile of the last times. `None` if there are no times.
    pub fn lately(&self) -> Option<(f64, f64)> {
        percentiles(self.lately.iter().filter(|(at, _)| at.elapsed() <= LATELY).map(|(_, time)| *time).collect())
    }

    /// The same percentiles of all times.
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
        // The beginning lies in the future, so no second passes by itself.
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
