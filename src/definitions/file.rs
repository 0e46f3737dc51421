//! The definitions file, `views.toml`: read and checked as a whole.
//!
//! Invariants: pure; either every table of the file is right, or nothing of it is used and one error names every fault
//! with its place; a file of many tables takes no more time than its length tells.

mod column_types;
mod columns;
mod constants;
mod contradictions;
mod faults;
mod names;
mod reading;
mod rows;
mod tables;
mod templates;

use toml::de::{DeTable, DeValue};

use crate::definitions::file::column_types::Defaults;
use crate::definitions::file::faults::Faults;
pub use crate::definitions::file::faults::{DefinitionsError, Fault};
use crate::definitions::file::reading::{KEYS, Value, kind_of, members, start, table, text, unknown_key, wrong_type};
use crate::definitions::file::tables::Common;
use crate::definitions::marks::Marks;
use crate::definitions::source_tables::{SourceTable, SourceTables};

/// What a definitions file says.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// The tables that the view keeps.
    pub tables: SourceTables,
    /// The names of the view's own attributes.
    pub marks: Marks,
    /// What is allowed but hardly meant, one sentence each, with its place.
    pub warnings: Vec<String>,
}

/// Reads a definitions file. `name` is its path, which the messages show.
///
/// # Errors
/// All faults of the file.
pub fn read(name: &str, bytes: &[u8]) -> Result<Definitions, DefinitionsError> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(not_utf8(name, bytes, error.valid_up_to())),
    };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    piece_by_piece(text).map_or_else(|| whole(name, text), Ok)
}

/// Reads a file of many tables in the memory of one: each `[[table]]` alone. `None` if the file has few tables, a fault
/// or a warning, or if a piece of it might mean something else than the same lines in the whole file.
fn piece_by_piece(text: &str) -> Option<Definitions> {
    const FEW: usize = 50;
    const HEADER: &str = "\n[[table]]";
    // Only such a string has lines that look like a header.
    let strings_have_lines = ["\"\"\"", "'''"].iter().any(|quotes| text.contains(quotes));
    let headers: Vec<usize> = text.match_indices(HEADER).map(|(newline, _)| newline + 1).collect();
    if strings_have_lines || headers.len() < FEW {
        return None;
    }
    let (head, _) = text.split_at(headers[0]);
    let root = DeTable::parse(head).ok()?;
    let mut faults = Faults::new("", head);
    let common = common_of(root.get_ref(), &mut faults);
    let mut tables = SourceTables::default();
    if root.get_ref().contains_key("table") || !faults.finish().is_ok_and(|warnings| warnings.is_empty()) {
        return None;
    }
    let ends = headers.iter().skip(1).copied().chain([text.len()]);
    for (start, end) in headers.iter().zip(ends) {
        let piece = &text[*start..end];
        let root = DeTable::parse(piece).ok()?;
        let mut faults = Faults::new("", piece);
        let entries = root.get_ref().get("table").filter(|_| root.get_ref().len() == 1)?;
        for entry in entries.get_ref().as_array()? {
            tables.insert(tables::read(entry, &common, &mut faults)?.table).ok()?;
        }
        faults.finish().ok().filter(Vec::is_empty)?;
    }
    let changes_something = !root.get_ref().contains_key("types") || tables.iter().any(has_types);
    changes_something.then_some(Definitions { tables, marks: common.marks, warnings: Vec::new() })
}

fn whole(name: &str, text: &str) -> Result<Definitions, DefinitionsError> {
    let mut faults = Faults::new(name, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut is_readable = true;
    for error in first_of_lines(errors, text) {
        is_readable &= syntax(&error, &mut faults);
    }
    let mut definitions = Definitions::default();
    // What the parser makes of a broken file is not what the file means.
    if is_readable {
        (definitions.tables, definitions.marks) = definitions_of(root.get_ref(), &mut faults);
    }
    definitions.warnings = faults.finish()?;
    Ok(definitions)
}

const BYTE_ORDER_MARK: char = '\u{feff}';

fn not_utf8(name: &str, bytes: &[u8], valid: usize) -> DefinitionsError {
    let text = std::str::from_utf8(&bytes[..valid]).unwrap_or_default();
    let byte = bytes[valid];
    let mut faults = Faults::new(name, text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text));
    let message = format!("byte {} of the file, {byte:#04x}, is no UTF-8: save the file as UTF-8", valid + 1);
    faults.add(faults.end(), message);
    faults.into_error()
}

/// The first error of each line, and all that name a key twice. Behind the first, the parser finds errors that are none.
fn first_of_lines(mut errors: Vec<toml::de::Error>, text: &str) -> Vec<toml::de::Error> {
    let place = |error: &toml::de::Error| error.span().unwrap_or_default().start;
    errors.sort_by_key(place);
    let mut passed: Option<usize> = None;
    errors.retain(|error| {
        let at = place(error);
        let is_first = passed.is_none_or(|passed| text[passed..at].contains('\n'));
        if is_first {
            passed = Some(at);
        }
        is_first || error.message() == TWICE
    });
    errors
}

/// What the parser says of a key that is there twice.
const TWICE: &str = "duplicate key";

/// Adds the fault of a text that is no TOML, and returns whether the rest can be read.
fn syntax(error: &toml::de::Error, faults: &mut Faults<'_>) -> bool {
    let span = error.span().unwrap_or_default();
    let found = faults.quote(span.start, span.end);
    if error.message() == TWICE {
        faults.add(span.start, format!("{found} stands twice here: remove one of the two"));
        return true;
    }
    let advice = advice(error.message(), &found);
    let found = if found.is_empty() { String::new() } else { format!(", found {found}") };
    faults.add(span.start, format!("this is no TOML: {}{found}{advice}", error.message()));
    false
}

