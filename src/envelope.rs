//! A record's envelope: from the bytes that DSQL put into the stream to a [`ChangeEvent`], in two steps with the
//! routing between.
//!
//! Invariants: pure; fields that are not known are ignored; the images stay JSON text that borrows from the record; an
//! error says what was expected and what kind of value was found, never a value.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::change::{ChangeEvent, CommitTimestamp, RowImage};
use crate::config::{SourceTable, TimestampPlace};

mod chunks;

pub use chunks::{ChunkedImage, ChunkedRecord, Chunks, Fragment, MOST_FRAGMENTS};

/// What a record turns out to be.
#[derive(Debug)]
pub enum Envelope<'a> {
    /// A whole change record (`full`, or without a `type` as preview streams send it).
    Full(FullRecord<'a>),
    /// The main record of a change whose JSON is over 9 MiB (`chunked`): all of it but the images that were split.
    Chunked(ChunkedRecord<'a>),
    /// A piece of an image that was split (`fragment`).
    Fragment(Fragment<'a>),
}

/// A whole change record, of which so far only the table is known to be there.
#[derive(Debug)]
pub struct FullRecord<'a> {
    schema: Cow<'a, str>,
    table: Cow<'a, str>,
    transaction: Option<&'a RawValue>,
    operation: Option<&'a RawValue>,
    before: Option<&'a RawValue>,
    after: Option<&'a RawValue>,
    source_ts_ns: Option<&'a RawValue>,
    root_ts_ns: Option<&'a RawValue>,
}

/// Why a record is not a change that can be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum DecodeError {
    #[error("the record is not JSON: it breaks off or goes wrong at line {line}, column {column}")]
    NotJson { line: usize, column: usize },
    #[error("the record has no CDC envelope: expected {field} to be {expected}, found {found}")]
    NoEnvelope { field: &'static str, expected: &'static str, found: &'static str },
    #[error(
        "the record has no CDC envelope: a field of it stands there twice, or is no JSON (line {line}, column {column})"
    )]
    MalformedEnvelope { line: usize, column: usize },
    #[error("the record's type is not known: expected full, chunked, fragment or none")]
    UnknownType,
    #[error(
        "the record has no usable commit timestamp: expected {field} to be a whole number of nanoseconds above 0, found {found}{hint}"
    )]
    NoCommitTimestamp { field: &'static str, found: &'static str, hint: &'static str },
    #[error(
        "a delete without before: expected the deleted row's primary key, found null; has the table a primary key?"
    )]
    DeleteWithoutBefore,
    #[error("an upsert without after: expected the complete row, found null")]
    UpsertWithoutAfter,
}

#[derive(Deserialize)]
struct WireRecord<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    op: Option<&'a RawValue>,
    before: Option<&'a RawValue>,
    after: Option<&'a RawValue>,
    source: Option<&'a RawValue>,
    ts_ns: Option<&'a RawValue>,
    chunked: Option<&'a RawValue>,
    chunk_id: Option<&'a RawValue>,
    index: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireSource<'a> {
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    table: Option<&'a RawValue>,
    #[serde(rename = "txId")]
    transaction: Option<&'a RawValue>,
    ts_ns: Option<&'a RawValue>,
}

/// A JSON string, borrowed where it holds no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The text of a JSON string. What is in a [`RawValue`] was read once, so that only escapes are left to be seen to.
///
/// # Errors
/// It holds half a surrogate pair, or is no string.
pub(crate) fn unquoted(string: &RawValue) -> serde_json::Result<Cow<'_, str>> {
    let json = string.get();
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        _ => serde_json::from_str(json).map(|Text(text)| text),
    }
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
        Some("fragment") => return chunks::fragment(&record).map(Envelope::Fragment),
        Some(_) => return Err(DecodeError::UnknownType),
    };
    let source: WireSource<'_> = object(present(record.source, "source", "an object")?, "source")?;
    let full = FullRecord {
        schema: text(present(source.schema, "source.schema", "a string")?, "source.schema")?,
        table: text(present(source.table, "source.table", "a string")?, "source.table")?,
        transaction: source.transaction,
        operation: record.op,
        before: record.before,
        after: record.after,
        source_ts_ns: source.ts_ns,
        root_ts_ns: record.ts_ns,
    };
    Ok(if chunked { Envelope::Chunked(ChunkedRecord::new(full, record.chunked)) } else { Envelope::Full(full) })
}

