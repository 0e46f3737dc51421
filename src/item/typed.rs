//! Values by the type of their column: as attribute values, as text in keys and templates, as numbers, as hashes.
//!
//! | type | in an item, if the definition says so | in a key |
//! |---|---|---|
//! | `integer` and its kin, `real`, `double precision` | as in the record | the number in plain notation |
//! | `numeric` | N, digit for digit | the number in plain notation |
//! | `date`, `time`, `timetz`, `timestamp`, `timestamptz` | ISO 8601 text | the same ISO 8601 text |
//! | `timestamp`, `timestamptz` | N of milliseconds or seconds | the same ISO 8601 text |
//! | `json`, `jsonb` | the document | |
//! | `bytea` | B | |
//!
//! A value that does not fit its type stands as in the record.
//!
//! Invariants: pure; no number passes through a floating-point type; in a key, two different values of a column never
//! have the same text, whatever the definition says of its type.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::definitions::numbers;
use crate::definitions::types::{ColumnType, Stands};
use crate::item::key::LONGEST_KEY;
use crate::item::values;
use crate::record::json;

const MICROS_PER_SECOND: u64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The days from 0001-01-01 to 9999-12-31, since 1970-01-01.
const DAYS: RangeInclusive<i64> = -719_162..=2_932_896;

/// The infinite timestamps, as change records have them.
const INFINITIES: [i64; 2] = [9_223_372_036_825_200_000, -9_223_372_036_832_400_000];

/// A column as DynamoDB holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Typed {
    /// Its attribute value; `None` for null.
    pub value: Option<AttributeValue>,
    /// Whether it, or a value in it, became text because DynamoDB or its clients cannot hold it as it is.
    pub as_text: bool,
    /// Whether it does not fit its type, and so stands as in the record.
    pub unfit: bool,
}

/// The text of a value cannot stand in an attribute: it is a document, an array or binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unusable;

/// The attribute value of a column of this type, at a level as in [`values::nested_column`].
pub fn column(json: &RawValue, kind: Option<ColumnType>, stands: Stands, level: usize) -> Typed {
    let held = |value| Some((value, false));
    let converted = match stands {
        Stands::AsInRecord => None,
        _ if json.get() == "null" => None,
        Stands::Number => number_text(json, Some(ColumnType::Numeric))
            .and_then(|text| held(AttributeValue::N(values::fitting_number(&text)?.to_owned()))),
        Stands::Iso8601 | Stands::Millis | Stands::Seconds => time_text(json, kind, stands).and_then(|text| {
            held(if stands == Stands::Iso8601 { AttributeValue::S(text) } else { AttributeValue::N(text) })
        }),
        Stands::Document => document(json, level),
        Stands::Binary => binary(json).and_then(held),
    };
    if let Some((value, as_text)) = converted {
        return Typed { value: Some(value), as_text, unfit: false };
    }
    let values::Column { value, as_text } = values::nested_column(json, level);
    let unfit = stands != Stands::AsInRecord && value.is_some();
    Typed { value, as_text, unfit }
}

/// The document in a string. A value that is no string is the document itself.
fn document(json: &RawValue, level: usize) -> Option<(AttributeValue, bool)> {
    if !json.get().starts_with('"') {
        return values::document(json, level);
    }
    let text = json::unquoted(json).ok()?;
    values::document(serde_json::from_str(&text).ok()?, level)
}

fn binary(json: &RawValue) -> Option<AttributeValue> {
    let text = json::unquoted(json).ok()?;
    Some(AttributeValue::B(Blob::new(STANDARD.decode(text.as_bytes()).ok()?)))
}

/// The text of a value in a key: numbers in plain notation, dates and times as ISO 8601 or else as the record's number,
/// other texts and booleans as they are. Without a type, each value by its kind in the record.
///
/// # Errors
/// The kind of value found, if it cannot stand in a key.
pub fn key_text(json: &RawValue, kind: Option<ColumnType>) -> Result<Cow<'_, str>, &'static str> {
    let text = match kind {
        Some(kind) if is_of_numbers(kind) => canonical_number(json, Some(kind)).or_else(|| word(json)),
        Some(kind) if is_of_times(kind) => match time_text(json, Some(kind), Stands::Iso8601) {
            Some(text) => Some(Cow::Owned(text)),
            None => canonical_number(json, None),
        },
        Some(ColumnType::Boolean) => is_boolean(json).then(|| Cow::Borrowed(json.get())),
        _ => text_by_kind(json),
    };
    text.ok_or_else(|| match json.get().as_bytes().first() {
        Some(b'"') if json::unquoted(json).is_err() => "text that is no JSON string",
        Some(b'-' | b'0'..=b'9') if kind != Some(ColumnType::Boolean) => {
            "a number of more than 2,048 characters when written out"
        }
        Some(b'-' | b'0'..=b'9') => "a number",
        _ => json::kind(json),
    })
}

/// The text of a value in an index attribute: numbers in plain notation, dates and times as they stand in the item,
/// other texts and booleans as they are. `None` for null.
///
/// # Errors
/// The value has no such text.
pub fn template_text(
    json: &RawValue,
    kind: Option<ColumnType>,
    stands: Stands,
) -> Result<Option<Cow<'_, str>>, Unusable> {
    if json.get() == "null" {
        return Ok(None);
    }
    let text = match kind {
        Some(ColumnType::Json | ColumnType::Bytea | ColumnType::OidVector) => None,
        _ => time_text(json, kind, stands)
            .map(Cow::Owned)
            .or_else(|| canonical_number(json, kind))
            .or_else(|| text_by_kind(json)),
    };
    text.map(Some).ok_or(Unusable)
}

