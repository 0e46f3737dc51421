//! A committed change of one row, as the rest of the function knows it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::definitions::source_tables::SourceTable;
use crate::record::order::CommitTimestamp;

/// A change of one row of a configured table.
#[derive(Debug)]
pub struct ChangeEvent<'a> {
    /// The table that the row belongs to, with its primary key.
    pub table: &'a SourceTable,
    /// When it was committed.
    pub committed: CommitTimestamp,
    /// The transaction, if the record names it.
    pub transaction: Option<Cow<'a, str>>,
    /// Whether the record says that the change created the row. This is only a hint: preview streams say so of updates
    /// too.
    pub creates: bool,
    /// Whether the commit timestamp is later than the time at which the change stream made the record: the stream's
    /// clock was behind.
    pub clock_behind: bool,
    /// Whether the record has its row's nulls. A preview record may leave them out, so that a column which it lacks is
    /// null.
    pub nulls_are_there: bool,
    /// The row, or the key of the deleted row.
    pub image: RowImage<'a>,
}

/// The row that a change leaves, or the key of the row that it deletes, as the JSON text that the record holds.
#[derive(Debug, Clone, Copy)]
pub enum RowImage<'a> {
    /// The complete row after an insert or update.
    Upsert(&'a RawValue),
    /// The primary key of a deleted row.
    Delete(&'a RawValue),
}
