//! Medians, turns, and how figures are shown.

use std::fmt::Write;
use std::time::Duration;

/// The middle one; of an even number, the upper of the two.
pub fn median<T: PartialOrd + Copy>(mut figures: Vec<T>) -> T {
    figures.sort_by(|a, b| a.partial_cmp(b).expect("figures can be compared"));
    figures[figures.len() / 2]
}

/// The places of what is measured side by side, turn by turn: the one that comes first in one turn comes last in the next.
pub fn turns(count: usize, of: usize) -> impl Iterator<Item = usize> {
    (0..count).flat_map(move |turn| (0..of).map(move |place| if turn % 2 == 0 { place } else { of - 1 - place }))
}

/// How many times as much.
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

/// A count with its thousands apart.
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

/// So many, for ratios.
#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^53")]
pub fn float(number: u64) -> f64 {
    number as f64
}

/// One of so many.
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
    /// With what its figures are and how they are measured.
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
            (times(1.044), "1.04"),
            (times(13.96), "14.0"),
            (times(139.6), "140"),
            (count(1_234_567), "1,234,567"),
            (count(999), "999"),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_comes_first_in_one_turn_comes_last_in_the_next() {
        assert_eq!(turns(2, 3).collect::<Vec<_>>(), [0, 1, 2, 2, 1, 0]);
    }
}