/// The number that stands for a value in an attribute of type N, in plain notation: a number, or a date or time in the
/// units in which it stands as a number. `None` if it is no number, or none that N takes.
pub fn number_form(json: &RawValue, kind: Option<ColumnType>, stands: Stands) -> Option<Cow<'_, str>> {
    let converted = match stands {
        Stands::Millis | Stands::Seconds => time_text(json, kind, stands).map(Cow::Owned),
        _ => None,
    };
    let number = converted.or_else(|| canonical_number(json, kind))?;
    values::fitting_number(&number).is_some().then_some(number)
}

/// A number in plain notation. `None` if the value is no number, or too long for a key.
pub(crate) fn canonical_number(json: &RawValue, kind: Option<ColumnType>) -> Option<Cow<'_, str>> {
    match number_text(json, kind)? {
        Cow::Borrowed(number) => numbers::plain_notation(number, LONGEST_KEY),
        Cow::Owned(number) => Some(Cow::Owned(numbers::plain_notation(&number, LONGEST_KEY)?.into_owned())),
    }
}

/// A number as the record writes it, out of a string too if the type is one of numbers.
pub(crate) fn number_text(json: &RawValue, kind: Option<ColumnType>) -> Option<Cow<'_, str>> {
    match json.get().as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Some(Cow::Borrowed(json.get())),
        Some(b'"') if kind.is_some_and(is_of_numbers) => {
            json::unquoted(json).ok().filter(|text| numbers::is_number(text))
        }
        _ => None,
    }
}

/// One of the words for what is no finite number.
pub(crate) fn word(json: &RawValue) -> Option<Cow<'_, str>> {
    let text = json::unquoted(json).ok()?;
    matches!(&*text, numbers::NAN | numbers::INFINITY | numbers::MINUS_INFINITY).then_some(text)
}

fn is_boolean(json: &RawValue) -> bool {
    matches!(json.get(), "true" | "false")
}

/// The text of a string, a boolean or a number, by its kind in the record.
fn text_by_kind(json: &RawValue) -> Option<Cow<'_, str>> {
    match json.get().as_bytes().first() {
        Some(b'"') => json::unquoted(json).ok(),
        Some(b't' | b'f') => Some(Cow::Borrowed(json.get())),
        _ => canonical_number(json, None),
    }
}

fn is_of_numbers(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::Integer | ColumnType::Float | ColumnType::Numeric)
}

fn is_of_times(kind: ColumnType) -> bool {
    use ColumnType::{Date, Time, TimeTz, Timestamp, TimestampTz};
    matches!(kind, Date | Time | TimeTz | Timestamp | TimestampTz)
}

/// A whole number that fits an i64.
pub(crate) fn whole_number(json: &RawValue) -> Option<i64> {
    canonical_number(json, None)?.parse().ok()
}

/// A date or time as it stands. `None` if it stands as in the record, by its type or since it does not fit.
fn time_text(json: &RawValue, kind: Option<ColumnType>, stands: Stands) -> Option<String> {
    let number = match stands {
        Stands::Iso8601 | Stands::Millis | Stands::Seconds => whole_number(json)?,
        _ => return None,
    };
    match stands {
        Stands::Iso8601 => iso8601(number, kind?),
        _ if INFINITIES.contains(&number) => None,
        Stands::Millis => Some(in_units(number, 1_000, 3)),
        _ => Some(in_units(number, MICROS_PER_SECOND, 6)),
    }
}

/// Microseconds in units of `micros`, exact, with no more than `decimals` decimals.
fn in_units(number: i64, micros: u64, decimals: usize) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let (whole, rest) = (number.unsigned_abs() / micros, number.unsigned_abs() % micros);
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    let mut text = format!("{sign}{whole}.{rest:0decimals$}");
    text.truncate(text.trim_end_matches('0').len());
    text
}

/// A date in days or a time in microseconds as ISO 8601. `None` if its year does not have four digits, a time does not
/// belong to a day, or the type is another.
fn iso8601(number: i64, kind: ColumnType) -> Option<String> {
    let (days, micros, shown) = match kind {
        ColumnType::Date => (number, 0, 0..10),
        ColumnType::Time => (0, number, 11..26),
        ColumnType::TimeTz => (0, number, 11..27),
        ColumnType::Timestamp => (number.div_euclid(MICROS_PER_DAY), number.rem_euclid(MICROS_PER_DAY), 0..26),
        ColumnType::TimestampTz => (number.div_euclid(MICROS_PER_DAY), number.rem_euclid(MICROS_PER_DAY), 0..27),
        _ => return None,
    };
    // The end of a day is a time of its own in PostgreSQL: 24:00:00.
    if !DAYS.contains(&days) || !(0..=MICROS_PER_DAY).contains(&micros) {
        return None;
    }
    let (year, month, day) = civil_date(u64::try_from(days - DAYS.start()).ok()?);
    let micros = u64::try_from(micros).ok()?;
    let seconds = micros / MICROS_PER_SECOND;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    write_digits(&mut text[0..4], year);
    write_digits(&mut text[5..7], month);
    write_digits(&mut text[8..10], day);
    write_digits(&mut text[11..13], seconds / 3_600);
    write_digits(&mut text[14..16], seconds / 60 % 60);
    write_digits(&mut text[17..19], seconds % 60);
    write_digits(&mut text[20..26], micros % MICROS_PER_SECOND);
    Some(String::from_utf8_lossy(&text[shown]).into_owned())
}

