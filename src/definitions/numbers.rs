//! Decimal numbers as text: their plain notation, their order, and their size in DynamoDB.
//!
//! Kept by hand, because a crate for decimals has a largest number and these must have none, and it is slower.
//!
//! Invariants: pure; all texts of one number have the same plain notation; no number passes through a floating-point
//! type.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The words that PostgreSQL has for values of number types that are no numbers.
pub const NAN: &str = "NaN";
/// See [`NAN`].
pub const INFINITY: &str = "Infinity";
/// See [`NAN`].
pub const MINUS_INFINITY: &str = "-Infinity";

/// Whether a text is a number as JSON writes it, such as `-12.50` or `1e3`.
pub(crate) fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (coefficient, exponent) = match text.bytes().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = match coefficient.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (coefficient, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// The order of two numbers, as JSON writes them, or words, as PostgreSQL has it: `-Infinity`, the numbers, `Infinity`,
/// `NaN`.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let rank = |text: &str| match text {
        MINUS_INFINITY => 0,
        INFINITY => 2,
        NAN => 3,
        _ => 1,
    };
    match (rank(left), rank(right)) {
        (1, 1) => compare_numbers(left, right),
        (left, right) => left.cmp(&right),
    }
}

fn compare_numbers(left: &str, right: &str) -> Ordering {
    let (a, b) = (Decimal::read(left), Decimal::read(right));
    let sign = |number: &Decimal| match (number.digits, number.negative) {
        (0, _) => 0,
        (_, true) => -1,
        (_, false) => 1,
    };
    sign(&a).cmp(&sign(&b)).then_with(|| {
        // Neither has zeros at its end, so of two numbers that begin alike, the longer one is further from zero.
        let magnitude = a.power.cmp(&b.power).then_with(|| a.significant(left).cmp(b.significant(right)));
        if a.negative { magnitude.reverse() } else { magnitude }
    })
}

/// A JSON number in plain notation: without an exponent or superfluous zeros, and `0` for any zero. All texts of one
/// number become the same text. `None` if that would have more than `most_bytes`.
pub(crate) fn plain_notation(json: &str, most_bytes: usize) -> Option<Cow<'_, str>> {
    let is_plain_integer = !json.contains(['.', 'e', 'E']) && json != "-0";
    if is_plain_integer {
        return (json.len() <= most_bytes).then_some(Cow::Borrowed(json));
    }
    let decimal = Decimal::read(json);
    let Decimal { negative, digits, power } = decimal;
    if digits == 0 {
        return Some(Cow::Borrowed("0"));
    }
    let significant: String = decimal.significant(json).map(char::from).collect();
    let zeros = |count: i64| {
        let count = usize::try_from(count).ok().filter(|count| *count <= most_bytes)?;
        Some("0".repeat(count))
    };
    let mut text = String::from(if negative { "-" } else { "" });
    if power < 0 {
        text.push_str("0.");
        text.push_str(&zeros((-1_i64).saturating_sub(power))?);
        text.push_str(&significant);
    } else {
        let whole = usize::try_from(power).ok()?.checked_add(1)?;
        if whole >= digits {
            text.push_str(&significant);
            text.push_str(&zeros(count(whole) - count(digits))?);
        } else {
            text.push_str(&significant[..whole]);
            text.push('.');
            text.push_str(&significant[whole..]);
        }
    }
    (text.len() <= most_bytes).then_some(Cow::Owned(text))
}

/// The significant digits of a decimal number, without the zeros at both ends, as DynamoDB counts them.
pub(crate) struct Decimal {
    pub(crate) negative: bool,
    /// The number of significant digits; 0 for zero.
    pub(crate) digits: usize,
    /// The power of ten of the first digit.
    pub(crate) power: i64,
}

impl Decimal {
    /// Reads a number as JSON writes it.
    pub(crate) fn read(json: &str) -> Self {
        let (negative, json) = json.strip_prefix('-').map_or((false, json), |rest| (true, rest));
        let (coefficient, exponent) = match json.bytes().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(place) => (&json[..place], &json[place + 1..]),
            None => (json, "0"),
        };
        // An exponent that does not fit an i64 is out of DynamoDB's range, and so is its replacement.
        let exponent: i64 =
            exponent.parse().unwrap_or(if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 });
        let (whole, fraction) = coefficient.split_once('.').unwrap_or((coefficient, ""));

        let all = || whole.bytes().chain(fraction.bytes());
        let Some(first) = all().position(|digit| digit != b'0') else {
            return Self { negative, digits: 0, power: 0 };
        };
        let trailing = fraction.bytes().rev().chain(whole.bytes().rev()).take_while(|digit| *digit == b'0').count();
        let digits = whole.len() + fraction.len() - first - trailing;
        let power = exponent.saturating_add(count(whole.len()) - 1 - count(first));
        Self { negative, digits, power }
    }

    /// The significant digits of the number, which was read from `json`.
    fn significant(&self, json: &str) -> impl Iterator<Item = u8> {
        // The digits of the exponent come after all of these.
        json.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').take(self.digits)
    }

    /// The bytes that DynamoDB counts: one for the number, one for each two significant digits before the point and
    /// after it, and one for a minus sign.
    pub(crate) fn size(&self) -> usize {
        if self.digits == 0 {
            return 1;
        }
        let before_the_point = usize::try_from(self.power + 1).unwrap_or(0).min(self.digits);
        let after_the_point = self.digits - before_the_point;
        1 + before_the_point.div_ceil(2) + after_the_point.div_ceil(2) + usize::from(self.negative)
    }
}

