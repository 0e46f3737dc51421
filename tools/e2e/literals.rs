//! Values of every type, as SQL writes them: the ordinary ones, and those at the edges.

use dsql_view_support::random::Random;

use crate::tables::Type;

/// Texts that are parts of keys. Nothing depends on their order.
pub const KEY_TEXTS: [&str; 16] = [
    "",
    "#",
    "%",
    "a",
    "a#b",
    "b#a",
    "a%23b",
    "%25",
    "##",
    "a.b",
    "ä😀",
    "it's",
    "\"quoted\"",
    "back\\slash",
    "line\nbreak\t\u{1}",
    " spaces ",
];

/// Values of `char(8)` that are parts of keys. PostgreSQL pads each to the width.
pub const KEY_CODES: [&str; 8] = ["", "a", "b  ", "  c", "a b", "12345678", "d#%\t ", "ä😀"];

/// Values of `numeric(12, 2)` that are parts of keys, whatever the scale in which a statement writes them.
pub const KEY_AMOUNTS: [&str; 6] = ["0", "1.5", "-0.01", "9999999999.99", "100", "2.50"];

/// Texts that a step on the way could take for something else.
const TEXTS: [&str; 22] = [
    "",
    " ",
    "null",
    "NULL",
    "true",
    "NaN",
    "Infinity",
    "0",
    "1e5",
    "{}",
    "[1]",
    "\\x00",
    "\u{1}\u{2}\u{1f}\u{7f}",
    "\n\r\t\u{8}\u{c}",
    "'\"`",
    "\\",
    "\\u0041\\",
    "#%&=",
    "ß 日本語 ё",
    "😀👩‍👩‍👧",
    "\u{feff}\u{200b}\u{2028}\u{fffd}\u{10ffff}",
    "</script>\u{85}",
];

/// PostgreSQL stores this many random characters or bytes out of line (TOAST).
const LONG: usize = 4_000;

/// A text as a literal.
pub fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The literal of the `number`-th value that a key column takes. Different numbers give different values.
pub fn key(of_type: Type, number: usize) -> String {
    match of_type {
        Type::BigInt if number == 0 => i64::MAX.to_string(),
        Type::BigInt if number == 1 => format!("'{}'", i64::MIN),
        Type::Boolean => (number == 0).to_string(),
        Type::Text => text(KEY_TEXTS[number]),
        Type::Uuid => format!("'00000000-0000-4000-8000-{number:012x}'"),
        Type::Date => format!("date '1969-12-27' + {number}"),
        Type::Timestamp => {
            text(["infinity", "-infinity", "1999-12-31 23:59:59.999999", "0001-01-01 00:00:00 BC"][number])
        }
        Type::Char => text(KEY_CODES[number]),
        Type::Money => KEY_AMOUNTS[number].to_owned(),
        _ => number.to_string(),
    }
}

/// The literal of any value, which may be null.
pub fn any(of_type: Type, random: &mut Random) -> String {
    match random.below(100) {
        0..8 => "NULL".to_owned(),
        8..40 => {
            let edges = edges(of_type);
            edges[random.below(edges.len())].to_owned()
        }
        _ => ordinary(of_type, random),
    }
}

/// The literals of a type that are at its edges, or that could be taken for something else.
fn edges(of_type: Type) -> &'static [&'static str] {
    match of_type {
        Type::SmallInt => &["'-32768'", "32767", "0"],
        Type::Integer => &["'-2147483648'", "2147483647", "0"],
        Type::BigInt => &["'-9223372036854775808'", "9223372036854775807", "0", "9007199254740993"],
        Type::Oid => &["0", "4294967295"],
        Type::Real => &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'-0'",
            "3.4028235e38",
            "1e-45",
            "0.1",
            "1e15",
            "16777216",
            "123456.7",
        ],
        Type::Double => &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'-0'",
            "1.7976931348623157e308",
            "'5e-324'",
            "0.1",
            "1e-130",
            "9.9e-131",
            "9.9e125",
            "1e126",
            "1e15",
            "1e16",
            "9007199254740993",
        ],
        Type::Numeric => &[
            "'NaN'",
            // Infinities came with PostgreSQL 14.
            "CASE WHEN current_setting('server_version_num')::integer < 140000 THEN 'NaN' ELSE 'Infinity' END::numeric",
            "CASE WHEN current_setting('server_version_num')::integer < 140000 THEN 'NaN' ELSE '-Infinity' END::numeric",
            "0",
            "0.00",
            "-0.000001",
            "1e100",
            "1e-100",
            "12345678901234567890123456789012345678901234567890.12345",
        ],
        Type::Money => &["0", "-0.01", "9999999999.99"],
        Type::Boolean => &["true", "false"],
        Type::Text | Type::Varchar => &["''", "' '", "'null'", "'NaN'", "'{}'", "'\\x00'", "'\u{1}\u{1f}\u{7f}'"],
        Type::Char | Type::Bpchar => {
            &["''", "'        '", "'  x'", "'x  '", "'x \t  '", "'\u{a0} '", "'12345678'", "'äöüß😀'"]
        }
        Type::Name => &["''", "'pg_class'"],
        Type::Uuid => &["'00000000-0000-0000-0000-000000000000'", "'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'"],
        Type::Bytea => &["''", "'\\x00'", "'\\xfbefbe'"],
        // As json they stay as they are. As jsonb, members move or disappear, and numbers are written anew.
        Type::Json | Type::Jsonb => &[
            "'{}'",
            "'null'",
            "'\"x\"'",
            "'  [1, 2.50 ,null, 1E+5, 1e-7]\n'",
            r#"'{"bb":1,"a":1,"a":2,"b" : {"c":["\u00e9\ud83d\ude00\u0001"]}}'"#,
            "'123456789012345678901234567890.5e-3'",
            r#"'"it''s"'"#,
        ],
        Type::Date => &["'1970-01-01'", "'0044-03-15 BC'", "'0001-01-01'", "'9999-12-31'", "'2024-02-29'"],
        Type::Time => &["'00:00:00'", "'24:00:00'", "'23:59:59.999999'", "'00:00:00.000001'", "'12:30'"],
        Type::TimeTz => &[
            "'00:00:00+00'",
            "'24:00:00+00'",
            "'23:59:59.999999+15:59'",
            "'00:30:00+02'",
            "'23:30-11:30'",
            "'12:00:00.5+05:30:15'",
        ],
        Type::Timestamp | Type::TimestampTz => &[
            "'infinity'",
            "'-infinity'",
            "'epoch'",
            "'0044-03-15 12:00:00.000001 BC'",
            "'1969-12-31 23:59:59.999999'",
            "'99999-06-15 01:02:03.000004'",
            "'2026-03-29 02:30:00'",
        ],
        Type::Interval => &[
            "'0'",
            "'1 year -1 mon'",
            "'-1 year -2 mons +3 days -04:05:06.789'",
            "'178000000 years'",
            "'-178000000 years'",
            "'30 days'",
            "'1 mon'",
            "'0.000001 s'",
            "'-0.5 s'",
            "'100000:00:00'",
        ],
        Type::OidVector => &["''", "'1'", "'23 42 4294967295'"],
    }
}

