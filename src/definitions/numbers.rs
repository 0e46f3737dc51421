//! Decimal numbers as text: their plain notation, and their order.
//!
//! Kept by hand, because a crate for decimals has a largest number, and these must have none.
//!
//! Invariants: pure; all texts of one number have the same plain notation; no number passes through a floating-point
//! type.

use std::cmp::Ordering;

/// The words that PostgreSQL has for values of number types that are no numbers.
pub const NAN: &str = "NaN";
/// See [`NAN`].
pub const INFINITY: &str = "Infinity";
/// See [`NAN`].
pub const MINUS_INFINITY: &str = "-Infinity";

/// A decimal number in plain notation: without an exponent, a plus sign or superfluous zeros, and `0` for any zero.
/// `None` if the text is no number, or if its plain notation has more than `most_bytes`.
pub fn plain(text: &str, most_bytes: usize) -> Option<String> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (coefficient, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = coefficient.split_once('.').unwrap_or((coefficient, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || !is_digits(exponent.trim_start_matches(['-', '+'])) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let leading_zeros = digits.len() - significant.len();
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let exponent: i64 = exponent.parse().ok().filter(|exponent: &i64| exponent.unsigned_abs() <= most_bytes as u64)?;
    // How many of the digits stand before the point; negative if zeros stand between the point and the digits.
    let before = i64::try_from(whole.len()).ok()? - i64::try_from(leading_zeros).ok()? + exponent;
    let mut plain = String::from(if negative { "-" } else { "" });
    if let Ok(before @ 1..) = usize::try_from(before) {
        let zeros = before.saturating_sub(significant.len());
        let (whole, fraction) = significant.split_at(before.min(significant.len()));
        plain.push_str(whole);
        plain.extend(std::iter::repeat_n('0', zeros));
        if !fraction.is_empty() {
            plain.push('.');
            plain.push_str(fraction);
        }
    } else {
        plain.push_str("0.");
        plain.extend(std::iter::repeat_n('0', usize::try_from(before.unsigned_abs()).ok()?));
        plain.push_str(significant);
    }
    (plain.len() <= most_bytes).then_some(plain)
}

/// Compares two numbers in plain notation as PostgreSQL does: `-Infinity`, the numbers, `Infinity`, `NaN`.
pub fn compare(a: &str, b: &str) -> Ordering {
    let class = |text: &str| match text {
        MINUS_INFINITY => -2,
        NAN => 3,
        INFINITY => 2,
        "0" => 0,
        _ if text.starts_with('-') => -1,
        _ => 1,
    };
    class(a).cmp(&class(b)).then_with(|| match class(a) {
        1 => compare_sizes(a, b),
        -1 => compare_sizes(&b[1..], &a[1..]),
        _ => Ordering::Equal,
    })
}

fn compare_sizes(a: &str, b: &str) -> Ordering {
    let (a_whole, a_fraction) = a.split_once('.').unwrap_or((a, ""));
    let (b_whole, b_fraction) = b.split_once('.').unwrap_or((b, ""));
    let whole = a_whole.len().cmp(&b_whole.len()).then_with(|| a_whole.cmp(b_whole));
    whole.then_with(|| a_fraction.cmp(b_fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_texts_of_a_number_have_one_plain_notation() {
        for (text, expected) in [
            ("0", "0"),
            ("-0.00e9", "0"),
            ("0e99999999999999999999", "0"),
            ("+5", "5"),
            ("007", "7"),
            ("1.50", "1.5"),
            ("-12.5e1", "-125"),
            ("1e3", "1000"),
            ("1.25E1", "12.5"),
            ("1200", "1200"),
            ("0.0012", "0.0012"),
            ("12e-4", "0.0012"),
            ("1e-1", "0.1"),
            ("0010.010", "10.01"),
        ] {
            assert_eq!(plain(text, 20).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", "-", "1.", ".5", "1e", "1e+-", "1e--5", "1 ", "1_0", "0x1", "NaN", "1e20", "1e-20", "1e999999999999"]
        {
            assert_eq!(plain(text, 20), None, "{text}");
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
