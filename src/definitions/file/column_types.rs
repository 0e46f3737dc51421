//! The types of columns as the file writes them, and the ways in which their values can stand.

use toml::de::DeTable;

use crate::definitions::file::faults::{Faults, listed, quoted};
use crate::definitions::file::reading::{Written, members, text, unknown_key};
use crate::definitions::types::{ColumnType, Stands};

/// A column's type as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind<'a> {
    /// The type.
    pub column_type: ColumnType,
    /// Its place in [`FAMILIES`], if its values can stand in several ways.
    family: Option<usize>,
    /// Whether the text is a UUID.
    pub uuid: bool,
    /// The type as it is written.
    pub written: &'a str,
}

/// The types whose values can stand in several ways, the first of which is the one without definitions.
const FAMILIES: [(&str, &[(&str, Stands)]); 9] = [
    ("numeric", &[("string", Stands::AsInRecord), ("number", Stands::Number)]),
    ("timestamp", &TIMESTAMPS),
    ("timestamptz", &TIMESTAMPS),
    ("date", &[("days", Stands::AsInRecord), ("iso8601", Stands::Iso8601)]),
    ("time", &[("micros", Stands::AsInRecord), ("iso8601", Stands::Iso8601)]),
    ("timetz", &[("micros", Stands::AsInRecord), ("iso8601", Stands::Iso8601)]),
    ("json", &[("string", Stands::AsInRecord), ("document", Stands::Document)]),
    ("jsonb", &[("string", Stands::AsInRecord), ("document", Stands::Document)]),
    ("bytea", &[("base64", Stands::AsInRecord), ("binary", Stands::Binary)]),
];

const TIMESTAMPS: [(&str, Stands); 4] = [
    ("micros", Stands::AsInRecord),
    ("iso8601", Stands::Iso8601),
    ("millis", Stands::Millis),
    ("seconds", Stands::Seconds),
];

/// The names that a message can suggest.
const NAMES: &str = "text uuid integer bigint smallint int numeric decimal boolean bool timestamptz timestamp date time timetz \
                     jsonb json varchar char bpchar name real float bytea interval oid";

/// How the values of each of [`FAMILIES`] stand, unless a column says otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Defaults([Stands; FAMILIES.len()]);

impl Defaults {
    /// Reads `[types]`.
    pub(super) fn read<'a>(table: &'a DeTable<'a>, faults: &mut Faults<'a>) -> Self {
        let mut defaults = Self::default();
        for (key, value) in members(table) {
            let Some(family) = FAMILIES.iter().position(|(name, _)| *name == key.text) else {
                unknown_key(faults, key, "[types]", &FAMILIES.map(|(name, _)| name));
                continue;
            };
            let example = format!("{} = \"{}\"", key.text, FAMILIES[family].1[1].0);
            if let Some(found) = text(faults, key.text, value, &example) {
                defaults.0[family] = stands(found, family, faults).unwrap_or_default();
            }
        }
        defaults
    }

    /// How the values of a column of this type stand.
    pub(super) fn of(&self, kind: Kind<'_>) -> Stands {
        kind.family.map(|family| self.0[family]).unwrap_or_default()
    }
}

/// Reads the `as` of a column.
pub(super) fn read_as(found: Written<'_>, kind: Kind<'_>, faults: &mut Faults<'_>) -> Option<Stands> {
    let Some(family) = kind.family else {
        let message = format!("a column of type {} stands in one way only: leave `as` out", kind.written);
        faults.add(found.at, message);
        return None;
    };
    stands(found, family, faults)
}

fn stands(found: Written<'_>, family: usize, faults: &mut Faults<'_>) -> Option<Stands> {
    let (name, ways) = FAMILIES[family];
    let way = ways.iter().find(|(way, _)| *way == found.text);
    if way.is_none() {
        let known: Vec<String> = ways.iter().map(|(way, _)| quoted(way)).collect();
        let known = listed(known.iter().map(String::as_str), "or");
        faults.add(found.at, format!("a {name} cannot stand as {}: write {known}", found.quoted()));
    }
    way.map(|(_, stands)| *stands)
}

/// Reads the type of a column.
pub(super) fn read_type<'a>(found: Written<'a>, faults: &mut Faults<'a>) -> Option<Kind<'a>> {
    let kind = of_name(found.text).or_else(|| of_name_in_full(found.text));
    if kind.is_none() {
        let instead = match faults.nearest(found.text, NAMES.split(' ')) {
            Some(near) => format!("write \"{near}\""),
            None => {
                "write a type of PostgreSQL, such as text, uuid, bigint, numeric, boolean, timestamptz, date or jsonb"
                    .to_owned()
            }
        };
        faults.add(found.at, format!("there is no type {}: {instead}", found.quoted()));
    }
    kind.map(|(column_type, family, _)| Kind {
        column_type,
        family: family.and_then(|family| FAMILIES.iter().position(|(name, _)| *name == family)),
        uuid: found.text.eq_ignore_ascii_case("uuid"),
        written: found.text,
    })
}

