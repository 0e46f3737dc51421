//! The values that conditions compare with.
//!
//! Invariants: a number keeps every digit of the file; a date or time stands as in a record; what has no exact value in
//! the column's type is a fault.

use std::borrow::Cow;

use chrono::NaiveDate;
use toml::de::DeValue;

use crate::definitions::conditions::Constant;
use crate::definitions::file::column_types::Kind;
use crate::definitions::file::reading::Value;
use crate::definitions::numbers::{INFINITY, MINUS_INFINITY, NAN, is_number, plain_notation};
use crate::definitions::types::ColumnType;

/// The most bytes of a number in plain notation.
const LONGEST_NUMBER: usize = 1000;

/// A value to compare a column of this type with; `written` is its text in the file. If there is none, what to write
/// instead.
pub(super) fn constant(value: &Value<'_>, written: &str, kind: Option<Kind<'_>>) -> Result<Constant, &'static str> {
    use ColumnType::{Boolean, Bytea, Date, Float, Integer, Interval, Json, Numeric, OidVector, Text};
    use ColumnType::{Time, TimeTz, Timestamp, TimestampTz};
    let Some(kind) = kind else { return untyped(value) };
    let text = match value.get_ref() {
        DeValue::String(text) => Some(text.as_ref()),
        DeValue::Datetime(_) => Some(written),
        _ => None,
    };
    let with = |read: fn(&str) -> Option<i64>| text.and_then(read).map(Constant::Integer);
    match kind.column_type {
        Integer => number(value, false).ok_or("a number, such as 100"),
        Numeric | Float => number(value, true).ok_or("a number, such as 12.50"),
        Boolean => boolean(value).ok_or("true or false, without quotation marks"),
        Text => {
            let text = value.get_ref().as_str();
            if kind.uuid {
                return text.and_then(uuid).ok_or("a UUID, such as \"0190f6f4-7a5e-7c3e-8a9b-0123456789ab\"");
            }
            let text = text.ok_or("a text, such as \"draft\"")?;
            Ok(Constant::Text(text.to_owned()))
        }
        Date => with(date).ok_or("a date, such as \"2026-01-31\""),
        Time => with(time).ok_or("a time with at most six decimals, such as \"12:30:00\""),
        TimeTz => with(time_in_utc).ok_or("a time in UTC with at most six decimals, such as \"12:30:00Z\""),
        Timestamp => with(timestamp)
            .ok_or("date and time without a zone, with at most six decimals, such as \"2026-01-31T12:30:00\""),
        TimestampTz => with(timestamp_with_zone)
            .ok_or("date, time and zone, with at most six decimals, such as \"2026-01-31T12:30:00Z\""),
        Json | Bytea | Interval | OidVector => Err("is_null, the only test for that type"),
    }
}

/// Whether values of this type can only be null or not.
pub(super) fn is_without_order(column_type: ColumnType) -> bool {
    matches!(column_type, ColumnType::Json | ColumnType::Bytea | ColumnType::Interval | ColumnType::OidVector)
}

fn untyped(value: &Value<'_>) -> Result<Constant, &'static str> {
    match value.get_ref() {
        DeValue::String(text) => Ok(Constant::Text(text.as_ref().to_owned())),
        DeValue::Boolean(value) => Ok(Constant::Boolean(*value)),
        DeValue::Integer(_) | DeValue::Float(_) => {
            number(value, false).ok_or("a finite number, or the column's type in columns")
        }
        DeValue::Datetime(_) => {
            Err("the types of the table's columns too, as in columns = { placed_at = \"timestamptz\", … }")
        }
        DeValue::Array(_) | DeValue::Table(_) => Err("a text, a number, true or false"),
    }
}

fn boolean(value: &Value<'_>) -> Option<Constant> {
    value.get_ref().as_bool().map(Constant::Boolean)
}

fn number(value: &Value<'_>, with_words: bool) -> Option<Constant> {
    let text = match value.get_ref() {
        DeValue::Integer(integer) if integer.radix() == 10 => plain(integer.as_str()),
        DeValue::Integer(integer) => {
            i128::from_str_radix(integer.as_str(), integer.radix()).ok().map(|value| value.to_string())
        }
        DeValue::Float(float) => plain(float.as_str()).or_else(|| word(float.as_str())),
        DeValue::String(text) => plain(text).or_else(|| word(text)),
        _ => None,
    };
    text.filter(|text| with_words || ![NAN, INFINITY, MINUS_INFINITY].contains(&text.as_str())).map(Constant::Number)
}

/// A number in plain notation.
fn plain(text: &str) -> Option<String> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if is_number(text) { plain_notation(text, LONGEST_NUMBER).map(Cow::into_owned) } else { None }
}

