//! The targets, beside the figures of this run.

use crate::figures::{Section, percent, signed, times};

/// A target. The order is the document's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    FirstDelivery,
    Redelivery,
    OwnCpu,
    OwnInstructions,
    Python,
    Node,
    Client,
    Wall,
    CreatesOfInserts,
    CreatesElsewhere,
    Throttled5,
    Throttled30,
    Goodput,
    Reported,
    Init,
    FirstBatch,
    WithoutFile,
    FullDefinition,
    StartOfFile,
    StartOfTables,
    Zip,
    Memory,
}

/// A bound, and how figures are shown beside it.
enum Bound {
    AtMost(f64, fn(f64) -> String),
    AtLeast(f64, fn(f64) -> String),
}
use Bound::{AtLeast, AtMost};

impl Bound {
    fn is_kept_by(&self, figure: f64) -> bool {
        match self {
            AtMost(bound, _) => figure <= *bound,
            AtLeast(bound, _) => figure >= *bound,
        }
    }

    fn shown(&self, figure: f64) -> String {
        let (AtMost(_, shown) | AtLeast(_, shown)) = self;
        shown(figure)
    }
}

impl Target {
    fn bound(self) -> (&'static str, Bound) {
        let number = |figure: f64| format!("{figure:.0}");
        let megabytes = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
        match self {
            Self::FirstDelivery => ("write units a row, first delivery", AtMost(1.0, times)),
            Self::Redelivery => ("write units of the same batch again", AtMost(0.0, number)),
            Self::OwnCpu => {
                ("the function's own CPU beyond the writes, as a share of the SDK's PutItem", AtMost(0.1, percent))
            }
            Self::OwnInstructions => ("the same in instructions", AtMost(0.1, percent)),
            Self::Python => ("CPU of the handlers in Python, with dsql-view as 1", AtLeast(10.0, times)),
            Self::Node => ("CPU of the handler in Node.js, with dsql-view as 1", AtLeast(5.0, times)),
            Self::Client => {
                ("CPU of PutItem with dsql-view's client, with the SDK's default client as 1", AtMost(2.0 / 3.0, times))
            }
            Self::Wall => ("wall time of 1,000 rows at 5 ms, with the ideal as 1", AtMost(1.3, times)),
            Self::CreatesOfInserts => {
                ("`BATCHED_CREATES` with inserts: CPU and wall time, with the setting off as 1", AtMost(0.5, times))
            }
            Self::CreatesElsewhere => {
                ("the same if rows are found: the larger of both (5 % are noise)", AtMost(1.05, times))
            }
            Self::Throttled5 => ("wall time with 5 % throttled, with 0 % as 1", AtMost(3.0, times)),
            Self::Throttled30 => ("the same with 30 %", AtMost(8.0, times)),
            Self::Goodput => ("goodput over a rate", AtLeast(0.95, percent)),
            Self::Reported => ("records reported while DynamoDB throttles", AtMost(0.0, number)),
            Self::Init => ("init, with 1.5 times hello world's plus a round trip as 1", AtMost(1.0, times)),
            Self::FirstBatch => ("wall time of a first batch, with a warm one as 1", AtMost(2.0, times)),
            Self::WithoutFile => (
                "a change without a definitions file, with the version before there were any as 1",
                AtMost(1.03, times),
            ),
            Self::FullDefinition => ("a change with a full definition, without a file as 1", AtMost(1.25, times)),
            Self::StartOfFile => ("init with a file of one table, less that without a file", AtMost(0.001, signed)),
            Self::StartOfTables => {
                ("init with 5,000 tables of one view table, with one table as 1", AtMost(1.5, times))
            }
            Self::Zip => ("zip", AtMost(3e6, megabytes)),
            Self::Memory => ("memory with full payloads", AtMost(40e6, megabytes)),
        }
    }

