//! The records that arrive: changes of some thousand rows, with a large one, a split one and a poison record
//! now and then.

use std::time::Duration;

use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::random::Random;

pub const SOURCE_TABLES: &str = "users(id)";

const FIRST_COMMIT: u64 = 1_773_843_841_076_494_565;
const ROWS: u64 = 3000;
/// Records that arrive during an invocation while the database is well.
const AN_INVOCATION: usize = 3;
/// Records that arrive each second while it is not, as long as no more than `LONGEST_BACKLOG` wait.
const A_SECOND: u128 = 300;
const LONGEST_BACKLOG: usize = 2000;

/// How many records arrive during an invocation of this duration. While the database is well, a slow machine has as
/// much to do as a fast one. While it is not, more arrive, but not without end.
pub fn arrived_during(time: Duration, is_stormy: bool, backlog: usize) -> usize {
    if !is_stormy {
        return AN_INVOCATION;
    }
    let stream = usize::try_from(time.as_millis() * A_SECOND / 1000).unwrap_or(usize::MAX);
    stream.max(AN_INVOCATION).min(LONGEST_BACKLOG.saturating_sub(backlog))
}

/// The source of records.
pub struct Load {
    random: Random,
    poison: usize,
}

impl Load {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), poison: 0 }
    }

    /// How many poison records there were.
    pub fn poison(&self) -> usize {
        self.poison
    }

    /// The record at this place of the shard, and its change if it holds one.
    pub fn record(&mut self, place: u64) -> (KinesisRecord, Option<Change>) {
        if self.random.number().is_multiple_of(500) {
            self.poison += 1;
            return (KinesisRecord::at(place, "no JSON"), None);
        }
        let id = Value::number(self.random.number() % ROWS);
        // Commits are out of order by up to a minute.
        let commit = FIRST_COMMIT + place * 1_000_000 + self.random.number() % 60_000_000_000;
        let text = if self.random.number().is_multiple_of(2000) { 420_000 } else { 200 };
        let change = if self.random.percent(10) {
            Change::delete("users", id, commit)
        } else {
            Change::upsert("users", id, commit, vec![("text", Value::text("x".repeat(text)))])
        };
        (KinesisRecord::at(place, change.record()), Some(change))
    }
}
