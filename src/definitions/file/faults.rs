//! The faults of a definitions file, collected and shown in one message.
//!
//! Invariants: each fault has its line and column, counted from 1, in characters; the message has them in the order of
//! the file; of a file without faults no place is ever counted.

use std::fmt;
use std::fmt::Write as _;

use crate::definitions::source_tables::{in_sql, table_name};

/// All faults of a definitions file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionsError {
    /// The file's name.
    pub file: String,
    /// The faults, at least one, in the order of the file.
    pub faults: Vec<Fault>,
}

/// A fault of a definitions file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its line, counted from 1.
    pub line: usize,
    /// Its column, counted from 1, in characters.
    pub column: usize,
    /// The fault, and what to write instead.
    pub message: String,
}

/// How many faults a message shows. It is a line of the log, which has an end.
const MOST_SHOWN: usize = 500;

impl fmt::Display for DefinitionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, faults } = self;
        if let [Fault { line, column, message }] = faults.as_slice() {
            return write!(f, "{file} line {line}, column {column}: {message}");
        }
        write!(f, "{file} has {} faults", faults.len())?;
        f.write_str(if faults.len() > MOST_SHOWN { ", and these are the first:" } else { ":" })?;
        for Fault { line, column, message } in faults.iter().take(MOST_SHOWN) {
            write!(f, "\n{file} line {line}, column {column}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for DefinitionsError {}

/// Collects the faults and warnings of a file.
pub(super) struct Faults<'a> {
    file: &'a str,
    text: &'a str,
    /// The name, as the file has it, of the table to which the faults belong that come now.
    table: Option<&'a str>,
    found: Vec<(usize, String)>,
    warnings: Vec<(usize, String)>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, table: None, found: Vec::new(), warnings: Vec::new() }
    }

    /// The faults that come now belong to this table.
    pub(super) fn begin_table(&mut self, name: Option<&'a str>) {
        self.table = name;
    }

    /// The faults that come now belong to no table.
    pub(super) fn end_table(&mut self) {
        self.table = None;
    }

    /// Adds a fault at a place in the text, in bytes.
    pub(super) fn add(&mut self, at: usize, message: impl AsRef<str>) {
        let message = self.of_table(message.as_ref());
        self.found.push((at, message));
    }

    pub(super) fn warn(&mut self, at: usize, message: impl AsRef<str>) {
        let message = self.of_table(message.as_ref());
        self.warnings.push((at, message));
    }

    fn of_table(&self, message: &str) -> String {
        match self.table.map(|name| (name, table_name(name))) {
            Some((_, Ok((schema, name)))) => format!("{}.{}: {message}", in_sql(&schema), in_sql(&name)),
            Some((name, Err(_))) => format!("{}: {message}", quoted(name)),
            None => message.to_owned(),
        }
    }

    /// A piece of the file's text.
    pub(super) fn text(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }

    /// A piece of the file's text, as messages quote it.
    pub(super) fn quote(&self, from: usize, to: usize) -> String {
        shortened(self.text(from, to))
    }

    /// The known name that looks most like the found one, if any looks like it.
    pub(super) fn nearest<'n>(&self, found: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        const LONGEST: usize = 100;
        if self.are_many() || found.len() > LONGEST {
            return None;
        }
        let found = found.to_lowercase();
        let distance = |name: &str| strsim::damerau_levenshtein(&found, &name.to_lowercase());
        let known = known.into_iter().filter(|name| name.len() <= LONGEST).map(|name| (distance(name), name));
        let near = known.filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1));
        near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
    }

    /// The line of a place.
    pub(super) fn line(&self, at: usize) -> usize {
        self.text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    /// Whether there are so many faults that nobody reads a hint, which takes time to find.
    pub(super) fn are_many(&self) -> bool {
        const MANY: usize = 100;
        self.found.len() >= MANY
    }

    /// The place behind the text's last character.
    pub(super) fn end(&self) -> usize {
        self.text.len()
    }

    /// The faults.
    pub(super) fn into_error(self) -> DefinitionsError {
        DefinitionsError { file: self.file.to_owned(), faults: located(self.text, self.found) }
    }

    /// The warnings, if there are no faults.
    pub(super) fn finish(self) -> Result<Vec<String>, DefinitionsError> {
        let file = self.file;
        if self.found.is_empty() {
            let warnings = located(self.text, self.warnings).into_iter();
            let show = |Fault { line, column, message }| format!("{file} line {line}, column {column}: {message}");
            return Ok(warnings.map(show).collect());
        }
        Err(self.into_error())
    }
}

/// Messages in the order of their places, each with its line and column.
fn located(text: &str, mut messages: Vec<(usize, String)>) -> Vec<Fault> {
    messages.sort_by_key(|(at, _)| *at);
    let (mut line, mut column, mut passed) = (1, 1, 0);
    let locate = |(at, message): (usize, String)| {
        for next in text[passed..at].chars() {
            (line, column) = if next == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        passed = at;
        Fault { line, column, message }
    };
    messages.into_iter().map(locate).collect()
}

/// A text in quotation marks, cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

/// A text without control characters, cut if it is long.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut chars = text.chars();
    let mut shown = String::new();
    for next in chars.by_ref().take(LONGEST) {
        if next.is_control() {
            let _ = write!(shown, "{}", next.escape_default());
        } else {
            shown.push(next);
        }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Names in a sentence: `a, b and c`.
pub(super) fn listed<'n>(names: impl IntoIterator<Item = &'n str>, and: &str) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} {and} {last}", first.join(", ")),
    }
}
