//! The conditions on which the view shows a row.
//!
//! Invariants: each condition tests something; all constants of a condition are of one kind.

use std::collections::BTreeMap;
use std::mem::discriminant;

use toml::de::DeValue;

use crate::definitions::conditions::{Absent, Condition, Constant, Test};
use crate::definitions::file::column_types::Kind;
use crate::definitions::file::columns::Columns;
use crate::definitions::file::constants::{constant, is_without_order};
use crate::definitions::file::contradictions;
use crate::definitions::file::faults::Faults;
use crate::definitions::file::reading::{
    Value, Written, kind_of, members, start, table, text, unknown_key, wrong_type,
};

const EXAMPLE: &str = "rows = [{ column = \"status\", not_in = [\"draft\"] }]";
const TESTS: [&str; 6] = ["in", "not_in", "equals", "is_null", "at_least", "below"];
const KEYS: [&str; 8] = ["column", "in", "not_in", "equals", "is_null", "at_least", "below", "absent"];

/// Reads `rows`.
pub(super) fn rows<'a>(value: &'a Value<'a>, columns: &mut Columns<'a>, faults: &mut Faults<'a>) -> Vec<Condition> {
    let DeValue::Array(entries) = value.get_ref() else {
        wrong_type(faults, "rows", value, EXAMPLE);
        return Vec::new();
    };
    let mut conditions = Vec::new();
    let mut of_columns: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for entry in entries {
        if let Some(condition) = condition(entry, columns, faults) {
            of_columns.entry(condition.column).or_default().push((conditions.len(), start(entry)));
            conditions.push(condition);
        }
    }
    for (column, of_column) in of_columns {
        let tests: Vec<&Test> = of_column.iter().flat_map(|(condition, _)| &conditions[*condition].tests).collect();
        if let Some(reason) = contradictions::reason(&tests, columns.column_type(column)) {
            let name = columns.all[column].name;
            let message =
                format!("no row satisfies the conditions over {name} ({reason}): the view shows no row of this table");
            faults.warn(of_column[0].1, message);
        }
    }
    conditions
}

fn condition<'a>(entry: &'a Value<'a>, columns: &mut Columns<'a>, faults: &mut Faults<'a>) -> Option<Condition> {
    let members_of = table(faults, "a condition", entry, EXAMPLE)?;
    let name = members_of.get("column");
    if name.is_none() {
        faults.add(start(entry), format!("the condition names no column: write {EXAMPLE}"));
    }
    let name = name.and_then(|value| text(faults, "column", value, "column = \"status\""));
    let column = name.and_then(|name| columns.place(name, "rows", faults));
    let mut reader = Reader { name, kind: column.and_then(|column| columns.all[column].kind), first: None };
    let mut absent = Absent::default();
    let mut has_tests = false;
    let mut tests = Vec::new();
    for (key, value) in members(members_of) {
        if TESTS.contains(&key.text) {
            has_tests = true;
            // Without a column, nobody knows which values fit.
            if column.is_some() {
                tests.extend(reader.test(key.text, value, faults));
            }
        } else if key.text == "absent" {
            absent = read_absent(value, faults).unwrap_or_default();
        } else if key.text != "column" {
            unknown_key(faults, key, "a condition", &KEYS);
        }
    }
    if !has_tests {
        let over = name.map(|name| format!(" over {}", name.text)).unwrap_or_default();
        let message = format!("the condition{over} tests nothing: add in, not_in, equals, is_null, at_least or below");
        faults.add(start(entry), message);
    }
    Some(Condition { column: column?, tests, absent })
}

fn read_absent<'a>(value: &'a Value<'a>, faults: &mut Faults<'a>) -> Option<Absent> {
    let written = text(faults, "absent", value, "absent = \"inside\" or absent = \"outside\"")?;
    match written.text {
        "inside" => Some(Absent::Inside),
        "outside" => Some(Absent::Outside),
        _ => {
            let message = format!("absent is {}: write \"inside\", \"outside\", or leave it out", written.quoted());
            faults.add(written.at, message);
            None
        }
    }
}

/// Reads the tests of one condition.
struct Reader<'a> {
    name: Option<Written<'a>>,
    kind: Option<Kind<'a>>,
    first: Option<Constant>,
}

impl<'a> Reader<'a> {
    fn test(&mut self, test: &str, value: &'a Value<'a>, faults: &mut Faults<'a>) -> Option<Test> {
        if let (Some(kind), Some(name)) = (self.kind, self.name)
            && test != "is_null"
            && is_without_order(kind.column_type)
        {
            let message = format!(
                "{test} compares {}, which is {}: write is_null, the only test for that type",
                name.text, kind.written
            );
            faults.add(start(value), message);
            return None;
        }
        match test {
            "in" => self.list(test, value, faults).map(Test::In),
            "not_in" => self.list(test, value, faults).map(Test::NotIn),
            "is_null" => {
                if let DeValue::Boolean(is_null) = value.get_ref() {
                    return Some(Test::IsNull(*is_null));
                }
                wrong_type(faults, test, value, "is_null = true or is_null = false");
                None
            }
            "equals" => self.constant(test, value, faults).map(|constant| Test::In(vec![constant])),
            "at_least" => self.constant(test, value, faults).map(Test::AtLeast),
            _ => self.constant(test, value, faults).map(Test::Below),
        }
    }

    fn list(&mut self, test: &str, value: &'a Value<'a>, faults: &mut Faults<'a>) -> Option<Vec<Constant>> {
        if let DeValue::Array(values) = value.get_ref() {
            return Some(values.iter().filter_map(|value| self.constant(test, value, faults)).collect());
        }
        let written = faults.quote(value.span().start, value.span().end);
        wrong_type(faults, test, value, &format!("{test} = [{written}]"));
        None
    }

    fn constant(&mut self, test: &str, value: &'a Value<'a>, faults: &mut Faults<'a>) -> Option<Constant> {
        let name = self.name.map(|name| name.text).unwrap_or_default();
        let (from, to) = (value.span().start, value.span().end);
        if let DeValue::Array(_) = value.get_ref() {
            let written = faults.quote(from, to);
            let message = format!("{test} of {name} takes one value: write in = {written}, or one value");
            faults.add(from, message);
            return None;
        }
        let read = constant(value, faults.text(from, to), self.kind);
        let of_kind = self.kind.map(|kind| format!(", which is {},", kind.written)).unwrap_or_default();
        match read {
            Ok(constant) => {
                let first = self.first.get_or_insert_with(|| constant.clone());
                if discriminant(first) != discriminant(&constant) {
                    let message = format!(
                        "the condition compares {name} with {} after values of another type: write values of one type, and the column's type in columns",
                        kind_of(value)
                    );
                    faults.add(from, message);
                }
                Some(constant)
            }
            Err(instead) => {
                let written = faults.quote(from, to);
                faults.add(from, format!("{test} compares {name}{of_kind} with {written}: write {instead}"));
                None
            }
        }
    }
}
