//! The changes that a database writes into its change stream. They come at a rate, with some records late, and some
//! again.
//!
//! It needs no clock, because its caller tells it how much time has passed, and what time it is.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::model::Model;
use dsql_view_support::random::Random;

use crate::settings::Settings;

/// `SOURCE_TABLES` for the tables of this workload.
pub const SOURCE_TABLES: &str = "users(id), order_items(order_id, item_id)";

/// The key columns of the tables of [`SOURCE_TABLES`].
pub fn primary_key(_schema: &str, table: &str) -> Option<Vec<String>> {
    let columns = match table {
        "users" => vec!["id"],
        "order_items" => vec!["order_id", "item_id"],
        _ => return None,
    };
    Some(columns.into_iter().map(str::to_owned).collect())
}

/// The beginning of a record that holds no change.
pub const POISON: &str = "poison ";

/// How much later than its commit a record comes into the stream at least. If it is held back, it can be late by up to
/// `HELD_BACK` in addition.
const LAG: Duration = Duration::from_millis(100);
const HELD_BACK: Duration = Duration::from_secs(5);
/// Within this time after a record, it can come again.
const AGAIN: Duration = Duration::from_secs(10);

/// A change that makes no new row changes one of this many youngest rows, so that rows change often.
const YOUNGEST: u64 = 150;

/// Of a thousand changes: the deletions, the new rows, the changes that are split, and the rows over DynamoDB's 400 KB.
const DELETED: usize = 100;
const NEW: usize = 250;
const SPLIT: usize = 10;
const LARGE: usize = 3;
/// For a thousand changes, the stream also has this many changes of a table that is not configured, and this many
/// records that hold no change.
const ELSEWHERE: usize = 20;
const POISONOUS: usize = 3;

/// More bytes than DynamoDB takes, and fewer than the local Kinesis takes.
const LARGE_TEXT: usize = 450_000;

/// A record on its way into the stream.
#[derive(Debug, Clone)]
struct Record {
    data: String,
    /// The row that the record belongs to, and its commit.
    of: Option<(String, u64)>,
}

/// The counts of the changes and records that were made.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub changes: u64,
    pub split: u64,
    pub large: u64,
    pub elsewhere: u64,
    pub poison: u64,
    /// Records that come again.
    pub again: u64,
    /// Records that came into the stream behind a newer change of their rows.
    pub overtaken: u64,
}

/// The source of changes.
pub struct Workload {
    settings: Settings,
    random: Random,
    /// The rows that the view must hold in the end.
    pub model: Model,
    pub counts: Counts,
    /// How many rows there have been.
    rows: u64,
    committed: u64,
    /// The records that are not in the stream yet, by the time at which they come and by their number.
    waiting: BTreeMap<(Duration, u64), Record>,
    number: u64,
    /// The newest commit of each row that is in the stream.
    newest: HashMap<String, u64>,
}