/// Year, month and day in the Gregorian calendar, by the days since 0001-01-01. Years are counted from March here, so
/// that a leap day is the last day of its year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01 to 0001-01-01.
    let days = days + 306;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next) = if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    (era * 400 + year_of_era + next, month, day)
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The time at which a row may go, in epoch seconds, out of a timestamp in microseconds, rounded up. `None` if it is
/// null, infinite, no timestamp, or after 9999. A time before 1970 counts as 1970.
pub fn expiry_seconds(json: &RawValue) -> Option<u64> {
    const LAST_SECOND: u64 = 253_402_300_799;
    let micros = whole_number(json).filter(|micros| !INFINITIES.contains(micros))?;
    let micros = u64::try_from(micros).unwrap_or_default();
    (micros / MICROS_PER_SECOND <= LAST_SECOND).then(|| micros.div_ceil(MICROS_PER_SECOND))
}

/// Makes the hashes that stand for the values of some columns: HMAC-SHA-256 with a secret.
#[derive(Clone)]
pub struct HashKey(Hmac<Sha256>);

impl HashKey {
    /// The maker of hashes with this secret.
    pub fn new(secret: &[u8]) -> Self {
        // As HMAC has it: zeros fill up a key to a block of the hash, and a longer key is hashed first.
        let mut block = [0; 64];
        match block.get_mut(..secret.len()) {
            Some(start) => start.copy_from_slice(secret),
            None => block[..32].copy_from_slice(&Sha256::digest(secret)),
        }
        Self(Hmac::new(&block.into()))
    }

