//! Medians and quarters, turns, and how figures are shown.

use std::fmt::{self, Write};
use std::time::Duration;

/// The figures of the turns: the median, and the two quartiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    /// The spread of at least one figure; interpolates between the two nearest figures.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            let (place, rest) = ((figures.len() - 1) * quarter / 4, (figures.len() - 1) * quarter % 4);
            let next = figures[(place + 1).min(figures.len() - 1)];
            figures[place] + (next - figures[place]) * [0.0, 0.25, 0.5, 0.75][rest]
        };
        Self { low: at(1), median: at(2), high: at(3) }
    }

    /// The ratios of the first to the second. Each is from one turn, which measures both side by side.
    pub fn of_ratios(a: impl IntoIterator<Item = Duration>, b: impl IntoIterator<Item = Duration>) -> Self {
        Self::of(a.into_iter().zip(b).map(|(a, b)| ratio(a, b)))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} to {})", times(self.median), times(self.low), times(self.high))
    }
}

/// The median.
pub fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    Duration::from_secs_f64(Spread::of(times.into_iter().map(|time| time.as_secs_f64())).median)
}

/// The places of the programs in the order in which they run, turn by turn. The first of one turn is the last of the
/// next.
pub fn turns(count: usize, of: usize) -> impl Iterator<Item = usize> {
    (0..count).flat_map(move |turn| (0..of).map(move |place| if turn % 2 == 0 { place } else { of - 1 - place }))
}

/// How many times as much the first is.
pub fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// A ratio with three digits at most.
pub fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 100.0 => format!("{ratio:.0}"),
        ratio if ratio >= 10.0 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.2}"),
    }
}

/// A time with three digits.
pub fn time(time: Duration) -> String {
    let (value, unit) = match time.as_secs_f64() {
        seconds if seconds >= 0.9995 => (seconds, "s"),
        seconds if seconds >= 0.000_999_5 => (seconds * 1e3, "ms"),
        seconds => (seconds * 1e6, "µs"),
    };
    let digits = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

/// A time in seconds that may be negative.
pub fn signed(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "−" } else { "" };
    format!("{sign}{}", time(Duration::from_secs_f64(seconds.abs())))
}

/// A count with separated thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count as a floating-point number, for ratios.
#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^53")]
pub fn float(number: u64) -> f64 {
    number as f64
}

/// A share, with one decimal, so that rounding does not reach a target.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Memory; Linux counts it in units of 1,024 bytes.
pub fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / 1_048_576.0)
}

/// Millions of bytes.
pub fn megabytes(bytes: f64) -> String {
    format!("{:.2} MB", bytes / 1e6)
}

/// The time of one, from the time of all.
pub fn each(time: Duration, count: u64) -> Duration {
    time.div_f64(float(count))
}

/// A line through two points, at `x`.
pub fn line((x0, y0): (f64, f64), (x1, y1): (f64, f64), x: f64) -> f64 {
    y0 + (y1 - y0) * (x - x0) / (x1 - x0)
}

/// A section of the document.
pub struct Section(String);

impl Section {
    /// A section with a text on the figures and on how they are measured.
    pub fn new(title: &str, how: &str) -> Self {
        Self(format!("## {title}\n\n{how}\n"))
    }

    /// Adds a paragraph.
    pub fn says(&mut self, text: &str) {
        write!(self.0, "\n{text}\n").expect("writing to a string");
    }

    /// Adds a table.
    pub fn table(&mut self, heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        writeln!(self.0, "\n| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len())).expect("writing to a string");
        for row in rows {
            writeln!(self.0, "| {} |", row.join(" | ")).expect("writing to a string");
        }
    }

    /// Its text.
    pub fn text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (found, expected) in [
            (time(Duration::from_micros(78_125)), "78.1 ms"),
            (time(Duration::from_nanos(999_600)), "1.00 ms"),
            (time(Duration::from_nanos(64_230)), "64.2 µs"),
            (time(Duration::from_millis(6_965)), "6.96 s"),
            (time(Duration::from_millis(127)), "127 ms"),
            (signed(-0.000_25), "−250 µs"),
            (times(1.044), "1.04"),
            (times(13.96), "14.0"),
            (times(139.6), "140"),
            (count(1_234_567), "1,234,567"),
            (count(999), "999"),
            (percent(0.9463), "94.6 %"),
            (mebibytes(40_265_318.0), "38.4 MiB"),
            (megabytes(40_265_318.0), "40.27 MB"),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn ratios_are_of_neighbours_and_a_quarter_lies_on_either_side() {
        let milliseconds = |times: [u64; 5]| times.map(Duration::from_millis);
        // The ratio of the medians, 12 to 10, would be 1.2.
        let ratios = Spread::of_ratios(milliseconds([12, 5, 12, 60, 33]), milliseconds([10, 10, 8, 30, 30]));
        assert_eq!(ratios, Spread { low: 1.1, median: 1.2, high: 1.5 });
        assert_eq!(ratios.to_string(), "1.20 (1.10 to 1.50)");
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), Spread { low: 1.75, median: 2.5, high: 3.25 });
        assert_eq!(Spread::of([7.0]), Spread { low: 7.0, median: 7.0, high: 7.0 });
    }

    #[test]
    fn what_comes_first_in_one_turn_comes_last_in_the_next() {
        assert_eq!(turns(2, 3).collect::<Vec<_>>(), [0, 1, 2, 2, 1, 0]);
    }
}
