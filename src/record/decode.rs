//! Reads the bytes that DSQL put into the stream as one of three kinds of records.
//!
//! Invariants: pure; an error says what was expected and where the record is wrong, and never quotes a value.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::record::chunked::Fragment;
use crate::record::envelope::{DecodeError, FullRecord, WireRecord, malformed, object, text};

/// A record of one of the three kinds.
#[derive(Debug)]
pub enum Envelope<'a> {
    /// A whole change record (`full`, or without a `type` as preview streams send it).
    Full(FullRecord<'a>),
    /// The main record of a change whose JSON is over 9 MiB (`chunked`): the change without its chunked images, which
    /// are in fragments.
    Chunked(FullRecord<'a>),
    /// A fragment of a chunked image (`fragment`).
    Fragment(Fragment<'a>),
}

/// Reads the envelope of a record's bytes.
///
/// # Errors
/// The bytes are not JSON, or not a CDC record of a known type that names its table.
pub fn read(record: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let record = std::str::from_utf8(record)
        .map_err(|error| DecodeError::NotJson { line: 1, column: error.valid_up_to() + 1 })?;
    let record: WireRecord<'_> = root_object(record)?;
    let chunked = match record.kind.map(|kind| text(kind, "type")).transpose()?.as_deref() {
        None | Some("full") => false,
        Some("chunked") => true,
        Some("fragment") => return Fragment::of(&record).map(Envelope::Fragment),
        Some(_) => return Err(DecodeError::UnknownType),
    };
    let full = FullRecord::of(record)?;
    Ok(if chunked { Envelope::Chunked(full) } else { Envelope::Full(full) })
}

/// Like [`object`], for the whole record. Nearly every record is an object, and those are parsed only once.
fn root_object<'a, T: Deserialize<'a>>(record: &'a str) -> Result<T, DecodeError> {
    let not_json = |error: &serde_json::Error| DecodeError::NotJson { line: error.line(), column: error.column() };
    if !record.trim_start().starts_with('{') {
        let value: &RawValue = serde_json::from_str(record).map_err(|error| not_json(&error))?;
        return object(value, "the record");
    }
    serde_json::from_str(record).map_err(|error| if error.is_data() { malformed(&error) } else { not_json(&error) })
}
