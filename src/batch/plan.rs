//! From the bytes of a batch to the rows to write: decodes, routes and projects each record, then coalesces.
//!
//! Invariants: pure, with everything it depends on as an argument; one bad record never affects its neighbours; every
//! record is settled here, is a candidate of exactly one row, or is one member of a set.

use std::sync::Arc;

use crate::batch::coalesce::{Candidate, RowChanges, coalesce};
use crate::batch::disposition::{Disposition, Failure};
use crate::batch::ledger::{Ledger, RecordId, Write};
use crate::definitions::source_tables::{SourceTable, SourceTables};
use crate::item::projection::{Circumstances, Origin, Projector, ViewItem};
use crate::record::chunked::ChunkedImage;
use crate::record::decode::{self, Envelope};
use crate::record::delivery::Record;
use crate::record::envelope::FullRecord;
use crate::record::fragments::{self, AssemblyError};
use crate::record::order::TimestampPlace;

/// Reads records for a view.
#[derive(Debug, Clone)]
pub struct Planner {
    /// The tables that are kept in the view.
    pub source_tables: Arc<SourceTables>,
    /// Where a record carries the time of its commit.
    pub commit_timestamp: TimestampPlace,
    /// The only cluster whose records are taken; `None` takes those of every cluster.
    pub source_cluster: Option<String>,
    /// Makes the items.
    pub projector: Projector,
}

/// The work that a batch asks for.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The records, each with its end as far as that is known without writing. A record to be written starts as
    /// [`Failure::OutOfTime`], and a confirmed write replaces that. A member of a set starts as [`Failure::NoBucket`].
    pub ledger: Ledger<'a>,
    /// The rows to write.
    pub rows: Vec<RowChanges>,
    /// The objects to write for split changes: members, which are kept until their sets are whole, and notes that a set
    /// is not needed.
    pub parts: Vec<SetObject>,
    /// Where the records come from.
    pub sources: Sources,
}

/// The tables, clusters and versions that a batch names: each once, in order of first appearance.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Tables that are not configured, as schema and name; at most [`MOST_NAMES`].
    pub unconfigured: Vec<(String, String)>,
    /// Clusters of the records of configured tables; at most [`MOST_NAMES`].
    pub clusters: Vec<String>,
    /// Envelope versions of the same records; at most [`MOST_NAMES`].
    pub versions: Vec<String>,
}

/// The most names of each kind, so that nobody who writes into the stream can fill the memory with names.
pub const MOST_NAMES: usize = 100;

/// The beginning of a name. PostgreSQL's own names have at most 63 bytes.
fn short(name: &str) -> &str {
    const LONGEST: usize = 200;
    &name[..name.floor_char_boundary(LONGEST)]
}

impl Sources {
    fn is_filtered(&mut self, record: &FullRecord<'_>) {
        let (schema, table) = (short(record.schema()), short(record.table()));
        let is_known = |known: &(String, String)| known.0 == schema && known.1 == table;
        if self.unconfigured.len() < MOST_NAMES && !self.unconfigured.iter().any(is_known) {
            self.unconfigured.push((schema.to_owned(), table.to_owned()));
        }
    }

    fn is_taken(&mut self, record: &FullRecord<'_>) {
        fn add(names: &mut Vec<String>, name: Option<&str>) {
            let Some(name) = name.map(short) else { return };
            if names.len() < MOST_NAMES && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        add(&mut self.clusters, record.cluster().as_deref());
        add(&mut self.versions, record.version().as_deref());
    }
}

/// An object that a record puts into a set.
#[derive(Debug, PartialEq, Eq)]
pub struct SetObject {
    /// The record.
    pub id: RecordId,
    /// The set's folder.
    pub folder: String,
    /// The key of the object to write.
    pub object: String,
    /// Its role in the set.
    pub role: Role,
}

/// The role of an object in its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A main record or a fragment. Its record is done once the object is kept, and the object may make the set whole.
    Member,
    /// A note that nobody here needs the set, so that the set does not seem to wait for members. It settles no record.
    NotNeeded,
}

/// The next step for a record.
#[expect(clippy::large_enum_variant, reason = "most steps are writes, and none is kept")]
enum Step {
    Write(ViewItem),
    Keep,
    Filter,
}

impl Step {
    fn of(item: Option<ViewItem>) -> Self {
        item.map_or(Self::Filter, Self::Write)
    }
}

