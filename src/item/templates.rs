//! The texts of keys and index attributes, made by templates such as `ORDER#{id}`.
//!
//! `%` and `#` of a value are escaped as in URLs. So no value looks like a literal of its template.
//!
//! Invariants: pure; in a key, two different rows of a table never have the same texts; an error names columns, never
//! values.

use std::borrow::Cow;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::value::RawValue;

use crate::definitions::shape::{Column, Shape};
use crate::definitions::source_tables::push_escaped;
use crate::definitions::template::{Part, Placeholder, Template};
use crate::definitions::types::{ColumnType, Stands};
use crate::item::typed::{self, Unusable};
use crate::record::json;

/// Why a row has no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum KeyFault {
    #[error("the key column {column} is missing")]
    ColumnMissing { column: String },
    #[error("the key column {column} is {found}: expected a value of its type that fits into a key")]
    Unusable { column: String, found: &'static str },
    #[error(
        "the key column {column} cannot be padded: expected a whole number without a sign, of at most {digits} digits"
    )]
    NotPadded { column: String, digits: usize },
    #[error("the key column {column} is {found}: expected a number, since the view table's key has type N")]
    NotANumber { column: String, found: &'static str },
    #[error("the key is empty: DynamoDB takes 1 byte or more")]
    Empty,
}

/// An index attribute of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum AttributeText {
    /// The item has it with this value.
    Value(AttributeValue),
    /// The item does not have it, because a column is null or absent.
    Absent,
    /// The item does not have it, because a column's value cannot stand in it.
    Unusable,
}

/// The text of a key attribute. With `number`, the view table's key has type N, and the template is one placeholder
/// without padding: then it is the number in plain notation, of a date or time the record's number.
///
/// # Errors
/// The values do not make a key. Its length is not looked at.
pub fn key_attribute(
    template: &Template,
    shape: &Shape,
    values: &[Option<&RawValue>],
    number: bool,
) -> Result<String, KeyFault> {
    let mut key = String::with_capacity(room(template, values));
    for part in &template.parts {
        match part {
            Part::Literal(text) => key.push_str(text),
            Part::Column(placeholder) => push_key_value(&mut key, *placeholder, shape, values, number)?,
        }
    }
    if key.is_empty() { Err(KeyFault::Empty) } else { Ok(key) }
}

fn push_key_value(
    key: &mut String,
    Placeholder { column: place, pad, lower: _ }: Placeholder,
    shape: &Shape,
    values: &[Option<&RawValue>],
    number: bool,
) -> Result<(), KeyFault> {
    let Column { name, kind, .. } = &shape.columns[place];
    let column = || name.clone();
    let json = values[place].ok_or_else(|| KeyFault::ColumnMissing { column: column() })?;
    if number {
        // How the definition has the column's values stand does not matter in a key.
        let number = typed::number_form(json, *kind, Stands::AsInRecord);
        let number = number.ok_or_else(|| KeyFault::NotANumber { column: column(), found: json::kind(json) })?;
        key.push_str(&number);
    } else if let Some(digits) = pad {
        push_padded(key, json, *kind, digits).ok_or_else(|| KeyFault::NotPadded { column: column(), digits })?;
    } else {
        let text = typed::key_text(json, *kind);
        let text = text.map_err(|found| KeyFault::Unusable { column: column(), found })?;
        push_escaped(key, &text, &['%', '#']);
    }
    Ok(())
}

/// Appends a whole number with zeros before it. `None` if it is no such number, has a sign or is too long.
fn push_padded(to: &mut String, json: &RawValue, kind: Option<ColumnType>, digits: usize) -> Option<()> {
    let number = typed::canonical_number(json, kind)?;
    let missing = digits.checked_sub(number.len())?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    to.extend(std::iter::repeat_n('0', missing));
    to.push_str(&number);
    Some(())
}

/// An index attribute. `wanted` is the type that an index wants for it, if an index names it. A template that is one
/// placeholder alone takes that type, or else the column's own. Any other is text.
pub fn attribute(
    template: &Template,
    shape: &Shape,
    values: &[Option<&RawValue>],
    wanted: Option<&str>,
) -> AttributeText {
    let is_there = |placeholder: Placeholder| values[placeholder.column].is_some_and(|json| json.get() != "null");
    if !template.placeholders().all(is_there) {
        return AttributeText::Absent;
    }
    let text = || attribute_text(template, shape, values).map(AttributeValue::S);
    let value = match template.lone() {
        Some(Placeholder { column: place, pad: None, lower: false }) if wanted != Some("S") => {
            let column = &shape.columns[place];
            values[place].and_then(|json| match wanted {
                Some("N") => {
                    typed::number_form(json, column.kind, column.stands).map(|n| AttributeValue::N(n.into_owned()))
                }
                _ => own_value(json, column).or_else(text),
            })
        }
        _ => text(),
    };
    value.map_or(AttributeText::Unusable, AttributeText::Value)
}

