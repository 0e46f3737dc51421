//! The changes that a database writes into its change stream: random transactions, and the order in which their records
//! arrive.
//!
//! The same seed gives the same workload. All texts of rows begin with [`SECRET`], so that a log that holds one is
//! noticed.

use std::sync::Arc;

use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::model::Reading;
use dsql_view_support::random::Random;

/// The text that no log may hold.
pub const SECRET: &str = "secret-";

/// `SOURCE_TABLES` for the tables of this workload.
pub const SOURCE_TABLES: &str =
    r#"users(id), order_items(order_id, item_id), "Sales"."Order Lines"("Order Id"), documents(id)"#;

const FIRST_COMMIT: u64 = 1_773_843_841_076_494_565;
/// In nanoseconds. A round of 2,000 changes spans half a day.
const LONGEST_BETWEEN_TRANSACTIONS: u64 = 80_000_000_000;
/// For the rounds in turn: how many of a hundred changes make a row, and how many of the others come in the preview's
/// layout. That layout calls all changes but deletions creates.
const NEW_AND_PREVIEW: [(u64, u64); 3] = [(10, 50), (30, 20), (80, 5)];
/// A change of a row that was made in a round changes one of this many youngest rows. The row's create may not
/// have arrived by then.
const YOUNGEST: usize = 30;
/// The ids of rows that are made in a round begin here. The ids of other rows are below.
const FIRST_NEW_ID: usize = 1000;
/// DynamoDB's limit in bytes. Rows are made around it.
const LARGEST_ITEM: usize = 409_600;

/// A record of the stream.
#[derive(Debug, Clone)]
pub struct Record {
    pub data: Arc<[u8]>,
    pub is: Kind,
    /// The commit that the view must show once the record is done with, together with the other members of a split
    /// change.
    pub shows: Option<Shows>,
}

/// A commit of a row, and how many records bring it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shows {
    pub key: String,
    pub commit: u64,
    pub part: usize,
    pub of: usize,
}

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A change of a row, or a member of a split one.
    Change,
    /// A record that no repetition can apply.
    Poison,
    /// A change of a table that is not configured.
    Elsewhere,
}

/// The changes of some hours, and their records as they arrive.
#[derive(Debug, Default)]
pub struct Round {
    /// No transaction of it was committed before this time.
    pub begins: u64,
    /// In the order of their commits.
    pub changes: Vec<Change>,
    /// In the order of their arrival, with duplicates.
    pub records: Vec<Record>,
    /// How many of the records came before, in this round or in the one before.
    pub duplicates: usize,
}

