//! Metrics in CloudWatch's embedded metric format: lines on standard output that CloudWatch makes metrics of.
//!
//! Invariant: every name of a metric stands here.

use std::io;
use std::time::Duration;

use metrique::emf::Emf;
use metrique::unit::{Count, Second};
use metrique::unit_of_work::metrics;
use metrique::{CloseValue, RootEntry};
use metrique_writer::{EntryIoStream, FormatExt};

/// The namespace of all metrics.
pub const NAMESPACE: &str = "dsql-view";

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

/// Split changes that wait for some of their parts.
#[metrics(rename_all = "PascalCase")]
#[derive(Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    #[metrics(unit = Count)]
    pub incomplete_sets: usize,
    /// For how long the oldest part of one has waited; zero where there is none.
    #[metrics(unit = Second)]
    pub oldest_incomplete_set: Duration,
}

/// Writes a metric's line.
pub fn emit<M: CloseValue>(metric: M)
where
    M::Closed: metrique::InflectableEntry,
{
    let mut lines = Emf::builder(NAMESPACE.to_owned(), vec![vec![]]).build().output_to(io::stdout());
    if let Err(error) = lines.next(&RootEntry::new(metric.close())) {
        tracing::error!(?error, "a metric could not be written");
    }
}