/// A column's own value, if that is a number or a boolean.
fn own_value(json: &RawValue, column: &Column) -> Option<AttributeValue> {
    // Other strings, and documents, are not worth converting.
    let may_be = !json.get().starts_with(['"', '[', '{']) || column.stands == Stands::Number;
    let value = may_be.then(|| typed::column(json, column.kind, column.stands, 1).value)??;
    matches!(value, AttributeValue::N(_) | AttributeValue::Bool(_)).then_some(value)
}

/// The text of an index attribute, or `None` if a value cannot stand in it.
fn attribute_text(template: &Template, shape: &Shape, values: &[Option<&RawValue>]) -> Option<String> {
    let mut text = String::with_capacity(room(template, values));
    for part in &template.parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Column(Placeholder { column, pad, lower }) => {
                let Column { kind, stands, .. } = &shape.columns[*column];
                let json = values[*column]?;
                if let Some(digits) = pad {
                    push_padded(&mut text, json, *kind, *digits)?;
                    continue;
                }
                let value = match typed::template_text(json, *kind, *stands) {
                    Ok(value) => value?,
                    Err(Unusable) => return None,
                };
                let value = if *lower { Cow::Owned(value.to_lowercase()) } else { value };
                push_escaped(&mut text, &value, &['%', '#']);
            }
        }
    }
    Some(text)
}

