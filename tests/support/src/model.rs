//! The reference model: the contents that a view must have once every change of a history was delivered, in whatever
//! order.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::cdc::{Change, Decimal};
use crate::dynamodb::{Item, Items, KEY};

/// The newest change of every row.
#[derive(Debug, Default, Clone)]
pub struct Model {
    rows: BTreeMap<String, Change>,
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

    /// Adds a change.
    pub fn commit(&mut self, change: &Change) {
        let key = change.view_key();
        if self.rows.get(&key).is_none_or(|newest| newest.committed < change.committed) {
            self.rows.insert(key, change.clone());
        }
    }

    /// Forgets a row whose tombstone of this commit DynamoDB has removed.
    pub fn expire(&mut self, key: &str, committed: u64) {
        if self.rows.get(key).is_some_and(|newest| newest.row.is_none() && newest.committed == committed) {
            self.rows.remove(key);
        }
    }

    /// How many rows there are, and how many deleted ones.
    pub fn rows_and_tombstones(&self) -> (usize, usize) {
        let tombstones = self.rows.values().filter(|change| change.row.is_none()).count();
        (self.rows.len() - tombstones, tombstones)
    }

    /// The differences between a view and the model, one a line; empty if the view is right.
    ///
    /// Numbers are compared by value, since DynamoDB writes them in its own way. Of a tombstone's expiry, only its
    /// presence is checked.
    pub fn differences(&self, view: &Items) -> Vec<String> {
        let mut differences = Vec::new();
        for (key, change) in &self.rows {
            match view.get(key) {
                None => differences.push(format!("{key} is missing in the view")),
                Some(found) => {
                    let expected = expected_item(key, change);
                    let mut found = found.clone();
                    if change.row.is_none() && !matches!(found.remove("_expires_at"), Some(AttributeValue::N(_))) {
                        differences.push(format!("{key} is a tombstone without an expiry"));
                    }
                    if !same_item(&expected, &found) {
                        differences.push(format!("{key} is {found:?}, expected {expected:?}"));
                    }
                }
            }
        }
        let unknown = view.keys().filter(|key| !self.rows.contains_key(*key));
        differences.extend(unknown.map(|key| format!("{key} is in the view, but not in the history")));
        differences
    }

    /// Fails with the differences, if there are any.
    pub fn assert_equals(&self, view: &Items) {
        let differences = self.differences(view);
        assert!(differences.is_empty(), "the view differs from the reference model:\n{}", differences.join("\n"));
    }
}

fn expected_item(key: &str, change: &Change) -> Item {
    let mut item = Item::from([
        (KEY.to_owned(), AttributeValue::S(key.to_owned())),
        ("_ts_ns".to_owned(), AttributeValue::N(change.committed.to_string())),
        ("_tx_id".to_owned(), AttributeValue::S(change.transaction.clone())),
    ]);
    match &change.row {
        Some(row) => {
            for (name, value) in change.key.iter().chain(row) {
                if let Some(attribute) = value.attribute() {
                    item.insert(name.clone(), attribute);
                }
            }
        }
        None => {
            item.insert("_deleted".to_owned(), AttributeValue::Bool(true));
        }
    }
    item
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
