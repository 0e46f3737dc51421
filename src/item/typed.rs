//! Values by the type of their column: as attribute values, as text in keys and templates, as numbers, as hashes.
//!
//! | type | in an item, if the definition says so | in a key |
//! |---|---|---|
//! | `smallint`, `integer`, `bigint`, `oid`, `real`, `double precision` | as in the record | the number in plain notation |
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
        // Only null begins like this.
        _ if json.get().starts_with('n') => None,
        Stands::Number => number_text(json, Some(ColumnType::Numeric))
            .and_then(|text| held(AttributeValue::N(values::fitting_number(&text)?.to_owned()))),
        Stands::Iso8601 | Stands::Millis | Stands::Seconds => time_text(json, kind, stands).and_then(|text| {
            held(if stands == Stands::Iso8601 { AttributeValue::S(text) } else { AttributeValue::N(text) })
        }),
        Stands::Document => document(json, level),
        Stands::Binary => binary(json).and_then(held),
    };
    match converted {
        Some((value, as_text)) => Typed { value: Some(value), as_text, unfit: false },
        None => {
            let values::Column { value, as_text } = values::nested_column(json, level);
            let unfit = stands != Stands::AsInRecord && value.is_some();
            Typed { value, as_text, unfit }
        }
    }
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
        Some(kind) if is_of_numbers(kind) => number_text(json, Some(kind)).and_then(plain).or_else(|| word(json)),
        Some(kind) if is_of_times(kind) => match time_text(json, Some(kind), Stands::Iso8601) {
            Some(text) => Some(Cow::Owned(text)),
            None => number_text(json, None).and_then(plain),
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
    use ColumnType::{Bytea, Json, OidVector};

    if json.get() == "null" {
        return Ok(None);
    }
    let text = match kind {
        Some(Json | Bytea | OidVector) => None,
        Some(kind) if is_of_times(kind) => time_text(json, Some(kind), stands).map(Cow::Owned),
        _ => number_text(json, kind).and_then(plain),
    };
    match (text, kind) {
        (None, Some(Json | Bytea | OidVector)) => Err(Unusable),
        (None, _) => text_by_kind(json).map(Some).ok_or(Unusable),
        (text, _) => Ok(text),
    }
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

/// A number in plain notation, if the value is a number of fewer than [`LONGEST_KEY`] digits.
pub(crate) fn canonical_number(json: &RawValue, kind: Option<ColumnType>) -> Option<Cow<'_, str>> {
    plain(number_text(json, kind)?)
}

/// A number as the record writes it, out of a string too if the type is one of numbers.
pub(crate) fn number_text(json: &RawValue, kind: Option<ColumnType>) -> Option<Cow<'_, str>> {
    match json.get().as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Some(Cow::Borrowed(json.get())),
        Some(b'"') if kind.is_some_and(is_of_numbers) => {
            json::unquoted(json).ok().filter(|text| values::is_number(text))
        }
        _ => None,
    }
}

fn plain(number: Cow<'_, str>) -> Option<Cow<'_, str>> {
    match number {
        Cow::Borrowed(number) => values::plain_notation(number, LONGEST_KEY),
        Cow::Owned(number) => Some(Cow::Owned(values::plain_notation(&number, LONGEST_KEY)?.into_owned())),
    }
}

/// One of the words for what is no finite number.
pub(crate) fn word(json: &RawValue) -> Option<Cow<'_, str>> {
    let text = json::unquoted(json).ok()?;
    matches!(&*text, "NaN" | "Infinity" | "-Infinity").then_some(text)
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
/// null, infinite, no timestamp, before 1970 or after 9999.
pub fn expiry_seconds(json: &RawValue) -> Option<u64> {
    const LAST_SECOND: u64 = 253_402_300_799;
    let micros = u64::try_from(whole_number(json)?).ok()?;
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