impl Workload {
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut model = Model::default();
        if settings.broken {
            model.commit(&Change::upsert("users", Value::number(0), 1, Vec::new()));
        }
        Self {
            settings,
            random: Random::new(seed),
            model,
            counts: Counts::default(),
            rows: 0,
            committed: 0,
            waiting: BTreeMap::new(),
            number: 0,
            newest: HashMap::new(),
        }
    }

    /// Makes the changes that are due at this time. Returns the records that come into the stream now.
    pub fn make(&mut self, passed: Duration, now: SystemTime) -> Vec<String> {
        let due = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).saturating_mul(self.settings.rate) / 1000;
        while self.counts.changes < due {
            self.change(passed, now);
        }
        let later = self.waiting.split_off(&(passed, u64::MAX));
        let due = std::mem::replace(&mut self.waiting, later);
        due.into_values().map(|record| self.arrived(record)).collect()
    }

    /// Ends the workload. Returns all records that have not come yet.
    pub fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.waiting).into_values().map(|record| self.arrived(record)).collect()
    }

    fn arrived(&mut self, record: Record) -> String {
        if let Some((row, commit)) = record.of {
            let newest = self.newest.entry(row).or_default();
            self.counts.overtaken += u64::from(commit < *newest);
            *newest = commit.max(*newest);
        }
        record.data
    }

    /// Makes a change, and its records.
    fn change(&mut self, passed: Duration, now: SystemTime) {
        let nanoseconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.committed = u64::try_from(nanoseconds).unwrap_or(u64::MAX).max(self.committed + 1);
        self.counts.changes += 1;
        let kind = self.random.below(1000);
        let mut change = match kind {
            ..NEW => self.new_row(),
            kind if kind < NEW + DELETED => Change { row: None, ..self.known_row() },
            _ => self.known_row(),
        };
        if let Some(row) = &mut change.row
            && self.random.below(1000) < LARGE
        {
            self.counts.large += 1;
            row.push(("text".to_owned(), Value::text("x".repeat(LARGE_TEXT))));
        }
        self.model.commit(&change);
        let of = Some((change.view_key(), change.committed));
        if self.random.below(1000) < SPLIT {
            self.counts.split += 1;
            let pieces = 1 + self.random.below(3);
            for part in change.split(&format!("chunk-{}", self.counts.changes), pieces) {
                self.send(passed, Record { data: part, of: None });
            }
        } else {
            self.send(passed, Record { data: change.record(), of });
        }
        if self.random.below(1000) < ELSEWHERE {
            self.counts.elsewhere += 1;
            let elsewhere = Change { table: "audit".to_owned(), ..change };
            self.send(passed, Record { data: elsewhere.record(), of: None });
        }
        if self.random.below(1000) < POISONOUS {
            self.counts.poison += 1;
            self.send(passed, Record { data: format!("{POISON}{}", self.counts.changes), of: None });
        }
    }

    /// Lets a record come into the stream, soon or later. It may also come again.
    fn send(&mut self, passed: Duration, record: Record) {
        let mut due = passed + LAG;
        if self.random.percent(self.settings.disorder) {
            due += self.up_to(HELD_BACK);
        }
        if self.random.percent(self.settings.duplicates) {
            self.counts.again += 1;
            let again = due + self.up_to(AGAIN);
            self.wait(again, record.clone());
        }
        self.wait(due, record);
    }

    fn wait(&mut self, due: Duration, record: Record) {
        self.number += 1;
        self.waiting.insert((due, self.number), record);
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(f64::from(u32::try_from(self.random.below(1000)).unwrap_or_default()) / 1000.0)
    }

    /// A row that was not there before.
    fn new_row(&mut self) -> Change {
        self.rows += 1;
        self.row(self.rows)
    }

    /// A row that was there before, deleted since or not. If there is no row, the first one.
    fn known_row(&mut self) -> Change {
        self.rows = self.rows.max(1);
        let youngest = self.random.number() % self.rows.min(YOUNGEST);
        self.row(self.rows - youngest)
    }

    fn row(&mut self, number: u64) -> Change {
        let change = self.counts.changes;
        let text = |name: &str| Value::text(format!("{name} {change}"));
        let row = if number.is_multiple_of(3) {
            Change::upsert("users", Value::number(number), self.committed, vec![("name", text("Name"))])
        } else {
            let columns = [("product", text("Product")), ("price", Value::text("29.99")), ("gift", Value::Bool(false))];
            let item = Change::upsert("order_items", Value::Null, self.committed, columns.to_vec());
            let key = [("order_id", number / 3), ("item_id", number % 3)];
            Change { key: key.map(|(name, number)| (name.to_owned(), Value::number(number))).to_vec(), ..item }
        };
        let layout = if self.random.percent(50) { Layout::Documented } else { Layout::Preview };
        Change { lag: i64::try_from(LAG.as_nanos()).unwrap_or_default(), layout, ..row }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings =
        Settings { rate: 100, disorder: 0, duplicates: 0, faults: 0, duration: None, broken: false };

    fn now(passed: Duration) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_773_843_841) + passed
    }

    /// All records of this many seconds, in the order of their arrival.
    fn records(workload: &mut Workload, seconds: u64) -> Vec<String> {
        let ticks = (0..=seconds * 20).map(|tick| Duration::from_millis(tick * 50));
        let mut records: Vec<String> = ticks.flat_map(|passed| workload.make(passed, now(passed))).collect();
        records.extend(workload.rest());
        records
    }

    /// The model of the changes that arrived, except those that were split.
    fn shown(records: &[String]) -> Model {
        let changes: Vec<Change> = records.iter().filter_map(|record| Change::of_record(record, primary_key)).collect();
        Model::of(&changes)
    }

    #[test]
    fn changes_are_made_at_their_rate_and_each_has_its_records() {
        let mut workload = Workload::new(SETTINGS, 1);
        let arrived = records(&mut workload, 60);
        let counts = workload.counts;
        assert_eq!(counts.changes, 6000);
        assert_eq!((counts.again, counts.overtaken), (0, 0));
        assert!(counts.split > 20 && counts.large > 5 && counts.elsewhere > 50 && counts.poison > 5, "{counts:?}");
        assert!(arrived.len() as u64 > counts.changes + counts.elsewhere + counts.poison + counts.split);
        let (rows, tombstones) = workload.model.rows_and_tombstones();
        assert!(rows > 1000 && tombstones > 100, "{rows} {tombstones}");
        assert!(arrived.iter().all(|record| record.len() < 1_000_000));
    }

    #[test]
    fn what_arrives_makes_the_model() {
        let mut workload = Workload::new(Settings { disorder: 50, duplicates: 20, ..SETTINGS }, 2);
        let arrived = records(&mut workload, 20);
        let (all, seen) = (workload.model.rows_and_tombstones(), shown(&arrived).rows_and_tombstones());
        // A row is missing if it has only one change, and that change was split.
        assert!(seen.0 + seen.1 <= all.0 + all.1 && (seen.0 + seen.1) * 100 > (all.0 + all.1) * 95, "{seen:?} {all:?}");
    }

    #[test]
    fn disorder_lets_newer_changes_come_first_and_duplicates_come_again() {
        let mut workload = Workload::new(Settings { disorder: 50, duplicates: 20, ..SETTINGS }, 3);
        records(&mut workload, 20);
        let counts = workload.counts;
        assert!(counts.overtaken > 50 && counts.again > 200, "{counts:?}");
    }

    #[test]
    fn a_broken_run_lacks_a_row() {
        let mut workload = Workload::new(Settings { broken: true, ..SETTINGS }, 4);
        let arrived = records(&mut workload, 1);
        let ids = arrived.iter().filter(|record| record.contains(r#""id":0,"#) || record.contains(r#""id":0}"#));
        assert_eq!(ids.count(), 0);
        assert!(
            workload
                .model
                .differences(&std::collections::BTreeMap::new())
                .iter()
                .any(|line| line.contains("public.users#0 is missing"))
        );
    }
}