    /// Its row, from the measured figures.
    fn row(self, figures: &[Figure]) -> Vec<String> {
        let (what, bound) = self.bound();
        let target = match &bound {
            AtMost(most, _) if *most == 0.0 => bound.shown(*most),
            AtMost(most, _) => format!("≤ {}", bound.shown(*most)),
            AtLeast(least, _) => format!("≥ {}", bound.shown(*least)),
        };
        let shown = figures.iter().map(|of| format!("{} {}", bound.shown(of.value), of.of).trim_end().to_owned());
        let is_reached = figures.iter().all(|of| !of.counts || bound.is_kept_by(of.value));
        let verdict = if is_reached { "reached" } else { "[missed](architecture.md#missed-targets)" };
        vec![what.to_owned(), target, shown.collect::<Vec<_>>().join(", "), verdict.to_owned()]
    }
}

/// A figure that was measured.
struct Figure {
    target: Target,
    /// The case that it belongs to, if a target has several.
    of: String,
    value: f64,
    /// Whether the target is missed if this figure misses it.
    counts: bool,
}

/// The figures of a run for the targets.
#[derive(Default)]
pub struct Targets(Vec<Figure>);

impl Targets {
    /// Notes a figure, with its case if a target has several.
    pub fn note(&mut self, target: Target, of: impl Into<String>, value: f64) {
        self.0.push(Figure { target, of: of.into(), value, counts: true });
    }

    /// Notes the figure of another program, for comparison.
    pub fn note_beside(&mut self, target: Target, of: impl Into<String>, value: f64) {
        self.0.push(Figure { target, of: of.into(), value, counts: false });
    }

    /// Notes only the worst of the figures.
    pub fn note_worst(&mut self, target: Target, figures: impl IntoIterator<Item = (String, f64)>) {
        let badness = |figure: f64| if matches!(target.bound().1, AtMost(..)) { figure } else { -figure };
        let worst = figures.into_iter().max_by(|(_, a), (_, b)| badness(*a).total_cmp(&badness(*b)));
        if let Some((of, figure)) = worst {
            self.note(target, of, figure);
        }
    }

    /// The section, if anything was measured.
    pub fn section(mut self) -> Option<String> {
        self.0.sort_by_key(|figure| figure.target);
        let of_targets = self.0.chunk_by(|a, b| a.target == b.target);
        let rows: Vec<_> = of_targets.map(|figures| figures[0].target.row(figures)).collect();
        if rows.is_empty() {
            return None;
        }
        let mut section = Section::new(
            "Targets",
            "This table compares the figures of the sections below with their targets. Figures of several turns are \
             medians. If a section has many figures for a target, the worst one stands here. MB are millions of \
             bytes. [Missed targets](architecture.md#missed-targets) explains each target that is missed.",
        );
        section.table(&["", "target", "measured", ""], rows);
        Some(section.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_missed_by_one_figure_that_misses_it() {
        let mut targets = Targets::default();
        targets.note(Target::Zip, "", 5_210_000.0);
        targets.note(Target::OwnCpu, "at 0 ms", 0.0999);
        targets.note(Target::OwnCpu, "at 5 ms", 0.12);
        targets.note(Target::Redelivery, "", 0.0);
        targets.note(Target::Wall, "", 1.25);
        targets.note_beside(Target::Wall, "by hand", 1.31);
        targets.note_worst(Target::Goodput, [("one".to_owned(), 0.97), ("four".to_owned(), 0.9463)]);
        targets.note_worst(Target::FirstBatch, [("of 1".to_owned(), 1.2), ("of 100".to_owned(), 1.7)]);
        let text = targets.section().unwrap();
        let rows: Vec<&str> =
            text.lines().filter(|line| line.contains("reached |") || line.contains("[missed]")).collect();
        assert_eq!(rows.len(), 6, "{text}");
        for (row, parts) in rows.iter().zip([
            ["| 0 | 0 |", "| reached |"],
            ["≤ 10.0 % | 10.0 % at 0 ms, 12.0 % at 5 ms |", "[missed]"],
            ["≤ 1.30 | 1.25, 1.31 by hand |", "| reached |"],
            ["≥ 95.0 % | 94.6 % four |", "[missed]"],
            ["≤ 2.00 | 1.70 of 100 |", "| reached |"],
            ["≤ 3.0 MB | 5.2 MB |", "[missed]"],
        ]) {
            assert!(parts.iter().all(|part| row.contains(part)), "expected {parts:?}, found {row}");
        }
    }

    #[test]
    fn nothing_measured_is_no_table() {
        assert!(Targets::default().section().is_none());
    }
}
