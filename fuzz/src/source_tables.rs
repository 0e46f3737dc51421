//! `SOURCE_TABLES`: the parsed setting, compared with the checks' own reading of SQL's identifiers.

use std::collections::BTreeMap;

use dsql_view::config::{Config, VARIABLES};
use dsql_view::definitions::source_tables::{SourceTables, SourceTablesError};

/// A schema and a table.
type Name = (String, String);

/// Tables with their key columns.
type Tables = BTreeMap<Name, Vec<String>>;

const RESERVED: [&str; 4] = ["_ts_ns", "_tx_id", "_deleted", "_expires_at"];

/// Checks the result of a setting.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for variable in VARIABLES {
        let settings = |name: &str| (name == variable).then(|| text.to_owned());
        // Another required setting is missing.
        assert!(Config::from_variables(settings).is_err());
    }
    match (text.parse::<SourceTables>(), tables(text)) {
        (Ok(found), Some(expected)) => {
            assert_same(&found, &expected);
            let written = canonical(&expected);
            let again = written.parse().unwrap_or_else(|error| panic!("{written}: {error}"));
            assert_same(&again, &expected);
        }
        (Err(error), None) => assert_place(&error, text),
        (found, expected) => panic!("{text:?}: expected {expected:?}, found {found:?}"),
    }
}

fn assert_same(found: &SourceTables, expected: &Tables) {
    assert_eq!(found.iter().count(), expected.len());
    for ((schema, name), key) in expected {
        let table = found.get(schema, name).unwrap_or_else(|| panic!("{schema:?}.{name:?} is missing"));
        assert_eq!(table.primary_key(), key, "{table}");
        let plain = |name: &str| name.replace('%', "%25").replace('#', "%23").replace('.', "%2E");
        assert_eq!(table.to_string(), format!("{}.{}", plain(schema), plain(name)));
    }
}

fn assert_place(error: &SourceTablesError, text: &str) {
    let characters = text.chars().count();
    match error {
        SourceTablesError::Unexpected { position, .. } => assert!((1..=characters + 1).contains(position), "{error}"),
        SourceTablesError::OpenQuote { position } | SourceTablesError::EmptyName { position } => {
            assert_eq!(text.chars().nth(position - 1), Some('"'), "{error}");
        }
        SourceTablesError::NoColumns { .. }
        | SourceTablesError::TableTwice { .. }
        | SourceTablesError::ColumnTwice { .. }
        | SourceTablesError::ReservedColumn { .. }
        | SourceTablesError::NoTables => assert!(!error.to_string().is_empty()),
    }
}

/// The setting with every name exactly as it is, in quotation marks.
fn canonical(tables: &Tables) -> String {
    let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let table = |((schema, name), key): (&Name, &Vec<String>)| {
        format!("{}.{}({})", quoted(schema), quoted(name), key.iter().map(quoted).collect::<Vec<_>>().join(","))
    };
    tables.iter().map(table).collect::<Vec<_>>().join(" ")
}

/// A token of the setting.
#[derive(Debug, PartialEq)]
enum Token {
    Name(String),
    Mark(char),
    Space,
}

/// The tables of a setting, if it is valid and names at least one.
fn tables(text: &str) -> Option<Tables> {
    let tokens = tokens(text)?;
    let mut rest = tokens.as_slice();
    let mut tables = Tables::new();
    let mut separated = true;
    loop {
        let separators = rest.iter().take_while(|token| matches!(token, Token::Space | Token::Mark(','))).count();
        rest = &rest[separators..];
        if rest.is_empty() {
            return (!tables.is_empty()).then_some(tables);
        }
        if !separated && separators == 0 {
            return None;
        }
        let (table, key, behind) = table(rest)?;
        if tables.insert(table, key).is_some() {
            return None;
        }
        rest = behind;
        separated = false;
    }
}

/// A table with its key columns, and the tokens after it.
fn table(tokens: &[Token]) -> Option<(Name, Vec<String>, &[Token])> {
    let (schema, name, rest) = match tokens {
        [Token::Name(schema), Token::Mark('.'), Token::Name(name), rest @ ..] => (schema.clone(), name, rest),
        [Token::Name(name), rest @ ..] => ("public".to_owned(), name, rest),
        _ => return None,
    };
    let [Token::Mark('('), rest @ ..] = without_space(rest) else { return None };
    let mut rest = rest;
    let mut key: Vec<String> = Vec::new();
    loop {
        let [Token::Name(column), behind @ ..] = without_space(rest) else { return None };
        if key.contains(column) || RESERVED.contains(&column.as_str()) {
            return None;
        }
        key.push(column.clone());
        match without_space(behind) {
            [Token::Mark(','), behind @ ..] => rest = behind,
            [Token::Mark(')'), behind @ ..] => return Some(((schema, name.clone()), key, behind)),
            _ => return None,
        }
    }
}

fn without_space(tokens: &[Token]) -> &[Token] {
    &tokens[tokens.iter().take_while(|token| **token == Token::Space).count()..]
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let behind = &rest[first.len_utf8()..];
        let end;
        (end, rest) = if first == '"' {
            let (name, behind) = quoted(behind)?;
            (Token::Name(name), behind)
        } else if first.is_alphabetic() || first == '_' {
            let is_plain = |next: char| next.is_alphanumeric() || next == '_' || next == '$';
            let (name, behind) = rest.split_at(rest.find(|next| !is_plain(next)).unwrap_or(rest.len()));
            (Token::Name(name.to_ascii_lowercase()), behind)
        } else {
            (if first.is_whitespace() { Token::Space } else { Token::Mark(first) }, behind)
        };
        tokens.push(end);
    }
    Some(tokens)
}

/// The name before the next quotation mark that is not doubled, and the text after that mark.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut from = 0;
    loop {
        let mark = from + text[from..].find('"')?;
        if text[mark + 1..].starts_with('"') {
            from = mark + 2;
        } else {
            return (mark > 0).then(|| (text[..mark].replace("\"\"", "\""), &text[mark + 1..]));
        }
    }
}
