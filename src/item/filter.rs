//! Whether the view shows a row, by the conditions of its table's definition.
//!
//! Invariants: pure; numbers are compared exactly; a condition over a key column alone can spare the write; an error
//! names the column, never the value.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::cmp::Ordering;

use serde_json::value::RawValue;

use crate::definitions::conditions::{Absent, Condition, Constant, Test};
use crate::definitions::shape::Shape;
use crate::definitions::types::ColumnType;
use crate::item::{typed, values};
use crate::record::json;

/// What the conditions say of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The view shows it.
    Inside,
    /// The view hides it: a tombstone stands there.
    Outside,
    /// The view never has it, by its key: nothing is written.
    FilteredByKey,
}

/// A condition cannot be decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nobody knows whether the view shows the row: the column {column} of its conditions is {why}: {}", advice(why))]
pub struct Undecided {
    /// The column of the condition.
    pub column: String,
    /// What was found.
    pub why: &'static str,
}

const MISSING: &str = "missing";

fn advice(why: &str) -> &'static str {
    if why == MISSING {
        "give the condition absent = \"inside\" or absent = \"outside\" in views.toml"
    } else {
        "correct the column's type in views.toml"
    }
}

/// Whether the view shows a row with these `values`, one for each of the shape's columns. `None` stands for a column
/// that the record lacks, which is null unless `nulls_are_there`. For a delete, only the key's columns are asked for.
///
/// # Errors
/// A condition cannot be decided, and none over a key column fails. That another condition fails does not help: it would
/// depend on the row's other values whether a wrong definition is noticed.
pub fn decide(
    shape: &Shape,
    values: &[Option<&RawValue>],
    nulls_are_there: bool,
    delete: bool,
) -> Result<Shown, Undecided> {
    let in_key = |condition: &&Condition| shape.columns[condition.column].in_key.is_some();
    let holds = |condition: &Condition| {
        let column = &shape.columns[condition.column];
        // A key column is never null, so a preview record that lacks it does not mean a null.
        let nulls_are_there = nulls_are_there || column.in_key.is_some();
        holds(condition, column.kind, values[condition.column], nulls_are_there)
            .map_err(|why| Undecided { column: column.name.clone(), why })
    };
    let mut by_key = Ok(());
    for condition in shape.rows.iter().filter(in_key) {
        match holds(condition) {
            Ok(true) => {}
            Ok(false) => return Ok(Shown::FilteredByKey),
            Err(undecided) => by_key = by_key.and(Err(undecided)),
        }
    }
    by_key?;
    let mut shown = Shown::Inside;
    if !delete {
        for condition in shape.rows.iter().filter(|condition| !in_key(condition)) {
            if !holds(condition)? {
                shown = Shown::Outside;
            }
        }
    }
    Ok(shown)
}

/// Whether a condition holds of a column's value, or else what was found.
fn holds(
    condition: &Condition,
    kind: Option<ColumnType>,
    value: Option<&RawValue>,
    nulls_are_there: bool,
) -> Result<bool, &'static str> {
    let json = match (value, condition.absent) {
        (Some(json), _) if json.get() != "null" => json,
        (None, Absent::Poison) if nulls_are_there => return Err(MISSING),
        (None, Absent::Inside) if nulls_are_there => return Ok(true),
        (None, Absent::Outside) if nulls_are_there => return Ok(false),
        _ => return Ok(condition.tests.iter().all(|test| *test == Test::IsNull(true))),
    };
    let value = LazyCell::new(|| Value::of(json, kind));
    let mut holds = true;
    for test in &condition.tests {
        holds &= match test {
            Test::IsNull(wanted) => !wanted,
            Test::In(constants) => value.is_one_of(constants).ok_or_else(|| found(json))?,
            Test::NotIn(constants) => !value.is_one_of(constants).ok_or_else(|| found(json))?,
            Test::AtLeast(constant) => value.compare(constant).ok_or_else(|| found(json))?.is_ge(),
            Test::Below(constant) => value.compare(constant).ok_or_else(|| found(json))?.is_lt(),
        };
    }
    Ok(holds)
}

/// The kind of a value that cannot be compared.
fn found(json: &RawValue) -> &'static str {
    match json::kind(json) {
        "a string" if json::unquoted(json).is_err() => "text that is no JSON string",
        kind => kind,
    }
}

/// A value, as it is compared.
enum Value<'a> {
    Text(Cow<'a, str>),
    /// A number as JSON writes it, or a word of [`rank`].
    Number(Cow<'a, str>),
    Boolean(bool),
    /// It cannot be compared.
    Other,
}

impl<'a> Value<'a> {
    fn of(json: &'a RawValue, kind: Option<ColumnType>) -> Self {
        if let Some(number) = typed::number_text(json, kind) {
            return Self::Number(number);
        }
        match json.get() {
            "true" => Self::Boolean(true),
            "false" => Self::Boolean(false),
            _ => match kind {
                Some(ColumnType::Float | ColumnType::Numeric) => typed::word(json).map_or(Self::Other, Self::Number),
                _ => json::unquoted(json).map_or(Self::Other, Self::Text),
            },
        }
    }

    /// `None` if it cannot be compared with any of the constants.
    fn is_one_of(&self, constants: &[Constant]) -> Option<bool> {
        let mut comparable = constants.is_empty();
        for constant in constants {
            match self.compare(constant) {
                Some(Ordering::Equal) => return Some(true),
                Some(_) => comparable = true,
                None => {}
            }
        }
        comparable.then_some(false)
    }

    /// `None` if it is of another kind than the constant.
    fn compare(&self, constant: &Constant) -> Option<Ordering> {
        match (self, constant) {
            (Self::Text(text), Constant::Text(constant)) => Some(text.as_bytes().cmp(constant.as_bytes())),
            (Self::Number(number), Constant::Number(constant)) => Some(compare_numbers(number, constant)),
            (Self::Number(number), Constant::Integer(constant)) => number.parse().ok().map(|n: i64| n.cmp(constant)),
            (Self::Boolean(value), Constant::Boolean(constant)) => Some(value.cmp(constant)),
            _ => None,
        }
    }
}

/// The order of two numbers or words, as PostgreSQL has it.
fn compare_numbers(left: &str, right: &str) -> Ordering {
    let rank = |text: &str| match text {
        "-Infinity" => 0,
        "Infinity" => 2,
        "NaN" => 3,
        _ => 1,
    };
    match (rank(left), rank(right)) {
        (1, 1) => values::compare_numbers(left, right),
        (left, right) => left.cmp(&right),
    }
}