/// The words for values that are no numbers, as PostgreSQL and TOML have them.
fn word(text: &str) -> Option<String> {
    let word = match text {
        "NaN" | "nan" | "+nan" | "-nan" => NAN,
        "Infinity" | "inf" | "+inf" => INFINITY,
        "-Infinity" | "-inf" => MINUS_INFINITY,
        _ => return None,
    };
    Some(word.to_owned())
}

/// A UUID in the only form that records have.
fn uuid(text: &str) -> Option<Constant> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    let fits =
        |(place, byte): (usize, u8)| if HYPHENS.contains(&place) { byte == b'-' } else { byte.is_ascii_hexdigit() };
    let is_uuid = text.len() == 36 && text.bytes().enumerate().all(fits);
    is_uuid.then(|| Constant::Text(text.to_ascii_lowercase()))
}

const MICROSECONDS_A_SECOND: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;

/// A number of two or four digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// A date as days since 1970-01-01.
fn date(text: &str) -> Option<i64> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let year = i32::try_from(digits(year, 4)?).ok().filter(|year| *year > 0)?;
    let date = NaiveDate::from_ymd_opt(year, digits(month, 2)?, digits(day, 2)?)?;
    Some(date.signed_duration_since(NaiveDate::default()).num_days())
}

/// A time as microseconds since midnight.
fn time(text: &str) -> Option<i64> {
    let (hour, rest) = text.split_once(':')?;
    let (minute, rest) = rest.split_once(':').unwrap_or((rest, "00"));
    let (second, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
    let (hour, minute, second) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
    let is_time = hour < 24 && minute < 60 && second < 60;
    let significant = fraction.trim_end_matches('0');
    if !is_time || fraction.is_empty() || significant.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let microseconds: i64 = format!("{significant:0<6}").parse().ok()?;
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(seconds * MICROSECONDS_A_SECOND + microseconds)
}

fn time_in_utc(text: &str) -> Option<i64> {
    time(in_utc(text).unwrap_or(text))
}

/// The text without its sign of UTC.
fn in_utc(text: &str) -> Option<&str> {
    ["Z", "z", "+00:00"].iter().find_map(|zone| text.strip_suffix(zone))
}

/// A timestamp as microseconds since 1970-01-01.
fn timestamp(text: &str) -> Option<i64> {
    let text = in_utc(text).unwrap_or(text);
    let (day, clock) = text.split_once(['T', 't', ' '])?;
    Some(date(day)? * SECONDS_A_DAY * MICROSECONDS_A_SECOND + time(clock)?)
}

fn timestamp_with_zone(text: &str) -> Option<i64> {
    if let Some(text) = in_utc(text) {
        return timestamp(text);
    }
    let (text, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let sign = match offset.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    Some(timestamp(text)? - sign * time(&offset[1..])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_stand_as_in_records() {
        for (read, text, expected) in [
            (date as fn(&str) -> Option<i64>, "1970-01-01", Some(0)),
            (date, "2026-01-31", Some(20_484)),
            (date, "0001-01-01", Some(-719_162)),
            (date, "9999-12-31", Some(2_932_896)),
            (date, "0000-01-01", None),
            (date, "2026-02-29", None),
            (date, "2026-1-31", None),
            (date, "2026-01-31T00:00:00", None),
            (time, "00:00", Some(0)),
            (time, "12:30:00.5", Some(45_000_500_000)),
            (time, "23:59:59.999999", Some(86_399_999_999)),
            (time, "23:59:59.9999990", Some(86_399_999_999)),
            (time, "23:59:59.9999999", None),
            (time, "24:00:00", None),
            (time, "23:60:00", None),
            (time, "23:59:60", None),
            (time, "1:30:00", None),
            (time, "12:30:00.", None),
            (time, "12:30:00Z", None),
            (time_in_utc, "12:30:00Z", Some(45_000_000_000)),
            (time_in_utc, "12:30:00+02:00", None),
            (timestamp, "2026-03-18T14:24:01.048727", Some(1_773_843_841_048_727)),
            (timestamp, "2026-03-18 14:24:01Z", Some(1_773_843_841_000_000)),
            (timestamp, "1969-12-31T23:59:59.999999", Some(-1)),
            (timestamp, "2026-03-18T14:24:01+01:00", None),
            (timestamp, "2026-03-18", None),
            (timestamp_with_zone, "2026-03-18T14:24:01z", Some(1_773_843_841_000_000)),
            (timestamp_with_zone, "2026-03-18T16:24:01+02:00", Some(1_773_843_841_000_000)),
            (timestamp_with_zone, "2026-03-18T10:54:01-03:30", Some(1_773_843_841_000_000)),
            (timestamp_with_zone, "2026-03-18T14:24:01", None),
            (timestamp_with_zone, "2026-03-18T14:24:01+2:00", None),
            (timestamp_with_zone, "2026-03-18T14:24:01+0200", None),
            (timestamp_with_zone, "2026-03-18T14:24:01ü", None),
            (timestamp_with_zone, "", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
