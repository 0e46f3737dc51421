//! Turns the text that PostgreSQL writes for a column's value into the value in Aurora DSQL's records.
//!
//! The text is that of a session with [`SETTINGS`]. The expectation that the view is compared with shares nothing with
//! this.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{Datelike, NaiveDate};
use serde_json::Value;

/// The settings of a session whose texts can be read here.
pub const SETTINGS: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'iso_8601'; \
                            SET extra_float_digits = 1; SET bytea_output = 'hex'";

/// The number in the documentation for an infinite timestamp.
const INFINITY: i64 = 9_223_372_036_825_200_000;
const MINUS_INFINITY: i64 = -9_223_372_036_832_400_000;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// The JSON text of a value of the type with this object id (`pg_type`).
///
/// # Errors
/// The type is not in the documented mapping, or the text is not of it.
pub fn json(type_id: u32, text: &str) -> Result<String, String> {
    let read = match type_id {
        // bigint, smallint, integer, oid
        20 | 21 | 23 | 26 => Some(text.to_owned()),
        // real, double precision
        700 | 701 => Some(if text.ends_with(['N', 'y']) { quoted(text) } else { text.to_owned() }),
        // text, varchar, name, uuid, json, numeric; and jsonb, about which the documentation says nothing
        25 | 1043 | 19 | 2950 | 114 | 1700 | 3802 => Some(quoted(text)),
        // char, which the slot gives with its padding
        1042 => Some(quoted(text.trim_end_matches(' '))),
        16 => match text {
            "t" => Some("true".to_owned()),
            "f" => Some("false".to_owned()),
            _ => None,
        },
        17 => bytes(text).map(|bytes| quoted(&BASE64_STANDARD.encode(bytes))),
        1082 => days(text).map(|days| days.to_string()),
        1083 => clock(text).map(|micros| micros.to_string()),
        1266 => zoned_clock(text).map(|micros| micros.to_string()),
        1114 | 1184 => instant(text).map(|micros| micros.to_string()),
        1186 => {
            interval(text).map(|micros| i64::try_from(micros).map_or("null".to_owned(), |micros| micros.to_string()))
        }
        30 => Some("[]".to_owned()),
        _ => return Err(format!("the type {type_id} is not in the documented mapping")),
    };
    read.ok_or_else(|| format!("expected a value of the type {type_id}, found {text:?}"))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect()
}

/// Days since 1970, of `2026-03-18` or `0044-03-15 BC`.
fn days(text: &str) -> Option<i64> {
    let (date, is_before_christ) = text.strip_suffix(" BC").map_or((text, false), |date| (date, true));
    let mut parts = date.split('-');
    let year: i32 = parts.next()?.parse().ok()?;
    // There is no year 0: 1 BC is the year before 1.
    let year = if is_before_christ { 1 - year } else { year };
    let date = NaiveDate::from_ymd_opt(year, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?)?;
    Some(i64::from(date.num_days_from_ce()) - i64::from(NaiveDate::from_ymd_opt(1970, 1, 1)?.num_days_from_ce()))
}

/// Microseconds since midnight, of `14:24:01.5`.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hours, minutes) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    Some((hours * 60 + minutes) * 60 * SECOND + seconds(parts.next().unwrap_or("0"))?)
}

/// Microseconds since midnight in UTC, of `14:24:01.5+05:30`.
fn zoned_clock(text: &str) -> Option<i64> {
    let (local, zone) = text.split_at(text.rfind(['+', '-'])?);
    let ahead = if zone.starts_with('-') { -1 } else { 1 };
    let zone = &zone[1..];
    let zone = if zone.contains(':') { clock(zone)? } else { clock(&format!("{zone}:00"))? };
    Some((clock(local)? - ahead * zone).rem_euclid(DAY))
}

/// Microseconds, of a decimal number of seconds.
fn seconds(text: &str) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
    Some(sign * (whole.parse::<i64>().ok()? * SECOND + fraction))
}

/// Microseconds since 1970, of `2026-03-18 14:24:01.5`, with or without `+00` behind it.
fn instant(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(INFINITY),
        "-infinity" => return Some(MINUS_INFINITY),
        _ => {}
    }
    let (text, era) = text.strip_suffix(" BC").map_or((text, ""), |text| (text, " BC"));
    let (date, time) = text.split_once(' ')?;
    let time = time.strip_suffix("+00").unwrap_or(time);
    days(&format!("{date}{era}"))?.checked_mul(DAY)?.checked_add(clock(time)?)
}

