//! A sign of life for long runs: a bar if somebody watches the terminal, else a line now and then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// The progress of a run.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    last_line: Instant,
    is_seen: bool,
}

impl Progress {
    /// Starts a run of this number of steps.
    pub fn start(steps: u64) -> Self {
        let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {percent:>3}%  {msg}");
        let bar = ProgressBar::new(steps).with_style(style.expect("a template of this file's own"));
        let now = Instant::now();
        Self { bar, started: now, last_line: now, is_seen: std::io::stderr().is_terminal() }
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows that this number of steps is done, with a message.
    pub fn show(&mut self, step: u64, message: impl FnOnce() -> String) {
        self.bar.set_position(step);
        if self.is_seen {
            self.bar.set_message(message());
        } else if self.last_line.elapsed() >= BETWEEN_LINES {
            self.last_line = Instant::now();
            eprintln!("{:>4} s  {}", self.elapsed().as_secs(), message());
        }
    }

    /// Ends the run and removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
