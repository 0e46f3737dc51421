//! The reference model: the contents that a view must have once every change of a history was delivered, in whatever
//! order.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::cdc::{Change, Decimal, Value};
use crate::dynamodb::{Item, Items, KEY};

/// What a view makes of a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The name of the table.
    pub view: &'static str,
    /// The attributes of the item's key.
    pub key: Item,
    /// The other attributes of the row. `None` if a tombstone stands there: the row was deleted, or is hidden.
    pub row: Option<Item>,
    /// When the row may go, in seconds since the epoch. The view keeps it for as long as a tombstone, at least.
    pub expires_at: Option<u64>,
}

/// How a definition reads a change, written a second time. `None` if the view never has the row, by its key.
pub type Reading = fn(&Change) -> Option<Shown>;

/// Without definitions, every column stands under its own name, in the only table.
pub fn without_definitions(change: &Change) -> Option<Shown> {
    let columns = |row: &Vec<(String, Value)>| {
        let columns = change.key.iter().chain(row);
        columns.filter_map(|(name, value)| Some((name.clone(), value.attribute()?))).collect()
    };
    let key = Item::from([(KEY.to_owned(), AttributeValue::S(change.view_key()))]);
    Some(Shown { view: "", key, row: change.row.as_ref().map(columns), expires_at: None })
}

/// No test waits for such a time, in seconds since the epoch. The view gives a row this time exactly.
const LATER_THAN_ANY_GUARD: u64 = 4_000_000_000;

/// The newest change of every row.
#[derive(Debug, Clone)]
pub struct Model {
    reading: Reading,
    prefix: &'static str,
    /// By the keys that the rows have without definitions. These tell the rows apart.
    rows: BTreeMap<String, Newest>,
}

#[derive(Debug, Clone)]
struct Newest {
    committed: u64,
    transaction: String,
    shown: Shown,
}

impl Default for Model {
    fn default() -> Self {
        Self::with(without_definitions, "_")
    }
}