/// A row's schema, table and key.
type Row = (&'static str, &'static str, Vec<(&'static str, Value)>);

/// The source of rounds.
pub struct Workload {
    random: Random,
    /// Which changes the view has.
    reading: Reading,
    commit: u64,
    /// How many changes were made so far. Each has values of its own.
    number: u64,
    rounds: usize,
    /// How many rows were made so far that nobody had changed before.
    new: usize,
    /// Records that come once more in the next round.
    late: Vec<Record>,
}

impl Workload {
    pub fn new(seed: u64, reading: Reading) -> Self {
        Self {
            random: Random::new(seed),
            reading,
            commit: FIRST_COMMIT,
            number: 0,
            rounds: 0,
            new: 0,
            late: Vec::new(),
        }
    }

    /// The next round, with at least this many changes.
    pub fn round(&mut self, changes: usize) -> Round {
        let mut round = Round { begins: self.commit, ..Round::default() };
        let late = std::mem::take(&mut self.late);
        let (new, preview) = NEW_AND_PREVIEW[self.rounds % NEW_AND_PREVIEW.len()];
        self.rounds += 1;
        // Each record stands with its place in the order of arrival.
        let mut arrivals: Vec<(usize, Record)> = Vec::new();
        while round.changes.len() < changes {
            self.commit += 1 + self.random.number() % LONGEST_BETWEEN_TRANSACTIONS;
            let first = round.changes.len();
            for _ in 0..=self.random.below(4) {
                let change = self.change(new, preview);
                // A transaction has one record a row.
                if round.changes[first..].iter().all(|other| other.view_key() != change.view_key()) {
                    round.changes.push(change);
                }
            }
            let records: Vec<Record> = round.changes[first..].iter().flat_map(|change| self.records(change)).collect();
            for record in records {
                if self.random.percent(2) {
                    self.late.push(record.clone());
                }
                while self.random.percent(10) {
                    round.duplicates += 1;
                    arrivals.push((self.place(arrivals.len(), changes), record.clone()));
                }
                arrivals.push((self.place(arrivals.len(), changes), record));
            }
        }
        round.duplicates += late.len();
        let last = arrivals.len();
        arrivals.extend(late.into_iter().map(|record| (self.random.below(last), record)));
        arrivals.sort_by_key(|(place, _)| *place);
        round.records = arrivals.into_iter().map(|(_, record)| record).collect();
        round
    }

    /// The place of arrival of a record that was written at the place `written`. Most records arrive within an hour or
    /// so of that, and some anywhere in the round.
    fn place(&mut self, written: usize, changes: usize) -> usize {
        if self.random.percent(10) { self.random.below(changes) } else { written + self.random.below(changes / 10 + 1) }
    }

    fn change(&mut self, new: u64, preview: u64) -> Change {
        self.number += 1;
        let is_new = self.random.percent(new);
        let deleted = !is_new && self.random.percent(25);
        let (schema, table, key) = match is_new {
            true => self.new_row(),
            false if self.new >= YOUNGEST && self.random.percent(15) => self.young_row(),
            false => self.row(),
        };
        let row = if table == "documents" { self.document(deleted) } else { self.columns() };
        let layout = if is_new || self.random.percent(preview) { Layout::Preview } else { Layout::Documented };
        // Now and then the change stream's clock is behind. If the record has a type, that makes no difference.
        let is_behind = layout == Layout::Documented && self.random.percent(20);
        let lag = i64::try_from(self.random.number() % 10_000_000_000).unwrap_or_default();
        let lag = if is_behind { -lag } else { lag };
        Change {
            schema: schema.to_owned(),
            table: table.to_owned(),
            key: key.into_iter().map(|(column, value)| (column.to_owned(), value)).collect(),
            row: (!deleted).then_some(row),
            committed: self.commit,
            transaction: format!("tx{}", self.commit),
            lag,
            layout,
        }
    }

    /// The table and the key of a row that nobody has changed before.
    fn new_row(&mut self) -> Row {
        self.new += 1;
        Self::row_made(self.new)
    }

    /// The table and the key of one of the rows that were made last.
    fn young_row(&mut self) -> Row {
        Self::row_made(self.new - self.random.below(YOUNGEST))
    }

    fn row_made(number: usize) -> Row {
        let id = FIRST_NEW_ID + number;
        match number % 2 {
            0 => ("public", "users", vec![("id", Value::number(id as u64))]),
            _ => ("Sales", "Order Lines", vec![("Order Id", Value::text(format!("#{id}%")))]),
        }
    }

    /// The table and the key of a row. Four of ten times, this is one of a few hot rows.
    fn row(&mut self) -> Row {
        let rows = if self.random.percent(40) { 6 } else { 700 };
        let mut number = |below| Value::number(i64::try_from(self.random.below(below)).unwrap_or_default());
        let id = number(rows);
        let item = number(3);
        match self.random.number() % 200 {
            0..5 => ("public", "documents", vec![("id", Value::number(self.random.number() % 10))]),
            5..120 => ("public", "users", vec![("id", id)]),
            120..170 => ("public", "order_items", vec![("order_id", id), ("item_id", item)]),
            _ => ("Sales", "Order Lines", vec![("Order Id", Value::text(format!("#{}%", id.json())))]),
        }
    }

    fn columns(&mut self) -> Vec<(String, Value)> {
        let number = self.number;
        let columns = [
            ("name", Value::text(format!("{SECRET}{number}"))),
            ("größe", Value::text(format!("{SECRET}\u{1}\"\\ {number} 🦀"))),
            ("count", Value::number(self.random.number())),
            ("rate", Value::Number(format!("-{number}.5e-100"))),
            ("exact", Value::Number(format!("12345678901234567890123456789012345{:03}", number % 1000))),
            ("flag", Value::Bool(number.is_multiple_of(2))),
            ("nothing", Value::Null),
            ("list", Value::List(vec![Value::number(number), Value::Null, Value::text(SECRET)])),
            ("map", Value::Map(vec![("inner".to_owned(), Value::text(format!("{SECRET}{number}")))])),
            ("valid_until", Value::number(1_000_000_u64 * number)),
        ];
        let kept = columns.into_iter().filter(|_| self.random.percent(80));
        kept.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Columns of a row that is about as large as an item can be, or much smaller or larger.
    fn document(&mut self, deleted: bool) -> Vec<(String, Value)> {
        if deleted {
            return Vec::new();
        }
        let text = |size: usize, number: u64| Value::text(format!("{SECRET}{number}-{}", "x".repeat(size)));
        let body = match self.random.number() % 10 {
            0..3 => self.random.below(1000),
            3..7 => LARGEST_ITEM - 3000 + self.random.below(4000),
            _ => LARGEST_ITEM + self.random.below(LARGEST_ITEM),
        };
        let appendix = if self.random.percent(20) { 300_000 } else { 10 };
        // A text whose record is too large for any invocation.
        let body = if self.random.percent(3) { 4_800_000 } else { body };
        vec![("body".to_owned(), text(body, self.number)), ("appendix".to_owned(), text(appendix, self.number))]
    }

    /// The records of a change, and the other records that the stream has with them.
    fn records(&mut self, change: &Change) -> Vec<Record> {
        let mut records = Vec::new();
        let mut push = |data: String, is, shows| records.push(Record { data: data.into_bytes().into(), is, shows });
        let is_in_view = (self.reading)(change).is_some();
        let shows = |part, of| is_in_view.then(|| Shows { key: change.view_key(), commit: change.committed, part, of });
        // What is wrong with a row that the view never has does not matter.
        if self.random.percent(1) && is_in_view {
            push(self.poison(change), Kind::Poison, None);
        }
        if self.random.percent(5) {
            let elsewhere = Change { table: "elsewhere".to_owned(), ..change.clone() };
            push(elsewhere.record(), Kind::Elsewhere, None);
        }
        if self.random.percent(3) {
            let pieces = 1 + self.random.below(4);
            let parts = change.split(&format!("chunk {} {}", self.number, change.view_key()), pieces);
            let of = parts.len();
            for (place, part) in parts.into_iter().enumerate() {
                push(part, Kind::Change, shows(place, of));
            }
        } else {
            push(change.record(), Kind::Change, shows(0, 1));
        }
        records
    }

    /// A record that holds nothing that a view could show.
    fn poison(&mut self, change: &Change) -> String {
        let mut change = change.clone();
        let number = self.number;
        let mut row = vec![
            ("text".to_owned(), Value::text(format!("{SECRET}{number}"))),
            // The conditions of no definition hide the row.
            ("flag".to_owned(), Value::Bool(true)),
            ("count".to_owned(), Value::number(number)),
        ];
        match self.random.below(8) {
            0 => return format!("no JSON {SECRET}{number} {}", change.committed),
            1 => return change.record().replace("\"ts_ns\":", "\"ts\":"),
            2 => return format!(r#"{{"type":"sideways",{}"#, Self::untyped(&change)),
            3 => change.key[0].1 = Value::Null,
            4 => "another".clone_into(&mut change.key[0].0),
            5 => change.key[0].1 = Value::text(format!("{SECRET}{number}{}", "k".repeat(2100))),
            6 => row.push(("_ts_ns".to_owned(), Value::number(number))),
            _ => {
                change.row = Some(row.into_iter().collect());
                return change.record().replace(r#""version":"1.0""#, r#""version":"2.0""#);
            }
        }
        change.row = Some(row);
        change.record()
    }

    /// The text of a record behind its opening brace, without a type.
    fn untyped(change: &Change) -> String {
        let change = Change { layout: Layout::Preview, ..change.clone() };
        change.record().split_off(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use dsql_view_support::model::without_definitions;

    use super::*;

    #[test]
    fn a_seed_repeats_its_rounds() {
        let rounds = |seed| {
            let mut workload = Workload::new(seed, without_definitions);
            let records = |round: Round| round.records.into_iter().map(|record| record.data).collect::<Vec<_>>();
            [records(workload.round(300)), records(workload.round(300))]
        };
        assert_eq!(rounds(1), rounds(1));
        assert_ne!(rounds(1), rounds(2));
    }

    #[test]
    fn every_change_arrives_and_none_before_it_is_committed_in_an_earlier_round() {
        let mut workload = Workload::new(6, without_definitions);
        let (first, second) = (workload.round(500), workload.round(500));
        let arrived = |round: &Round| round.records.iter().map(|record| record.data.to_vec()).collect::<HashSet<_>>();
        let (in_first, in_second) = (arrived(&first), arrived(&second));
        let whole = first.changes.iter().filter(|change| in_first.contains(change.record().as_bytes())).count();
        assert!(whole * 100 > first.changes.len() * 90, "but for those that were split");
        for change in &second.changes {
            assert!(change.committed > second.begins && !in_first.contains(change.record().as_bytes()));
        }
        assert!(!in_first.is_disjoint(&in_second), "some come late");
        assert!(first.duplicates > 20 && second.duplicates > first.duplicates);
    }

    #[test]
    fn rows_are_made_and_some_of_their_creates_arrive_after_what_changes_them() {
        let mut workload = Workload::new(7, without_definitions);
        let mut made = HashSet::new();
        let (mut again, mut overtaken) = (0, 0);
        for _ in 0..NEW_AND_PREVIEW.len() {
            let round = workload.round(500);
            let arrives =
                |change: &Change| round.records.iter().position(|record| *record.data == *change.record().as_bytes());
            let is_new = |change: &Change| change.layout == Layout::Preview && change.row.is_some();
            let mut creates: HashMap<String, &Change> = HashMap::new();
            for change in &round.changes {
                let key = change.view_key();
                if let Some(create) = creates.get(&key) {
                    again += 1;
                    overtaken += usize::from(arrives(change) < arrives(create));
                } else if is_new(change) && made.insert(key.clone()) {
                    creates.insert(key, change);
                }
            }
        }
        assert!(made.len() > 500 && again > 100 && overtaken > 10, "{} {again} {overtaken}", made.len());
    }
}
