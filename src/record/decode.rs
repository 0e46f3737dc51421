//! From the bytes that DSQL put into the stream to one of the three kinds of records.
//!
//! Invariants: pure; an error says what was expected and where it goes wrong, and never quotes a value.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::record::chunks::{ChunkedRecord, Fragment};
use crate::record::envelope::{DecodeError, FullRecord, WireRecord, malformed, object, text};

/// What a record turns out to be.
#[derive(Debug)]
pub enum Envelope<'a> {
    /// A whole change record (`full`, or without a `type` as preview streams send it).
    Full(FullRecord<'a>),
    /// The main record of a change whose JSON is over 9 MiB (`chunked`): all of it but the images that were split.
    Chunked(ChunkedRecord<'a>),
    /// A fragment of an image that was split (`fragment`).
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
    let full = FullRecord::of(&record)?;
    Ok(if chunked { Envelope::Chunked(ChunkedRecord::new(full, record.chunked)) } else { Envelope::Full(full) })
}

/// As [`object`], for the whole record: parsed once where it is an object, as nearly all are.
fn root_object<'a, T: Deserialize<'a>>(record: &'a str) -> Result<T, DecodeError> {
    let not_json = |error: &serde_json::Error| DecodeError::NotJson { line: error.line(), column: error.column() };
    if !record.trim_start().starts_with('{') {
        let value: &RawValue = serde_json::from_str(record).map_err(|error| not_json(&error))?;
        return object(value, "the record");
    }
    serde_json::from_str(record).map_err(|error| if error.is_data() { malformed(&error) } else { not_json(&error) })
}
