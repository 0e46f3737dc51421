//! Whether the view shows a row, by the conditions of its table's definition.
//!
//! Invariants: pure; numbers are compared exactly; a condition over a key column alone can spare the write; an error
//! names the column, never the value.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::cmp::Ordering;

use serde_json::value::RawValue;

use crate::definitions::conditions::{Absent, Condition, Constant, Test};
use crate::definitions::numbers;
use crate::definitions::shape::Shape;
use crate::definitions::types::ColumnType;
use crate::item::typed;
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
#[error(
    "the column {column} is {why}, so its condition cannot say whether the view shows the row: {advice}",
    advice = advice(why)
)]
pub struct Undecided {
    /// The column of the condition.
    pub column: String,
    /// What was found.
    pub why: &'static str,
}

const MISSING: &str = "missing";
const NO_KEY: &str = "null or missing, although it belongs to the primary key";

fn advice(why: &str) -> &'static str {
    match why {
        MISSING => "give the condition absent = \"inside\" or absent = \"outside\" in views.toml",
        NO_KEY => "write the table's right primary_key into views.toml",
        _ => "write the column's right type into columns in views.toml",
    }
}

/// Whether the view shows a row with these `values`, one for each of the shape's columns. `None` stands for a column
/// that the record lacks, which is null unless `nulls_are_there`. For a delete, only the key's columns are asked for.
///
/// # Errors
/// A condition cannot be decided, and none over a key column fails. If another condition fails, that does not help: it
/// would depend on the row's other values whether a wrong definition is noticed.
pub fn decide(
    shape: &Shape,
    values: &[Option<&RawValue>],
    nulls_are_there: bool,
    delete: bool,
) -> Result<Shown, Undecided> {
    let in_key = |condition: &&Condition| shape.columns[condition.column].in_key.is_some();
    let holds = |condition: &Condition| {
        let column = &shape.columns[condition.column];
        let undecided = |why| Undecided { column: column.name.clone(), why };
        let value = values[condition.column];
        // Every record has its row's key, so one that lacks it must not be filtered unseen.
        if column.in_key.is_some() && value.is_none_or(|json| json.get() == "null") {
            return Err(undecided(NO_KEY));
        }
        holds(condition, column.kind, value, nulls_are_there).map_err(undecided)
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
    /// A number as JSON writes it, or one of the words NaN, Infinity and -Infinity.
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
            (Self::Number(number), Constant::Number(constant)) => Some(numbers::compare(number, constant)),
            (Self::Number(number), Constant::Integer(constant)) => number.parse().ok().map(|n: i64| n.cmp(constant)),
            (Self::Boolean(value), Constant::Boolean(constant)) => Some(value.cmp(constant)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::definitions::shape::Column;
    use crate::definitions::types::ColumnType::{
        Boolean, Date, Float, Integer, Json, Numeric, Text, Time, Timestamp, TimestampTz,
    };

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    fn column(name: &str, kind: Option<ColumnType>, in_key: Option<usize>) -> Column {
        let placement = crate::definitions::shape::Placement::LeftOut;
        Column {
            name: name.to_owned(),
            kind,
            stands: crate::definitions::types::Stands::AsInRecord,
            hashed: false,
            placement,
            in_key,
        }
    }

    fn text(text: &str) -> Constant {
        Constant::Text(text.to_owned())
    }

    fn number(number: &str) -> Constant {
        Constant::Number(number.to_owned())
    }

    /// What one condition with these tests says of a row with one value, which does not belong to the key.
    fn ask(kind: Option<ColumnType>, tests: &[Test], json: &str) -> Result<bool, &'static str> {
        let rows = vec![Condition { column: 0, tests: tests.to_vec(), absent: Absent::Poison }];
        let shape = Shape { columns: vec![column("c", kind, None)], rows, ..Shape::default() };
        match decide(&shape, &[Some(raw(json))], true, false) {
            Ok(Shown::FilteredByKey) => panic!("{json}"),
            Ok(shown) => Ok(shown == Shown::Inside),
            Err(Undecided { column, why }) => {
                assert_eq!(column, "c");
                Err(why)
            }
        }
    }

    #[test]
    fn values_are_compared_by_their_type() {
        // The order of each value and the constant.
        for (kind, json, constant, expected) in [
            (Some(Text), "\"a\"", text("a"), Ok(Ordering::Equal)),
            (Some(Text), "\"\\u0061\"", text("a"), Ok(Ordering::Equal)),
            (Some(Text), "\"A\"", text("a"), Ok(Ordering::Less)),
            (Some(Text), "\"\"", text("a"), Ok(Ordering::Less)),
            (Some(Text), "\"ab\"", text("a"), Ok(Ordering::Greater)),
            (Some(Text), "\"é\"", text("z"), Ok(Ordering::Greater)),
            // By bytes, and not by UTF-16.
            (Some(Text), "\"\\ud83d\\ude00\"", text("\u{ffff}"), Ok(Ordering::Greater)),
            (Some(Text), "\"1.0\"", text("1"), Ok(Ordering::Greater)),
            (Some(Text), "\"NaN\"", text("NaN"), Ok(Ordering::Equal)),
            (Some(Text), "1", text("1"), Err("a number that does not fit")),
            (Some(Text), "{}", text("1"), Err("an object")),
            (Some(Text), "\"\\ud800\"", text("1"), Err("text that is no JSON string")),
            (None, "\"NaN\"", text("NaN"), Ok(Ordering::Equal)),
            (None, "\"1\"", text("1"), Ok(Ordering::Equal)),
            (None, "1.0", number("1"), Ok(Ordering::Equal)),
            (None, "\"1\"", number("1"), Err("a string")),
            (None, "true", Constant::Boolean(true), Ok(Ordering::Equal)),
            (None, "true", text("true"), Err("a boolean")),
            (None, "[1]", number("1"), Err("an array")),
            (Some(Integer), "9007199254740993", number("9007199254740992"), Ok(Ordering::Greater)),
            (Some(Integer), "9223372036854775807", number("9223372036854775807"), Ok(Ordering::Equal)),
            (Some(Integer), "-3", number("-2.5"), Ok(Ordering::Less)),
            (Some(Integer), "true", number("1"), Err("a boolean")),
            (Some(Numeric), "\"29.90\"", number("29.9"), Ok(Ordering::Equal)),
            (Some(Numeric), "\"29.899999999999999999999999999999999999999\"", number("29.9"), Ok(Ordering::Less)),
            (Some(Numeric), "29.90", number("29.9"), Ok(Ordering::Equal)),
            (Some(Numeric), "\"-0\"", number("0"), Ok(Ordering::Equal)),
            (Some(Numeric), "\"29,90\"", number("29.9"), Err("a string")),
            (Some(Numeric), "\"x\"", text("x"), Err("a string")),
            (Some(Numeric), "\"-Infinity\"", number("-1000000"), Ok(Ordering::Less)),
            (Some(Numeric), "\"Infinity\"", number("1000000"), Ok(Ordering::Greater)),
            (Some(Numeric), "\"NaN\"", number("Infinity"), Ok(Ordering::Greater)),
            (Some(Numeric), "\"Infinity\"", number("NaN"), Ok(Ordering::Less)),
            (Some(Float), "\"NaN\"", number("NaN"), Ok(Ordering::Equal)),
            (Some(Float), "\"-Infinity\"", number("-Infinity"), Ok(Ordering::Equal)),
            (Some(Float), "1.7e308", number("Infinity"), Ok(Ordering::Less)),
            (Some(Float), "-1.7e308", number("-Infinity"), Ok(Ordering::Greater)),
            (Some(Float), "5e-324", number("0"), Ok(Ordering::Greater)),
            (Some(Float), "0.1", number("0.1"), Ok(Ordering::Equal)),
            (Some(Boolean), "false", Constant::Boolean(true), Ok(Ordering::Less)),
            (Some(Boolean), "true", Constant::Boolean(true), Ok(Ordering::Equal)),
            (Some(Boolean), "true", Constant::Boolean(false), Ok(Ordering::Greater)),
            (Some(Boolean), "1", Constant::Boolean(true), Err("a number that does not fit")),
            (Some(Date), "20484", Constant::Integer(20_484), Ok(Ordering::Equal)),
            (Some(Time), "-1", Constant::Integer(0), Ok(Ordering::Less)),
            (Some(Timestamp), "1773843841048728", Constant::Integer(1_773_843_841_048_727), Ok(Ordering::Greater)),
            (Some(TimestampTz), "9223372036825200000", Constant::Integer(i64::MAX), Ok(Ordering::Less)),
            (Some(TimestampTz), "-9223372036832400000", Constant::Integer(0), Ok(Ordering::Less)),
            (Some(TimestampTz), "9223372036854775808", Constant::Integer(0), Err("a number that does not fit")),
            (Some(TimestampTz), "\"2026-01-31\"", Constant::Integer(0), Err("a string")),
        ] {
            let case = format!("{json} as {kind:?}, {constant:?}");
            let one = || vec![constant.clone()];
            for (test, holds) in [
                (Test::In(one()), Ordering::is_eq as fn(Ordering) -> bool),
                (Test::NotIn(one()), Ordering::is_ne),
                (Test::AtLeast(constant.clone()), Ordering::is_ge),
                (Test::Below(constant.clone()), Ordering::is_lt),
            ] {
                assert_eq!(ask(kind, std::slice::from_ref(&test), json), expected.map(holds), "{case}");
            }
            assert_eq!(ask(kind, &[Test::IsNull(false)], json), Ok(true), "{case}");
            assert_eq!(ask(kind, &[Test::IsNull(true)], json), Ok(false), "{case}");
        }
    }

    #[test]
    fn one_of_several_constants_is_enough_and_all_tests_must_hold() {
        let constants = || vec![text("b"), number("1"), text("a")];
        for (json, expected) in [
            ("\"a\"", Ok(true)),
            ("\"b\"", Ok(true)),
            ("1.0", Ok(true)),
            ("2", Ok(false)),
            ("\"c\"", Ok(false)),
            ("true", Err("a boolean")),
        ] {
            assert_eq!(ask(None, &[Test::In(constants())], json), expected, "{json}");
            assert_eq!(ask(None, &[Test::NotIn(constants())], json), expected.map(|is| !is), "{json}");
        }
        for json in ["1", "{}"] {
            assert_eq!(ask(None, &[Test::In(vec![])], json), Ok(false));
            assert_eq!(ask(None, &[Test::NotIn(vec![])], json), Ok(true));
        }
        let between = [Test::AtLeast(number("1")), Test::Below(number("2")), Test::NotIn(vec![number("1.5")])];
        for (json, expected) in [("0.9", false), ("1", true), ("1.50", false), ("1.99", true), ("2", false)] {
            assert_eq!(ask(None, &between, json), Ok(expected), "{json}");
        }
        let undecided = [Test::IsNull(true), Test::AtLeast(number("1"))];
        assert_eq!(ask(None, &undecided, "\"a\""), Err("a string"));
    }

    #[test]
    fn a_null_satisfies_only_that_it_is_null() {
        for (tests, expected) in [
            (vec![Test::IsNull(true)], true),
            (vec![Test::IsNull(false)], false),
            (vec![Test::IsNull(true), Test::NotIn(vec![text("a")])], false),
            (vec![Test::In(vec![text("null")])], false),
            (vec![Test::NotIn(vec![text("a")])], false),
            (vec![Test::AtLeast(text(""))], false),
            (vec![Test::Below(text("z"))], false),
        ] {
            assert_eq!(ask(Some(Text), &tests, "null"), Ok(expected), "{tests:?}");
            assert_eq!(ask(Some(Json), &tests, "null"), Ok(expected), "{tests:?}");
        }
    }

    /// A shape with the key columns `k` and `l`, and the columns `a` and `b`. A condition is a column, what holds if
    /// that is absent, and a text that its value must be.
    fn shape(conditions: &[(usize, Absent, Test)]) -> Shape {
        let columns = vec![
            column("k", Some(Text), Some(0)),
            column("l", Some(Text), Some(1)),
            column("a", Some(Text), None),
            column("b", Some(Text), None),
        ];
        let rows = conditions.iter().map(|(column, absent, test)| Condition {
            column: *column,
            tests: vec![test.clone()],
            absent: *absent,
        });
        Shape { columns, rows: rows.collect(), ..Shape::default() }
    }

    const POISON: Absent = Absent::Poison;

    fn is(value: &str) -> Test {
        Test::In(vec![text(value)])
    }

    #[test]
    fn a_key_condition_filters_by_itself_and_an_undecided_one_comes_before_a_row_outside() {
        use Shown::{FilteredByKey, Inside, Outside};
        let shape = shape(&[(2, POISON, is("x")), (0, POISON, is("x")), (3, POISON, is("x")), (1, POISON, is("x"))]);
        let undecided = |column: &str, why| Err(Undecided { column: column.to_owned(), why });
        let (number, array) = ("a number that does not fit", "an array");
        for (row, upsert, delete) in [
            (["\"x\"", "\"x\"", "\"x\"", "\"x\""], Ok(Inside), Ok(Inside)),
            (["\"x\"", "\"x\"", "\"y\"", "\"x\""], Ok(Outside), Ok(Inside)),
            (["\"x\"", "\"x\"", "\"x\"", "\"y\""], Ok(Outside), Ok(Inside)),
            (["\"x\"", "\"x\"", "null", "\"x\""], Ok(Outside), Ok(Inside)),
            (["\"x\"", "\"x\"", "1", "\"y\""], undecided("a", number), Ok(Inside)),
            (["\"x\"", "\"x\"", "\"y\"", "1"], undecided("b", number), Ok(Inside)),
            (["\"x\"", "\"x\"", "1", "[]"], undecided("a", number), Ok(Inside)),
            (["\"y\"", "\"x\"", "\"x\"", "\"x\""], Ok(FilteredByKey), Ok(FilteredByKey)),
            (["\"x\"", "\"y\"", "\"x\"", "\"x\""], Ok(FilteredByKey), Ok(FilteredByKey)),
            (["\"x\"", "\"y\"", "\"y\"", "1"], Ok(FilteredByKey), Ok(FilteredByKey)),
            (["1", "\"y\"", "1", "1"], Ok(FilteredByKey), Ok(FilteredByKey)),
            (["\"y\"", "1", "1", "1"], Ok(FilteredByKey), Ok(FilteredByKey)),
            (["1", "[]", "\"y\"", "1"], undecided("k", number), undecided("k", number)),
            (["\"x\"", "[]", "\"y\"", "\"x\""], undecided("l", array), undecided("l", array)),
            (["null", "\"x\"", "\"x\"", "\"x\""], undecided("k", NO_KEY), undecided("k", NO_KEY)),
            (["null", "\"y\"", "\"x\"", "\"x\""], Ok(FilteredByKey), Ok(FilteredByKey)),
        ] {
            let values: Vec<_> = row.iter().map(|json| Some(raw(json))).collect();
            for nulls_are_there in [false, true] {
                assert_eq!(decide(&shape, &values, nulls_are_there, false), upsert, "{row:?}");
                assert_eq!(decide(&shape, &values, nulls_are_there, true), delete, "{row:?}");
            }
        }
        assert_eq!(decide(&Shape::default(), &[], true, false), Ok(Inside));
    }

    #[test]
    fn an_absent_column_is_null_only_where_records_leave_out_nulls() {
        use Shown::{Inside, Outside};
        let missing = |column: &str| Err(Undecided { column: column.to_owned(), why: "missing" });
        for (absent, test, there, left_out) in [
            (POISON, Test::IsNull(true), missing("a"), Ok(Inside)),
            (POISON, Test::IsNull(false), missing("a"), Ok(Outside)),
            (POISON, is("x"), missing("a"), Ok(Outside)),
            (Absent::Inside, Test::IsNull(false), Ok(Inside), Ok(Outside)),
            (Absent::Outside, Test::IsNull(true), Ok(Outside), Ok(Inside)),
        ] {
            let shape = shape(&[(2, absent, test.clone())]);
            let key = Some(raw("\"x\""));
            assert_eq!(decide(&shape, &[key, key, None, None], true, false), there, "{absent:?} {test:?}");
            assert_eq!(decide(&shape, &[key, key, None, None], false, false), left_out, "{absent:?} {test:?}");
            for nulls_are_there in [false, true] {
                assert_eq!(decide(&shape, &[key, key, None, None], nulls_are_there, true), Ok(Inside));
            }
        }
        // Every record has its row's key, whatever the condition says of an absent column.
        let no_key = Err(Undecided { column: "k".to_owned(), why: NO_KEY });
        for absent in [POISON, Absent::Inside, Absent::Outside] {
            let shape = shape(&[(0, absent, is("x"))]);
            for (nulls_are_there, delete) in [(false, false), (false, true), (true, false), (true, true)] {
                assert_eq!(decide(&shape, &[None; 4], nulls_are_there, delete), no_key, "{absent:?}");
                assert_eq!(decide(&shape, &[Some(raw("null")), None, None, None], nulls_are_there, delete), no_key);
            }
        }
    }

    #[test]
    fn an_undecided_condition_says_what_to_do() {
        let message = |why| Undecided { column: "status".to_owned(), why }.to_string();
        assert_eq!(
            message(MISSING),
            "the column status is missing, so its condition cannot say whether the view shows the row: give the \
             condition absent = \"inside\" or absent = \"outside\" in views.toml"
        );
        let of_the_key = message(NO_KEY);
        assert!(of_the_key.ends_with("write the table's right primary_key into views.toml"), "{of_the_key}");
        assert_eq!(
            message("an object"),
            "the column status is an object, so its condition cannot say whether the view shows the row: write the \
             column's right type into columns in views.toml"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn numbers_of_the_database_are_ordered_as_in_rust(a in any::<i64>(), b in any::<i64>(), near in -2_i64..3) {
            for b in [b, a.saturating_add(near), a.wrapping_neg()] {
                let (json, decimal) = (a.to_string(), format!("{a}.0"));
                let expected = Ok(a >= b);
                prop_assert_eq!(ask(Some(Integer), &[Test::AtLeast(number(&b.to_string()))], &json), expected);
                prop_assert_eq!(ask(Some(Numeric), &[Test::AtLeast(number(&b.to_string()))], &decimal), expected);
                prop_assert_eq!(ask(Some(Timestamp), &[Test::AtLeast(Constant::Integer(b))], &json), expected);
            }
        }
    }
}
