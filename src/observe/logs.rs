//! Logs: one structured line a batch, one for each record of it that was quarantined, and one for each way in which
//! others failed.
//!
//! The level and the format are what Lambda sets: `AWS_LAMBDA_LOG_LEVEL` (TRACE, DEBUG, INFO, WARN, ERROR, FATAL) and
//! `AWS_LAMBDA_LOG_FORMAT` (JSON, else text). Release binaries are compiled without anything below INFO
//! (`release_max_level_info`), so that TRACE and DEBUG make a difference in the dev profile alone.
//!
//! Invariants: no value of a row at any level. The runtime and the SDK log events and requests when they are asked for
//! detail, so other crates than this one never log below WARN, whatever the level.

use std::collections::BTreeMap;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::batch::disposition::{Counts, Disposition, Failure, Stage};
use crate::batch::plan::PlannedRecord;
use crate::bucket::ObjectsError;
use crate::quarantine;
use crate::record::delivery::Record;
use crate::record::sequence::SequenceNumber;
use crate::record::tables::SourceTable;

/// Installs the subscriber for the process, once.
pub fn init(variable: impl Fn(&str) -> Option<String>) {
    let level = level(variable("AWS_LAMBDA_LOG_LEVEL").as_deref());
    let ours = Targets::new().with_target("dsql_view", level).with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_target(false);
    let json = variable("AWS_LAMBDA_LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json"));
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        lines.with_ansi(false).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(ours)).init();
}