impl<'a> FullRecord<'a> {
    /// The schema of the table that changed.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The name of the table that changed.
    pub fn table(&self) -> &str {
        &self.table
    }

    fn operation(&self) -> Result<Cow<'a, str>, DecodeError> {
        text(present(self.operation, "op", "a string")?, "op")
    }

    /// Preview streams send `c` for updates too, and operations to come carry the row as well: all but a delete is an
    /// upsert.
    fn is_delete(&self) -> Result<bool, DecodeError> {
        Ok(self.operation()? == "d")
    }

    /// The record with the image that its operation needs in the place where it was left out.
    ///
    /// # Errors
    /// The operation is missing.
    pub fn with_image(mut self, image: &'a RawValue) -> Result<Self, DecodeError> {
        let place = if self.is_delete()? { &mut self.before } else { &mut self.after };
        *place = Some(image);
        Ok(self)
    }

    /// The change, of the `table` that the record was routed to.
    ///
    /// # Errors
    /// The operation is missing, the commit timestamp is not usable at `place`, or the image that the operation needs
    /// is missing.
    pub fn into_change(self, table: &'a SourceTable, place: TimestampPlace) -> Result<ChangeEvent<'a>, DecodeError> {
        let operation = self.operation()?;
        let transaction = self.transaction.map(|id| text(id, "source.txId")).transpose()?;
        let committed = self.committed(place)?;
        let image = if operation == "d" {
            RowImage::Delete(self.before.ok_or(DecodeError::DeleteWithoutBefore)?)
        } else {
            RowImage::Upsert(self.after.ok_or(DecodeError::UpsertWithoutAfter)?)
        };
        Ok(ChangeEvent { table, committed, transaction, creates: operation == "c", image })
    }

    /// `earliest` needs both timestamps: with one alone nobody can tell whether it is the commit's or the later one of
    /// the two, and a change that is dated too late would hide newer ones.
    fn committed(&self, place: TimestampPlace) -> Result<CommitTimestamp, DecodeError> {
        let source = || timestamp(self.source_ts_ns, "source.ts_ns", place);
        let root = || timestamp(self.root_ts_ns, "ts_ns", place);
        match place {
            TimestampPlace::Earliest => Ok(source()?.min(root()?)),
            TimestampPlace::Source => source(),
            TimestampPlace::Root => root(),
        }
    }
}

fn timestamp(
    value: Option<&RawValue>,
    field: &'static str,
    place: TimestampPlace,
) -> Result<CommitTimestamp, DecodeError> {
    value.and_then(|value| value.get().parse().ok()).and_then(CommitTimestamp::from_nanoseconds).ok_or_else(|| {
        let hint = match place {
            TimestampPlace::Earliest => "; where a stream carries only one of the two, COMMIT_TIMESTAMP must say which",
            TimestampPlace::Source | TimestampPlace::Root => "",
        };
        DecodeError::NoCommitTimestamp { field, found: value.map_or("none", kind), hint }
    })
}

fn present<'a>(
    value: Option<&'a RawValue>,
    field: &'static str,
    expected: &'static str,
) -> Result<&'a RawValue, DecodeError> {
    value.ok_or(DecodeError::NoEnvelope { field, expected, found: "none" })
}

fn text<'a>(value: &'a RawValue, field: &'static str) -> Result<Cow<'a, str>, DecodeError> {
    if !value.get().starts_with('"') {
        return Err(DecodeError::NoEnvelope { field, expected: "a string", found: kind(value) });
    }
    unquoted(value).map_err(|error| malformed(&error))
}

