//! JSON values as DynamoDB attribute values: the mapping, the sizes and the limits.
//!
//! | JSON | DynamoDB |
//! |---|---|
//! | string | S |
//! | number | N, digit for digit; S with the same text where N cannot hold it |
//! | boolean | BOOL |
//! | null | left out of a row; NULL within an array or object |
//! | array, object | L, M |
//!
//! Invariants: pure; no number passes through a floating-point type; a value is parsed straight into its attribute
//! value, without a tree of its own; recursion ends at [`DEEPEST_NESTING`].

use std::collections::HashMap;
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::envelope::{self, Text};

/// DynamoDB's limit for an item with the names of its attributes, in bytes.
pub const LARGEST_ITEM: usize = 409_600;

/// DynamoDB's limit for the name of an attribute that is no key, in bytes; it takes none without a name.
pub const LONGEST_NAME: usize = 65_535;

/// How many levels of lists and maps DynamoDB stores in one attribute, the innermost value included.
pub const DEEPEST_NESTING: usize = 32;

/// DynamoDB's limits for a number: significant digits, and powers of ten of the first digit.
const MOST_DIGITS: usize = 38;
const SMALLEST_POWER: i64 = -130;
const LARGEST_POWER: i64 = 125;

/// Why a JSON value has no attribute value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueError {
    /// It nests deeper than [`DEEPEST_NESTING`].
    TooDeep,
    /// It is not JSON after all: a string with half a surrogate pair.
    NotJson,
    /// An object in it has a member with an empty name.
    EmptyName,
}

/// The attribute value of a column, or `None` for null.
///
/// # Errors
/// DynamoDB could not store the value, or it is not JSON.
pub fn column(value: &RawValue) -> Result<Option<AttributeValue>, ValueError> {
    if value.get() == "null" { Ok(None) } else { attribute(value, 1).map(Some) }
}

fn attribute(value: &RawValue, level: usize) -> Result<AttributeValue, ValueError> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'"') => {
            let text = envelope::unquoted(value).map_err(|_| ValueError::NotJson)?;
            Ok(AttributeValue::S(text.into_owned()))
        }
        Some(b't') => Ok(AttributeValue::Bool(true)),
        Some(b'f') => Ok(AttributeValue::Bool(false)),
        Some(b'n') => Ok(AttributeValue::Null(true)),
        Some(b'[' | b'{') if level >= DEEPEST_NESTING => Err(ValueError::TooDeep),
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| ValueError::NotJson)?;
            let elements: Result<_, _> = elements.into_iter().map(|element| attribute(element, level + 1)).collect();
            Ok(AttributeValue::L(elements?))
        }
        Some(b'{') => {
            let mut members = HashMap::new();
            for_each_member(value, |name, member| {
                if name.is_empty() {
                    return Err(ValueError::EmptyName);
                }
                members.insert(name.into_owned(), attribute(member, level + 1)?);
                Ok(())
            })
            .map_err(|error| error.unwrap_or(ValueError::NotJson))?;
            Ok(AttributeValue::M(members))
        }
        _ => Ok(number(json)),
    }
}

/// Calls `visit` with the name and the value of each member of a JSON object, in the order in which they stand.
///
/// # Errors
/// The first error of `visit`, or `None` where the text is no JSON object.
pub(crate) fn for_each_member<'a, E>(
    object: &'a RawValue,
    visit: impl FnMut(std::borrow::Cow<'a, str>, &'a RawValue) -> Result<(), E>,
) -> Result<(), Option<E>> {
    struct Members<'v, F, E> {
        visit: F,
        error: &'v mut Option<E>,
    }

    impl<'a, F, E> Visitor<'a> for Members<'_, F, E>
    where
        F: FnMut(std::borrow::Cow<'a, str>, &'a RawValue) -> Result<(), E>,
    {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(mut self, mut members: A) -> Result<(), A::Error> {
            while let Some(Text(name)) = members.next_key()? {
                let value = members.next_value()?;
                if let Err(error) = (self.visit)(name, value) {
                    *self.error = Some(error);
                    return Err(serde::de::Error::custom("the caller refused a member"));
                }
            }
            Ok(())
        }
    }

    let mut error = None;
    let mut deserializer = serde_json::Deserializer::from_str(object.get());
    match deserializer.deserialize_map(Members { visit, error: &mut error }) {
        Ok(()) => Ok(()),
        Err(_) => Err(error),
    }
}