/// Microseconds, of `P1Y2M3DT4H5M6.5S`, in which each part may have a sign.
///
/// The documentation says "approximate" and no more. Here a year is twelve months, a month 30 days, and a day 24 hours.
fn interval(text: &str) -> Option<i128> {
    let (date, time) = text.strip_prefix('P')?.split_once('T').unwrap_or((&text[1..], ""));
    let mut micros = 0;
    for (part, is_time) in [(date, false), (time, true)] {
        for piece in part.split_inclusive(|character: char| character.is_ascii_alphabetic()) {
            let (number, unit) = piece.split_at(piece.len() - 1);
            let unit = match (unit, is_time) {
                ("Y", false) => 360 * DAY,
                ("M", false) => 30 * DAY,
                ("D", false) => DAY,
                ("H", true) => 3_600 * SECOND,
                ("M", true) => 60 * SECOND,
                ("S", true) => {
                    micros += i128::from(seconds(number)?);
                    continue;
                }
                _ => return None,
            };
            micros += i128::from(number.parse::<i64>().ok()?) * i128::from(unit);
        }
    }
    Some(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_written_as_documented() {
        for (type_id, text, expected) in [
            (21, "-32768", "-32768"),
            (23, "2147483647", "2147483647"),
            (20, "9223372036854775807", "9223372036854775807"),
            (26, "4294967295", "4294967295"),
            (700, "0.1", "0.1"),
            (700, "NaN", r#""NaN""#),
            (701, "1e-130", "1e-130"),
            (701, "1.7976931348623157e+308", "1.7976931348623157e+308"),
            (701, "-0", "-0"),
            (701, "Infinity", r#""Infinity""#),
            (701, "-Infinity", r#""-Infinity""#),
            (1700, "29.99", r#""29.99""#),
            (1700, "NaN", r#""NaN""#),
            (16, "t", "true"),
            (16, "f", "false"),
            (25, "", r#""""#),
            (25, "a\u{1}\n\"\\é😀", r#""a\u0001\n\"\\é😀""#),
            (1043, "x", r#""x""#),
            (1042, "x       ", r#""x""#),
            (1042, "  x\t    ", r#""  x\t""#),
            (1042, "12345678", r#""12345678""#),
            (1042, "        ", r#""""#),
            (19, "pg_class", r#""pg_class""#),
            (2950, "521d51b6-47fd-46dc-854a-32306bfc5001", r#""521d51b6-47fd-46dc-854a-32306bfc5001""#),
            (17, "\\x", r#""""#),
            (17, "\\xfbef00", r#""++8A""#),
            (114, "{\"a\": 1.50,\n\"a\":null}", r#""{\"a\": 1.50,\n\"a\":null}""#),
            (3802, r#"{"a": 1.50, "bb": null}"#, r#""{\"a\": 1.50, \"bb\": null}""#),
            (1082, "1970-01-01", "0"),
            (1082, "1969-12-31", "-1"),
            (1082, "2026-03-18", "20530"),
            (1082, "0001-01-01", "-719162"),
            (1082, "0001-12-31 BC", "-719163"),
            (1082, "0044-03-15 BC", "-735160"),
            (1083, "00:00:00", "0"),
            (1083, "23:59:59.999999", "86399999999"),
            (1083, "24:00:00", "86400000000"),
            (1266, "12:00:00+00", "43200000000"),
            (1266, "00:30:00+02", "81000000000"),
            (1266, "23:30:00-11:30", "39600000000"),
            (1266, "12:00:00.5+05:30:15", "23385500000"),
            (1114, "2026-03-18 14:24:01.048727", "1773843841048727"),
            (1184, "2026-03-18 14:24:01.048727+00", "1773843841048727"),
            (1114, "1969-12-31 23:59:59.999999", "-1"),
            (1184, "0001-12-31 00:00:00+00 BC", "-62135683200000000"),
            (1114, "99999-06-15 00:00:00", "3093510700800000000"),
            (1114, "infinity", "9223372036825200000"),
            (1184, "-infinity", "-9223372036832400000"),
            (1186, "PT0S", "0"),
            (1186, "P1Y", "31104000000000"),
            (1186, "P1M", "2592000000000"),
            (1186, "P-1Y-2M3DT-4H-5M-6.789S", "-36043506789000"),
            (1186, "PT-0.5S", "-500000"),
            (1186, "P178000000Y", "null"),
            (30, "1 2 3", "[]"),
        ] {
            assert_eq!(json(type_id, text).as_deref(), Ok(expected), "{type_id} {text}");
        }
    }

    #[test]
    fn what_is_not_of_its_type_is_an_error() {
        for (type_id, text) in [
            (16, "true"),
            (17, "abc"),
            (1082, "infinity"),
            (1083, "12"),
            (1114, "2026-03-18"),
            (1186, "1 day"),
            (600, "(1,2)"),
        ] {
            assert!(json(type_id, text).is_err(), "{type_id} {text}");
        }
    }
}