/// About as many bytes as a text needs. ISO 8601 has some more than the number in the record.
fn room(template: &Template, values: &[Option<&RawValue>]) -> usize {
    let bytes = template.parts.iter().map(|part| match part {
        Part::Literal(text) => text.len(),
        Part::Column(placeholder) => values[placeholder.column].map_or(0, |json| json.get().len()) + 12,
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::definitions::shape::Placement;
    use crate::definitions::types::ColumnType::{
        Boolean, Bytea, Date, Float, Integer, Json, Numeric, Text, Timestamp, TimestampTz,
    };
    use crate::definitions::types::Stands::{AsInRecord, Binary, Document, Iso8601, Millis, Number};

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    fn literal(text: &str) -> Part {
        Part::Literal(text.to_owned())
    }

    fn plain(column: usize) -> Part {
        Part::Column(Placeholder { column, pad: None, lower: false })
    }

    fn padded(column: usize, digits: usize) -> Part {
        Part::Column(Placeholder { column, pad: Some(digits), lower: false })
    }

    fn lowered(column: usize) -> Part {
        Part::Column(Placeholder { column, pad: None, lower: true })
    }

    fn template(parts: &[Part]) -> Template {
        Template { parts: parts.to_vec() }
    }

    /// The columns `c0`, `c1` and so on.
    fn shape(columns: &[(Option<ColumnType>, Stands)]) -> Shape {
        let column = |(place, (kind, stands)): (usize, &(Option<ColumnType>, Stands))| Column {
            name: format!("c{place}"),
            kind: *kind,
            stands: *stands,
            hashed: false,
            placement: Placement::LeftOut,
            in_key: Some(place),
        };
        Shape { columns: columns.iter().enumerate().map(column).collect(), ..Shape::default() }
    }

    fn s(text: &str) -> AttributeText {
        AttributeText::Value(AttributeValue::S(text.to_owned()))
    }

    fn n(digits: &str) -> AttributeText {
        AttributeText::Value(AttributeValue::N(digits.to_owned()))
    }

    #[test]
    fn a_key_has_its_literals_and_the_escaped_values() {
        let shape = shape(&[(Some(Text), AsInRecord), (Some(Numeric), Number), (Some(TimestampTz), Millis)]);
        let values = [Some(raw("\"a#b%\"")), Some(raw("\"1.50\"")), Some(raw("1500"))];
        for (parts, expected) in [
            (&[literal("ORDER#%{"), plain(0)][..], "ORDER#%{a%23b%25"),
            (&[plain(0), literal("#"), plain(1), literal("#x")], "a%23b%25#1.5#x"),
            (&[plain(2)], "1970-01-01T00:00:00.001500Z"),
            (&[literal("META")], "META"),
        ] {
            assert_eq!(key_attribute(&template(parts), &shape, &values, false).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_padded_value_is_a_whole_number_without_a_sign() {
        for (kind, json, expected) in [
            (None, "0", Some("00000")),
            (Some(Integer), "7", Some("00007")),
            (Some(Integer), "12345", Some("12345")),
            (Some(Integer), "123456", None),
            (Some(Integer), "-1", None),
            (Some(Integer), "-0", Some("00000")),
            (Some(Numeric), "\"42.00\"", Some("00042")),
            (Some(Numeric), "\"42.01\"", None),
            (Some(Numeric), "\"NaN\"", None),
            (Some(Float), "1e4", Some("10000")),
            (Some(Float), "1e5", None),
            (Some(Text), "\"7\"", None),
            (None, "\"7\"", None),
            (Some(Boolean), "true", None),
            (None, "{}", None),
            (Some(Timestamp), "1500", Some("01500")),
        ] {
            let template = template(&[literal("N#"), padded(0, 5)]);
            let shape = shape(&[(kind, AsInRecord)]);
            let values = [Some(raw(json))];
            let key = key_attribute(&template, &shape, &values, false);
            let fault = || KeyFault::NotPadded { column: "c0".to_owned(), digits: 5 };
            let expected = expected.map(|text| format!("N#{text}"));
            assert_eq!(key, expected.clone().ok_or_else(fault), "{json}");
            let found = attribute(&template, &shape, &values, None);
            assert_eq!(found, expected.map_or(AttributeText::Unusable, |text| s(&text)), "{json}");
        }
    }

    #[test]
    fn a_key_of_type_n_is_a_number_in_plain_notation() {
        let digits = "9".repeat(39);
        for (kind, stands, json, expected) in [
            (Some(Integer), AsInRecord, "42", Ok("42")),
            (Some(Integer), AsInRecord, &digits[..38], Ok(&digits[..38])),
            (Some(Integer), AsInRecord, &digits, Err("a number that does not fit")),
            (Some(Numeric), AsInRecord, "\"1.50\"", Ok("1.5")),
            (Some(Numeric), Number, "\"NaN\"", Err("a string")),
            (Some(Timestamp), Iso8601, "1500", Ok("1500")),
            (Some(Timestamp), Millis, "1500", Ok("1500")),
            (Some(Date), Iso8601, "-1", Ok("-1")),
            (Some(Text), AsInRecord, "\"1\"", Err("a string")),
            (Some(Boolean), AsInRecord, "true", Err("a boolean")),
            (None, AsInRecord, "null", Err("null")),
        ] {
            let found = key_attribute(&template(&[plain(0)]), &shape(&[(kind, stands)]), &[Some(raw(json))], true);
            let fault = |found| KeyFault::NotANumber { column: "c0".to_owned(), found };
            assert_eq!(found, expected.map(ToOwned::to_owned).map_err(fault), "{json}");
        }
    }

    #[test]
    fn a_row_without_a_key_says_which_column_is_at_fault() {
        let shape = shape(&[(Some(Text), AsInRecord), (Some(Integer), AsInRecord)]);
        let both = template(&[plain(0), literal("#"), plain(1)]);
        for (values, message) in [
            ([None, Some("1")], "the key column c0 is missing"),
            ([Some("\"a\""), None], "the key column c1 is missing"),
            ([Some("null"), Some("1")], "the key column c0 is null: expected a value of its type that fits into a key"),
            (
                [Some("\"a\""), Some("\"secret\"")],
                "the key column c1 is a string: expected a value of its type that fits into a key",
            ),
        ] {
            let values = values.map(|json| json.map(raw));
            assert_eq!(key_attribute(&both, &shape, &values, false).unwrap_err().to_string(), message);
        }
        let values = [Some(raw("\"\"")), Some(raw("-1"))];
        for (parts, number, message) in [
            (&[plain(0)][..], false, "the key is empty: DynamoDB takes 1 byte or more"),
            (
                &[padded(1, 3)],
                false,
                "the key column c1 cannot be padded: expected a whole number without a sign, of at most 3 digits",
            ),
            (
                &[plain(0)],
                true,
                "the key column c0 is a string: expected a number, since the view table's key has type N",
            ),
        ] {
            assert_eq!(key_attribute(&template(parts), &shape, &values, number).unwrap_err().to_string(), message);
        }
        assert_eq!(key_attribute(&template(&[plain(0), literal("#")]), &shape, &values, false).as_deref(), Ok("#"));
    }

    #[test]
    fn an_attribute_of_several_parts_is_text() {
        let shape = shape(&[
            (Some(Text), AsInRecord),
            (Some(Numeric), AsInRecord),
            (Some(TimestampTz), Iso8601),
            (Some(Json), Document),
        ]);
        let values = [Some(raw("\"Ä#B%\"")), Some(raw("\"1.50\"")), Some(raw("1500")), Some(raw("\"{}\""))];
        for wanted in [None, Some("S"), Some("N"), Some("B")] {
            for (parts, expected) in [
                (&[literal("X%#"), plain(0)][..], s("X%#Ä%23B%25")),
                (&[lowered(0)], s("ä%23b%25")),
                (&[lowered(0), literal("#"), plain(1)], s("ä%23b%25#1.5")),
                (&[plain(2), literal("#"), plain(1)], s("1970-01-01T00:00:00.001500Z#1.5")),
                (&[literal("Order")], s("Order")),
                (&[literal("Order"), plain(3)], AttributeText::Unusable),
            ] {
                assert_eq!(attribute(&template(parts), &shape, &values, wanted), expected, "{wanted:?}");
            }
        }
    }

    #[test]
    fn a_null_or_absent_column_leaves_an_attribute_out() {
        let shape = shape(&[(Some(Text), AsInRecord), (Some(Json), AsInRecord)]);
        for wanted in [None, Some("S"), Some("N")] {
            for missing in [None, Some(raw("null"))] {
                for parts in
                    [&[plain(0)][..], &[padded(0, 3)], &[lowered(0)], &[literal("A#"), plain(0)], &[plain(1), plain(0)]]
                {
                    let values = [missing, Some(raw("\"{}\""))];
                    assert_eq!(attribute(&template(parts), &shape, &values, wanted), AttributeText::Absent);
                }
            }
        }
    }

    #[test]
    fn a_lone_placeholder_takes_the_type_of_the_index_or_of_its_column() {
        use AttributeText::{Unusable, Value};
        let large = format!("1{}", "0".repeat(38));
        let boolean = |value| Value(AttributeValue::Bool(value));
        // The column, its value, and the attribute with an index of N, with one of S and without one.
        for (kind, stands, json, number, text, own) in [
            (Some(Text), AsInRecord, "\"a#%\"", Unusable, s("a%23%25"), s("a%23%25")),
            (None, AsInRecord, "\"a#%\"", Unusable, s("a%23%25"), s("a%23%25")),
            (Some(Text), AsInRecord, "\"\"", Unusable, s(""), s("")),
            (Some(Integer), AsInRecord, "42", n("42"), s("42"), n("42")),
            (None, AsInRecord, "1.50", n("1.5"), s("1.5"), n("1.50")),
            (Some(Float), AsInRecord, "1e38", Unusable, s(&large), s(&large)),
            (Some(Float), AsInRecord, "\"NaN\"", Unusable, s("NaN"), s("NaN")),
            (Some(Numeric), AsInRecord, "\"1.50\"", n("1.5"), s("1.5"), s("1.5")),
            (Some(Numeric), Number, "\"1.50\"", n("1.5"), s("1.5"), n("1.50")),
            (Some(Numeric), Number, "\"NaN\"", Unusable, s("NaN"), s("NaN")),
            (Some(Boolean), AsInRecord, "true", Unusable, s("true"), boolean(true)),
            (Some(Timestamp), AsInRecord, "1500", n("1500"), s("1500"), n("1500")),
            (
                Some(Timestamp),
                Iso8601,
                "1500",
                n("1500"),
                s("1970-01-01T00:00:00.001500"),
                s("1970-01-01T00:00:00.001500"),
            ),
            (Some(Timestamp), Millis, "1500", n("1.5"), s("1.5"), n("1.5")),
            (Some(Date), Iso8601, "2932897", n("2932897"), s("2932897"), n("2932897")),
            (Some(Json), Document, "\"{}\"", Unusable, Unusable, Unusable),
            (Some(Json), Document, "{}", Unusable, Unusable, Unusable),
            (Some(Json), AsInRecord, "\"{}\"", Unusable, Unusable, Unusable),
            (Some(Bytea), Binary, "\"AA==\"", Unusable, Unusable, Unusable),
            (None, AsInRecord, "[1]", Unusable, Unusable, Unusable),
            (None, AsInRecord, "{\"\":1}", Unusable, Unusable, Unusable),
            (Some(Text), AsInRecord, "\"\\ud800\"", Unusable, Unusable, Unusable),
        ] {
            let of = |wanted| attribute(&template(&[plain(0)]), &shape(&[(kind, stands)]), &[Some(raw(json))], wanted);
            assert_eq!(of(Some("N")), number, "{json}");
            assert_eq!(of(Some("S")), text, "{json}");
            assert_eq!(of(None), own, "{json}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn two_rows_share_a_key_only_if_they_are_the_same(
            a in ("[%#.25a]{0,3}", 0_u32..1_200, -2_i64..2),
            b in ("[%#.25a]{0,3}", 0_u32..1_200, -2_i64..2),
        ) {
            let shape = shape(&[(Some(Text), AsInRecord), (Some(Integer), AsInRecord), (Some(TimestampTz), Millis)]);
            let partition = template(&[literal("A#"), plain(0), literal("#b"), padded(1, 4)]);
            let sort = template(&[plain(2)]);
            let key = |(text, whole, time): &(String, u32, i64)| {
                let json = [serde_json::to_string(text).unwrap(), whole.to_string(), time.to_string()];
                let values = [0, 1, 2].map(|place: usize| Some(raw(&json[place])));
                [&partition, &sort].map(|template| key_attribute(template, &shape, &values, false).unwrap())
            };
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }
}