impl Planner {
    /// Plans a batch.
    pub fn plan<'a>(&'a self, records: &'a [Record], now: Circumstances<'_>) -> Plan<'a> {
        let mut ledger = Ledger::with_capacity(records.len());
        let mut candidates = Vec::with_capacity(records.len());
        let mut parts = Vec::new();
        let mut sources = Sources::default();
        for (place, record) in records.iter().enumerate() {
            let id = RecordId(place);
            let mut keep = |folder, object: String, role| {
                let is_replayed = now.origin == Origin::Quarantine && role == Role::Member;
                let object = if is_replayed { fragments::replayed(&object) } else { object };
                parts.push(SetObject { id, folder, object, role });
            };
            let (table, step) = self.step(&record.data.0, now, &mut sources, &mut keep);
            let mut write = None;
            let end = match step {
                Ok(Step::Write(item)) => {
                    write = Some(Write::of(&item));
                    candidates.push(Candidate { id, item });
                    Failure::OutOfTime.into()
                }
                Ok(Step::Keep) => Failure::NoBucket.into(),
                Ok(Step::Filter) => Disposition::Filtered,
                Err(failure) => failure.into(),
            };
            ledger.add(record, table, end, write);
        }
        let rows = coalesce(candidates);
        rows.iter().flat_map(|row| &row[1..]).for_each(|older| ledger.coalesce(older.id));
        Plan { ledger, rows, parts, sources }
    }

    /// The next step for a record, with its table if that is configured.
    fn step(
        &self,
        record: &[u8],
        now: Circumstances<'_>,
        sources: &mut Sources,
        keep: &mut impl FnMut(String, String, Role),
    ) -> (Option<&SourceTable>, Result<Step, Failure>) {
        // Route before checking the rest: a fault in another table's record must not hold the shard.
        let mut route = |record: &FullRecord<'_>| {
            let table = self.source_tables.get(record.schema(), record.table());
            if table.is_none() {
                sources.is_filtered(record);
            } else if record.check_source(self.source_cluster.as_deref()).is_ok() {
                sources.is_taken(record);
            }
            table
        };
        match decode::read(record) {
            Ok(Envelope::Full(full)) => match route(&full) {
                Some(table) => (Some(table), self.item(full, table, now).map(Step::of)),
                None => (None, Ok(Step::Filter)),
            },
            Ok(Envelope::Chunked(chunked)) => {
                let table = route(&chunked);
                (table, self.main_record(chunked, record, table, now, keep))
            }
            Ok(Envelope::Fragment(fragment)) => {
                keep(fragments::folder(&fragment.chunk_id), fragments::fragment_object(&fragment), Role::Member);
                (None, Ok(Step::Keep))
            }
            Err(error) => (None, Err(Failure::Decode(error))),
        }
    }

    /// The item of a record; `None` if the view never has the row, by its key.
    fn item(
        &self,
        full: FullRecord<'_>,
        table: &SourceTable,
        now: Circumstances<'_>,
    ) -> Result<Option<ViewItem>, Failure> {
        full.check_source(self.source_cluster.as_deref()).map_err(Failure::Decode)?;
        let change = full.into_change(table, self.commit_timestamp).map_err(Failure::Decode)?;
        let Some(schema) = now.tables.get(table.view_place()).and_then(Option::as_deref) else {
            let view = table.view().unwrap_or("of VIEW_TABLE");
            return Err(Failure::Unavailable(format!(
                "the view table {view} is missing, denied, or does not fit, as the log of the start says"
            )));
        };
        self.projector.project(&change, schema, now).map_err(Failure::Project)
    }

    fn main_record(
        &self,
        chunked: FullRecord<'_>,
        record: &[u8],
        table: Option<&SourceTable>,
        now: Circumstances<'_>,
        keep: &mut impl FnMut(String, String, Role),
    ) -> Result<Step, Failure> {
        let mut not_needed = |image: Option<ChunkedImage<'_>>| {
            if let Some(image) = image {
                keep(fragments::folder(&image.chunk_id), fragments::not_needed_object(&image), Role::NotNeeded);
            }
        };
        let Some(table) = table else {
            if let Ok(chunks) = chunked.chunks() {
                not_needed(chunks.needed);
                not_needed(chunks.unneeded);
            }
            return Ok(Step::Filter);
        };
        let chunks = chunked.chunks().map_err(Failure::Decode)?;
        not_needed(chunks.unneeded);
        let Some(image) = chunks.needed else { return self.item(chunked, table, now).map(Step::of) };
        keep(fragments::folder(&image.chunk_id), fragments::main_record_object(&image, record), Role::Member);
        Ok(Step::Keep)
    }

    /// Makes the item of a split change from its main record and its fragments: the variants of each place, in the
    /// order of the places. The table comes with it if that is configured.
    ///
    /// # Errors
    /// The set is not a change that can be applied. No other delivery will change that.
    pub fn assemble(
        &self,
        main_record: &[u8],
        fragments: Vec<Vec<String>>,
        now: Circumstances<'_>,
    ) -> (Option<&SourceTable>, Result<Option<ViewItem>, Failure>) {
        let chunked = match decode::read(main_record) {
            Ok(Envelope::Chunked(chunked)) => chunked,
            Ok(Envelope::Full(_) | Envelope::Fragment(_)) => {
                let error = AssemblyError::NotAMember { object: "the main record".to_owned() };
                return (None, Err(Failure::Assemble(error)));
            }
            Err(error) => return (None, Err(Failure::Decode(error))),
        };
        let Some(table) = self.source_tables.get(chunked.schema(), chunked.table()) else {
            return (None, Ok(None));
        };
        // Checked only now, so that a set of another cluster or version is quarantined whole.
        let source = chunked.check_source(self.source_cluster.as_deref());
        let image = match source.and_then(|()| chunked.chunks()) {
            Ok(chunks) => chunks.needed,
            Err(error) => return (Some(table), Err(Failure::Decode(error))),
        };
        let item = match image {
            Some(image) => fragments::join(&image, &fragments).map_err(Failure::Assemble).and_then(|joined| {
                // The fragments take megabytes, and so does everything made of the joined text.
                drop(fragments);
                let image = fragments::image(&joined).map_err(Failure::Assemble)?;
                let full = chunked.with_image(image).map_err(Failure::Decode)?;
                self.item(full, table, now)
            }),
            None => self.item(chunked, table, now),
        };
        (Some(table), item)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::item::schema::TableSchema;
    use crate::record::delivery::Data;

    const COMMIT: u64 = 1_705_318_200_000_000_000;

    fn planner() -> Planner {
        Planner {
            source_tables: Arc::new("users(id)".parse().unwrap()),
            commit_timestamp: TimestampPlace::default(),
            source_cluster: None,
            projector: Projector {
                marks: Arc::default(),
                tombstone_ttl: Duration::from_secs(60),
                overflow_bucket: None,
                hash_key: None,
            },
        }
    }

    fn delivered(records: &[String]) -> Vec<Record> {
        records.iter().map(|record| Record { data: Data(record.clone().into_bytes()), ..Record::default() }).collect()
    }

    fn tables() -> [Option<Arc<TableSchema>>; 1] {
        [Some(Arc::new(TableSchema::with_partition_key("pk")))]
    }

    fn now(tables: &[Option<Arc<TableSchema>>]) -> Circumstances<'_> {
        Circumstances { written_at: SystemTime::UNIX_EPOCH, origin: Origin::Stream, tables }
    }

    fn plan<'p>(planner: &'p Planner, records: &'p [Record]) -> Plan<'p> {
        planner.plan(records, now(&tables()))
    }

    fn end(plan: &Plan<'_>, place: usize) -> Disposition {
        plan.ledger.entry(RecordId(place)).end().clone()
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
        let (planner, records) = (planner(), delivered(&records));
        let plan = plan(&planner, &records);

        let rows: Vec<Vec<usize>> =
            plan.rows.iter().map(|row| row.iter().map(|candidate| candidate.id.0).collect()).collect();
        assert_eq!(rows, [vec![5, 0], vec![3]]);
        assert!(matches!(end(&plan, 1), Disposition::Reported(Failure::Decode(_))));
        assert_eq!(end(&plan, 2), Disposition::Filtered);
        assert_eq!(end(&plan, 4), Disposition::Reported(Failure::NoBucket));
        assert_eq!([0, 3, 5].map(|place| end(&plan, place)), [const { Disposition::Reported(Failure::OutOfTime) }; 3]);
        let parts: Vec<_> = plan.parts.iter().map(|part| (part.id.0, part.folder.as_str(), part.role)).collect();
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
            let records = delivered(&[main(table)]);
            let plan = plan(&planner, &records);
            assert_eq!(end(&plan, 0) == Disposition::Filtered, filtered, "{table}");
            let found: Vec<_> = plan.parts.iter().map(|part| (part.folder.as_str(), part.role)).collect();
            assert_eq!(found, roles, "{table}");
        }
    }

    /// A record of this cluster and this version, for a whole or a split change.
    fn record_of(table: &str, split: bool, cluster: &str, version: &str) -> String {
        let source = format!(
            r#"{{"schema":"public","table":"{table}","ts_ns":{COMMIT},"cluster":{cluster},"version":{version}}}"#
        );
        if split {
            let chunked = r#"{"after":{"chunk_id":"a","total_fragments":1,"crc32c":"1"}}"#;
            format!(r#"{{"type":"chunked","op":"u","source":{source},"chunked":{chunked},"ts_ns":{COMMIT}}}"#)
        } else {
            format!(r#"{{"type":"full","op":"u","after":{{"id":1}},"source":{source},"ts_ns":{COMMIT}}}"#)
        }
    }

    #[test]
    fn a_record_of_another_cluster_or_another_version_is_poison() {
        let (ours, other) = (r#""kmabugltfmjdaj2siqr2qbxgju""#, r#""2ntttwpyh6nbmi5h54h2e4p4ja""#);
        let mut planner = planner();
        for (setting, table, cluster, version, expected) in [
            (true, "users", ours, r#""1.0""#, None),
            (true, "users", ours, r#""1.7""#, None),
            (true, "users", "null", "null", None),
            (true, "users", other, r#""1.0""#, Some("found 2ntttwpyh6nbmi5h54h2e4p4ja")),
            (true, "orders", other, r#""2.0""#, None),
            (false, "users", other, "1.0", None),
            (false, "users", ours, r#""2.0""#, Some("expected source.version to be 1.x, found 2.0")),
            (false, "users", ours, r#""10.0""#, Some("found 10.0")),
            (false, "users", ours, r#""v1""#, Some("found v1")),
            (false, "users", ours, "2", Some("found 2")),
        ] {
            planner.source_cluster = setting.then(|| ours.trim_matches('"').to_owned());
            for split in [false, true] {
                let record = record_of(table, split, cluster, version);
                let records = delivered(std::slice::from_ref(&record));
                let plan = plan(&planner, &records);
                let tables = tables();
                let now = now(&tables);
                let failure = match end(&plan, 0) {
                    // A set is checked once it is whole, so that all of it can be quarantined.
                    Disposition::Reported(Failure::NoBucket) => {
                        planner.assemble(record.as_bytes(), Vec::new(), now).1.err()
                    }
                    Disposition::Reported(failure) => Some(failure),
                    _ => None,
                };
                let failure =
                    failure.filter(|failure| matches!(failure, Failure::Decode(_))).map(|failure| failure.to_string());
                let is_as_expected = match (&failure, expected) {
                    (Some(failure), Some(expected)) => failure.contains(expected),
                    (failure, expected) => failure.is_none() && expected.is_none(),
                };
                assert!(is_as_expected, "{record}: {failure:?}");
                let kept = plan.parts.iter().filter(|part| part.role == Role::Member).count();
                assert_eq!(kept, usize::from(split && table == "users"), "{record}");
                // A user who has named the cluster needs no warning of another one.
                assert!(expected.is_none() || plan.sources == Sources::default(), "{:?}", plan.sources);
            }
        }
    }

    #[test]
    fn each_source_of_records_is_told_once() {
        let records = [
            record_of("users", false, r#""c1""#, r#""1.0""#),
            record_of("orders", false, r#""c9""#, r#""9.0""#),
            record_of("users", true, r#""c2""#, r#""1.1""#),
            record_of("orders", true, r#""c1""#, r#""1.0""#),
            record_of("users", false, "null", "null"),
            record_of("Users", false, "null", "null"),
        ];
        let of = |name: &str| ("public".to_owned(), name.to_owned());
        let expected = Sources {
            unconfigured: vec![of("orders"), of("Users")],
            clusters: vec!["c1".to_owned(), "c2".to_owned()],
            versions: vec!["1.0".to_owned(), "1.1".to_owned()],
        };
        assert_eq!(plan(&planner(), &delivered(&records)).sources, expected);
        let long = plan(&planner(), &delivered(&[record(&"é".repeat(100_000), 1, COMMIT)])).sources;
        assert_eq!(long.unconfigured[0].1.len(), 200);
        let many: Vec<String> = (0..500).map(|table| record(&format!("t{table}"), 1, COMMIT)).collect();
        assert_eq!(plan(&planner(), &delivered(&many)).sources.unconfigured.len(), MOST_NAMES);
    }

    #[test]
    fn a_fault_in_a_record_of_a_table_that_is_not_configured_does_not_matter() {
        let planner = planner();
        for broken in [
            r#"{"op":"d","source":{"schema":"public","table":"orders"}}"#,
            r#"{"source":{"schema":"public","table":"orders","txId":7}}"#,
            r#"{"op":null,"after":[],"source":{"schema":"public","table":"orders"}}"#,
        ] {
            let records = delivered(&[broken.to_owned()]);
            assert_eq!(end(&plan(&planner, &records), 0), Disposition::Filtered, "{broken}");
        }
    }
}
