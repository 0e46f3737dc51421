//! Values of a TOML tree as the types that the definitions want.
//!
//! Invariant: a value of another type becomes a fault with an example, and no value.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::definitions::file::faults::{Faults, listed, quoted};

/// The keys of a `[[table]]`.
pub(super) const KEYS: [&str; 13] = [
    "name",
    "primary_key",
    "view",
    "key",
    "columns",
    "only",
    "except",
    "rename",
    "rows",
    "attributes",
    "group",
    "hash",
    "expires_at",
];

/// A value of the file.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// A text of the file, a key or a string, with its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<'a> {
    pub text: &'a str,
    /// Where it begins in the file, in bytes.
    pub at: usize,
    end: usize,
}

impl<'a> Written<'a> {
    pub(super) fn of_key(key: &'a Spanned<Cow<'a, str>>) -> Self {
        Self { text: key.get_ref(), at: key.span().start, end: key.span().end }
    }

    /// A piece of another text, which begins at this place of the file.
    pub(super) fn within(text: &'a str, at: usize) -> Self {
        Self { text, at, end: at }
    }

    /// The place in the file of a place in the text: the exact one, unless the file writes the text with escapes.
    pub(super) fn place(self, within: usize) -> usize {
        const QUOTATION_MARKS: usize = 2;
        if self.end - self.at == self.text.len() + QUOTATION_MARKS { self.at + 1 + within } else { self.at }
    }

    pub(super) fn quoted(self) -> String {
        quoted(self.text)
    }
}

/// The members of a table in the order of the file.
pub(super) fn members<'a>(table: &'a DeTable<'a>) -> Vec<(Written<'a>, &'a Value<'a>)> {
    let mut members: Vec<_> = table.iter().map(|(key, value)| (Written::of_key(key), value)).collect();
    members.sort_by_key(|(key, _)| key.at);
    members
}

/// Where a value begins.
pub(super) fn start(value: &Value<'_>) -> usize {
    value.span().start
}

/// A string. `example` says what to write instead of something else.
pub(super) fn text<'a>(
    faults: &mut Faults<'a>,
    what: &str,
    value: &'a Value<'a>,
    example: &str,
) -> Option<Written<'a>> {
    if let DeValue::String(text) = value.get_ref() {
        return Some(Written { text, at: value.span().start, end: value.span().end });
    }
    wrong_type(faults, what, value, example);
    None
}

/// A list of strings.
pub(super) fn texts<'a>(
    faults: &mut Faults<'a>,
    what: &str,
    value: &'a Value<'a>,
    example: &str,
) -> Option<Vec<Written<'a>>> {
    let DeValue::Array(values) = value.get_ref() else {
        wrong_type(faults, what, value, example);
        return None;
    };
    let mut texts = Vec::with_capacity(values.len());
    for value in values {
        if value.get_ref().is_str() {
            texts.extend(text(faults, what, value, example));
        } else {
            wrong_type(faults, &format!("a value of {what}"), value, example);
        }
    }
    Some(texts)
}

/// A table.
pub(super) fn table<'a>(
    faults: &mut Faults<'a>,
    what: &str,
    value: &'a Value<'a>,
    example: &str,
) -> Option<&'a DeTable<'a>> {
    if let DeValue::Table(table) = value.get_ref() {
        return Some(table);
    }
    wrong_type(faults, what, value, example);
    None
}

/// Adds the fault that a value has another type.
pub(super) fn wrong_type(faults: &mut Faults<'_>, what: &str, value: &Value<'_>, example: &str) {
    faults.add(start(value), format!("{what} is {}: write {example}", kind_of(value)));
}

/// The TOML type of a value.
pub(super) fn kind_of(value: &Value<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Adds the fault that a key is none of the known ones.
pub(super) fn unknown_key(faults: &mut Faults<'_>, key: Written<'_>, of: &str, known: &[&str]) {
    let instead = match faults.nearest(key.text, known.iter().copied()) {
        Some(near) => format!("write {near}"),
        None => format!("the keys of {of} are {}", listed(known.iter().copied(), "and")),
    };
    faults.add(key.at, format!("there is no key {}: {instead}", key.quoted()));
}
