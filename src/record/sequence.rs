//! The sequence numbers of Kinesis: whole numbers in the order of the shard's records, too long for any integer type.
//!
//! Kept by hand because order and neighbours take some 45 lines, and a crate for big integers would be one more
//! dependency of the function.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a record in its shard, of up to 128 decimal digits. Numbers are ordered by value, and leading zeros
/// make no difference.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SequenceNumber(String);

impl SequenceNumber {
    /// The number that these digits make.
    ///
    /// A record keeps whatever text its event has; only [`SequenceNumber::parse`] insists on digits.
    pub fn new(digits: impl Into<String>) -> Self {
        Self(digits.into())
    }

    /// The number in `text`, or `None` if that is empty or holds anything but digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_number = !text.is_empty() && text.bytes().all(|next| next.is_ascii_digit());
        is_number.then(|| Self::new(text))
    }

    /// Its digits, as they came.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number after it.
    #[must_use]
    pub fn next(&self) -> Self {
        Self(self.step(b'9', b'0', |digit| digit + 1).unwrap_or_else(|| format!("1{}", "0".repeat(self.0.len()))))
    }

    /// The number before it; zero stays zero.
    #[must_use]
    pub fn previous(&self) -> Self {
        Self(self.step(b'0', b'9', |digit| digit - 1).unwrap_or_else(|| "0".to_owned()))
    }

    /// Steps the last digit that is not `full`, and sets the digits after it to `wrapped`. `None` if all are full.
    fn step(&self, full: u8, wrapped: u8, by_one: impl Fn(u8) -> u8) -> Option<String> {
        let mut digits = self.0.as_bytes().to_vec();
        let place = digits.iter().rposition(|digit| *digit != full)?;
        digits[place] = by_one(digits[place]);
        digits[place + 1..].fill(wrapped);
        String::from_utf8(digits).ok()
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.0.trim_start_matches('0'), other.0.trim_start_matches('0'));
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SequenceNumber {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SequenceNumber {}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_value() {
        for (a, b, expected) in [
            ("9", "10", Ordering::Less),
            ("10", "9", Ordering::Greater),
            ("0009", "9", Ordering::Equal),
            ("00000000000000000000000000000000000000000000000000000000000000011", "10", Ordering::Greater),
            ("0", "", Ordering::Equal),
        ] {
            assert_eq!(SequenceNumber::new(a).cmp(&SequenceNumber::new(b)), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_digits_are_a_number() {
        for (text, is_number) in
            [("0", true), ("49590338271490256608559692538361571095", true), ("", false), ("-1", false)]
        {
            assert_eq!(SequenceNumber::parse(text).is_some(), is_number, "{text}");
        }
    }

    #[test]
    fn numbers_of_any_length_have_neighbours() {
        let nines = "9".repeat(56);
        for (number, next) in
            [("0", "1"), ("9", "10"), ("1299", "1300"), (nines.as_str(), &format!("1{}", "0".repeat(56)))]
        {
            assert_eq!(SequenceNumber::new(number).next().as_str(), next);
        }
        for (number, previous) in [("1", "0"), ("0", "0"), ("1300", "1299"), ("100", "099")] {
            assert_eq!(SequenceNumber::new(number).previous().as_str(), previous);
        }
    }
}
