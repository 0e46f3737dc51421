//! Compares the view with the items that it must hold, attribute by attribute.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view_support::dynamodb::{Item, Items, KEY};
use dsql_view_support::model::same_value;

use crate::records::Commit;

/// The items that the view must hold, with some counts.
#[derive(Debug, Default)]
pub struct Expectation {
    /// The items, by the view's key.
    pub items: BTreeMap<String, Expected>,
    /// How many values of rows there are of each type. Null values do not count.
    pub values_by_type: BTreeMap<String, usize>,
    pub cascades: Cascades,
}

/// The changes that foreign keys have made by themselves, to rows whose parents changed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cascades {
    pub deleted: i64,
    pub updated: i64,
    /// Tombstones that the view must hold because the last change of their rows was such a deletion.
    pub tombstones: usize,
}

/// An item that the view must hold.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The transaction that changed the row last, by PostgreSQL's number.
    pub transaction: u32,
    /// When it was committed, in microseconds since the epoch, as PostgreSQL says.
    pub committed: i64,
    /// The row. `None` for a tombstone.
    pub columns: Option<BTreeMap<String, AttributeValue>>,
}

/// A transaction as the records told of it.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub commit: Commit,
    /// When it was committed, in microseconds since the epoch, as the slot said.
    pub committed: i64,
}

/// Something in the view that is not as it must be.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    pub table: String,
    pub key: String,
    pub attribute: String,
    pub expected: String,
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, key, attribute, expected, found } = self;
        write!(f, "{table}, key {key:?}, attribute {attribute:?}: expected {expected}, found {found}")
    }
}

/// The differences, and how many values were compared.
pub fn differences(
    expectation: &Expectation,
    transactions: &HashMap<u32, Recorded>,
    view: &Items,
) -> (Vec<Difference>, usize) {
    let mut differences = Vec::new();
    let mut compared = 0;
    let nothing = Item::new();
    for (key, expected) in &expectation.items {
        let found = view.get(key).unwrap_or(&nothing);
        let item = item(key, expected, transactions);
        let mut differ = |attribute: &str, is: Option<&AttributeValue>, found: Option<&AttributeValue>| {
            differences.push(Difference {
                table: table(key),
                key: key.clone(),
                attribute: attribute.to_owned(),
                expected: shown(is),
                found: shown(found),
            });
        };
        for (attribute, value) in &item {
            compared += 1;
            let found = found.get(attribute);
            if !found.is_some_and(|found| same_value(value, found)) {
                differ(attribute, Some(value), found);
            }
        }
        for (attribute, value) in found.iter().filter(|(attribute, _)| !item.contains_key(*attribute)) {
            let is_expiry = attribute == "_expires_at" && expected.columns.is_none() && value.is_n();
            if !is_expiry {
                differ(attribute, None, Some(value));
            }
        }
        if expected.columns.is_none() && view.contains_key(key) && !found.contains_key("_expires_at") {
            differ("_expires_at", Some(&AttributeValue::N("some time".to_owned())), None);
        }
    }
    for key in view.keys().filter(|key| !expectation.items.contains_key(*key)) {
        differences.push(Difference {
            table: table(key),
            key: key.clone(),
            attribute: KEY.to_owned(),
            expected: "no item".to_owned(),
            found: "an item".to_owned(),
        });
    }
    (differences, compared)
}

/// The table that a key names.
fn table(key: &str) -> String {
    key.split('#').next().unwrap_or_default().to_owned()
}

/// The item by the contract.
fn item(key: &str, expected: &Expected, transactions: &HashMap<u32, Recorded>) -> Item {
    let mut item = Item::from([(KEY.to_owned(), AttributeValue::S(key.to_owned()))]);
    let recorded = transactions.get(&expected.transaction);
    // If no record told of the transaction, or the slot gave another time than the table, this makes a difference.
    if let Some(Recorded { commit, .. }) = recorded.filter(|recorded| recorded.committed == expected.committed) {
        item.insert("_ts_ns".to_owned(), AttributeValue::N(commit.timestamp.to_string()));
        item.insert("_tx_id".to_owned(), AttributeValue::S(commit.transaction.clone()));
    } else {
        let transaction = format!("the commit of transaction {} at {}", expected.transaction, expected.committed);
        item.insert("_tx_id".to_owned(), AttributeValue::S(transaction));
    }
    match &expected.columns {
        Some(columns) => item.extend(columns.clone()),
        None => {
            item.insert("_deleted".to_owned(), AttributeValue::Bool(true));
        }
    }
    item
}

