//! A record's envelope, from the bytes that DSQL put into the stream to a [`ChangeEvent`]. It is read in two steps:
//! first the table, which the routing needs, then the rest.
//!
//! Invariants: pure; unknown fields are ignored; the images stay JSON text that borrows from the record; an error says
//! what was expected and what kind of value was found, but never a value of a row.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::definitions::source_tables::SourceTable;
use crate::record::change::{ChangeEvent, RowImage};
use crate::record::json::{kind, unquoted};
use crate::record::order::{CommitTimestamp, TimestampPlace};

/// A change record. Only the name of its table has been checked so far.
#[derive(Debug)]
pub struct FullRecord<'a> {
    schema: Cow<'a, str>,
    table: Cow<'a, str>,
    pub(super) root: WireRecord<'a>,
    source: WireSource<'a>,
}

/// Why a record cannot be applied as a change.
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
    #[error(
        "the record is of another cluster: expected source.cluster to be {expected}, which SOURCE_CLUSTER names, found {found}; \
         correct SOURCE_CLUSTER, or give each cluster a view of its own"
    )]
    AnotherCluster { expected: String, found: String },
    #[error(
        "the record's envelope has another version: expected source.version to be 1.x, found {found}; a newer dsql-view may read it, \
         and a replay then applies it"
    )]
    AnotherVersion { found: String },
}

/// The fields of a record, as its JSON has them.
#[derive(Debug, Deserialize)]
pub(super) struct WireRecord<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<&'a RawValue>,
    op: Option<&'a RawValue>,
    before: Option<&'a RawValue>,
    after: Option<&'a RawValue>,
    source: Option<&'a RawValue>,
    ts_ns: Option<&'a RawValue>,
    pub(super) chunked: Option<&'a RawValue>,
    pub(super) chunk_id: Option<&'a RawValue>,
    pub(super) index: Option<&'a RawValue>,
    pub(super) data: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct WireSource<'a> {
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    table: Option<&'a RawValue>,
    #[serde(rename = "txId")]
    transaction: Option<&'a RawValue>,
    cluster: Option<&'a RawValue>,
    version: Option<&'a RawValue>,
    ts_ns: Option<&'a RawValue>,
}

impl<'a> FullRecord<'a> {
    /// Reads `root` as a change record.
    ///
    /// # Errors
    /// The record does not name its table.
    pub(super) fn of(root: WireRecord<'a>) -> Result<Self, DecodeError> {
        let source: WireSource<'_> = object(present(root.source, "source", "an object")?, "source")?;
        let schema = text(present(source.schema, "source.schema", "a string")?, "source.schema")?;
        let table = text(present(source.table, "source.table", "a string")?, "source.table")?;
        Ok(Self { schema, table, root, source })
    }

    /// Whether it has the layout of the general availability, with a `type` and the commit timestamp in `source.ts_ns`.
    /// The layout of the preview has no `type`, and the commit timestamp in the root's `ts_ns`.
    fn is_typed(&self) -> bool {
        self.root.kind.is_some()
    }