impl Model {
    /// The model after a history; the order of the changes does not matter.
    pub fn of<'a>(history: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut model = Self::default();
        for change in history {
            model.commit(change);
        }
        model
    }

    /// The model of a view with definitions, before its first change. The names of the view's own attributes begin with
    /// `prefix`.
    pub fn with(reading: Reading, prefix: &'static str) -> Self {
        Self { reading, prefix, rows: BTreeMap::new() }
    }

    /// Adds a change.
    pub fn commit(&mut self, change: &Change) {
        let Some(shown) = (self.reading)(change) else { return };
        let key = change.view_key();
        if self.rows.get(&key).is_none_or(|newest| newest.committed < change.committed) {
            let transaction = change.transaction.clone();
            self.rows.insert(key, Newest { committed: change.committed, transaction, shown });
        }
    }

    /// Whether a tombstone shows the change: its row was deleted, or is hidden.
    pub fn is_tombstone(&self, change: &Change) -> bool {
        (self.reading)(change).is_some_and(|shown| shown.row.is_none())
    }

    /// The table of the view that has the row with this key.
    pub fn table_of(&self, key: &str) -> Option<&'static str> {
        Some(self.rows.get(key)?.shown.view)
    }

    /// Forgets a row of which DynamoDB has removed the tombstone, or the expired item, of this commit.
    pub fn expire(&mut self, key: &str, committed: u64) {
        let may_go = |newest: &Newest| newest.shown.row.is_none() || newest.shown.expires_at.is_some();
        if self.rows.get(key).is_some_and(|newest| may_go(newest) && newest.committed == committed) {
            self.rows.remove(key);
        }
    }

    /// How many rows there are, and how many tombstones of deleted and hidden ones.
    pub fn rows_and_tombstones(&self) -> (usize, usize) {
        let tombstones = self.rows.values().filter(|newest| newest.shown.row.is_none()).count();
        (self.rows.len() - tombstones, tombstones)
    }

    /// The differences between a view without key templates and the model, one a line; empty if the view is right.
    ///
    /// Numbers are compared by value, since DynamoDB writes them in its own way. Of a tombstone's expiry, only its
    /// presence is checked.
    pub fn differences(&self, view: &Items) -> Vec<String> {
        let mut differences = Vec::new();
        for (key, newest) in &self.rows {
            match view.get(key) {
                None => differences.push(format!("{key} is missing in the view")),
                Some(found) => self.compare(key, newest, found, &mut differences),
            }
        }
        let unknown = view.keys().filter(|key| !self.rows.contains_key(*key));
        differences.extend(unknown.map(|key| format!("{key} is in the view, but not in the history")));
        differences
    }

    /// Like [`Model::differences`], with all items of one of the tables, whatever their keys.
    pub fn differences_in(&self, view: &str, items: &[Item]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut known = 0;
        for (row, newest) in self.rows.iter().filter(|(_, newest)| newest.shown.view == view) {
            let has_key = |item: &&Item| {
                newest
                    .shown
                    .key
                    .iter()
                    .all(|(name, value)| item.get(name).is_some_and(|found| same_value(found, value)))
            };
            match items.iter().filter(has_key).collect::<Vec<_>>()[..] {
                [found] => {
                    known += 1;
                    self.compare(row, newest, found, &mut differences);
                }
                ref found => differences.push(format!("{row} has {} items in {view}", found.len())),
            }
        }
        if known < items.len() {
            differences.push(format!("{view} has {} items that no row of the history has", items.len() - known));
        }
        differences
    }

    fn compare(&self, row: &str, newest: &Newest, found: &Item, differences: &mut Vec<String>) {
        let mark = |name: &str| format!("{}{name}", self.prefix);
        let Newest { committed, transaction, shown } = newest;
        let mut expected = shown.key.clone();
        expected.insert(mark("ts_ns"), AttributeValue::N(committed.to_string()));
        expected.insert(mark("tx_id"), AttributeValue::S(transaction.clone()));
        match &shown.row {
            Some(columns) => expected.extend(columns.clone()),
            None => drop(expected.insert(mark("deleted"), AttributeValue::Bool(true))),
        }
        let mut found = found.clone();
        if shown.row.is_none() || shown.expires_at.is_some() {
            let expiry = found.remove(&mark("expires_at"));
            let expiry: Option<u64> = expiry.and_then(|expiry| expiry.as_n().ok()?.parse().ok());
            let wanted = shown.expires_at.filter(|_| shown.row.is_some());
            match (expiry, wanted) {
                (None, None) => differences.push(format!("{row} is a tombstone without an expiry")),
                (Some(_), None) => {}
                (Some(expiry), Some(wanted)) if expiry == wanted => {}
                (Some(expiry), Some(wanted)) if expiry > wanted && wanted < LATER_THAN_ANY_GUARD => {}
                (expiry, Some(wanted)) => differences.push(format!("{row} expires at {expiry:?}, expected {wanted}")),
            }
        }
        if !same_item(&expected, &found) {
            differences.push(format!("{row} is {found:?}, expected {expected:?}"));
        }
    }

    /// Fails with the differences, if there are any.
    pub fn assert_equals(&self, view: &Items) {
        let differences = self.differences(view);
        assert!(differences.is_empty(), "the view differs from the reference model:\n{}", differences.join("\n"));
    }
}

fn same_item(a: &Item, b: &Item) -> bool {
    a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same_value(value, other)))
}

/// Whether two attribute values are the same, numbers by value.
pub fn same_value(a: &AttributeValue, b: &AttributeValue) -> bool {
    match (a, b) {
        (AttributeValue::N(a), AttributeValue::N(b)) => Decimal::of(a) == Decimal::of(b),
        (AttributeValue::L(a), AttributeValue::L(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b))
        }
        (AttributeValue::M(a), AttributeValue::M(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same_value(a, b)))
        }
        _ => a == b,
    }
}
