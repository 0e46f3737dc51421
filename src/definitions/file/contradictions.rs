//! Conditions that no row can satisfy.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::definitions::conditions::{Constant, Test};
use crate::definitions::numbers::{MINUS_INFINITY, compare};
use crate::definitions::types::ColumnType;

/// Why no value of a column of this type passes all these tests, if that is so.
pub(super) fn reason(tests: &[&Test], column_type: Option<ColumnType>) -> Option<&'static str> {
    let other = |test: &&&Test| !matches!(test, Test::IsNull(true));
    if tests.iter().any(|test| matches!(test, Test::IsNull(true))) && tests.iter().any(|test| other(&test)) {
        return Some("a null satisfies is_null = true alone");
    }
    if tests.iter().any(|test| matches!(test, Test::In(values) if values.is_empty())) {
        return Some("a list is empty");
    }
    let booleans = Test::In(vec![Constant::Boolean(false), Constant::Boolean(true)]);
    let mut tests = tests.to_vec();
    let compares = tests.iter().any(|test| !matches!(test, Test::IsNull(_)));
    if column_type == Some(ColumnType::Boolean) && compares {
        tests.push(&booleans);
    }
    if none_of_a_list(&tests) {
        return Some("no value of a list passes the other tests");
    }
    let starts = || tests.iter().filter_map(|test| if let Test::AtLeast(start) = test { Some(start) } else { None });
    let ends = || tests.iter().filter_map(|test| if let Test::Below(end) = test { Some(end) } else { None });
    // Where the constants are of several kinds, the first are compared.
    let greater = |a: &&Constant, b: &&Constant| order(a, b).unwrap_or(Ordering::Equal);
    if let (Some(start), Some(end)) = (starts().max_by(greater), ends().min_by(greater))
        && order(start, end).is_some_and(Ordering::is_ge)
    {
        return Some("at_least is not before below");
    }
    let is_first = |end: &Constant| match end {
        Constant::Text(text) => text.is_empty(),
        Constant::Number(number) => number == MINUS_INFINITY,
        Constant::Integer(_) | Constant::Boolean(_) => false,
    };
    ends().any(is_first).then_some("no value comes before that of below")
}

/// Whether some test has a list, no value of which passes all tests.
fn none_of_a_list(tests: &[&Test]) -> bool {
    let lists = tests.iter().filter_map(|test| if let Test::In(values) = test { Some(values) } else { None });
    let Some(shortest) = lists.min_by_key(|values| values.len()) else { return false };
    let mut passing: HashSet<&Constant> = shortest.iter().collect();
    for test in tests {
        match test {
            Test::In(values) => {
                let values: HashSet<&Constant> = values.iter().collect();
                passing.retain(|value| values.contains(*value));
            }
            Test::NotIn(values) => {
                for value in values {
                    passing.remove(value);
                }
            }
            Test::AtLeast(start) => passing.retain(|value| order(value, start).is_none_or(Ordering::is_ge)),
            Test::Below(end) => passing.retain(|value| order(value, end).is_none_or(Ordering::is_lt)),
            Test::IsNull(_) => {}
        }
    }
    passing.is_empty()
}

/// The order of two constants of one kind.
fn order(a: &Constant, b: &Constant) -> Option<Ordering> {
    match (a, b) {
        (Constant::Text(a), Constant::Text(b)) => Some(a.cmp(b)),
        (Constant::Number(a), Constant::Number(b)) => Some(compare(a, b)),
        (Constant::Integer(a), Constant::Integer(b)) => Some(a.cmp(b)),
        (Constant::Boolean(a), Constant::Boolean(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