    /// The schema of the table that changed.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The name of the table that changed.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The cluster that the row belongs to, if the record names it.
    pub fn cluster(&self) -> Option<Cow<'a, str>> {
        self.source.cluster.and_then(readable)
    }

    /// The version of the envelope, if the record names it.
    pub fn version(&self) -> Option<Cow<'a, str>> {
        self.source.version.and_then(readable)
    }

    /// Checks that this function reads the record: its version must be 1.x, and its cluster must be `cluster`, if that
    /// is given. A record that does not name its version or its cluster passes.
    ///
    /// # Errors
    /// The record is of another cluster, or of another version.
    pub fn check_source(&self, cluster: Option<&str>) -> Result<(), DecodeError> {
        if let Some(version) = self.version()
            && version.split('.').next() != Some("1")
        {
            return Err(DecodeError::AnotherVersion { found: shown(&version) });
        }
        if let (Some(expected), Some(found)) = (cluster, self.cluster())
            && found != expected
        {
            return Err(DecodeError::AnotherCluster { expected: expected.to_owned(), found: shown(&found) });
        }
        Ok(())
    }

    fn operation(&self) -> Result<Cow<'a, str>, DecodeError> {
        text(present(self.root.op, "op", "a string")?, "op")
    }

    /// Whether the operation is a delete. Any other is an upsert: preview streams send `c` for updates too, and future
    /// operations carry the row as well.
    pub(super) fn is_delete(&self) -> Result<bool, DecodeError> {
        Ok(self.operation()? == "d")
    }

    /// Puts the image that the operation needs into the record, which came without it.
    ///
    /// # Errors
    /// The operation is missing.
    pub fn with_image(mut self, image: &'a RawValue) -> Result<Self, DecodeError> {
        let place = if self.is_delete()? { &mut self.root.before } else { &mut self.root.after };
        *place = Some(image);
        Ok(self)
    }

    /// The record as a change of `table`, to which it was routed.
    ///
    /// # Errors
    /// The operation is missing, there is no usable commit timestamp at `place`, or the image that the operation needs
    /// is missing.
    pub fn into_change(self, table: &'a SourceTable, place: TimestampPlace) -> Result<ChangeEvent<'a>, DecodeError> {
        let operation = self.operation()?;
        let transaction = self.source.transaction.and_then(readable);
        let committed = self.committed(place)?;
        let clock_behind = self.is_clock_behind(place);
        let image = if operation == "d" {
            RowImage::Delete(self.root.before.ok_or(DecodeError::DeleteWithoutBefore)?)
        } else {
            RowImage::Upsert(self.root.after.ok_or(DecodeError::UpsertWithoutAfter)?)
        };
        let (creates, nulls_are_there) = (operation == "c", self.is_typed());
        Ok(ChangeEvent { table, committed, transaction, creates, clock_behind, nulls_are_there, image })
    }

    /// The commit timestamp at `place`. To choose the earlier of two timestamps, both must be there: nobody can tell
    /// whether a single one is the commit's or the later one. A change that is dated too late would hide newer ones.
    fn committed(&self, place: TimestampPlace) -> Result<CommitTimestamp, DecodeError> {
        let source = || timestamp(self.source.ts_ns, "source.ts_ns", place);
        let root = || timestamp(self.root.ts_ns, "ts_ns", place);
        match (place, self.is_typed()) {
            (TimestampPlace::Auto, true) | (TimestampPlace::Source, _) => source(),
            (TimestampPlace::Auto, false) | (TimestampPlace::Earliest, _) => Ok(source()?.min(root()?)),
            (TimestampPlace::Root, _) => root(),
        }
    }

    /// Whether both timestamps are there, and the commit timestamp is later than the time at which the record was made.
    fn is_clock_behind(&self, place: TimestampPlace) -> bool {
        let source_is_commit = match place {
            TimestampPlace::Auto | TimestampPlace::Earliest => self.is_typed(),
            TimestampPlace::Source => true,
            TimestampPlace::Root => false,
        };
        let (Some(source), Some(root)) = (nanoseconds(self.source.ts_ns), nanoseconds(self.root.ts_ns)) else {
            return false;
        };
        let (committed, made) = if source_is_commit { (source, root) } else { (root, source) };
        committed > made
    }
}

fn nanoseconds(value: Option<&RawValue>) -> Option<CommitTimestamp> {
    value.and_then(|value| value.get().parse().ok()).and_then(CommitTimestamp::from_nanoseconds)
}

fn timestamp(
    value: Option<&RawValue>,
    field: &'static str,
    place: TimestampPlace,
) -> Result<CommitTimestamp, DecodeError> {
    nanoseconds(value).ok_or_else(|| {
        let hint = match place {
            TimestampPlace::Auto | TimestampPlace::Earliest => {
                "; where a stream carries only one of the two, COMMIT_TIMESTAMP must say which"
            }
            TimestampPlace::Source | TimestampPlace::Root => "",
        };
        DecodeError::NoCommitTimestamp { field, found: value.map_or("none", kind), hint }
    })
}

pub(super) fn present<'a>(
    value: Option<&'a RawValue>,
    field: &'static str,
    expected: &'static str,
) -> Result<&'a RawValue, DecodeError> {
    value.ok_or(DecodeError::NoEnvelope { field, expected, found: "none" })
}

pub(super) fn text<'a>(value: &'a RawValue, field: &'static str) -> Result<Cow<'a, str>, DecodeError> {
    if !value.get().starts_with('"') {
        return Err(DecodeError::NoEnvelope { field, expected: "a string", found: kind(value) });
    }
    unquoted(value).map_err(|error| malformed(&error))
}

/// A value that the function does not need, in any form: the text of a string, the JSON of anything else.
fn readable(value: &RawValue) -> Option<Cow<'_, str>> {
    if value.get().starts_with('"') { unquoted(value).ok() } else { Some(Cow::Borrowed(value.get())) }
}