fn number(json: &str) -> AttributeValue {
    let Decimal { digits, power, .. } = Decimal::read(json);
    if digits == 0 {
        // DynamoDB checks even a zero's exponent and its digits after the point; a plain one always fits.
        let plain = json.len() <= MOST_DIGITS && !json.contains(['e', 'E']);
        return AttributeValue::N(if plain { json.to_owned() } else { "0".to_owned() });
    }
    let fits = digits <= MOST_DIGITS && (SMALLEST_POWER..=LARGEST_POWER).contains(&power);
    if fits { AttributeValue::N(json.to_owned()) } else { AttributeValue::S(json.to_owned()) }
}

/// A decimal number's significant digits, the zeros at both ends left out, as DynamoDB counts them.
struct Decimal {
    negative: bool,
    /// How many there are; none for zero.
    digits: usize,
    /// The power of ten of the first one.
    power: i64,
}

impl Decimal {
    /// Reads a number as JSON writes it.
    fn read(json: &str) -> Self {
        let (negative, json) = json.strip_prefix('-').map_or((false, json), |rest| (true, rest));
        let (coefficient, exponent) = match json.bytes().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(place) => (&json[..place], &json[place + 1..]),
            None => (json, "0"),
        };
        // Exponents beyond i64 are as far out of DynamoDB's range as its ends are.
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

    /// The bytes that DynamoDB counts: one, one for each two significant digits before the point and after it, one for
    /// a minus.
    fn size(&self) -> usize {
        if self.digits == 0 {
            return 1;
        }
        let before_the_point = usize::try_from(self.power + 1).unwrap_or(0).min(self.digits);
        let after_the_point = self.digits - before_the_point;
        1 + before_the_point.div_ceil(2) + after_the_point.div_ceil(2) + usize::from(self.negative)
    }
}

/// A count of bytes of a text in memory, of which there are never more than an i64 holds.
fn count(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The bytes that DynamoDB counts for a value in an item.
pub fn size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(number) => Decimal::read(number).size(),
        AttributeValue::L(elements) => 3 + elements.iter().map(|element| 1 + size(element)).sum::<usize>(),
        AttributeValue::M(members) => {
            3 + members.iter().map(|(name, value)| 1 + name.len() + size(value)).sum::<usize>()
        }
        // A boolean and a null. No JSON value becomes anything else.
        _ => 1,
    }
}

