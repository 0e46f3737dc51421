//! Metrics in CloudWatch's embedded metric format: lines on standard output that CloudWatch turns into metrics.
//!
//! Each metric has the function's name as its dimension. The metrics of a source table have the table's name as a
//! second one. Only tables of `SOURCE_TABLES` have any, so the settings bound the number of metrics. `TABLE_METRICS`
//! turns the metrics of tables off.
//!
//! Invariants: docs/metrics.md names every metric, and no others; a line holds names, counts and times, never a row's
//! value; each batch has one line, and at most one more for each table that it has records of, within the format's
//! limits.

use std::io::{self, Write};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use metrique::emf::Emf;
use metrique::unit::{Count, Second};
use metrique::unit_of_work::metrics;
use metrique::{CloseValue, RootEntry};
use metrique_writer::format::Format;
use metrique_writer::{Entry, EntryWriter, IoStreamError};
use percent_encoding::{CONTROLS, utf8_percent_encode};

use crate::batch::disposition::{Disposition, Failure};
use crate::batch::ledger;
use crate::batch::tally::{Tally, add};
use crate::definitions::source_tables::SourceTable;
use crate::lock::lock;
use crate::write::attempts::Attempted;

/// The namespace of all metrics.
pub const NAMESPACE: &str = "dsql-view";

/// The dimension of all metrics.
pub const FUNCTION: &str = "FunctionName";

/// The second dimension of a source table's metrics.
pub const TABLE: &str = "Table";

/// The second dimension of a view table's metrics.
pub const VIEW_TABLE: &str = "ViewTable";

/// The line of a batch.
#[metrics(rename_all = "PascalCase")]
#[derive(Debug)]
struct BatchLine {
    #[metrics(flatten)]
    records: Tally,
    #[metrics(unit = Count)]
    unconfigured_tables: usize,
    #[metrics(unit = Count)]
    failed_batches: usize,
    #[metrics(flatten)]
    attempted: Attempted,
}

/// The line of a table's records in a batch.
#[metrics(rename_all = "PascalCase", emf::dimension_sets = [["Table"]])]
#[derive(Debug)]
struct TableLine {
    table: String,
    #[metrics(flatten)]
    records: Tally,
}

/// The line of a view table's records in a batch.
#[metrics(rename_all = "PascalCase", emf::dimension_sets = [["ViewTable"]])]
#[derive(Debug, Default)]
struct ViewLine {
    view_table: String,
    #[metrics(unit = Count)]
    applied: Option<usize>,
    #[metrics(unit = Count)]
    failed: Option<usize>,
    /// Reported, because the table is missing or denied.
    #[metrics(unit = Count)]
    unavailable_records: Option<usize>,
    #[metrics(unit = Count)]
    write_units: Option<usize>,
    #[metrics(unit = Count)]
    throttled_requests: Option<usize>,
}

/// A message of the on-failure queue: its range was redriven, or waits for another time.
#[metrics(rename_all = "PascalCase")]
#[derive(Debug)]
pub struct Redriven {
    /// How many records its range had, if that is done.
    #[metrics(unit = Count)]
    pub redriven_records: usize,
    /// How many ranges are done.
    #[metrics(unit = Count)]
    pub redriven_ranges: usize,
    /// How many ranges wait for another time.
    #[metrics(unit = Count)]
    pub postponed_ranges: usize,
}

/// Records that the stream no longer held when they were to be read again.
#[metrics(rename_all = "PascalCase")]
#[derive(Debug)]
pub struct Lost {
    /// How many ranges.
    #[metrics(unit = Count)]
    pub lost_ranges: usize,
    /// The shard.
    pub shard: String,
    /// The range's ends.
    pub first_sequence_number: String,
    /// The range's ends.
    pub last_sequence_number: String,
}

/// A replay of the quarantine.
#[metrics(rename_all = "PascalCase")]
#[derive(Debug)]
pub struct Replayed {
    /// How many records there were.
    #[metrics(unit = Count)]
    pub replayed_records: usize,
    /// How many of them stay where they are.
    #[metrics(unit = Count)]
    pub failed_replays: usize,
}