/// A name or a version for an error message: cut off, and with characters escaped that a log could not show.
fn shown(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

pub(super) fn object<'a, T: Deserialize<'a>>(value: &'a RawValue, field: &'static str) -> Result<T, DecodeError> {
    // serde reads a struct from an array as well, but a CDC record is never an array.
    if !value.get().starts_with('{') {
        return Err(DecodeError::NoEnvelope { field, expected: "an object", found: kind(value) });
    }
    serde_json::from_str(value.get()).map_err(|error| malformed(&error))
}

/// Keeps only the place of the error, because serde's own message can quote a value.
pub(super) fn malformed(error: &serde_json::Error) -> DecodeError {
    DecodeError::MalformedEnvelope { line: error.line(), column: error.column() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::source_tables::SourceTables;
    use crate::record::decode::{Envelope, read};

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

    fn untyped(source_ts: u64, root_ts: u64) -> String {
        upsert(source_ts, root_ts).replace(r#""type":"full","#, "")
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
    fn the_commit_is_where_the_setting_or_the_layout_says() {
        for (record, place, committed) in [
            (upsert(COMMIT, LATER), TimestampPlace::Earliest, COMMIT),
            (upsert(LATER, COMMIT), TimestampPlace::Earliest, COMMIT),
            (upsert(COMMIT, LATER), TimestampPlace::Source, COMMIT),
            (upsert(COMMIT, LATER), TimestampPlace::Root, LATER),
            (upsert(LATER, COMMIT), TimestampPlace::Source, LATER),
            (upsert(COMMIT, LATER), TimestampPlace::Auto, COMMIT),
            // With a type, source.ts_ns is the order of the commits, even if the change stream's clock is behind.
            (upsert(LATER, COMMIT), TimestampPlace::Auto, LATER),
            (untyped(COMMIT, LATER), TimestampPlace::Auto, COMMIT),
            (untyped(LATER, COMMIT), TimestampPlace::Auto, COMMIT),
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
            (&only_source, TimestampPlace::Auto, true),
            (&only_root, TimestampPlace::Auto, false),
            (&only_source.replace(r#""type":"full","#, ""), TimestampPlace::Auto, false),
            (&only_root.replace(r#""type":"full","#, ""), TimestampPlace::Auto, false),
        ] {
            let found = with_change(record, place, |change| change.committed);
            assert_eq!(found.is_ok(), usable, "{place:?} of {record}: {found:?}");
        }
    }

    #[test]
    fn a_commit_later_than_its_record_shows_a_clock_behind() {
        for (source, root, place, typed, untyped_too) in [
            (COMMIT, LATER, TimestampPlace::Auto, false, true),
            (LATER, COMMIT, TimestampPlace::Auto, true, false),
            (COMMIT, COMMIT, TimestampPlace::Auto, false, false),
            (LATER, COMMIT, TimestampPlace::Earliest, true, false),
            (LATER, COMMIT, TimestampPlace::Source, true, true),
            (LATER, COMMIT, TimestampPlace::Root, false, false),
            (COMMIT, LATER, TimestampPlace::Root, true, true),
        ] {
            for (record, expected) in [(upsert(source, root), typed), (untyped(source, root), untyped_too)] {
                let found = with_change(&record, place, |change| change.clock_behind);
                assert_eq!(found, Ok(expected), "{place:?} of {record}");
            }
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
    fn an_operation_must_be_a_string_and_a_transaction_may_be_anything() {
        let record = upsert(COMMIT, LATER);
        for (from, to, expected) in [
            (r#""op":"c","#, "", "expected op to be a string, found none"),
            (r#""op":"c""#, r#""op":1"#, "expected op to be a string, found a number"),
        ] {
            let error =
                with_change(&record.replace(from, to), TimestampPlace::Earliest, |_| ()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        for (transaction, expected) in [
            ("", None),
            (r#","txId":null"#, None),
            (r#","txId":"\ud800""#, None),
            (r#","txId":7"#, Some("7")),
            (r#","txId":"t\u0031""#, Some("t1")),
        ] {
            let record = record.replace(r#","txId":"t1""#, transaction);
            let found =
                with_change(&record, TimestampPlace::Earliest, |change| change.transaction.map(Cow::into_owned));
            assert_eq!(found.unwrap().as_deref(), expected, "{record}");
        }
    }

    #[test]
    fn a_missing_type_means_full_and_a_fragment_needs_no_source() {
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
    fn unknown_fields_are_ignored() {
        let record = upsert(COMMIT, LATER).replacen('{', r#"{"schema_version":{"deep":[[1]]},"#, 1);
        assert!(with_change(&record, TimestampPlace::Earliest, |_| ()).is_ok(), "{record}");
    }

    #[test]
    fn an_unreadable_envelope_is_refused_without_its_values() {
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