/// The literal of an ordinary value.
fn ordinary(of_type: Type, random: &mut Random) -> String {
    match of_type {
        Type::SmallInt => format!("'{}'", i64::from(low(random) >> 16) - (1 << 15)),
        Type::Integer => format!("'{}'", i64::from(low(random)) - (1 << 31)),
        Type::BigInt => format!("'{}'", random.number().cast_signed()),
        Type::Oid => low(random).to_string(),
        Type::Real => format!("'{:e}'", finite(f64::from(f32::from_bits(low(random))))),
        Type::Double => format!("'{:e}'", finite(f64::from_bits(random.number()))),
        Type::Numeric | Type::Money => format!("'{}.{:02}'", i64::from(low(random)) - (1 << 31), random.below(100)),
        Type::Boolean => random.percent(50).to_string(),
        Type::Text => text(&any_text(random, 60)),
        Type::Varchar => text(&any_text(random, 40)),
        Type::Char => text(&format!("{:1$}", any_text(random, 8), random.below(12))),
        Type::Bpchar => text(&format!("{:1$}", any_text(random, 20), random.below(24))),
        Type::Name => text(&any_text(random, 15)),
        Type::Uuid => format!("'{:016x}{:016x}'", random.number(), random.number()),
        Type::Bytea => {
            let bytes = if random.percent(4) { LONG } else { random.below(40) };
            format!("'\\x{}'", hex(bytes, random))
        }
        // This text is so long that it, too, stands out of line.
        Type::Jsonb if random.percent(4) => format!("'{{\"long\": \"{}\"}}'", hex(LONG, random)),
        Type::Json | Type::Jsonb => format!("'{{\"n\": {}, \"t\":\"{:x}\"}}'", random.number(), random.number()),
        Type::Date => format!("date 'epoch' + {}", i64::from(low(random) % 60_000) - 30_000),
        Type::Time => text(&clock(random)),
        Type::TimeTz => {
            format!("'{}{:+03}:{:02}'", clock(random), i64::from(low(random) % 29) - 14, 15 * random.below(4))
        }
        Type::Timestamp => format!("timestamp 'epoch' + {}", since_epoch(random)),
        Type::TimestampTz => format!("timestamptz 'epoch' + {}", since_epoch(random)),
        Type::Interval => format!(
            "'{} mons {} days {} microseconds'",
            i64::from(low(random) % 500) - 250,
            i64::from(low(random) % 500) - 250,
            i64::from(low(random)) - (1 << 31)
        ),
        Type::OidVector => format!("'{}'", low(random)),
    }
}

/// This many random bytes, in hexadecimal digits.
fn hex(bytes: usize, random: &mut Random) -> String {
    let digits: Vec<String> = (0..bytes).map(|_| format!("{:02x}", random.below(256))).collect();
    digits.concat()
}

/// Any 32 bits.
fn low(random: &mut Random) -> u32 {
    u32::try_from(random.number() >> 32).expect("32 bits are left")
}

fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.5 }
}

fn clock(random: &mut Random) -> String {
    let (hour, minute, second) = (random.below(24), random.below(60), random.below(60));
    format!("{hour:02}:{minute:02}:{second:02}.{:06}", random.below(1_000_000))
}

/// An interval from some 95 years before the epoch to as many after it.
fn since_epoch(random: &mut Random) -> String {
    format!("interval '{} days {}'", i64::from(low(random) % 70_000) - 35_000, clock(random))
}

/// A text of at most this many characters. If there is room for it, this is now and then one that PostgreSQL stores out
/// of line.
fn any_text(random: &mut Random, longest: usize) -> String {
    if random.percent(40) {
        return TEXTS[random.below(TEXTS.len())].chars().take(longest).collect();
    }
    let length =
        if longest >= 60 && random.percent(5) { 3_000 + random.below(6_000) } else { random.below(longest + 1) };
    let alphabet: Vec<char> =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;#%'\"\\äßé€😀\u{1}\n".chars().collect();
    (0..length).map(|_| alphabet[random.below(alphabet.len())]).collect()
}