/// The contents of the quarantine.
#[metrics(rename_all = "PascalCase")]
#[derive(Debug)]
pub struct Quarantine {
    /// How many records.
    #[metrics(unit = Count)]
    pub quarantined_objects: usize,
}

/// Split changes whose sets wait for members.
#[metrics(rename_all = "PascalCase")]
#[derive(Debug, PartialEq, Eq)]
pub struct IncompleteSets {
    /// How many.
    #[metrics(unit = Count)]
    pub incomplete_sets: usize,
    /// How long the oldest member of one has waited; zero if there is no such set.
    #[metrics(unit = Second)]
    pub oldest_incomplete_set: Duration,
}

/// The field that all lines of a process have.
#[derive(Debug)]
struct Process {
    function: String,
}

impl Entry for &Process {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.value(FUNCTION, &self.function);
    }
}

/// Makes lines, one after another, in the same memory.
struct Lines {
    format: Emf,
    line: Vec<u8>,
    process: Process,
}

impl Lines {
    fn new(function: String) -> Self {
        let format = Emf::builder(NAMESPACE.to_owned(), vec![vec![FUNCTION.to_owned()]]).build();
        Self { format, line: Vec::new(), process: Process { function } }
    }

    fn line<M: CloseValue>(&mut self, metric: M) -> Result<&[u8], IoStreamError>
    where
        M::Closed: metrique::InflectableEntry,
    {
        self.line.clear();
        let entry = RootEntry::new(metric.close());
        let process = &self.process;
        self.format.format(&entry.merge(&process), &mut self.line)?;
        Ok(&self.line)
    }
}

/// One for the process, like its standard output. Empty until something calls [`init`].
static LINES: OnceLock<Mutex<Lines>> = OnceLock::new();

/// Begins to write metrics, under the name that Lambda has given the function.
pub fn init(variable: impl Fn(&str) -> Option<String>) {
    let function = variable("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|| "unknown".to_owned());
    LINES.get_or_init(|| Mutex::new(Lines::new(function)));
}

/// Writes a metric's line.
pub fn emit<M: CloseValue>(metric: M)
where
    M::Closed: metrique::InflectableEntry,
{
    let Some(lines) = LINES.get() else { return };
    let mut lines = lock(lines);
    // The whole line at once: CloudWatch drops a torn one.
    let written = lines.line(metric).map(|line| io::stdout().lock().write_all(line));
    if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
        tracing::error!(%error, "a metric could not be written");
    }
}

/// Writes how the records of a batch ended, and how its requests to DynamoDB went.
pub fn emit_batch(records: Tally, unconfigured_tables: usize, attempted: Attempted) {
    emit(BatchLine::of(records, unconfigured_tables, attempted));
}

impl BatchLine {
    fn of(records: Tally, unconfigured_tables: usize, attempted: Attempted) -> Self {
        let failed_batches = usize::from(records.reported.is_some_and(|reported| reported > 0));
        Self { records, unconfigured_tables, failed_batches, attempted }
    }
}

/// Writes how the records of a batch ended, one line for each table.
pub fn emit_tables(tables: Vec<(&SourceTable, Tally)>) {
    for (table, records) in tables {
        emit(TableLine { table: dimension(table.key_prefix()), records });
    }
}

/// Writes, for each table of the view that a batch has records of, how they ended and how its requests went.
pub fn emit_views<'v>(views: impl Iterator<Item = (&'v str, &'v Attempted)>, ledger: &ledger::Ledger<'_>) {
    let entries = ledger.entries();
    for (place, (name, attempted)) in views.enumerate() {
        let mut line = ViewLine { view_table: dimension(name), ..ViewLine::default() };
        add(&mut line.throttled_requests, attempted.throttled);
        let of_view = |entry: &&ledger::Entry<'_>| entry.view() == Some(place);
        let mut records = 0;
        for entry in entries.iter().filter(of_view) {
            records += 1;
            line.add(entry);
        }
        if records > 0 {
            emit(line);
        }
    }
}