/// What to write instead, for the mistakes that people make most.
fn advice(message: &str, found: &str) -> String {
    if found.starts_with(':') {
        return "; write = between a key and its value".to_owned();
    }
    // The parser takes a text that begins with i or n for the beginning of inf or nan.
    if !["string values must be quoted", "invalid float"].iter().any(|known| message.starts_with(known)) {
        return String::new();
    }
    match found.trim_matches(|next: char| !next.is_alphanumeric()) {
        "null" => "; TOML has no null".to_owned(),
        text => format!("; write \"{text}\", in straight quotation marks"),
    }
}

fn definitions_of<'a>(root: &'a DeTable<'a>, faults: &mut Faults<'a>) -> (SourceTables, Marks) {
    if root.is_empty() {
        let message =
            "the file says nothing: begin with version = 1, and list each table as [[table]] with name and primary_key";
        faults.add(0, message);
        return <_>::default();
    }
    let common = common_of(root, faults);
    let tables = root.get("table").map(|value| tables(value, &common, faults));
    if let (Some(types), Some(tables)) = (root.get("types"), &tables)
        && !tables.iter().any(has_types)
    {
        faults.warn(
            start(types),
            "[types] changes nothing, because no table lists its columns with their types in columns",
        );
    }
    if tables.is_none() {
        faults.add(faults.end(), "the file names no table: add each as [[table]] with name and primary_key");
    }
    (tables.unwrap_or_default(), common.marks)
}

/// Reads what stands above the tables.
fn common_of<'a>(root: &'a DeTable<'a>, faults: &mut Faults<'a>) -> Common {
    const TOP: [&str; 4] = ["version", "types", "marks", "table"];
    for (key, _) in members(root).into_iter().filter(|(key, _)| !TOP.contains(&key.text)) {
        if KEYS.contains(&key.text) {
            faults.add(key.at, format!("{} belongs to a table: write it below the [[table]]", key.text));
        } else {
            unknown_key(faults, key, "the file", &TOP);
        }
    }
    match root.get("version") {
        None => faults.add(0, "the file has no version: begin with version = 1"),
        Some(value) => version(value, faults),
    }
    let types = root.get("types").and_then(|value| table(faults, "types", value, "[types]"));
    let defaults = types.map(|types| Defaults::read(types, faults)).unwrap_or_default();
    let marks = root.get("marks").and_then(|value| marks(value, faults)).unwrap_or_default();
    Common { defaults, marks }
}

fn has_types(table: &SourceTable) -> bool {
    table.shape().is_some_and(|shape| shape.columns.iter().any(|column| column.kind.is_some()))
}

fn version(value: &Value<'_>, faults: &mut Faults<'_>) {
    if let DeValue::Integer(version) = value.get_ref() {
        if version.to_string() != "1" {
            let message = format!(
                "version is {version}, and this function reads version 1: write version = 1, or deploy a later function"
            );
            faults.add(start(value), message);
        }
    } else {
        wrong_type(faults, "version", value, "version = 1");
    }
}

fn marks<'a>(value: &'a Value<'a>, faults: &mut Faults<'a>) -> Option<Marks> {
    const LONGEST: usize = 32;
    const EXAMPLE: &str = "[marks] and below it prefix = \"__\"";
    let marks = table(faults, "marks", value, EXAMPLE)?;
    for (key, _) in members(marks) {
        if key.text != "prefix" {
            unknown_key(faults, key, "[marks]", &["prefix"]);
        }
    }
    let prefix = text(faults, "prefix", marks.get("prefix")?, "prefix = \"__\"")?;
    let fits = |next: char| next.is_ascii_alphanumeric() || "_-.".contains(next);
    if !(1..=LONGEST).contains(&prefix.text.len()) || !prefix.text.chars().all(fits) {
        let message = format!(
            "prefix is {}: write 1 to {LONGEST} letters, digits, _, - or ., as in prefix = \"__\"",
            prefix.quoted()
        );
        faults.add(prefix.at, message);
        return None;
    }
    Some(Marks::with_prefix(prefix.text))
}

fn tables<'a>(value: &'a Value<'a>, common: &Common, faults: &mut Faults<'a>) -> SourceTables {
    let mut tables = SourceTables::default();
    let DeValue::Array(entries) = value.get_ref() else {
        let kind = kind_of(value);
        faults.add(start(value), format!("table is {kind}: write [[table]] with two brackets above each table"));
        return tables;
    };
    if entries.is_empty() {
        faults.add(start(value), "the file names no table: add each as [[table]] with name and primary_key");
    }
    for (place, entry) in entries.iter().enumerate() {
        let Some(read) = tables::read(entry, common, faults) else { continue };
        if tables.get(read.table.schema(), read.table.name()).is_some() {
            let first = if faults.are_many() {
                None
            } else {
                entries.iter().take(place).find(|other| tables::is_named(other, &read.table))
            };
            let first = first.map(|first| format!(", as in line {}", faults.line(start(first)))).unwrap_or_default();
            faults.add(
                read.at,
                format!("the table {} is there again{first}: remove one of the two", read.table.in_sql()),
            );
        } else {
            // It is not there yet.
            let _ = tables.insert(read.table);
        }
    }
    tables
}

#[cfg(test)]
mod tests;