    /// The hash of a value, as 64 hexadecimal digits: of a string's text, of a number in plain notation, else of the
    /// JSON text. `None` for null.
    pub fn hex(&self, json: &RawValue, kind: Option<ColumnType>) -> Option<String> {
        if json.get() == "null" {
            return None;
        }
        let number = canonical_number(json, kind);
        let text = number.or_else(|| json::unquoted(json).ok()).unwrap_or(Cow::Borrowed(json.get()));
        let mut hash = self.0.clone();
        hash.update(text.as_bytes());
        Some(crate::hash::hex(&hash.finalize().into_bytes()))
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    use super::ColumnType::{
        Boolean, Bytea, Date, Float, Integer, Interval, Json, Numeric, OidVector, Text, Time, TimeTz, Timestamp,
        TimestampTz,
    };
    use super::Stands::{AsInRecord, Binary, Document, Iso8601, Millis, Number, Seconds};
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    fn quoted(text: &str) -> String {
        serde_json::to_string(text).unwrap()
    }

    fn s(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn n(digits: &str) -> AttributeValue {
        AttributeValue::N(digits.to_owned())
    }

    fn fits(json: &str, kind: ColumnType, stands: Stands, value: AttributeValue) {
        let expected = Typed { value: Some(value), as_text: false, unfit: false };
        assert_eq!(column(raw(json), Some(kind), stands, 1), expected, "{json} as {stands:?}");
    }

    fn does_not_fit(json: &str, kind: ColumnType, stands: Stands) {
        let values::Column { value, as_text } = values::column(raw(json));
        let expected = Typed { value, as_text, unfit: true };
        assert_eq!(column(raw(json), Some(kind), stands, 1), expected, "{json} as {stands:?}");
    }

    const ALL: [Stands; 7] = [AsInRecord, Number, Iso8601, Millis, Seconds, Document, Binary];

    #[test]
    fn null_has_no_value() {
        for stands in ALL {
            let nothing = Typed { value: None, as_text: false, unfit: false };
            assert_eq!(column(raw("null"), Some(Timestamp), stands, 1), nothing, "{stands:?}");
        }
    }

    #[test]
    fn what_stands_as_in_the_record_has_the_value_without_a_definition() {
        for json in ["1.50", "1e38", "\"a\"", "true", "[1,{\"a\":null}]", "{\"\":1}", "\"\\ud800\""] {
            let values::Column { value, as_text } = values::column(raw(json));
            for kind in [None, Some(Text), Some(Json), Some(Numeric), Some(Timestamp)] {
                let expected = Typed { value: value.clone(), as_text, unfit: false };
                assert_eq!(column(raw(json), kind, AsInRecord, 1), expected, "{json}");
            }
        }
    }

    #[test]
    fn a_numeric_keeps_its_digits() {
        let digits = |count: usize| "9".repeat(count);
        for text in [
            "0",
            "29.99",
            "-29.90",
            "0.000",
            "-0",
            &digits(38),
            &format!("-{}", digits(38)),
            "1e37",
            "1.5E+3",
            "1e-130",
        ] {
            fits(&quoted(text), Numeric, Number, n(text));
            fits(text, Numeric, Number, n(text));
        }
        fits("\"\\u0031.50\"", Numeric, Number, n("1.50"));
        fits(&quoted(&format!("0.{}", "0".repeat(140))), Numeric, Number, n("0"));
        for text in ["NaN", "Infinity", "-Infinity", "", "-", " 1", "1 ", "+1", "01", "1.", ".5", "1,5", "0x1", "١"] {
            does_not_fit(&quoted(text), Numeric, Number);
        }
        for text in [&digits(39), &format!("-{}", digits(39)), "1e38", "1e-131", "1e", "1e+", "1e1.0", "--1", "1.-5"] {
            does_not_fit(&quoted(text), Numeric, Number);
        }
        assert!(column(raw("1e38"), Some(Numeric), Number, 1).as_text);
        for json in [&digits(39)[..], "true", "[]", "{}", "\"\\ud800\""] {
            does_not_fit(json, Numeric, Number);
        }
    }

    /// Days with their dates, and whether the date is 0001-01-01 to 9999-12-31.
    const DATES: [(i64, &str); 19] = [
        (0, "1970-01-01"),
        (-1, "1969-12-31"),
        (1, "1970-01-02"),
        (20_484, "2026-01-31"),
        (20_485, "2026-02-01"),
        (20_512, "2026-02-28"),
        (20_513, "2026-03-01"),
        (11_016, "2000-02-29"),
        (11_017, "2000-03-01"),
        (11_322, "2000-12-31"),
        (19_782, "2024-02-29"),
        (20_088, "2024-12-31"),
        (-25_509, "1900-02-28"),
        (-25_508, "1900-03-01"),
        (47_540, "2100-02-28"),
        (47_541, "2100-03-01"),
        (-719_162, "0001-01-01"),
        (-718_798, "0001-12-31"),
        (2_932_896, "9999-12-31"),
    ];

    #[test]
    fn dates_and_times_are_written_as_iso_8601() {
        for (days, date) in DATES {
            fits(&days.to_string(), Date, Iso8601, s(date));
            for (micros, time) in [(0, "00:00:00.000000"), (MICROS_PER_DAY - 1, "23:59:59.999999")] {
                let timestamp = (days * MICROS_PER_DAY + micros).to_string();
                fits(&timestamp, Timestamp, Iso8601, s(&format!("{date}T{time}")));
                fits(&timestamp, TimestampTz, Iso8601, s(&format!("{date}T{time}Z")));
            }
        }
        for (micros, time) in [
            (0_i64, "00:00:00.000000"),
            (1, "00:00:00.000001"),
            (1_000_000, "00:00:01.000000"),
            (59_999_999, "00:00:59.999999"),
            (60_000_000, "00:01:00.000000"),
            (3_600_000_000, "01:00:00.000000"),
            (45_296_123_456, "12:34:56.123456"),
            (86_399_999_999, "23:59:59.999999"),
            (86_400_000_000, "24:00:00.000000"),
        ] {
            fits(&micros.to_string(), Time, Iso8601, s(time));
            fits(&micros.to_string(), TimeTz, Iso8601, s(&format!("{time}Z")));
        }
        fits("1773843841048727", Timestamp, Iso8601, s("2026-03-18T14:24:01.048727"));
        fits("-1", TimestampTz, Iso8601, s("1969-12-31T23:59:59.999999Z"));
        fits("-1000001", Timestamp, Iso8601, s("1969-12-31T23:59:58.999999"));
        fits("-0", Date, Iso8601, s("1970-01-01"));
        fits("1e3", Timestamp, Iso8601, s("1970-01-01T00:00:00.001000"));
    }

    #[test]
    fn a_date_or_time_that_has_no_iso_8601_text_stands_as_in_the_record() {
        for days in [-719_163, 2_932_897, i64::MIN, i64::MAX] {
            does_not_fit(&days.to_string(), Date, Iso8601);
        }
        for micros in [-1, 86_400_000_001, i64::MIN, i64::MAX] {
            does_not_fit(&micros.to_string(), Time, Iso8601);
            does_not_fit(&micros.to_string(), TimeTz, Iso8601);
        }
        let last = (DAYS.end() + 1) * MICROS_PER_DAY;
        for micros in [DAYS.start() * MICROS_PER_DAY - 1, last, i64::MIN, i64::MAX, INFINITIES[0], INFINITIES[1]] {
            does_not_fit(&micros.to_string(), Timestamp, Iso8601);
            does_not_fit(&micros.to_string(), TimestampTz, Iso8601);
        }
        for json in ["9223372036854775808", "-9223372036854775809", "0.5", "\"2026-01-31\"", "\"1\"", "true", "[]"] {
            for kind in [Date, Time, TimeTz, Timestamp, TimestampTz] {
                does_not_fit(json, kind, Iso8601);
            }
        }
        does_not_fit("1", Interval, Iso8601);
    }

    #[test]
    fn timestamps_are_exact_in_milliseconds_and_seconds() {
        for (micros, millis, seconds) in [
            ("0", "0", "0"),
            ("-0", "0", "0"),
            ("1", "0.001", "0.000001"),
            ("-1", "-0.001", "-0.000001"),
            ("500", "0.5", "0.0005"),
            ("1000", "1", "0.001"),
            ("10000000", "10000", "10"),
            ("-1500000", "-1500", "-1.5"),
            ("1773843841048727", "1773843841048.727", "1773843841.048727"),
            ("1773843841100000", "1773843841100", "1773843841.1"),
            ("9223372036854775807", "9223372036854775.807", "9223372036854.775807"),
            ("-9223372036854775808", "-9223372036854775.808", "-9223372036854.775808"),
            ("9223372036825199999", "9223372036825199.999", "9223372036825.199999"),
            ("-9223372036832400001", "-9223372036832400.001", "-9223372036832.400001"),
            ("1e3", "1", "0.001"),
        ] {
            fits(micros, Timestamp, Millis, n(millis));
            fits(micros, TimestampTz, Seconds, n(seconds));
        }
        for json in ["9223372036825200000", "-9223372036832400000", "9223372036854775808", "0.5", "\"1\"", "false"] {
            does_not_fit(json, Timestamp, Millis);
            does_not_fit(json, TimestampTz, Seconds);
        }
    }

    fn nested(lists: usize) -> String {
        format!("{}1{}", "[".repeat(lists), "]".repeat(lists))
    }

    #[test]
    fn a_document_is_parsed_with_every_digit() {
        let m = |name: &str, value| AttributeValue::M(HashMap::from([(name.to_owned(), value)]));
        for (text, value) in [
            (r#"{"a":1.50}"#, m("a", n("1.50"))),
            (
                " { \"a\" : 12345678901234567890123456789012345678 } ",
                m("a", n("12345678901234567890123456789012345678")),
            ),
            (r#"{"a":1,"a":2}"#, m("a", n("2"))),
            (r#"[true,null,"\u00e9#"]"#, {
                AttributeValue::L(vec![AttributeValue::Bool(true), AttributeValue::Null(true), s("é#")])
            }),
            ("null", AttributeValue::Null(true)),
            ("\"text\"", s("text")),
            ("-1.0e2", n("-1.0e2")),
            ("{}", AttributeValue::M(HashMap::new())),
        ] {
            fits(&quoted(text), Json, Document, value);
        }
        fits(r#"{"a":1.50}"#, Json, Document, m("a", n("1.50")));
        fits("[]", Json, Document, AttributeValue::L(vec![]));
        fits("7", Json, Document, n("7"));
        for text in ["", "{", "{a:1}", "[1,]", "1 2", "text", "NaN", r#"{"":1}"#, r#"{"a":[{"":1}]}"#, r#""\ud800""#] {
            does_not_fit(&quoted(text), Json, Document);
        }
        for json in [r#"{"":1}"#, "\"\\ud800\"", r#"["\ud800"]"#] {
            does_not_fit(json, Json, Document);
        }
        let large = column(raw("\"[1e38]\""), Some(Json), Document, 1);
        let expected = Typed { value: Some(AttributeValue::L(vec![s("1e38")])), as_text: true, unfit: false };
        assert_eq!(large, expected);
    }

    #[test]
    fn a_document_may_be_as_deep_as_dynamodb_takes_it_at_its_level() {
        for (lists, level, unfit) in
            [(31, 1, false), (32, 1, true), (30, 2, false), (31, 2, true), (33, 1, true), (100_000, 1, true)]
        {
            for json in [nested(lists), quoted(&nested(lists))] {
                let found = column(raw(&json), Some(Json), Document, level);
                assert_eq!(found.unfit, unfit, "{lists} at {level}");
                assert_eq!(matches!(found.value, Some(AttributeValue::S(_))), unfit, "{lists} at {level}");
                let found = column(raw(&json), Some(Json), AsInRecord, level);
                assert_eq!(found.as_text, unfit && json.starts_with('['), "{lists} at {level}");
            }
        }
    }

    #[test]
    fn base64_becomes_binary() {
        let b = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
        for (text, bytes) in
            [("", &b""[..]), ("AA==", &[0]), ("AAE=", &[0, 1]), ("AAEC", &[0, 1, 2]), ("+/+/", &[251, 255, 191])]
        {
            fits(&quoted(text), Bytea, Binary, b(bytes));
            assert_eq!(values::size(&b(bytes)), bytes.len());
        }
        fits("\"\\/w==\"", Bytea, Binary, b(&[255]));
        for text in ["AA", "AA=", "AB==", "A", "A A=", "AAEC\n", "-_-_", "AA===", "\\x00"] {
            does_not_fit(&quoted(text), Bytea, Binary);
        }
        for json in ["1", "[]", "\"\\ud800\""] {
            does_not_fit(json, Bytea, Binary);
        }
    }

    #[test]
    fn each_type_has_its_text_in_a_key() {
        let plain = "a number of more than 2,048 characters when written out";
        for (json, kind, expected) in [
            ("1", Some(Integer), Ok("1")),
            ("-9223372036854775808", Some(Integer), Ok("-9223372036854775808")),
            ("\"1.0\"", Some(Integer), Ok("1")),
            ("-0", Some(Integer), Ok("0")),
            ("-0.0", Some(Float), Ok("0")),
            ("1.50", Some(Float), Ok("1.5")),
            ("1e3", Some(Float), Ok("1000")),
            ("\"NaN\"", Some(Float), Ok("NaN")),
            ("\"Infinity\"", Some(Numeric), Ok("Infinity")),
            ("\"-Infinity\"", Some(Numeric), Ok("-Infinity")),
            ("\"infinity\"", Some(Numeric), Err("a string")),
            ("\"1.0\"", Some(Numeric), Ok("1")),
            ("\"\\u0031.50\"", Some(Numeric), Ok("1.5")),
            ("1.0", Some(Numeric), Ok("1")),
            ("\"01\"", Some(Numeric), Err("a string")),
            ("\"\"", Some(Numeric), Err("a string")),
            ("\"\\ud800\"", Some(Numeric), Err("text that is no JSON string")),
            ("true", Some(Numeric), Err("a boolean")),
            ("null", Some(Numeric), Err("null")),
            ("1e2047", Some(Float), Ok(&format!("1{}", "0".repeat(2047)))),
            ("1e2048", Some(Float), Err(plain)),
            ("1e2048", Some(Date), Err(plain)),
            ("1e2048", None, Err(plain)),
            ("true", Some(Boolean), Ok("true")),
            ("false", Some(Boolean), Ok("false")),
            ("\"true\"", Some(Boolean), Err("a string")),
            ("0", Some(Boolean), Err("a number")),
            ("-1", Some(Boolean), Err("a number")),
            ("\"A b\\n#%é\"", Some(Text), Ok("A b\n#%é")),
            ("\"1.0\"", Some(Text), Ok("1.0")),
            ("1.0", Some(Text), Ok("1")),
            ("\"\\ud800\"", Some(Text), Err("text that is no JSON string")),
            ("20484", Some(Date), Ok("2026-01-31")),
            ("2932897", Some(Date), Ok("2932897")),
            ("-719163", Some(Date), Ok("-719163")),
            ("1e30", Some(Date), Ok(&format!("1{}", "0".repeat(30)))),
            ("\"2026-01-31\"", Some(Date), Err("a string")),
            ("86400000000", Some(Time), Ok("24:00:00.000000")),
            ("-1", Some(Time), Ok("-1")),
            ("0", Some(TimeTz), Ok("00:00:00.000000Z")),
            ("1773843841048727", Some(Timestamp), Ok("2026-03-18T14:24:01.048727")),
            ("1773843841048727", Some(TimestampTz), Ok("2026-03-18T14:24:01.048727Z")),
            ("9223372036825200000", Some(TimestampTz), Ok("9223372036825200000")),
            ("-9223372036832400000", Some(Timestamp), Ok("-9223372036832400000")),
            ("null", Some(Timestamp), Err("null")),
            ("\"1.0\"", None, Ok("1.0")),
            ("1.0", None, Ok("1")),
            ("true", None, Ok("true")),
            ("[]", None, Err("an array")),
            ("{}", Some(Text), Err("an object")),
            ("null", None, Err("null")),
        ] {
            assert_eq!(key_text(raw(json), kind).as_deref(), expected.as_deref(), "{json} as {kind:?}");
        }
    }

    #[test]
    fn each_type_has_its_text_in_a_template_or_none() {
        for (json, kind, stands, expected) in [
            ("null", Some(Json), AsInRecord, Ok(None)),
            ("null", None, AsInRecord, Ok(None)),
            ("\"29.90\"", Some(Numeric), AsInRecord, Ok(Some("29.9"))),
            ("\"29.90\"", Some(Numeric), Number, Ok(Some("29.9"))),
            ("\"29.90\"", None, AsInRecord, Ok(Some("29.90"))),
            ("29.90", None, AsInRecord, Ok(Some("29.9"))),
            ("\"NaN\"", Some(Numeric), Number, Ok(Some("NaN"))),
            ("1e38", Some(Float), AsInRecord, Ok(Some("100000000000000000000000000000000000000"))),
            ("1e2048", Some(Float), AsInRecord, Err(Unusable)),
            ("true", Some(Boolean), AsInRecord, Ok(Some("true"))),
            ("\"a#\"", Some(Text), AsInRecord, Ok(Some("a#"))),
            ("\"\\ud800\"", Some(Text), AsInRecord, Err(Unusable)),
            ("20484", Some(Date), AsInRecord, Ok(Some("20484"))),
            ("20484", Some(Date), Iso8601, Ok(Some("2026-01-31"))),
            ("2932897", Some(Date), Iso8601, Ok(Some("2932897"))),
            ("1", Some(Time), Iso8601, Ok(Some("00:00:00.000001"))),
            ("1", Some(TimeTz), Iso8601, Ok(Some("00:00:00.000001Z"))),
            ("1500", Some(Timestamp), AsInRecord, Ok(Some("1500"))),
            ("1500", Some(Timestamp), Iso8601, Ok(Some("1970-01-01T00:00:00.001500"))),
            ("1500", Some(TimestampTz), Iso8601, Ok(Some("1970-01-01T00:00:00.001500Z"))),
            ("1500", Some(TimestampTz), Millis, Ok(Some("1.5"))),
            ("1500", Some(TimestampTz), Seconds, Ok(Some("0.0015"))),
            ("9223372036825200000", Some(TimestampTz), Millis, Ok(Some("9223372036825200000"))),
            ("1500", Some(Interval), AsInRecord, Ok(Some("1500"))),
            ("\"{}\"", Some(Json), AsInRecord, Err(Unusable)),
            ("7", Some(Json), Document, Err(Unusable)),
            ("\"AA==\"", Some(Bytea), AsInRecord, Err(Unusable)),
            ("[]", Some(OidVector), AsInRecord, Err(Unusable)),
            ("[]", None, AsInRecord, Err(Unusable)),
            ("{}", Some(Text), AsInRecord, Err(Unusable)),
        ] {
            let found = template_text(raw(json), kind, stands);
            assert_eq!(found.as_ref().map(Option::as_deref), expected.as_ref().map(|text| *text), "{json} as {kind:?}");
        }
    }

    #[test]
    fn an_attribute_of_type_n_takes_the_number_that_stands_for_a_value() {
        let digits = "9".repeat(38);
        for (json, kind, stands, expected) in [
            ("1.50", None, AsInRecord, Some("1.5")),
            ("\"1.50\"", None, AsInRecord, None),
            ("\"1.50\"", Some(Text), AsInRecord, None),
            ("\"1.50\"", Some(Numeric), AsInRecord, Some("1.5")),
            ("\"1.50\"", Some(Numeric), Number, Some("1.5")),
            ("\"NaN\"", Some(Numeric), Number, None),
            ("\"NaN\"", Some(Float), AsInRecord, None),
            (&digits, Some(Integer), AsInRecord, Some(&digits)),
            (&format!("{digits}9"), Some(Integer), AsInRecord, None),
            ("1e37", Some(Float), AsInRecord, Some(&format!("1{}", "0".repeat(37)))),
            ("1e38", Some(Float), AsInRecord, None),
            ("1e2048", Some(Float), AsInRecord, None),
            ("-0.0", Some(Float), AsInRecord, Some("0")),
            ("1500", Some(Timestamp), AsInRecord, Some("1500")),
            ("1500", Some(Timestamp), Iso8601, Some("1500")),
            ("20484", Some(Date), Iso8601, Some("20484")),
            ("1500", Some(Timestamp), Millis, Some("1.5")),
            ("1500", Some(TimestampTz), Seconds, Some("0.0015")),
            ("-9223372036832400000", Some(TimestampTz), Seconds, Some("-9223372036832400000")),
            ("\"2026\"", Some(Timestamp), Millis, None),
            ("true", Some(Boolean), AsInRecord, None),
            ("null", Some(Integer), AsInRecord, None),
            ("[]", None, AsInRecord, None),
        ] {
            assert_eq!(number_form(raw(json), kind, stands).as_deref(), expected, "{json} as {kind:?}, {stands:?}");
        }
    }

    #[test]
    fn a_row_may_go_once_its_time_has_passed() {
        for (json, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("1", Some(1)),
            ("1000000", Some(1)),
            ("1000001", Some(2)),
            ("1773843841048727", Some(1_773_843_842)),
            ("253402300799000000", Some(253_402_300_799)),
            ("253402300799999999", Some(253_402_300_800)),
            ("253402300800000000", None),
            ("9223372036825200000", None),
            ("-9223372036832400000", None),
            ("-1", Some(0)),
            ("-9223372036854775808", Some(0)),
            ("99999999999999999999", None),
            ("0.5", None),
            ("null", None),
            ("\"1\"", None),
            ("true", None),
            ("{}", None),
        ] {
            assert_eq!(expiry_seconds(raw(json)), expected, "{json}");
        }
    }

    #[test]
    fn hashes_are_hmacs_as_rfc_4231_has_them() {
        let long = [0xaa; 131];
        for (secret, text, hash) in [
            (&[0x0b; 20][..], "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &long,
                "Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(HashKey::new(secret).hex(raw(&quoted(text)), Some(Text)).as_deref(), Some(hash));
        }
        // A key of a block, and one byte more.
        for (bytes, hash) in [
            (64, "f91c4c403625fb06910ef93999265bbd2d62baeaec6ff36455498cc124fe3e66"),
            (65, "75092ca3ee2b307470c227697b42b3e65376aa3bae98fb5a1f7b7536daa9588a"),
        ] {
            assert_eq!(HashKey::new(&vec![b'k'; bytes]).hex(raw("\"x\""), None).as_deref(), Some(hash));
        }
    }

    #[test]
    fn values_that_are_equal_have_the_same_hash() {
        let key = HashKey::new(b"secret");
        let hash = |json: &str, kind| key.hex(raw(json), kind);
        let text = |text: &str| key.hex(raw(&quoted(text)), None);
        for (json, kind, expected) in [
            ("\"1.50\"", Some(Numeric), "1.5"),
            ("\"1.50\"", Some(Text), "1.50"),
            ("\"1.50\"", None, "1.50"),
            ("1.50", None, "1.5"),
            ("1e2", Some(Float), "100"),
            ("\"NaN\"", Some(Numeric), "NaN"),
            ("\"a\\n\\u00e9\"", Some(Text), "a\né"),
            ("true", Some(Boolean), "true"),
            ("1773843841048727", Some(Timestamp), "1773843841048727"),
            ("{\"a\": [1]}", Some(Json), "{\"a\": [1]}"),
            ("\"\\ud800\"", Some(Text), "\"\\ud800\""),
            ("1e2048", None, "1e2048"),
        ] {
            assert_eq!(hash(json, kind), text(expected), "{json}");
        }
        assert_eq!(hash("null", Some(Text)), None);
        assert_ne!(text("a"), HashKey::new(b"other").hex(raw("\"a\""), None));
        assert_eq!(format!("{key:?}"), "HashKey(…)");
    }

    /// A decimal number as coefficient and power of ten, and a text for it.
    fn decimal() -> impl Strategy<Value = (i64, i32, String)> {
        (prop_oneof![-12_i64..12, -2_000_i64..2_000, any::<i32>().prop_map(i64::from)], -4_i32..4, 0..3).prop_map(
            |(coefficient, power, style)| {
                let text = match style {
                    0 => format!("{coefficient}e{power}"),
                    1 => format!("{coefficient}.00E{power:+}"),
                    _ if power >= 0 => format!("{coefficient}{}", "0".repeat(usize::try_from(power).unwrap())),
                    _ => {
                        let decimals = usize::try_from(-power).unwrap();
                        let digits = format!("{:0width$}", coefficient.unsigned_abs(), width = decimals + 1);
                        let (whole, fraction) = digits.split_at(digits.len() - decimals);
                        format!("{}{whole}.{fraction}", if coefficient < 0 { "-" } else { "" })
                    }
                };
                // A zero before other digits is no number.
                let text = if coefficient == 0 && style == 2 && power > 0 { "0".to_owned() } else { text };
                (coefficient, power, text)
            },
        )
    }

    fn scaled((coefficient, power, _): &(i64, i32, String)) -> i128 {
        i128::from(*coefficient) * 10_i128.pow(u32::try_from(power + 4).unwrap())
    }

    fn micros() -> impl Strategy<Value = i64> {
        prop_oneof![
            any::<i64>(),
            -3_i64..3,
            (DAYS, 0..MICROS_PER_DAY).prop_map(|(days, micros)| days * MICROS_PER_DAY + micros),
            (0_usize..4, -2_i64..2).prop_map(|(edge, off)| {
                [DAYS.start() * MICROS_PER_DAY, (DAYS.end() + 1) * MICROS_PER_DAY, MICROS_PER_DAY, 0][edge] + off
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn timestamps_are_those_of_chrono(micros in micros()) {
            use chrono::Datelike;
            let found = iso8601(micros, Timestamp);
            let expected = DateTime::from_timestamp_micros(micros).filter(|time| (1..=9999).contains(&time.year()));
            let expected = expected.map(|time| time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string());
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(iso8601(micros, TimestampTz), expected.map(|text| text + "Z"));
        }

        #[test]
        fn dates_are_those_of_chrono(days in prop_oneof![DAYS, any::<i64>()]) {
            use chrono::Datelike;
            let date = i32::try_from(days).ok().and_then(NaiveDate::from_epoch_days);
            let expected = date.filter(|date| (1..=9999).contains(&date.year())).map(|date| date.to_string());
            prop_assert_eq!(iso8601(days, Date), expected);
        }

        #[test]
        fn two_numbers_share_a_key_only_if_they_are_equal(a in decimal(), b in decimal(), as_string in any::<bool>()) {
            let json = |text: &str| if as_string { quoted(text) } else { text.to_owned() };
            let (left, right) = (json(&a.2), json(&b.2));
            for kind in [Integer, Float, Numeric] {
                let (left, right) = (key_text(raw(&left), Some(kind)), key_text(raw(&right), Some(kind)));
                prop_assert!(left.is_ok());
                prop_assert_eq!(left == right, scaled(&a) == scaled(&b));
            }
        }

        #[test]
        fn numbers_are_compared_exactly(a in decimal(), b in decimal()) {
            prop_assert_eq!(numbers::compare(&a.2, &b.2), scaled(&a).cmp(&scaled(&b)));
        }

        #[test]
        fn two_dates_or_times_share_a_key_only_if_they_are_equal(a in micros(), b in micros()) {
            for kind in [Date, Time, TimeTz, Timestamp, TimestampTz] {
                for b in [b, a.saturating_add(1), a.saturating_mul(10), a] {
                    let (left, right) = (a.to_string(), b.to_string());
                    let (left, right) = (key_text(raw(&left), Some(kind)), key_text(raw(&right), Some(kind)));
                    prop_assert!(left.is_ok());
                    prop_assert_eq!(left == right, a == b);
                }
            }
        }

        #[test]
        fn two_texts_share_a_key_only_if_they_are_equal(a in "[a0.1N#%\\u{0}é]{0,3}", b in "[a0.1N#%\\u{0}é]{0,3}") {
            let (left, right) = (quoted(&a), quoted(&b));
            prop_assert_eq!(key_text(raw(&left), Some(Text)) == key_text(raw(&right), Some(Text)), a == b);
        }

        #[test]
        fn a_text_is_a_number_if_it_is_one_in_json(text in "[-+0-9.eE ]{0,6}") {
            let read: Option<&RawValue> = serde_json::from_str(&text).ok();
            prop_assert_eq!(numbers::is_number(&text), read.is_some_and(|json| json.get() == text));
        }

        #[test]
        fn units_are_exact(micros in any::<i64>()) {
            for (unit, decimals) in [(1_000, 3), (1_000_000, 6)] {
                let text = in_units(micros, unit, decimals);
                prop_assert!(numbers::is_number(&text) && !(text.contains('.') && text.ends_with('0')));
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                let digits = format!("{whole}{fraction:0<decimals$}");
                prop_assert_eq!(digits.parse::<i64>().unwrap(), micros);
            }
        }
    }
}