/// A type, its name in [`FAMILIES`], and whether its name may have a length or precision.
type Named = (ColumnType, Option<&'static str>, bool);

fn of_name(name: &str) -> Option<Named> {
    Some(match name {
        "smallint" | "int2" | "integer" | "int" | "int4" | "bigint" | "int8" | "oid" => {
            (ColumnType::Integer, None, false)
        }
        "real" | "float4" | "float8" | "double precision" => (ColumnType::Float, None, false),
        "float" => (ColumnType::Float, None, true),
        "numeric" | "decimal" | "dec" => (ColumnType::Numeric, Some("numeric"), true),
        "boolean" | "bool" => (ColumnType::Boolean, None, false),
        "text" | "name" | "uuid" => (ColumnType::Text, None, false),
        "varchar" | "character varying" | "char varying" | "char" | "character" | "bpchar" => {
            (ColumnType::Text, None, true)
        }
        "json" => (ColumnType::Json, Some("json"), false),
        "jsonb" => (ColumnType::Json, Some("jsonb"), false),
        "bytea" => (ColumnType::Bytea, Some("bytea"), false),
        "date" => (ColumnType::Date, Some("date"), false),
        "time" | "time without time zone" => (ColumnType::Time, Some("time"), true),
        "timetz" | "time with time zone" => (ColumnType::TimeTz, Some("timetz"), true),
        "timestamp" | "timestamp without time zone" => (ColumnType::Timestamp, Some("timestamp"), true),
        "timestamptz" | "timestamp with time zone" => (ColumnType::TimestampTz, Some("timestamptz"), true),
        "interval" => (ColumnType::Interval, None, true),
        "oidvector" => (ColumnType::OidVector, None, false),
        _ => return None,
    })
}

/// Finds a type whose name has capitals, spaces, or a length or precision in brackets, such as `numeric(10, 2)` or
/// `TIMESTAMP (3) WITH TIME ZONE`.
fn of_name_in_full(name: &str) -> Option<Named> {
    let name = name.to_ascii_lowercase();
    let (before, numbers, after) = match name.split_once('(') {
        Some((before, rest)) => rest.split_once(')').map(|(numbers, after)| (before, Some(numbers), after))?,
        None => (name.as_str(), None, ""),
    };
    let words: Vec<&str> = before.split_whitespace().chain(after.split_whitespace()).collect();
    let named = match words.as_slice() {
        // Its fields may follow, as in INTERVAL DAY TO SECOND.
        ["interval", ..] => of_name("interval")?,
        words => of_name(&words.join(" "))?,
    };
    let is_number = |number: &str| number.trim().parse::<i16>().is_ok();
    (numbers.is_none_or(|numbers| named.2 && numbers.split(',').all(is_number))).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_as_in_sql() {
        for (names, expected) in [
            (&["smallint", "int2", "INTEGER", "int", "int4", "bigint", "int8", "oid"][..], ColumnType::Integer),
            (&["real", "float4", "float8", "double precision", "Double  Precision", "float(24)"], ColumnType::Float),
            (&["numeric", "decimal", "numeric(10,2)", "Numeric (10, -2)", "decimal(5)"], ColumnType::Numeric),
            (&["boolean", "bool"], ColumnType::Boolean),
            (
                &[
                    "text",
                    "varchar",
                    "varchar(20)",
                    "character varying (20)",
                    "char",
                    "character(1)",
                    "bpchar",
                    "name",
                    "UUID",
                ],
                ColumnType::Text,
            ),
            (&["json", "JSONB"], ColumnType::Json),
            (&["bytea"], ColumnType::Bytea),
            (&["date"], ColumnType::Date),
            (&["time", "time(3)", "time (3) without time zone"], ColumnType::Time),
            (&["timetz", "timetz(3)", "time with time zone"], ColumnType::TimeTz),
            (&["timestamp", "timestamp without time zone", "timestamp(0)"], ColumnType::Timestamp),
            (&["timestamptz", "TIMESTAMP (3) WITH TIME ZONE", "timestamp(3) with time zone"], ColumnType::TimestampTz),
            (&["interval", "interval(3)", "INTERVAL DAY TO SECOND", "interval second (3)"], ColumnType::Interval),
            (&["oidvector"], ColumnType::OidVector),
        ] {
            for name in names {
                let found = of_name(name).or_else(|| of_name_in_full(name)).map(|(found, ..)| found);
                assert_eq!(found, Some(expected), "{name}");
            }
        }
        for name in [
            "",
            "strng",
            "text[]",
            "integer(4)",
            "numeric(a)",
            "numeric()",
            "numeric(1",
            "with time zone",
            "timestamp with",
        ] {
            assert_eq!(of_name_in_full(name), None, "{name}");
        }
    }
}