impl ViewLine {
    fn add(&mut self, entry: &ledger::Entry<'_>) {
        match entry.end() {
            Disposition::Applied => {
                add(&mut self.applied, 1);
                add(&mut self.write_units, entry.write().map_or(0, |write| write.units));
            }
            Disposition::Reported(failure) => {
                add(&mut self.failed, 1);
                let is_unavailable = matches!(failure, Failure::Unavailable(_) | Failure::NotTried);
                add(&mut self.unavailable_records, usize::from(is_unavailable));
            }
            Disposition::Superseded(_) | Disposition::Filtered | Disposition::Kept | Disposition::Quarantined(_) => {}
        }
    }
}

/// A table as the value of a dimension. CloudWatch takes only ASCII without control characters there. The key prefix
/// has `%` escaped already, and `.` within a name, so no two tables share a value.
fn dimension(key_prefix: &str) -> String {
    utf8_percent_encode(key_prefix, CONTROLS).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value as Json, json};

    use super::*;
    use crate::batch::tally::{Distribution, MOST_VALUES};

    // The format's limits, as its specification states them.
    const MOST_METRICS: usize = 100;
    const MOST_DIMENSIONS: usize = 30;
    const LONGEST_LINE: usize = 1024 * 1024;
    const LONGEST_DIMENSION: usize = 1024;

    fn line<M: CloseValue>(metric: M) -> Json
    where
        M::Closed: metrique::InflectableEntry,
    {
        let mut lines = Lines::new("view".to_owned());
        let line = lines.line(metric).unwrap();
        assert!(line.len() < LONGEST_LINE && line.ends_with(b"}\n"));
        assert!(!line[..line.len() - 1].contains(&b'\n'));
        serde_json::from_slice(line).unwrap()
    }

    /// As many different values as there can be.
    fn full() -> (Tally, Attempted) {
        let (mut freshness, mut dynamo_db_time) = (Distribution::default(), Distribution::default());
        for power in 0..58 {
            for time in (0..32).map(|step| Duration::from_micros((1 << power) + (step << power) / 32)) {
                freshness.record(time);
                dynamo_db_time.record(time);
            }
        }
        let attempted = Attempted { dynamo_db_time, throttled: 3 };
        let [unfit_values, unlisted_columns, hidden_rows, write_units] = [Some(0), Some(0), Some(0), Some(usize::MAX)];
        let tally = Tally {
            received: 1,
            write_units,
            unfit_values,
            unlisted_columns,
            hidden_rows,
            freshness,
            ..Tally::zeros()
        };
        (tally, attempted)
    }

    fn lines() -> Vec<Json> {
        let (tally, attempted) = full();
        let batch = line(BatchLine::of(tally.clone(), 1, attempted));
        vec![
            batch,
            line(TableLine { table: "public.users".to_owned(), records: tally }),
            view_line(),
            line(Redriven { redriven_records: 1, redriven_ranges: 1, postponed_ranges: 1 }),
            line(Lost {
                lost_ranges: 1,
                shard: "s".to_owned(),
                first_sequence_number: "1".to_owned(),
                last_sequence_number: "2".to_owned(),
            }),
            line(Replayed { replayed_records: 1, failed_replays: 1 }),
            line(Quarantine { quarantined_objects: 1 }),
            line(IncompleteSets { incomplete_sets: 1, oldest_incomplete_set: Duration::from_secs(5) }),
        ]
    }

    fn view_line() -> Json {
        let one = Some(1);
        line(ViewLine {
            view_table: "orders".to_owned(),
            applied: one,
            failed: one,
            unavailable_records: one,
            write_units: one,
            throttled_requests: one,
        })
    }

    fn metrics_of(line: &Json) -> Vec<(&str, &str)> {
        let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap().iter();
        metrics.map(|metric| (metric["Name"].as_str().unwrap(), metric["Unit"].as_str().unwrap())).collect()
    }

    #[test]
    fn the_lines_hold_the_metrics_that_the_page_names() {
        let lines = lines();
        let (of_views, others): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.get(VIEW_TABLE).is_some());
        let of_views = of_views.into_iter().flat_map(metrics_of);
        let of_views: Vec<_> = of_views.map(|(name, unit)| (name.to_owned(), unit.to_lowercase())).collect();
        assert_eq!(of_views, dsql_view_support::pages::metrics_by_view_table());
        let (of_tables, plain): (Vec<_>, Vec<_>) = others.into_iter().partition(|line| line.get(TABLE).is_some());
        let of_tables: BTreeSet<_> = of_tables.into_iter().flat_map(metrics_of).collect();
        let found = plain.into_iter().flat_map(metrics_of);
        let found: Vec<_> =
            found.map(|metric| (metric.0.to_owned(), metric.1.to_lowercase(), of_tables.contains(&metric))).collect();
        assert_eq!(found, dsql_view_support::pages::metrics());
        assert_eq!(lines.last().unwrap()["OldestIncompleteSet"], 5);
    }

    #[test]
    fn a_line_keeps_the_format_s_limits_and_has_a_value_for_each_dimension() {
        for line in lines() {
            let directive = &line["_aws"]["CloudWatchMetrics"][0];
            assert_eq!(directive["Namespace"], NAMESPACE);
            assert!(metrics_of(&line).len() <= MOST_METRICS);
            let dimensions: Vec<&str> =
                directive["Dimensions"][0].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            let second = [TABLE, VIEW_TABLE].into_iter().find(|name| line.get(name).is_some());
            let expected: Vec<&str> = [FUNCTION].into_iter().chain(second).collect();
            assert_eq!(dimensions, expected);
            assert!(dimensions.len() <= MOST_DIMENSIONS);
            for dimension in dimensions {
                let value = line[dimension].as_str().unwrap();
                assert!((1..=LONGEST_DIMENSION).contains(&value.len()), "{value}");
            }
            for (name, _) in metrics_of(&line) {
                let Some(values) = line[name].get("Values") else {
                    assert!(line[name].is_number(), "{name}");
                    continue;
                };
                let counts = line[name]["Counts"].as_array().unwrap();
                assert_eq!(values.as_array().unwrap().len(), counts.len());
                assert!(counts.len() <= MOST_VALUES, "{name} has {} values", counts.len());
            }
        }
    }

    #[test]
    fn a_distribution_has_the_mean_of_each_group_and_how_many_there_are() {
        let mut tally = Tally::zeros();
        for milliseconds in [100, 101, 7] {
            tally.freshness.record(Duration::from_millis(milliseconds));
        }
        let records = line(BatchLine::of(tally.clone(), 0, Attempted::default()));
        assert_eq!(records["Freshness"], json!({ "Values": [7, 100.5], "Counts": [1, 2] }));
        // Without requests there is no time.
        assert_eq!(records.get("DynamoDbTime"), None);
        let mut attempted = Attempted::default();
        attempted.dynamo_db_time.record(Duration::from_micros(1500));
        let records = line(BatchLine::of(tally, 0, attempted));
        assert_eq!(records["DynamoDbTime"], json!({ "Values": [1.5], "Counts": [1] }));
    }

    #[test]
    fn a_table_s_name_is_ascii() {
        for (name, expected) in [
            ("public.users", "public.users"),
            (r#"public."Größe 1""#, r#"public."Gr%C3%B6%C3%9Fe 1""#),
            ("a\nb\u{7f}", "a%0Ab%7F"),
            ("public.100%25", "public.100%25"),
        ] {
            assert_eq!(dimension(name), expected);
        }
    }

    #[test]
    fn a_table_s_line_holds_only_counts_that_have_a_value() {
        let records = Tally { received: 2, applied: Some(2), ..Tally::default() };
        let line = line(TableLine { table: "public.users".to_owned(), records });
        assert_eq!(metrics_of(&line), [("Received", "Count"), ("Applied", "Count")]);
        assert_eq!((&line["Received"], &line["Applied"]), (&json!(2), &json!(2)));
    }
}
