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
    #[error(
        "the key column {column} is {found}: expected a number that DynamoDB's type N takes, as the view table's key has that type"
    )]
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
