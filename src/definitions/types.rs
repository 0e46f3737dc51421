//! The types of source columns, and how their values stand in an item.

/// The type of a column in PostgreSQL, as far as its values differ in a change record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// `smallint`, `integer`, `bigint`, `oid`: a JSON number.
    Integer,
    /// `real`, `double precision`: a JSON number, or `"NaN"`, `"Infinity"`, `"-Infinity"`.
    Float,
    /// `numeric`: a JSON string with an exact decimal number, or one of the three words.
    Numeric,
    /// `boolean`: a JSON boolean.
    Boolean,
    /// `text`, `varchar`, `char`, `name`, `uuid`: a JSON string.
    Text,
    /// `json`, `jsonb`: a JSON string that holds JSON text.
    Json,
    /// `bytea`: a JSON string in Base64.
    Bytea,
    /// `date`: a JSON number, days since 1970-01-01.
    Date,
    /// `time`: a JSON number, microseconds since midnight.
    Time,
    /// `timetz`: as [`ColumnType::Time`], in UTC.
    TimeTz,
    /// `timestamp`: a JSON number, microseconds since 1970-01-01.
    Timestamp,
    /// `timestamptz`: as [`ColumnType::Timestamp`], in UTC.
    TimestampTz,
    /// `interval`: a JSON number, approximate microseconds.
    Interval,
    /// `oidvector`: a JSON array.
    OidVector,
}

impl ColumnType {
    /// Whether a record has its values as numbers, or as text that is a number.
    pub fn can_be_number(self) -> bool {
        !matches!(self, Self::Boolean | Self::Text | Self::Json | Self::Bytea | Self::OidVector)
    }
}

/// How the values of a column stand in an item. A value that does not fit stands as [`Stands::AsInRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stands {
    /// As the contract without definitions has it: the attribute value of the record's JSON.
    #[default]
    AsInRecord,
    /// `numeric` as N, digit for digit.
    Number,
    /// A date, a time or a timestamp as ISO 8601 text.
    Iso8601,
    /// A timestamp as N of milliseconds, with decimals if it has microseconds.
    Millis,
    /// A timestamp as N of seconds, with decimals if it has fractions.
    Seconds,
    /// JSON text as the document that it holds.
    Document,
    /// Base64 text as B.
    Binary,
}