/// A number of bytes in memory as an i64, which always holds it.
pub(crate) fn count(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers, with their plain notation and their DynamoDB type.
    const NUMBERS: &str = include_str!("../../tests/golden/numbers.tsv");

    #[test]
    fn one_number_has_one_plain_text() {
        for (texts, expected) in [
            (&["100", "1e2", "1E+2", "100.0", "10.0e1", "1000e-1"][..], "100"),
            (&["0", "-0", "0.0", "-0.00", "0e99", "-0e-99"], "0"),
            (&["-1.5", "-1.50", "-15e-1", "-0.15E1"], "-1.5"),
            (&["0.001", "1e-3", "0.0010", "0.1e-2"], "0.001"),
            (&["0.1", "1e-1", "0.10"], "0.1"),
            (&["12.034", "12034e-3", "0.0120340e3"], "12.034"),
            (&["9223372036854775807"], "9223372036854775807"),
            (&["3.4028235e38", "340282350000000000000000000000000000000"], "340282350000000000000000000000000000000"),
        ] {
            for text in texts {
                assert_eq!(plain_notation(text, 2048).as_deref(), Some(expected), "{text}");
            }
        }
        for row in NUMBERS.lines().skip(1) {
            let [json, expected, _] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row:?}") };
            assert_eq!(plain_notation(json, 2048).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn a_number_that_would_be_too_long_in_plain_notation_is_not_written_out() {
        assert_eq!(plain_notation("1e2047", 2048).map(|text| text.len()), Some(2048));
        assert_eq!(plain_notation("1e-2046", 2048).map(|text| text.len()), Some(2048));
        for json in ["1e2048", "1e-2047", "-1e2047", "1e9999999999", "-1e-99999999999999999999", &"1".repeat(2049)] {
            assert_eq!(plain_notation(json, 2048), None, "{json}");
        }
    }

    #[test]
    fn numbers_are_ordered_by_sign_power_and_digits() {
        // Each row has texts of one number, and comes before the next.
        let rows: [&[&str]; 20] = [
            &["-1e99999999999999999999"],
            &["-1e2", "-100", "-100.0"],
            &["-99.99"],
            &["-12"],
            &["-10", "-1e1", "-1.0e+1"],
            &["-9"],
            &["-0.001", "-1e-3"],
            &["-1e-400"],
            &["0", "-0", "0.00", "0e99", "-0e-99"],
            &["1e-400"],
            &["0.001", "1e-3", "0.0010", "0.1E-2"],
            &["0.0011"],
            &["0.01"],
            &["9", "9.000", "0.9e1"],
            &["10", "1e1"],
            &["10.000000000000000000000000000000000000000000001"],
            &["9007199254740992", "9.007199254740992e15"],
            &["9007199254740993"],
            &[
                "12345678901234567890123456789012345678901234567890",
                "1234567890123456789012345678901234567890123456789e1",
            ],
            &["12345678901234567890123456789012345678901234567891"],
        ];
        for (place, left) in rows.iter().enumerate() {
            for (other, right) in rows.iter().enumerate() {
                for (left, right) in left.iter().flat_map(|left| right.iter().map(move |right| (left, right))) {
                    assert_eq!(compare_numbers(left, right), place.cmp(&other), "{left} and {right}");
                }
            }
        }
    }

    #[test]
    fn numbers_are_ordered_as_in_postgresql() {
        let order =
            ["-Infinity", "-100", "-12.5", "-12", "-0.5", "0", "0.05", "0.5", "9", "9.1", "10", "Infinity", "NaN"];
        for (a_place, a) in order.iter().enumerate() {
            for (b_place, b) in order.iter().enumerate() {
                assert_eq!(compare(a, b), a_place.cmp(&b_place), "{a} {b}");
            }
        }
    }
}
