//! From the bytes of a batch to what has to be written: decode, route, project, record by record, then coalesce.
//!
//! Invariants: pure, the time of writing is an argument; one bad record never touches its neighbours; every record is settled
//! here or is a candidate of exactly one row.

use std::time::SystemTime;

use crate::coalesce::{Candidate, RowChanges, coalesce};
use crate::config::{SourceTable, SourceTables, TimestampPlace};
use crate::disposition::{Disposition, Failure};
use crate::envelope::{self, Envelope};
use crate::projection::{Projector, ViewItem};

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
}

/// One record of a batch.
#[derive(Debug)]
pub struct PlannedRecord<'a> {
    /// Its table, as far as it is known and configured.
    pub table: Option<&'a SourceTable>,
    /// The end of its way.
    pub disposition: Disposition,
}

impl Planner {
    /// Plans a batch, given as the bytes of its records.
    pub fn plan<'r>(&self, records: impl IntoIterator<Item = &'r [u8]>, written_at: SystemTime) -> Plan<'_> {
        let mut planned = Vec::new();
        let mut candidates = Vec::new();
        for (record, data) in records.into_iter().enumerate() {
            let (table, item) = self.item(data, written_at);
            let disposition = match item {
                Ok(Some(item)) => {
                    candidates.push(Candidate { record, item });
                    Disposition::Reported(Failure::OutOfTime)
                }
                Ok(None) => Disposition::Filtered,
                Err(failure) => Disposition::Reported(failure),
            };
            planned.push(PlannedRecord { table, disposition });
        }
        Plan { records: planned, rows: coalesce(candidates) }
    }

    /// The item that a record asks for, or `None` where its table is not configured; with the table if it is.
    fn item(&self, record: &[u8], written_at: SystemTime) -> (Option<&SourceTable>, Result<Option<ViewItem>, Failure>) {
        let full = match envelope::read(record) {
            Ok(Envelope::Full(full)) => full,
            Ok(Envelope::Part) => return (None, Err(Failure::Part)),
            Err(error) => return (None, Err(Failure::Decode(error))),
        };
        // Routed before the rest is looked at: what is wrong with other tables' records is nothing to hold a shard for.
        let Some(table) = self.source_tables.get(full.schema(), full.table()) else { return (None, Ok(None)) };
        let item = full
            .into_change(table, self.commit_timestamp)
            .map_err(Failure::Decode)
            .and_then(|change| self.projector.project(&change, written_at).map(Some).map_err(Failure::Project));
        (Some(table), item)
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
            projector: Projector { key_attribute: "pk".to_owned(), tombstone_ttl: Duration::from_secs(60) },
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
            r#"{"type":"fragment"}"#.to_owned(),
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