fn object<'a, T: Deserialize<'a>>(value: &'a RawValue, field: &'static str) -> Result<T, DecodeError> {
    // serde reads a struct from an array as well; a CDC record is never one.
    if !value.get().starts_with('{') {
        return Err(DecodeError::NoEnvelope { field, expected: "an object", found: kind(value) });
    }
    serde_json::from_str(value.get()).map_err(|error| malformed(&error))
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

/// The place alone: serde's own message can quote what it found.
fn malformed(error: &serde_json::Error) -> DecodeError {
    DecodeError::MalformedEnvelope { line: error.line(), column: error.column() }
}

/// What kind of JSON value it is, for messages that must not show the value.
pub(crate) fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(_) => "a number that does not fit",
        None => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceTables;

    const COMMIT: u64 = 1_705_318_200_000_000_000;
    const LATER: u64 = 1_705_318_200_125_483_291;

    fn record(op: &str, images: &str, source_ts: &str, root_ts: &str) -> String {
        format!(
            r#"{{"type":"full","op":"{op}",{images},"source":{{"schema":"public","table":"users","txId":"t1"{source_ts}}}{root_ts}}}"#
        )
    }

    fn upsert(source_ts: u64, root_ts: u64) -> String {
        let (source_ts, root_ts) = (format!(r#","ts_ns":{source_ts}"#), format!(r#","ts_ns":{root_ts}"#));
        record("c", r#""before":null,"after":{"id":1}"#, &source_ts, &root_ts)
    }

    fn with_change<T>(
        record: &str,
        place: TimestampPlace,
        inspect: impl FnOnce(ChangeEvent<'_>) -> T,
    ) -> Result<T, DecodeError> {
        let tables: SourceTables = "users(id)".parse().unwrap();
        match read(record.as_bytes())? {
            Envelope::Full(full) => {
                let table = tables.get(full.schema(), full.table()).expect("the table is configured");
                full.into_change(table, place).map(inspect)
            }
            Envelope::Chunked(_) | Envelope::Fragment(_) => panic!("{record} is a part"),
        }
    }

    #[test]
    fn the_commit_is_the_earlier_timestamp_under_both_published_layouts() {
        for (record, place, committed) in [
            (upsert(COMMIT, LATER), TimestampPlace::Earliest, COMMIT),
            (upsert(LATER, COMMIT), TimestampPlace::Earliest, COMMIT),
            (upsert(COMMIT, LATER), TimestampPlace::Source, COMMIT),
            (upsert(COMMIT, LATER), TimestampPlace::Root, LATER),
            (upsert(LATER, COMMIT), TimestampPlace::Source, LATER),
        ] {
            let found = with_change(&record, place, |change| change.committed).unwrap();
            assert_eq!(found.to_string(), committed.to_string(), "{place:?} of {record}");
        }
    }

    #[test]
    fn one_timestamp_is_enough_only_where_the_setting_says_which() {
        let (some, none) = (format!(r#","ts_ns":{COMMIT}"#), "");
        let images = r#""before":null,"after":{"id":1}"#;
        let only_source = record("c", images, &some, none);
        let only_root = record("c", images, none, &some);
        for (record, place, usable) in [
            (&only_source, TimestampPlace::Source, true),
            (&only_source, TimestampPlace::Root, false),
            (&only_source, TimestampPlace::Earliest, false),
            (&only_root, TimestampPlace::Root, true),
            (&only_root, TimestampPlace::Source, false),
            (&only_root, TimestampPlace::Earliest, false),
        ] {
            let found = with_change(record, place, |change| change.committed);
            assert_eq!(found.is_ok(), usable, "{place:?} of {record}: {found:?}");
        }
    }

    #[test]
    fn a_timestamp_that_is_no_whole_number_of_nanoseconds_is_not_usable() {
        for value in [
            "null",
            "0",
            "-1",
            "1.5",
            "1705318200000000000.0",
            "1.7e18",
            "\"1705318200000000000\"",
            "99999999999999999999",
            "[]",
        ] {
            let record = record(
                "c",
                r#""before":null,"after":{"id":1}"#,
                &format!(r#","ts_ns":{value}"#),
                &format!(r#","ts_ns":{LATER}"#),
            );
            let error = with_change(&record, TimestampPlace::Earliest, |_| ()).unwrap_err();
            assert!(matches!(error, DecodeError::NoCommitTimestamp { field: "source.ts_ns", .. }), "{value}: {error}");
        }
    }

    #[test]
    fn all_operations_but_a_delete_upsert_the_row_after() {
        let ts = format!(r#","ts_ns":{COMMIT}"#);
        for (op, images, deletes) in [
            ("c", r#""before":null,"after":{"id":1}"#, false),
            ("u", r#""before":null,"after":{"id":1}"#, false),
            ("merge", r#""after":{"id":1}"#, false),
            ("d", r#""before":{"id":1},"after":null"#, true),
            ("d", r#""before":{"id":1}"#, true),
        ] {
            let record = record(op, images, &ts, &ts);
            let image = with_change(&record, TimestampPlace::Earliest, |change| match change.image {
                RowImage::Delete(image) => (true, image.get().to_owned()),
                RowImage::Upsert(image) => (false, image.get().to_owned()),
            });
            assert_eq!(image, Ok((deletes, r#"{"id":1}"#.to_owned())), "{record}");
        }
    }

    #[test]
    fn an_operation_without_its_image_is_refused() {
        let ts = format!(r#","ts_ns":{COMMIT}"#);
        for (op, images, error) in [
            ("d", r#""before":null,"after":{"id":1}"#, DecodeError::DeleteWithoutBefore),
            ("c", r#""before":{"id":1},"after":null"#, DecodeError::UpsertWithoutAfter),
            ("merge", r#""before":{"id":1}"#, DecodeError::UpsertWithoutAfter),
        ] {
            let record = record(op, images, &ts, &ts);
            assert_eq!(with_change(&record, TimestampPlace::Earliest, |_| ()), Err(error), "{record}");
        }
    }

    #[test]
    fn an_operation_or_a_transaction_that_is_no_text_is_no_envelope() {
        let record = upsert(COMMIT, LATER);
        for (from, to, expected) in [
            (r#""op":"c","#, "", "expected op to be a string, found none"),
            (r#""op":"c""#, r#""op":1"#, "expected op to be a string, found a number"),
            (r#""txId":"t1""#, r#""txId":["secret"]"#, "expected source.txId to be a string, found an array"),
        ] {
            let error =
                with_change(&record.replace(from, to), TimestampPlace::Earliest, |_| ()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        let without = record.replace(r#","txId":"t1""#, "");
        assert_eq!(with_change(&without, TimestampPlace::Earliest, |change| change.transaction.is_none()), Ok(true));
    }

    #[test]
    fn a_type_is_full_when_absent_and_parts_are_recognised_without_a_source() {
        let full = upsert(COMMIT, LATER);
        for record in
            [full.clone(), full.replace(r#""type":"full","#, ""), full.replace(r#""type":"full""#, r#""type":null"#)]
        {
            assert!(matches!(read(record.as_bytes()), Ok(Envelope::Full(_))), "{record}");
        }
        let chunked = full.replace("full", "chunked");
        assert!(matches!(read(chunked.as_bytes()), Ok(Envelope::Chunked(_))), "{chunked}");
        let fragment = r#"{"type":"fragment","chunk_id":"x","index":0,"data":"{"}"#;
        assert!(matches!(read(fragment.as_bytes()), Ok(Envelope::Fragment(_))), "{fragment}");
        assert_eq!(read(br#"{"type":"snapshot"}"#).unwrap_err(), DecodeError::UnknownType);
    }

    #[test]
    fn fields_that_are_not_known_are_ignored() {
        let record = upsert(COMMIT, LATER).replacen('{', r#"{"schema_version":{"deep":[[1]]},"#, 1);
        assert!(with_change(&record, TimestampPlace::Earliest, |_| ()).is_ok(), "{record}");
    }

    #[test]
    fn what_is_no_envelope_is_said_without_its_values() {
        for (record, expected) in [
            ("", "is not JSON"),
            ("secret", "is not JSON: it breaks off or goes wrong at line 1, column 1"),
            ("{\"op\":\"c\"", "is not JSON"),
            ("{} {}", "is not JSON"),
            ("\u{feff}{}", "is not JSON"),
            ("null", "expected the record to be an object, found null"),
            (r#"["secret"]"#, "expected the record to be an object, found an array"),
            ("{}", "expected source to be an object, found none"),
            (r#"{"source":"secret"}"#, "expected source to be an object, found a string"),
            (r#"{"source":{"table":"users"}}"#, "expected source.schema to be a string, found none"),
            (r#"{"source":{"schema":"public","table":7}}"#, "expected source.table to be a string, found a number"),
            (r#"{"type":["secret"]}"#, "expected type to be a string, found an array"),
            (r#"{"op":"secret","op":"secret"}"#, "stands there twice"),
            (r#"{"source":{"schema":"\ud800","table":"secret"}}"#, "or is no JSON"),
        ] {
            let error = read(record.as_bytes()).expect_err(record).to_string();
            assert!(error.contains(expected), "{record} gave: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        for (record, column) in [(&b"\xff\xfe{}"[..], 1), (b"{\"a\":\"\xff", 7)] {
            assert_eq!(read(record).unwrap_err(), DecodeError::NotJson { line: 1, column });
        }
    }
}
