//! JSON values as DynamoDB attribute values: the mapping, the sizes and the limits.
//!
//! | JSON | DynamoDB |
//! |---|---|
//! | string | S; S with the JSON text if it is not valid text, such as half a surrogate pair |
//! | number | N, digit for digit; S with the same text if DynamoDB's N cannot hold it, or its clients cannot read it |
//! | boolean | BOOL |
//! | null | left out of a row; NULL within an array or object |
//! | array, object | L, M; S with the JSON text if DynamoDB cannot hold it |
//!
//! Invariants: pure; no number passes through a floating-point type; a value is parsed straight into its attribute
//! value, without a JSON tree in between; recursion ends at [`DEEPEST_NESTING`].

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::value::RawValue;

use crate::definitions::numbers::{Decimal, count};
use crate::record::json::{for_each_member, unquoted};

/// DynamoDB's limit for an item, in bytes. The names of its attributes count.
pub const LARGEST_ITEM: usize = 409_600;

/// DynamoDB's limit for the name of an attribute that is not a key, in bytes. It does not take an empty name.
pub const LONGEST_NAME: usize = 65_535;

/// How many levels of lists and maps DynamoDB stores in one attribute, the innermost value included.
pub const DEEPEST_NESTING: usize = 32;

/// DynamoDB takes numbers of up to 38 significant digits. It stores no number whose first digit's power of ten is below
/// -130.
const MOST_DIGITS: usize = 38;
const SMALLEST_POWER: i64 = -130;

/// The largest power of ten of a number's first digit that boto3 and the Java client read. DynamoDB takes powers up to
/// 125, and returns such a number in plain notation. These clients refuse numbers of more than 38 digits, even if the
/// digits after the 38th are zeros.
const LARGEST_POWER: i64 = 37;

/// The smallest power of ten of a number's last digit that boto3 reads: its decimal context has 38 digits from 1E-128
/// on.
const SMALLEST_POWER_OF_LAST_DIGIT: i64 = -165;

/// A column as DynamoDB holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its attribute value; `None` for null.
    pub value: Option<AttributeValue>,
    /// Whether it, or a value in it, became text because DynamoDB or its clients cannot hold it as it is.
    pub as_text: bool,
}

/// A value that DynamoDB cannot hold as it is: nested too deep, a member with an empty name, or half a surrogate pair.
struct NotHeld;

/// The attribute value of a column.
pub fn column(json: &RawValue) -> Column {
    nested_column(json, 1)
}

/// The attribute value of a column that is an attribute itself, at level 1, or stands within one, at a deeper level.
pub fn nested_column(json: &RawValue, level: usize) -> Column {
    if json.get() == "null" {
        return Column { value: None, as_text: false };
    }
    let mut as_text = false;
    let value = attribute(json, level, &mut as_text);
    as_text |= value.is_err();
    Column { value: Some(value.unwrap_or_else(|NotHeld| AttributeValue::S(json.get().to_owned()))), as_text }
}

/// The value of a document at a level, and whether a number in it became text. `None` if DynamoDB cannot hold it.
pub(crate) fn document(json: &RawValue, level: usize) -> Option<(AttributeValue, bool)> {
    let mut as_text = false;
    let value = attribute(json, level, &mut as_text).ok()?;
    Some((value, as_text))
}

fn attribute(value: &RawValue, level: usize, as_text: &mut bool) -> Result<AttributeValue, NotHeld> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'"') => {
            let text = unquoted(value).map_err(|_| NotHeld)?;
            Ok(AttributeValue::S(text.into_owned()))
        }
        Some(b't') => Ok(AttributeValue::Bool(true)),
        Some(b'f') => Ok(AttributeValue::Bool(false)),
        Some(b'n') => Ok(AttributeValue::Null(true)),
        Some(b'[' | b'{') if level >= DEEPEST_NESTING => Err(NotHeld),
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| NotHeld)?;
            let elements = elements.into_iter().map(|element| attribute(element, level + 1, as_text));
            Ok(AttributeValue::L(elements.collect::<Result<_, _>>()?))
        }
        Some(b'{') => {
            let mut members = HashMap::new();
            for_each_member(value, |name, member| {
                if name.is_empty() {
                    return Err(NotHeld);
                }
                members.insert(name.into_owned(), attribute(member, level + 1, as_text)?);
                Ok(())
            })
            .map_err(|_| NotHeld)?;
            Ok(AttributeValue::M(members))
        }
        _ => Ok(number(json, as_text)),
    }
}

fn number(json: &str, as_text: &mut bool) -> AttributeValue {
    let number = fitting_number(json);
    *as_text |= number.is_none();
    match number {
        Some(number) => AttributeValue::N(number.to_owned()),
        None => AttributeValue::S(json.to_owned()),
    }
}

