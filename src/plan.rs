//! From the bytes of a batch to what has to be written: decode, route, project, record by record, then coalesce.
//!
//! Invariants: pure, the time of writing is an argument; one bad record never touches its neighbours; every record is
//! settled here, is a candidate of exactly one row, or is one part of a split change.

use std::time::SystemTime;

use crate::coalesce::{Candidate, RowChanges, coalesce};
use crate::config::{SourceTable, SourceTables, TimestampPlace};
use crate::disposition::{Disposition, Failure};
use crate::envelope::{self, ChunkedImage, ChunkedRecord, Envelope, FullRecord};
use crate::fragments::{self, AssemblyError};
use crate::projection::{Projector, ViewItem};
use crate::tally::Write;

/// Reads records for a view.
#[derive(Debug, Clone)]
pub struct Planner {
    /// The tables that are kept in the view.
    pub source_tables: SourceTables,
    /// Where a record carries the time of its commit.
    pub commit_timestamp: TimestampPlace,
    /// Makes the items.
    pub projector: Projector,
}

/// What a batch asks for.
#[derive(Debug)]
pub struct Plan<'a> {
    /// For each record the end of its way as far as it is known without writing; candidates stand as
    /// [`Failure::OutOfTime`], which is true of those that no write will settle.
    pub records: Vec<PlannedRecord<'a>>,
    /// The rows to write.
    pub rows: Vec<RowChanges>,
    /// What has to be kept of changes that were split. A record that is one stands as [`Failure::Part`] until it is.
    pub parts: Vec<Part>,
}

/// What a record leaves in a set of fragments.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// The place of the record in the batch, from 0.
    pub record: usize,
    /// The set's folder.
    pub folder: String,
    /// The object to write.
    pub object: String,
    /// What it is.
    pub role: Role,
}

/// What a part is to its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A main record or a piece: the record has done its work when it is kept, and the set may be whole by it.
    Member,
    /// A note that the set is of no use here, so that it does not look as if it waited. It settles no record.
    NotNeeded,
}

/// One record of a batch.
#[derive(Debug)]
pub struct PlannedRecord<'a> {
    /// Its table, as far as it is known and configured.
    pub table: Option<&'a SourceTable>,
    /// The end of its way.
    pub disposition: Disposition,
    /// What it writes, if it came so far.
    pub write: Option<Write>,
}

impl PlannedRecord<'_> {
    /// A write has ended so, at `now`.
    pub fn settle(&mut self, disposition: Disposition, now: SystemTime) {
        if let (Disposition::Applied, Some(write)) = (&disposition, &mut self.write) {
            write.shown(now);
        }
        self.disposition = disposition;
    }
}

/// What a record asks for.
enum Way {
    Write(ViewItem),
    Keep,
    Filter,
    Fail(Failure),
}

