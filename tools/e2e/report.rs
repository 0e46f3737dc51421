//! Shows a run: a line now and then while it works, and its figures in the end.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dsql_view_support::lambda::ENDS;
use tokio::sync::watch;

use crate::capture::Captured;
use crate::comparison::Expectation;
use crate::functions;
use crate::stream::{self, Stream};
use crate::workload::Workload;

fn of(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Shows how far the run is, for ever. On a terminal this is one line that changes, otherwise a line now and then.
pub async fn show_progress(workload: &Workload, stream: &Stream, functions: &watch::Receiver<functions::Counts>) -> ! {
    let is_terminal = std::io::stderr().is_terminal();
    let mut tick = tokio::time::interval(Duration::from_secs(if is_terminal { 1 } else { 10 }));
    loop {
        tick.tick().await;
        let line = format!(
            "{} of {} changes committed, {} records put, {} read, {} deliveries, {} redriven",
            of(&workload.progress.changes),
            workload.changes,
            of(&stream.counts.put),
            of(&stream.counts.read),
            functions.borrow().deliveries,
            functions.borrow().redrives
        );
        let mut stderr = std::io::stderr();
        // A line that cannot be shown does not matter.
        let _ = if is_terminal { write!(stderr, "\r\x1b[K{line}\r") } else { writeln!(stderr, "  {line}") };
        let _ = stderr.flush();
    }
}

/// The figures of a run.
pub struct Report<'a> {
    pub workload: &'a Workload,
    pub captured: &'a Captured,
    pub stream: &'a stream::Counts,
    pub functions: &'a functions::Counts,
    pub expectation: &'a Expectation,
    /// Items with columns that stand in the bucket.
    pub moved: usize,
    /// Attribute values that were compared.
    pub compared: usize,
    pub differences: usize,
    pub took: Duration,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { captured, stream, functions, expectation, .. } = self;
        let progress = &self.workload.progress;
        let configured = self.workload.tables.iter().filter(|table| table.in_view).count();
        let rows = expectation.items.values().filter(|item| item.columns.is_some()).count();
        let tombstones = expectation.items.len() - rows;
        let mut line = |what: &str, counts: String| writeln!(f, "  {what:<13} {counts}");
        line("tables", format!("{configured} in the view, {} beside it", self.workload.tables.len() - configured))?;
        line(
            "transactions",
            format!(
                "{} committed, {} rolled back, {} run again after a lost race; {} changed a table's columns",
                of(&progress.committed),
                of(&progress.rolled_back),
                of(&progress.retried),
                of(&progress.schema_changes)
            ),
        )?;
        line(
            "changes",
            format!(
                "{} creates, {} updates, {} deletes; {} more were made of the same rows in the same transactions",
                captured.created, captured.updated, captured.deleted, captured.folded
            ),
        )?;
        let cascades = expectation.cascades;
        line(
            "cascades",
            format!(
                "{} rows deleted with their parents, {} of them for good; {} updated",
                cascades.deleted, cascades.tombstones, cascades.updated
            ),
        )?;
        line(
            "records",
            format!(
                "{} put, {} of them again, {} MiB, the largest whole one {} KiB; {} changes split into {} fragments",
                of(&stream.put),
                of(&stream.repeated),
                of(&stream.bytes) >> 20,
                captured.largest >> 10,
                captured.split,
                captured.fragments
            ),
        )?;
        line(
            "deliveries",
            format!(
                "{} to {} processes, {} killed, {} answers lost; {} messages on failure, redriven in {}",
                functions.deliveries,
                functions.processes,
                functions.killed,
                functions.lost,
                functions.given_up,
                functions.redrives
            ),
        )?;
        let ends = ENDS.iter().zip(functions.ends).map(|(end, count)| format!("{count} {end}"));
        line("ends", ends.collect::<Vec<_>>().join(", "))?;
        let types = expectation.values_by_type.iter().map(|(name, count)| format!("{name} {count}"));
        line("values", types.collect::<Vec<_>>().join(", "))?;
        line("items", format!("{rows} rows, {} with columns in the bucket; {tombstones} tombstones", self.moved))?;
        line(
            "compared",
            format!(
                "{} attribute values: {} differences, after {} seconds",
                self.compared,
                self.differences,
                self.took.as_secs()
            ),
        )
    }
}
