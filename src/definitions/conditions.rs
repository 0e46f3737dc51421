//! The conditions on which the view shows a row.

/// A condition over one column. All its tests must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The column, as a place in [`crate::definitions::shape::Shape::columns`].
    pub column: usize,
    /// The tests; at least one.
    pub tests: Vec<Test>,
    /// What holds of an upsert that lacks the column altogether.
    pub absent: Absent,
}

/// A test of a column's value. A null passes only `IsNull(true)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The value is one of these.
    In(Vec<Constant>),
    /// The value is none of these.
    NotIn(Vec<Constant>),
    /// The value is null, or is not.
    IsNull(bool),
    /// The value is this one or a later one in the order of its type.
    AtLeast(Constant),
    /// The value comes before this one.
    Below(Constant),
}

/// A value to compare with, in the type of the column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Constant {
    /// Text, compared byte by byte.
    Text(String),
    /// A number in plain notation without superfluous zeros, compared exactly; or `NaN`, `Infinity` or `-Infinity`. See
    /// [`crate::definitions::numbers`].
    Number(String),
    /// A date in days, or a time in microseconds, as the record has it.
    Integer(i64),
    /// A boolean; false comes before true.
    Boolean(bool),
}

/// What holds of an upsert that lacks a condition's column: absent is not null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Absent {
    /// The record is poison: nobody knows whether the view should show the row.
    #[default]
    Poison,
    /// The condition holds.
    Inside,
    /// The condition does not hold.
    Outside,
}