/// A value for people, or the beginning of a long one.
fn shown(value: Option<&AttributeValue>) -> String {
    const LONGEST: usize = 200;
    let Some(value) = value else { return "nothing".to_owned() };
    let shown = format!("{value:?}");
    match shown.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}… ({} bytes)", &shown[..end], shown.len()),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn n(number: &str) -> AttributeValue {
        AttributeValue::N(number.to_owned())
    }

    fn expectation() -> (Expectation, HashMap<u32, Recorded>) {
        let expected =
            |transaction, columns| Expected { transaction, committed: i64::from(transaction) * 1_000, columns };
        let row = BTreeMap::from([("id".to_owned(), n("1")), ("name".to_owned(), s("Ada"))]);
        let items = BTreeMap::from([
            ("public.users#1".to_owned(), expected(7, Some(row))),
            ("public.users#2".to_owned(), expected(8, None)),
        ]);
        let recorded = |transaction: u32| {
            let timestamp = u64::from(transaction) * 1_000_000;
            let commit = Commit { timestamp, transaction: format!("tx{transaction}") };
            (transaction, Recorded { commit, committed: i64::from(transaction) * 1_000 })
        };
        (Expectation { items, ..Expectation::default() }, HashMap::from([recorded(7), recorded(8)]))
    }

    fn view() -> Items {
        let item = |key: &str, attributes: &[(&str, AttributeValue)]| {
            let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            (key.to_owned(), attributes.chain([(KEY.to_owned(), s(key))]).collect::<Item>())
        };
        Items::from([
            item(
                "public.users#1",
                &[("_ts_ns", n("7000000")), ("_tx_id", s("tx7")), ("id", n("1.0")), ("name", s("Ada"))],
            ),
            item(
                "public.users#2",
                &[
                    ("_ts_ns", n("8000000")),
                    ("_tx_id", s("tx8")),
                    ("_deleted", AttributeValue::Bool(true)),
                    ("_expires_at", n("9")),
                ],
            ),
        ])
    }

    /// The key and the attribute of each difference, with `change` made to the view.
    fn found(change: impl FnOnce(&mut Items)) -> Vec<(String, String)> {
        let (expectation, transactions) = expectation();
        let mut view = view();
        change(&mut view);
        let (differences, compared) = differences(&expectation, &transactions, &view);
        assert_eq!(compared, 5 + 4);
        differences.into_iter().map(|difference| (difference.key, difference.attribute)).collect()
    }

    fn set(key: &'static str, attribute: &'static str, value: AttributeValue) -> impl FnOnce(&mut Items) {
        move |view| {
            view.get_mut(key).unwrap().insert(attribute.to_owned(), value);
        }
    }

    #[test]
    fn a_view_as_it_must_be_has_no_differences() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn each_attribute_that_is_wrong_is_named() {
        let (row, tombstone) = ("public.users#1", "public.users#2");
        let is = |key: &str, attribute: &str| vec![(key.to_owned(), attribute.to_owned())];
        assert_eq!(found(set(row, "name", s("Eve"))), is(row, "name"));
        assert_eq!(found(set(row, "id", s("1"))), is(row, "id"), "another type");
        assert_eq!(found(set(row, "_ts_ns", n("7000001"))), is(row, "_ts_ns"));
        assert_eq!(found(set(row, "_tx_id", s("tx8"))), is(row, "_tx_id"));
        assert_eq!(found(set(row, "more", n("1"))), is(row, "more"));
        assert_eq!(found(set(row, "_expires_at", n("1"))), is(row, "_expires_at"));
        assert_eq!(found(set(row, "_deleted", AttributeValue::Bool(true))), is(row, "_deleted"));
        assert_eq!(found(set(tombstone, "name", s("Bob"))), is(tombstone, "name"));
        assert_eq!(found(set(tombstone, "_expires_at", s("9"))), is(tombstone, "_expires_at"));
        let without = |key: &'static str, attribute: &'static str| {
            found(move |view| drop(view.get_mut(key).unwrap().remove(attribute)))
        };
        assert_eq!(without(row, "name"), is(row, "name"));
        assert_eq!(without(tombstone, "_deleted"), is(tombstone, "_deleted"));
        assert_eq!(without(tombstone, "_expires_at"), is(tombstone, "_expires_at"));
    }

    #[test]
    fn rows_that_are_missing_or_too_many_are_named() {
        let missing = found(|view| drop(view.remove("public.users#1")));
        assert_eq!(missing.len(), 5, "{missing:?}");
        let another = found(|view| drop(view.insert("public.audit_log#1".to_owned(), Item::new())));
        assert_eq!(another, [("public.audit_log#1".to_owned(), KEY.to_owned())]);
    }

    #[test]
    fn a_commit_that_the_slot_did_not_tell_of_or_dated_otherwise_is_a_difference() {
        let (mut expectation, mut transactions) = expectation();
        transactions.remove(&7);
        expectation.items.get_mut("public.users#2").unwrap().committed += 1;
        let (differences, _) = differences(&expectation, &transactions, &view());
        let named = differences.iter().filter(|difference| difference.attribute == "_tx_id").count();
        assert_eq!(named, 2, "{differences:?}");
    }
}
