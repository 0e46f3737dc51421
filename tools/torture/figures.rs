//! The events of a run, and its table.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use dsql_view_support::lambda::{ENDS, End};
use dsql_view_support::proxy::Statements;
use dsql_view_support::runtime_api::Outcome;
use dsql_view_support::table;
use serde_json::Value;

use crate::workload::SECRET;

/// Counts and problems of a run.
#[derive(Debug, Default)]
pub struct Figures {
    pub rounds: u64,
    pub changes: u64,
    pub records: u64,
    pub duplicates: u64,
    pub poison: u64,
    pub invocations: u64,
    pub throttled: u64,
    pub garbled: u64,
    pub killed: u64,
    pub timed_out: u64,
    pub failed_starts: u64,
    pub errors: u64,
    pub ranges: u64,
    /// The ends of the records, as the functions have logged them for the batches that they answered.
    pub ends: BTreeMap<&'static str, u64>,
    /// Ways of failing in a batch whose lowest record belongs to a refused row. The row was given up after all its
    /// attempts.
    pub refused_rows: u64,
    pub expired_tombstones: u64,
    /// Rows that expired, by their column and once they guarded nothing any more.
    pub expired_rows: u64,
    /// Whether the run has definitions, and how many changes of rows that they hide it has.
    pub definitions: bool,
    pub hidden: u64,
    /// Changes of the quarantine that were replayed after the tombstones of their rows had expired.
    pub replayed: u64,
    /// Of these, the changes that were held back because their rows may have been deleted, which is true.
    pub held_back: u64,
    /// Whether the function of the mapping sends creates together.
    pub batched_creates: bool,
    /// The results of the creates that both functions have sent together.
    pub creates: Statements,
    /// Requests with creates that met a fault.
    pub faulty_creates: u64,
    /// The figures of the last comparison, or of the first one that found a difference.
    pub items: usize,
    pub divergent: u64,
    pub unaccounted: u64,
    /// Records of this round that nobody has answered for yet.
    pub open: u64,
    /// All problems, in words.
    pub problems: Vec<String>,
}

impl Figures {
    /// Takes in how an invocation ended.
    pub fn note(&mut self, end: &End) {
        self.invocations += 1;
        match &end.outcome {
            None => self.killed += 1,
            Some(Outcome::Response(_)) => {}
            Some(Outcome::Error(error)) => {
                self.errors += 1;
                self.problems.push(format!("a function answered with an error: {error}"));
            }
            Some(Outcome::TimedOut) => self.timed_out += 1,
            Some(Outcome::Ended(status)) => {
                self.failed_starts += 1;
                if status.signal().is_some() {
                    self.problems.push(format!("a function ended by itself: {status}"));
                }
            }
        }
        for line in &end.lines {
            if line.contains(SECRET) {
                self.problems.push("a line of the log holds a value of a row".to_owned());
            }
            if line.contains("panicked") {
                self.problems.push(format!("a function panicked: {line}"));
            }
        }
        for batch in end.batches() {
            self.count(&batch);
        }
    }

    /// Checks that the run had every event that a run of some rounds is there for. Otherwise it shows less than it
    /// seems to.
    pub fn look_for_what_did_not_come(&mut self, faults: &BTreeMap<&'static str, u64>, processes: u64) {
        let counts = [
            ("kill", self.killed),
            ("range for the redrive function", self.ranges),
            ("garbled answer", self.garbled),
            ("expired tombstone", self.expired_tombstones),
            ("replayed change that was held back", self.held_back),
            ("reported record", self.ends.get("reported").copied().unwrap_or_default()),
            ("row that was refused for so long that it was reported", self.refused_rows),
            ("fault", faults.values().sum()),
        ];
        let of_definitions = [("row that the conditions hide", self.hidden), ("expired row", self.expired_rows)];
        let of_definitions = of_definitions.iter().filter(|_| self.definitions);
        let missing = counts.iter().chain(of_definitions).filter(|(_, count)| *count == 0);
        self.problems
            .extend(missing.map(|(what, _)| format!("there was no {what}: the run shows less than it seems to")));
        let Statements { asked, done } = self.creates;
        if self.batched_creates && (done == 0 || done == asked || self.faulty_creates == 0) {
            let found = format!("{asked} creates were sent together, {done} took place");
            let found = format!("{found}, {} requests met a fault", self.faulty_creates);
            self.problems.push(format!("{found}: expected some that do, some that do not, and some faults"));
        }
        if self.failed_starts * 2 > processes {
            self.problems.push(format!("{} of {processes} processes did not start", self.failed_starts));
        }
    }

    /// Adds the counts of a batch's line.
    fn count(&mut self, batch: &Value) {
        let mut sum = 0;
        for end in ENDS {
            let count = batch[end].as_u64().unwrap_or_default();
            sum += count;
            *self.ends.entry(end).or_default() += count;
        }
        if batch["received"] != sum {
            self.problems.push(format!("the counts of a batch do not add up: {batch}"));
        }
    }

    /// A run in a few words.
    pub fn line(&self) -> String {
        let Self { records, invocations, killed, problems, .. } = self;
        format!("{records} records, {invocations} deliveries, {killed} kills, {} problems", problems.len())
    }

    /// The table of a run.
    pub fn table(&self, faults: &BTreeMap<&'static str, u64>, took: Duration) -> String {
        let mut rows = vec![
            ("changes committed", self.changes),
            ("  of rows that the conditions hide", self.hidden),
            ("records", self.records),
            ("  that came before", self.duplicates),
            ("  that no repetition can apply", self.poison),
            ("deliveries, to both functions", self.invocations + self.throttled),
            ("  that Lambda throttled", self.throttled),
            ("  killed (SIGKILL)", self.killed),
            ("  out of time", self.timed_out),
            ("  whose process did not start in a storm", self.failed_starts),
            ("  that ended in an error", self.errors),
            ("  whose answer was garbled", self.garbled),
            ("ranges that Lambda gave up, redriven", self.ranges),
            ("faults of the services", faults.values().sum()),
        ];
        let faults: Vec<(String, u64)> = faults.iter().map(|(kind, count)| (format!("  {kind}"), *count)).collect();
        rows.extend(faults.iter().map(|(kind, count)| (kind.as_str(), *count)));
        rows.push(("ends of records, as logged", self.ends.values().sum()));
        let ends: Vec<(String, u64)> =
            ENDS.iter().filter_map(|end| Some((format!("  {end}"), *self.ends.get(end)?))).collect();
        rows.extend(ends.iter().map(|(end, count)| (end.as_str(), *count)));
        rows.extend([
            ("rows that were refused until they were reported", self.refused_rows),
            ("creates sent together that came to DynamoDB", self.creates.asked as u64),
            ("  that took place", self.creates.done as u64),
            ("  requests of them that met a fault", self.faulty_creates),
            ("tombstones that expired", self.expired_tombstones),
            ("rows that expired", self.expired_rows),
            ("old changes replayed after that", self.replayed),
            ("  held back", self.held_back),
            ("items compared at the end", self.items as u64),
            ("comparisons of the whole view", self.rounds),
            ("seconds", took.as_secs()),
            ("divergent items", self.divergent),
            ("unaccounted records", self.unaccounted),
        ]);
        table::figures(&rows)
    }
}