impl Planner {
    /// Plans a batch, given as the bytes of its records.
    pub fn plan<'r>(&self, records: impl IntoIterator<Item = &'r [u8]>, written_at: SystemTime) -> Plan<'_> {
        let records = records.into_iter();
        let most = records.size_hint().0;
        let mut planned = Vec::with_capacity(most);
        let mut candidates = Vec::with_capacity(most);
        let mut parts = Vec::new();
        for (record, data) in records.enumerate() {
            let mut keep = |folder, object, role| parts.push(Part { record, folder, object, role });
            let (table, way) = self.way(data, written_at, &mut keep);
            let mut write = None;
            let disposition = match way {
                Way::Write(item) => {
                    write = Some(Write::of(&item));
                    candidates.push(Candidate { record, item });
                    Disposition::Reported(Failure::OutOfTime)
                }
                Way::Keep => Disposition::Reported(Failure::Part),
                Way::Filter => Disposition::Filtered,
                Way::Fail(failure) => Disposition::Reported(failure),
            };
            planned.push(PlannedRecord { table, disposition, write });
        }
        let rows = coalesce(candidates);
        for older in rows.iter().flat_map(|row| &row[1..]) {
            if let Some(write) = &mut planned[older.record].write {
                write.coalesced = true;
            }
        }
        Plan { records: planned, rows, parts }
    }

    /// What a record asks for, with its table if that is configured.
    fn way(
        &self,
        record: &[u8],
        written_at: SystemTime,
        keep: &mut impl FnMut(String, String, Role),
    ) -> (Option<&SourceTable>, Way) {
        // Routed before the rest is looked at: what is wrong with other tables' records is nothing to hold a shard for.
        match envelope::read(record) {
            Ok(Envelope::Full(full)) => match self.source_tables.get(full.schema(), full.table()) {
                Some(table) => (Some(table), self.change(full, table, written_at)),
                None => (None, Way::Filter),
            },
            Ok(Envelope::Chunked(chunked)) => {
                let table = self.source_tables.get(chunked.record.schema(), chunked.record.table());
                (table, self.main_record(chunked, record, table, written_at, keep))
            }
            Ok(Envelope::Fragment(fragment)) => {
                keep(fragments::folder(&fragment.chunk_id), fragments::piece(&fragment), Role::Member);
                (None, Way::Keep)
            }
            Err(error) => (None, Way::Fail(Failure::Decode(error))),
        }
    }

    fn change(&self, full: FullRecord<'_>, table: &SourceTable, written_at: SystemTime) -> Way {
        match self.item(full, table, written_at) {
            Ok(item) => Way::Write(item),
            Err(failure) => Way::Fail(failure),
        }
    }

    fn item(&self, full: FullRecord<'_>, table: &SourceTable, written_at: SystemTime) -> Result<ViewItem, Failure> {
        let change = full.into_change(table, self.commit_timestamp).map_err(Failure::Decode)?;
        self.projector.project(&change, written_at).map_err(Failure::Project)
    }

    fn main_record(
        &self,
        chunked: ChunkedRecord<'_>,
        record: &[u8],
        table: Option<&SourceTable>,
        written_at: SystemTime,
        keep: &mut impl FnMut(String, String, Role),
    ) -> Way {
        let chunks = chunked.chunks();
        let mut not_needed = |image: Option<ChunkedImage<'_>>| {
            if let Some(image) = image {
                keep(fragments::folder(&image.chunk_id), fragments::not_needed(&image), Role::NotNeeded);
            }
        };
        match (table, chunks) {
            (None, Ok(chunks)) => {
                not_needed(chunks.needed);
                not_needed(chunks.unneeded);
                Way::Filter
            }
            (None, Err(_)) => Way::Filter,
            (Some(_), Err(error)) => Way::Fail(Failure::Decode(error)),
            (Some(table), Ok(chunks)) => {
                not_needed(chunks.unneeded);
                let Some(image) = chunks.needed else { return self.change(chunked.record, table, written_at) };
                keep(fragments::folder(&image.chunk_id), fragments::main_record(&image, record), Role::Member);
                Way::Keep
            }
        }
    }

    /// The item of a split change, from its main record and its pieces: the variants of each place, in their order.
    /// With its table if that is configured.
    ///
    /// # Errors
    /// Why the set is no change that can be applied; no other delivery changes that.
    pub fn assemble(
        &self,
        main_record: &[u8],
        pieces: &[Vec<String>],
        written_at: SystemTime,
    ) -> (Option<&SourceTable>, Result<Option<ViewItem>, Failure>) {
        let chunked = match envelope::read(main_record) {
            Ok(Envelope::Chunked(chunked)) => chunked,
            Ok(Envelope::Full(_) | Envelope::Fragment(_)) => {
                let error = AssemblyError::NotAPart { object: "the main record".to_owned() };
                return (None, Err(Failure::Assemble(error)));
            }
            Err(error) => return (None, Err(Failure::Decode(error))),
        };
        let Some(table) = self.source_tables.get(chunked.record.schema(), chunked.record.table()) else {
            return (None, Ok(None));
        };
        let image = match chunked.chunks() {
            Ok(chunks) => chunks.needed,
            Err(error) => return (Some(table), Err(Failure::Decode(error))),
        };
        let item = match image {
            Some(image) => fragments::join(&image, pieces).map_err(Failure::Assemble).and_then(|joined| {
                let image = fragments::image(&joined).map_err(Failure::Assemble)?;
                let full = chunked.record.with_image(image).map_err(Failure::Decode)?;
                self.item(full, table, written_at)
            }),
            None => self.item(chunked.record, table, written_at),
        };
        (Some(table), item.map(Some))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const COMMIT: u64 = 1_705_318_200_000_000_000;

    fn planner() -> Planner {
        Planner {
            source_tables: "users(id)".parse().unwrap(),
            commit_timestamp: TimestampPlace::default(),
            projector: Projector {
                key_attribute: "pk".to_owned(),
                tombstone_ttl: Duration::from_secs(60),
                overflow_bucket: None,
            },
        }
    }

    fn record(table: &str, id: u64, commit: u64) -> String {
        format!(
            r#"{{"op":"c","after":{{"id":{id}}},"source":{{"schema":"public","table":"{table}","ts_ns":{commit}}},"ts_ns":{commit}}}"#
        )
    }

    #[test]
    fn each_record_is_settled_or_a_candidate_of_one_row() {
        let records = [
            record("users", 1, COMMIT),
            "broken".to_owned(),
            record("orders", 1, COMMIT),
            record("users", 2, COMMIT),
            r#"{"type":"fragment","chunk_id":"x","index":0,"data":"{"}"#.to_owned(),
            record("users", 1, COMMIT + 1),
        ];
        let planner = planner();
        let plan = planner.plan(records.iter().map(String::as_bytes), SystemTime::UNIX_EPOCH);

        let rows: Vec<Vec<usize>> =
            plan.rows.iter().map(|row| row.iter().map(|candidate| candidate.record).collect()).collect();
        assert_eq!(rows, [vec![5, 0], vec![3]]);
        let settled: Vec<_> = plan.records.iter().map(|record| &record.disposition).collect();
        let waiting = &Disposition::Reported(Failure::OutOfTime);
        assert!(matches!(settled[1], Disposition::Reported(Failure::Decode(_))));
        assert_eq!(settled[2], &Disposition::Filtered);
        assert_eq!(settled[4], &Disposition::Reported(Failure::Part));
        assert_eq!([settled[0], settled[3], settled[5]], [waiting; 3]);
        let parts: Vec<_> = plan.parts.iter().map(|part| (part.record, part.folder.as_str(), part.role)).collect();
        assert_eq!(parts, [(4, "fragments/x/", Role::Member)]);
    }

    #[test]
    fn a_split_change_of_a_table_that_is_not_configured_is_filtered_and_its_sets_are_noted() {
        let main = |table: &str| {
            format!(
                r#"{{"type":"chunked","op":"u","source":{{"schema":"public","table":"{table}"}},"chunked":{{
                "before":{{"chunk_id":"b","total_fragments":1,"crc32c":"1"}},"after":{{"chunk_id":"a","total_fragments":1,"crc32c":"1"}}}}}}"#
            )
        };
        let planner = planner();
        for (table, filtered, roles) in [
            ("orders", true, [("fragments/a/", Role::NotNeeded), ("fragments/b/", Role::NotNeeded)]),
            ("users", false, [("fragments/b/", Role::NotNeeded), ("fragments/a/", Role::Member)]),
        ] {
            let plan = planner.plan([main(table).as_bytes()], SystemTime::UNIX_EPOCH);
            assert_eq!(plan.records[0].disposition == Disposition::Filtered, filtered, "{table}");
            let found: Vec<_> = plan.parts.iter().map(|part| (part.folder.as_str(), part.role)).collect();
            assert_eq!(found, roles, "{table}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_table_that_is_not_configured_does_not_matter() {
        let planner = planner();
        for broken in [
            r#"{"op":"d","source":{"schema":"public","table":"orders"}}"#,
            r#"{"source":{"schema":"public","table":"orders","txId":7}}"#,
            r#"{"op":null,"after":[],"source":{"schema":"public","table":"orders"}}"#,
        ] {
            let plan = planner.plan([broken.as_bytes()], SystemTime::UNIX_EPOCH);
            assert_eq!(plan.records[0].disposition, Disposition::Filtered, "{broken}");
        }
    }
}
