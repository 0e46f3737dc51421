//! The limits of DynamoDB's storage from its documentation: sizes, numbers, nesting, names and keys.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use aws_sdk_dynamodb::types::AttributeValue;

/// The largest item in bytes, including the names of its attributes.
pub const LARGEST_ITEM: usize = 409_600;
const KEY_BYTES: RangeInclusive<usize> = 1..=2048;
const SORT_KEY_BYTES: RangeInclusive<usize> = 1..=1024;
/// The bytes of the name of an attribute outside the key.
pub const NAME_BYTES: RangeInclusive<usize> = 1..=65_535;
const MOST_LEVELS: usize = 32;
const MOST_DIGITS: usize = 38;
/// The powers of ten of the first digit. DynamoDB takes -130 to 125, but it answers in plain notation, of which its
/// readers take 38 digits.
const POWERS: RangeInclusive<i64> = -130..=37;
/// The lowest power of ten of a last digit that boto3 reads.
const SMALLEST_LAST_POWER: i64 = -165;

/// A number's significant digits, and the power of ten of the first one. Zero has no digits.
pub fn decimal(number: &str) -> (String, i64) {
    let number = number.trim_start_matches('-');
    let (coefficient, exponent) = number.split_at(number.find(['e', 'E']).unwrap_or(number.len()));
    let point = coefficient.find('.').unwrap_or(coefficient.len());
    let all = coefficient.replace('.', "");
    let leading = all.len() - all.trim_start_matches('0').len();
    let magnitude = exponent.trim_start_matches(['e', 'E', '+', '-', '0']);
    let magnitude = if magnitude.len() > 12 { 1_000_000_000_000 } else { magnitude.parse().unwrap_or(0) };
    let exponent: i64 = if exponent.contains('-') { -magnitude } else { magnitude };
    let first = i64::try_from(point).unwrap() - 1 - i64::try_from(leading).unwrap();
    (all.trim_matches('0').to_owned(), first + exponent)
}

/// Whether N holds a number's value, and DynamoDB's readers read it.
pub fn fits_n(number: &str) -> bool {
    let (digits, power) = decimal(number);
    let last = power + 1 - i64::try_from(digits.len()).unwrap();
    digits.is_empty() || (digits.len() <= MOST_DIGITS && POWERS.contains(&power) && last >= SMALLEST_LAST_POWER)
}

/// A number in plain notation, if that has no more bytes than a key may have.
pub fn plain(number: &str) -> Option<String> {
    let (digits, power) = decimal(number);
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    let whole = usize::try_from(power + 1).unwrap_or(0);
    let leading = usize::try_from(-power - 1).unwrap_or(0);
    if whole.max(leading) > *KEY_BYTES.end() {
        return None;
    }
    let padded = format!("{}{digits}{}", "0".repeat(leading), "0".repeat(whole.saturating_sub(digits.len())));
    let (before, after) = padded.split_at(whole);
    let sign = if number.starts_with('-') { "-" } else { "" };
    let before = if before.is_empty() { "0" } else { before };
    let text = if after.is_empty() { format!("{sign}{before}") } else { format!("{sign}{before}.{after}") };
    (text.len() <= *KEY_BYTES.end()).then_some(text)
}

/// The size of a value in bytes: the least and the most that the documentation's "approximately" can mean.
pub fn size(value: &AttributeValue) -> (usize, usize) {
    let sum = |names: usize, values: &mut dyn Iterator<Item = &AttributeValue>| {
        let own = 3 + names;
        values.map(size).fold((own, own), |(least, most), size| (least + 1 + size.0, most + 1 + size.1))
    };
    match value {
        AttributeValue::S(text) => (text.len(), text.len()),
        AttributeValue::N(number) => {
            let least = 1 + decimal(number).0.len().div_ceil(2);
            (least, least + 2)
        }
        AttributeValue::B(bytes) => (bytes.as_ref().len(), bytes.as_ref().len()),
        AttributeValue::Bool(_) | AttributeValue::Null(_) => (1, 1),
        AttributeValue::L(elements) => sum(0, &mut elements.iter()),
        AttributeValue::M(members) => sum(members.keys().map(String::len).sum(), &mut members.values()),
        other => panic!("no JSON value becomes {other:?}"),
    }
}

/// The size of these attributes in bytes, the least and the most.
pub fn item_size<'a>(attributes: impl IntoIterator<Item = (&'a String, &'a AttributeValue)>) -> (usize, usize) {
    attributes.into_iter().fold((0, 0), |(least, most), (name, value)| {
        let of_value = size(value);
        (least + name.len() + of_value.0, most + name.len() + of_value.1)
    })
}

/// Fails if DynamoDB would not store an item with this key: its partition key and, if there is one, its sort key.
pub fn assert_storable(key: &[(&str, AttributeValue)], attributes: &HashMap<String, AttributeValue>) {
    let (mut least, _) = item_size(attributes);
    for ((name, value), bytes) in key.iter().zip([KEY_BYTES, SORT_KEY_BYTES]) {
        assert!(!attributes.contains_key(*name), "an attribute takes the key's place");
        assert!(bytes.contains(&size(value).0), "the key {name} has {} bytes", size(value).0);
        assert_value(value, 1);
        least += name.len() + size(value).0;
    }
    assert!(least <= LARGEST_ITEM, "the item has {least} bytes");
    for (name, value) in attributes {
        assert!(NAME_BYTES.contains(&name.len()), "an attribute's name has {} bytes", name.len());
        assert_value(value, 1);
    }
}

fn assert_value(value: &AttributeValue, level: usize) {
    assert!(level <= MOST_LEVELS, "a value stands {level} levels deep");
    match value {
        AttributeValue::N(number) => {
            assert!(fits_n(number), "N does not hold {number}");
            // DynamoDB refuses even a zero because of its exponent, or because of its length.
            let zero = decimal(number).0.is_empty();
            assert!(
                !zero || (number.len() <= MOST_DIGITS && !number.contains(['e', 'E'])),
                "a zero is written {number}"
            );
        }
        AttributeValue::L(elements) => {
            assert!(level < MOST_LEVELS, "a list stands {level} levels deep");
            for element in elements {
                assert_value(element, level + 1);
            }
        }
        AttributeValue::M(members) => {
            assert!(level < MOST_LEVELS, "a map stands {level} levels deep");
            for (name, member) in members {
                assert!(!name.is_empty(), "a member has no name");
                assert_value(member, level + 1);
            }
        }
        _ => {}
    }
}