fn level(setting: Option<&str>) -> LevelFilter {
    match setting.map(str::to_ascii_uppercase).as_deref() {
        Some("TRACE") => LevelFilter::TRACE,
        Some("DEBUG") => LevelFilter::DEBUG,
        Some("WARN") => LevelFilter::WARN,
        Some("ERROR" | "FATAL") => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

/// A batch of broken records can break in as many ways as it has records; so many are told apart in the log.
const MOST_CLASSES: usize = 20;

/// The reported records of a batch that failed in the same way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FailureClass {
    stage: Stage,
    poison: bool,
    table: Option<String>,
    reason: String,
}

/// Logs what became of a batch.
pub fn log_batch(request_id: &str, delivered: &[Record], records: &[PlannedRecord<'_>], counts: &Counts) {
    let (lowest, highest) = ends(delivered);
    tracing::info!(
        request_id,
        shard = shard(delivered),
        lowest,
        highest,
        received = counts.received(),
        applied = counts.applied,
        superseded = counts.superseded,
        filtered = counts.filtered,
        kept = counts.kept,
        quarantined = counts.quarantined,
        reported = counts.reported,
        "batch"
    );
    for (delivered, record) in delivered.iter().zip(records) {
        if let Disposition::Quarantined(failure) = &record.disposition {
            log_quarantined(request_id, delivered, record.table, failure);
        }
    }
    let classes = failure_classes(delivered, records);
    if classes.len() > MOST_CLASSES {
        tracing::warn!(request_id, ways = classes.len(), shown = MOST_CLASSES, "records failed in many ways");
    }
    for (class, numbers) in classes.into_iter().take(MOST_CLASSES) {
        tracing::warn!(
            request_id,
            shard = shard(delivered),
            records = numbers.len(),
            lowest = numbers.first().map(|number| number.as_str()),
            highest = numbers.last().map(|number| number.as_str()),
            stage = %class.stage,
            poison = class.poison,
            table = class.table,
            reason = class.reason,
            "reported"
        );
    }
}

/// A record that is quarantined is done with: its line is what leads a person to it.
fn log_quarantined(request_id: &str, delivered: &Record, table: Option<&SourceTable>, failure: &Failure) {
    tracing::warn!(
        request_id,
        shard = delivered.shard_id.as_deref(),
        sequence_number = delivered.sequence_number.as_str(),
        stage = %failure.stage(),
        table = table.map(ToString::to_string),
        reason = failure.to_string(),
        object = quarantine::key(delivered, table),
        "quarantined"
    );
}

/// Logs that the bucket did not do its part for some records of a batch, and what follows from that.
pub fn log_bucket(request_id: &str, records: &[&Record], error: &ObjectsError, so: &'static str) {
    let (lowest, highest) = ends(records.iter().copied());
    let shard = records.first().and_then(|record| record.shard_id.as_deref());
    tracing::warn!(request_id, shard, records = records.len(), lowest, highest, %error, "{so}");
}

fn shard(delivered: &[Record]) -> Option<&str> {
    delivered.first()?.shard_id.as_deref()
}

/// The lowest and the highest sequence number.
fn ends<'a>(records: impl IntoIterator<Item = &'a Record>) -> (Option<&'a str>, Option<&'a str>) {
    let mut numbers: Vec<_> = records.into_iter().map(|record| &record.sequence_number).collect();
    numbers.sort();
    (numbers.first().map(|number| number.as_str()), numbers.last().map(|number| number.as_str()))
}

/// The ways in which reported records failed, each with their sequence numbers, lowest first.
fn failure_classes<'a>(
    delivered: &'a [Record],
    records: &[PlannedRecord<'_>],
) -> BTreeMap<FailureClass, Vec<&'a SequenceNumber>> {
    let mut classes: BTreeMap<FailureClass, Vec<&SequenceNumber>> = BTreeMap::new();
    for (delivered, record) in delivered.iter().zip(records) {
        let Disposition::Reported(failure) = &record.disposition else { continue };
        let class = FailureClass {
            stage: failure.stage(),
            poison: failure.is_poison(),
            table: record.table.map(ToString::to_string),
            reason: failure.to_string(),
        };
        classes.entry(class).or_default().push(&delivered.sequence_number);
    }
    for numbers in classes.values_mut() {
        numbers.sort();
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_lambda_s_and_info_by_default() {
        for (setting, expected) in [
            (None, LevelFilter::INFO),
            (Some("nonsense"), LevelFilter::INFO),
            (Some("trace"), LevelFilter::TRACE),
            (Some("DEBUG"), LevelFilter::DEBUG),
            (Some("INFO"), LevelFilter::INFO),
            (Some("Warn"), LevelFilter::WARN),
            (Some("ERROR"), LevelFilter::ERROR),
            (Some("FATAL"), LevelFilter::ERROR),
        ] {
            assert_eq!(level(setting), expected, "{setting:?}");
        }
    }

    #[test]
    fn records_that_failed_in_the_same_way_are_one_class() {
        let delivered: Vec<Record> = ["9", "10", "8", "7"]
            .iter()
            .map(|number| {
                let record = format!(
                    r#"{{"shardId":"shardId-000000000006","sequenceNumber":"{number}","partitionKey":"",
                         "approximateArrivalTimestamp":1.5,"data":""}}"#
                );
                serde_json::from_str(&record).unwrap()
            })
            .collect();
        let ends = [
            Disposition::Reported(Failure::OutOfTime),
            Disposition::Reported(Failure::OutOfTime),
            Disposition::Reported(Failure::Part),
            Disposition::Applied,
        ];
        let records = ends.map(|disposition| PlannedRecord { table: None, disposition, write: None });
        let classes = failure_classes(&delivered, &records);
        let numbers =
            |class: Vec<&SequenceNumber>| class.into_iter().map(SequenceNumber::to_string).collect::<Vec<_>>();
        assert_eq!(classes.into_values().map(numbers).collect::<Vec<_>>(), [vec!["8"], vec!["9", "10"]]);
        assert_eq!(shard(&delivered), Some("shardId-000000000006"));
        assert_eq!(shard(&[]), None);
        assert_eq!((super::ends(&delivered), super::ends(&[])), ((Some("7"), Some("10")), (None, None)));
    }
}