/// A number as N takes it: digit for digit, but a zero written at length as `0`. `None` if DynamoDB's N cannot hold it,
/// or its clients cannot read it.
pub(crate) fn fitting_number(json: &str) -> Option<&str> {
    let Decimal { digits, power, .. } = Decimal::read(json);
    if digits == 0 {
        // DynamoDB checks the exponent and the digits after the point even of a zero. A plain zero always fits.
        let plain = json.len() <= MOST_DIGITS && !json.contains(['e', 'E']);
        return Some(if plain { json } else { "0" });
    }
    let fits = digits <= MOST_DIGITS
        && (SMALLEST_POWER..=LARGEST_POWER).contains(&power)
        && power - count(digits) + 1 >= SMALLEST_POWER_OF_LAST_DIGIT;
    fits.then_some(json)
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
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        // A boolean or a null. No column becomes anything else.
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

    fn of(json: &str) -> Column {
        column(serde_json::from_str(json).unwrap())
    }

    fn as_it_is(value: AttributeValue) -> Column {
        Column { value: Some(value), as_text: false }
    }

    fn as_text(json: &str) -> Column {
        Column { value: Some(AttributeValue::S(json.to_owned())), as_text: true }
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
            assert_eq!(of(json), as_it_is(expected), "{json}");
        }
        assert_eq!(of("null"), Column { value: None, as_text: false });
    }

    /// Numbers, with their plain notation and their DynamoDB type. `.ci/check-reader` asks DynamoDB's clients how they
    /// read them.
    const NUMBERS: &str = include_str!("../../tests/golden/numbers.tsv");

    #[test]
    fn a_number_keeps_its_digits_and_is_text_only_where_n_or_a_reader_cannot_hold_it() {
        let mut texts = 0;
        for row in NUMBERS.lines().skip(1) {
            let [json, _, kind] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row:?}") };
            let expected = if kind == "N" { as_it_is(AttributeValue::N(json.to_owned())) } else { as_text(json) };
            assert_eq!(of(json), expected, "{json}");
            texts += usize::from(kind == "S");
        }
        assert!(texts > 5, "{texts}");
        for json in ["1e99999999999999999999", "-1e-99999999999999999999", &format!("1{}1", "0".repeat(100))] {
            assert_eq!(of(json), as_text(json), "{json}");
        }
        assert_eq!(
            of("[1,[1e38]]").value,
            Some(AttributeValue::L(vec![
                AttributeValue::N("1".to_owned()),
                AttributeValue::L(vec![AttributeValue::S("1e38".to_owned())]),
            ]))
        );
        assert!(of("[1,[1e38]]").as_text);
    }

    #[test]
    fn a_column_within_an_attribute_may_nest_a_level_less() {
        let nested = |lists: usize| format!("{}1{}", "[".repeat(lists), "]".repeat(lists));
        for (lists, level, text) in [(31, 1, false), (30, 2, false), (31, 2, true)] {
            let json = nested(lists);
            let found = nested_column(serde_json::from_str(&json).unwrap(), level);
            assert_eq!(found.as_text, text, "{lists} at {level}");
            assert_eq!(found.value == Some(AttributeValue::S(json)), text, "{lists} at {level}");
        }
    }

    #[test]
    fn a_zero_written_at_length_is_a_plain_zero() {
        for json in ["0e126", "0.0e-130", "-0e5", &format!("0.{}", "0".repeat(140))] {
            assert_eq!(of(json), as_it_is(AttributeValue::N("0".to_owned())), "{json}");
        }
    }

    #[test]
    fn a_value_nested_too_deep_for_dynamodb_becomes_its_json_text() {
        let nested = |lists: usize| format!("{}1{}", "[".repeat(lists), "]".repeat(lists));
        assert!(matches!(of(&nested(31)), Column { value: Some(AttributeValue::L(_)), as_text: false }));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(32), "}".repeat(32));
        let empty = format!("{}{}", "[".repeat(32), "]".repeat(32));
        for json in [nested(32), nested(40), nested(100_000), empty, objects] {
            assert_eq!(of(&json), as_text(&json), "{}", &json[..32]);
        }
    }

    #[test]
    fn half_a_surrogate_pair_becomes_its_json_text() {
        for json in [r#""\ud800""#, r#"["\ud800"]"#, r#"{"\ud800":1}"#, r#"{"a":"\udfff"}"#] {
            assert_eq!(of(json), as_text(json), "{json}");
        }
    }

    #[test]
    fn an_object_with_an_empty_name_becomes_its_json_text() {
        for json in [r#"{"":1}"#, r#"{"":1,"a":2}"#, r#"{"a":[{"b":1,"":null}]}"#] {
            assert_eq!(of(json), as_text(json), "{json}");
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
            let value = of(json).value.unwrap();
            assert_eq!(size(&value), bytes, "{json}");
        }
        let item = HashMap::from([("name".to_owned(), AttributeValue::S("Ada".to_owned()))]);
        assert_eq!(item_size(&item), 7);
    }
}