/// The bytes that DynamoDB counts for an item.
pub fn item_size(item: &HashMap<String, AttributeValue>) -> usize {
    item.iter().map(|(name, value)| name.len() + size(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Option<AttributeValue>, ValueError> {
        column(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn each_json_value_has_its_attribute_value() {
        use AttributeValue::{Bool, L, M, N, Null, S};
        let n = |text: &str| N(text.to_owned());
        for (json, expected) in [
            (r#""""#, S(String::new())),
            (r#""a\u0001\"\u00e9\ud83d\ude00""#, S("a\u{1}\"é😀".to_owned())),
            ("true", Bool(true)),
            ("false", Bool(false)),
            ("[]", L(vec![])),
            ("[1,null,[\"x\"]]", L(vec![n("1"), Null(true), L(vec![S("x".to_owned())])])),
            (r#"{"a":1.50}"#, M(HashMap::from([("a".to_owned(), n("1.50"))]))),
        ] {
            assert_eq!(of(json), Ok(Some(expected)), "{json}");
        }
        assert_eq!(of("null"), Ok(None));
    }

    #[test]
    fn a_number_keeps_its_digits_and_is_text_only_where_n_cannot_hold_it() {
        let digits_38 = "12345678901234567890123456789012345678";
        let zeros = "0".repeat(100);
        for (json, fits) in [
            ("0", true),
            ("-0.0", true),
            ("9223372036854775807", true),
            ("-9223372036832400000", true),
            ("1773843841076494565", true),
            ("0.1", true),
            ("1.7976931348623157e308", false),
            ("5e-324", false),
            ("1E-130", true),
            ("9.9E-131", false),
            ("9.9e125", true),
            ("1e126", false),
            ("-1e+126", false),
            ("0.1e126", true),
            ("1e99999999999999999999", false),
            ("1e-99999999999999999999", false),
            (digits_38, true),
            (&format!("{digits_38}9"), false),
            (&format!("{digits_38}000"), true),
            (&format!("0.000{digits_38}"), true),
            (&format!("0.{digits_38}9"), false),
            (&format!("1{zeros}"), true),
            (&format!("1{zeros}1"), false),
        ] {
            let text = json.to_owned();
            let expected = if fits { AttributeValue::N(text) } else { AttributeValue::S(text) };
            assert_eq!(of(json), Ok(Some(expected)), "{json}");
        }
    }

    #[test]
    fn a_zero_written_at_length_is_a_plain_zero() {
        for json in ["0e126", "0.0e-130", "-0e5", &format!("0.{}", "0".repeat(140))] {
            assert_eq!(of(json), Ok(Some(AttributeValue::N("0".to_owned()))), "{json}");
        }
    }

    #[test]
    fn nesting_ends_where_dynamodb_s_does() {
        let nested = |lists: usize| format!("{}1{}", "[".repeat(lists), "]".repeat(lists));
        assert!(of(&nested(31)).is_ok());
        assert_eq!(of(&nested(32)), Err(ValueError::TooDeep));
        assert_eq!(of(&nested(100_000)), Err(ValueError::TooDeep));
        assert_eq!(of(&format!("{}{}", "[".repeat(32), "]".repeat(32))), Err(ValueError::TooDeep));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(32), "}".repeat(32));
        assert_eq!(of(&objects), Err(ValueError::TooDeep));
    }

    #[test]
    fn half_a_surrogate_pair_is_no_text() {
        for json in [r#""\ud800""#, r#"["\ud800"]"#, r#"{"\ud800":1}"#, r#"{"a":"\udfff"}"#] {
            assert_eq!(of(json), Err(ValueError::NotJson), "{json}");
        }
    }

    #[test]
    fn regression_a_member_has_a_name() {
        for json in [r#"{"":1}"#, r#"{"a":[{"b":1,"":null}]}"#] {
            assert_eq!(of(json), Err(ValueError::EmptyName), "{json}");
        }
    }

    #[test]
    fn sizes_are_counted_as_dynamodb_counts() {
        for (json, bytes) in [
            (r#""grün""#, 5),
            ("0", 1),
            ("1", 2),
            ("42", 2),
            ("-42", 3),
            ("123", 3),
            ("100", 2),
            ("0.01", 2),
            ("1.5", 3),
            ("12.345", 4),
            ("true", 1),
            ("[]", 3),
            ("[1,\"ab\"]", 3 + 1 + 2 + 1 + 2),
            (r#"{"abc":1,"d":"ef"}"#, 3 + 1 + 3 + 2 + 1 + 1 + 2),
        ] {
            let value = of(json).unwrap().unwrap();
            assert_eq!(size(&value), bytes, "{json}");
        }
        let item = HashMap::from([("name".to_owned(), AttributeValue::S("Ada".to_owned()))]);
        assert_eq!(item_size(&item), 7);
    }
}
