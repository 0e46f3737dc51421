//! Shows a run while it lasts. If somebody looks on, it draws some lines anew. Otherwise it prints a line now and then.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use dsql_view_support::table;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::figures::{Figures, Pace, SECONDS, Times};
use crate::settings::Settings;

const BETWEEN_DRAWINGS: Duration = Duration::from_millis(250);
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// The phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Changes are made.
    Running,
    /// No more changes are made, and the run waits for the records on their way.
    Draining,
}

/// The view of a run.
pub struct Screen {
    settings: Settings,
    began: Instant,
    /// `None` if nobody looks on.
    lines: Option<ProgressBar>,
}

impl Screen {
    pub fn start(settings: Settings) -> Self {
        let lines = std::io::stdout().is_terminal().then(|| {
            let length = settings.duration.map(|duration| duration.as_secs());
            // The first line is empty. A terminal writes ^C behind the last line, which moves all lines by one, and
            // leaves the first where it was.
            let template = if length.is_some() { "\n{prefix}  {bar:40}\n{msg}" } else { "\n{prefix}\n{msg}" };
            let style = ProgressStyle::with_template(template).expect("a template of this file's own");
            ProgressBar::with_draw_target(length, ProgressDrawTarget::stdout()).with_style(style)
        });
        Self { settings, began: Instant::now(), lines }
    }

    /// Shows the figures, for ever.
    pub async fn show(&self, figures: &RefCell<Figures>, phase: impl Fn() -> Phase) -> Infallible {
        let pause = if self.lines.is_some() { BETWEEN_DRAWINGS } else { BETWEEN_LINES };
        let mut tick = tokio::time::interval(pause);
        tick.tick().await;
        loop {
            tick.tick().await;
            self.draw(&mut figures.borrow_mut(), phase());
        }
    }

    fn draw(&self, figures: &mut Figures, phase: Phase) {
        let passed = self.began.elapsed();
        let Some(lines) = &self.lines else { return println!("{}", line(figures, passed, phase)) };
        let whole = self.settings.duration.map_or(String::new(), |whole| format!(" of {}", whole.as_secs()));
        lines.set_position(passed.as_secs());
        lines.set_prefix(named("time", &format!("{:>8}{whole} s", passed.as_secs())));
        lines.set_message(text(figures, phase));
    }

    /// Removes the lines at the end.
    pub fn finish(self) {
        self.lines.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// A line with its name in bold.
fn named(name: &str, line: &str) -> String {
    format!("\x1b[1m{name:10}\x1b[0m {line}")
}

/// All lines except the time's, each of at most 80 characters.
fn text(figures: &mut Figures, phase: Phase) -> String {
    let workload = figures.workload;
    let pace = |pace: &mut Pace| {
        let (total, a_second, curve) = (pace.total(), pace.a_second(), pace.curve());
        format!("{total:>8} {a_second:>6}/s  {curve:>SECONDS$}")
    };
    let (stream, done) = (pace(&mut figures.put), pace(&mut figures.done));
    let redriven = figures.ranges.saturating_sub(figures.on_failure);
    let lines = [
        named("stream", &format!("{stream}  {} too late, {} again", workload.overtaken, workload.again)),
        named("function", &format!("{done}  {} waiting", figures.waiting())),
        named("freshness", &format!("{}  from the commit to the view", percentiles(&figures.since_commit))),
        named("", &format!("{}  from the stream to the view", percentiles(&figures.since_arrival))),
        named("view", &format!("{:>8} items", figures.items)),
        named("aside", &format!("{:>8} in quarantine, {redriven} batches redriven", figures.quarantined)),
        named("failures", &format!("{:>8} {}", figures.failures(), failures(figures))),
        match phase {
            Phase::Running => "Ctrl-C ends it, with the comparison.",
            Phase::Draining => "No more changes: waiting for what is on its way. Ctrl-C ends it at once.",
        }
        .to_owned(),
    ];
    lines.join("\n")
}

fn failures(figures: &Figures) -> String {
    let Figures { failed_batches, reported, dead_letters, .. } = figures;
    format!("({failed_batches} batches, {reported} reported records, {dead_letters} dead letters)")
}

/// All figures in one line.
fn line(figures: &mut Figures, passed: Duration, phase: Phase) -> String {
    let phase = if phase == Phase::Draining { "; no more changes" } else { "" };
    format!(
        "{:>4} s  {} records in the stream, {}/s; {} done with, {}/s; freshness {}; {} items; {} failures{phase}",
        passed.as_secs(),
        figures.put.total(),
        figures.put.a_second(),
        figures.done.total(),
        figures.done.a_second(),
        percentiles(&figures.since_commit),
        figures.items,
        figures.failures(),
    )
}

fn percentiles(times: &Times) -> String {
    times.lately().map_or(String::new(), |(p50, p99)| format!("p50 {p50:.1} s, p99 {p99:.1} s"))
}

/// The figures of the whole run.
pub fn summary(figures: &Figures, compared: usize, tombstones: usize, differences: usize) -> String {
    let workload = figures.workload;
    let milliseconds = |times: &Times| times.in_all().unwrap_or_default();
    let (commit, arrival) = (milliseconds(&figures.since_commit), milliseconds(&figures.since_arrival));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of a run, in milliseconds")]
    let in_milliseconds = |seconds: f64| (seconds.max(0.0) * 1000.0) as u64;
    table::figures(&[
        ("changes committed", workload.changes),
        ("  in pieces", workload.split),
        ("  of rows over 400 KB", workload.large),
        ("records in the stream", figures.put.total()),
        ("  behind a newer change of their row", workload.overtaken),
        ("  that came again", workload.again),
        ("  of tables that are not configured", workload.elsewhere),
        ("  that hold no change (poison)", workload.poison),
        ("records done with, by the mapping", figures.done.total()),
        ("records given up, for the redrive function", figures.given_up),
        ("batches", figures.batches),
        ("  that failed", figures.failed_batches),
        ("records reported, to come again", figures.reported),
        ("freshness from the commit, p50, ms", in_milliseconds(commit.0)),
        ("freshness from the commit, p99, ms", in_milliseconds(commit.1)),
        ("freshness from the stream, p50, ms", in_milliseconds(arrival.0)),
        ("freshness from the stream, p99, ms", in_milliseconds(arrival.1)),
        ("items compared", compared as u64),
        ("  that are tombstones", tombstones as u64),
        ("in the quarantine", figures.quarantined),
        ("dead letters", figures.dead_letters),
        ("differences", differences as u64),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_fit_a_terminal_of_80_columns() {
        let mut figures = Figures::new();
        figures.put.add(123_456);
        figures.done.add(123_450);
        (figures.workload.overtaken, figures.workload.again) = (12_345, 12_345);
        (figures.items, figures.quarantined, figures.ranges) = (123_456, 1_234, 123);
        (figures.failed_batches, figures.reported, figures.dead_letters) = (123, 12_345, 12);
        figures.since_commit.add(123.4);
        for phase in [Phase::Running, Phase::Draining] {
            for line in text(&mut figures, phase).lines() {
                let shown = line.replace("\x1b[1m", "").replace("\x1b[0m", "");
                assert!(shown.chars().count() <= 80, "{shown}");
            }
        }
    }
}
