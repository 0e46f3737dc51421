//! Logs: one structured line for each batch, one for each quarantined record, and one for each way in which other
//! records failed.
//!
//! Lambda sets the level and the format: `AWS_LAMBDA_LOG_LEVEL` (TRACE, DEBUG, INFO, WARN, ERROR, FATAL) and
//! `AWS_LAMBDA_LOG_FORMAT` (JSON, else text). Release binaries are compiled without anything below INFO
//! (`release_max_level_info`), so TRACE and DEBUG make a difference only in the dev profile.
//!
//! Invariants: no line holds a value of a row, at any level. The runtime and the SDK log events and requests when they
//! are asked for detail, so crates other than this one never log below WARN, whatever the level.

use std::collections::BTreeMap;
use std::fmt;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::VisitOutput;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{JsonVisitor, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::aws::service_error::ServiceError;
use crate::batch::disposition::{Disposition, Failure, Stage};
use crate::batch::ledger::{Entry, Ledger, RecordId};
use crate::batch::tally::Tally;
use crate::definitions::source_tables::SourceTable;
use crate::quarantine;
use crate::record::delivery::Record;

/// Installs the subscriber for the process, once.
pub fn init(variable: impl Fn(&str) -> Option<String>) {
    let level = level(variable("AWS_LAMBDA_LOG_LEVEL").as_deref());
    let ours = Targets::new().with_target("dsql_view", level).with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_target(false);
    let json = variable("AWS_LAMBDA_LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json"));
    let lines = if json { lines.json().event_format(Flat).boxed() } else { lines.with_ansi(false).boxed() };
    tracing_subscriber::registry().with(lines.with_filter(ours)).init();
}

/// The span of an invocation: all lines within it have its request id. Its level is ERROR, so that no setting hides it.
pub fn invocation(request_id: &str) -> Span {
    tracing::error_span!("invocation", request_id)
}

/// Formats a line of JSON with the fields of the span beside those of the event, so that Logs Insights finds both by
/// their names.
struct Flat;

impl<S, N> FormatEvent<S, N> for Flat
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        line.write_str(r#"{"timestamp":""#)?;
        SystemTime.format_time(&mut line)?;
        write!(line, r#"","level":"{}""#, event.metadata().level())?;
        let mut fields = String::new();
        let mut visitor = JsonVisitor::new(&mut fields);
        event.record(&mut visitor);
        visitor.finish()?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<FormattedFields<N>>() {
                members(&mut line, of_span)?;
            }
        }
        members(&mut line, &fields)?;
        line.write_str("}\n")
    }
}

/// Appends the members of a JSON object.
fn members(line: &mut Writer<'_>, object: &str) -> fmt::Result {
    let members = object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    if members.is_empty() { Ok(()) } else { write!(line, ",{members}") }
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

/// The most ways of failing that the log tells apart. A batch of broken records can fail in as many ways as it has
/// records.
const MOST_CLASSES: usize = 20;

/// The reported records of a batch that failed in the same way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FailureClass {
    stage: Stage,
    poison: bool,
    table: Option<String>,
    reason: String,
}

/// Logs how the records of a batch have ended.
pub fn batch(ledger: &Ledger<'_>, tally: &Tally) {
    let entries = ledger.entries();
    let (shard, lowest, highest) = range(&*entries);
    tracing::info!(
        shard,
        lowest,
        highest,
        received = tally.received,
        applied = tally.applied.unwrap_or_default(),
        superseded = tally.superseded.unwrap_or_default(),
        filtered = tally.filtered.unwrap_or_default(),
        kept = tally.kept.unwrap_or_default(),
        quarantined = tally.quarantined.unwrap_or_default(),
        reported = tally.reported.unwrap_or_default(),
        "batch"
    );
    for entry in &*entries {
        if let Disposition::Quarantined(failure) = entry.end() {
            quarantined(entry.delivered(), entry.table(), failure);
        }
    }
    let classes = failure_classes(&entries);
    if classes.len() > MOST_CLASSES {
        tracing::warn!(ways = classes.len(), shown = MOST_CLASSES, "records failed in many ways");
    }
    for (class, entries) in classes.into_iter().take(MOST_CLASSES) {
        let records = entries.len();
        let (_, lowest, highest) = range(entries);
        tracing::warn!(
            shard,
            records,
            lowest,
            highest,
            stage = %class.stage,
            poison = class.poison,
            table = class.table,
            reason = class.reason,
            "reported"
        );
    }
}

/// A quarantined record does not come again: this line leads a person to it.
fn quarantined(delivered: &Record, table: Option<&SourceTable>, failure: &Failure) {
    tracing::warn!(
        shard = delivered.shard_id.as_deref(),
        sequence_number = delivered.sequence_number.as_str(),
        stage = %failure.stage(),
        table = table.map(ToString::to_string),
        reason = failure.to_string(),
        object = quarantine::key(delivered, table),
        "quarantined"
    );
}

/// Logs that the bucket failed for some records of a batch, and the consequence.
pub fn bucket(ledger: &Ledger<'_>, records: &[RecordId], error: &ServiceError, so: &'static str) {
    let entries = ledger.entries();
    let (shard, lowest, highest) = range(records.iter().map(|id| &entries[id.0]));
    tracing::warn!(shard, records = records.len(), lowest, highest, %error, "{so}");
}

/// The shard of these records, and their lowest and highest sequence number.
fn range<'e>(entries: impl IntoIterator<Item = &'e Entry<'e>>) -> (Option<&'e str>, Option<&'e str>, Option<&'e str>) {
    let mut records: Vec<&Record> = entries.into_iter().map(Entry::delivered).collect();
    let shard = records.first().and_then(|record| record.shard_id.as_deref());
    records.sort_by_key(|record| &record.sequence_number);
    let number = |record: Option<&&'e Record>| record.map(|record| record.sequence_number.as_str());
    (shard, number(records.first()), number(records.last()))
}

/// The ways in which reported records failed, each with its records.
fn failure_classes<'e>(entries: &'e [Entry<'e>]) -> BTreeMap<FailureClass, Vec<&'e Entry<'e>>> {
    let mut classes: BTreeMap<FailureClass, Vec<&Entry<'_>>> = BTreeMap::new();
    for entry in entries {
        let Some(failure) = entry.failure() else { continue };
        let class = FailureClass {
            stage: failure.stage(),
            poison: failure.is_poison(),
            table: entry.table().map(ToString::to_string),
            reason: failure.to_string(),
        };
        classes.entry(class).or_default().push(entry);
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::sequence::SequenceNumber;

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
        let delivered = ["9", "10", "8", "7"].map(|number| Record {
            shard_id: Some("shardId-000000000006".into()),
            sequence_number: SequenceNumber::new(number),
            ..Record::default()
        });
        let ends: [Disposition; 4] =
            [Failure::OutOfTime.into(), Failure::OutOfTime.into(), Failure::NoBucket.into(), Disposition::Applied];
        let mut ledger = Ledger::default();
        for (record, end) in delivered.iter().zip(ends) {
            ledger.add(record, None, end, None);
        }
        let entries = ledger.entries();
        let shard = Some("shardId-000000000006");
        let classes: Vec<_> = failure_classes(&entries).into_values().map(range).collect();
        assert_eq!(classes, [(shard, Some("8"), Some("8")), (shard, Some("9"), Some("10"))]);
        assert_eq!(range(&*entries), (shard, Some("7"), Some("10")));
        assert_eq!(range([]), (None, None, None));
    }
}
