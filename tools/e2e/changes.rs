//! A transaction's net effect: one change a row, as Aurora DSQL records it, and its place in the order of commits.

use std::collections::BTreeMap;

use crate::decoding::{Column, Operation, Relation, Row, Transaction};

/// The effect of a transaction on a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Create,
    Update,
    Delete,
}

/// A change as a record tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub schema: String,
    pub table: String,
    pub kind: Kind,
    /// The whole row. A deletion has the primary key alone, and nothing if the table has no key.
    pub image: Vec<(Column, Option<String>)>,
}

/// A row in the course of a transaction.
struct Fate<'a> {
    existed: bool,
    first_image: Image<'a>,
    now: Option<Image<'a>>,
}

#[derive(Clone, Copy)]
struct Image<'a> {
    relation: &'a Relation,
    row: &'a Row,
}

/// The schema and name of a table, the text of a row's key.
type RowName<'a> = (&'a str, &'a str, Vec<Option<&'a str>>);

/// The changes of a transaction. `primary_key` returns the key columns of a table, in key order.
pub fn net_effect<'a>(transaction: &Transaction, primary_key: impl Fn(&str, &str) -> Vec<&'a str>) -> Vec<Change> {
    let mut fates: BTreeMap<RowName, Fate> = BTreeMap::new();
    let mut changes = Vec::new();
    for (relation, operation) in &transaction.operations {
        let key = primary_key(&relation.schema, &relation.name);
        let image = |row| Image { relation, row };
        let (old, new) = match operation {
            Operation::Insert { new } => (None, Some(image(new))),
            Operation::Update { old, new } => (Some(image(old)), Some(image(new))),
            Operation::Delete { old } => (Some(image(old)), None),
        };
        if key.is_empty() {
            let kind = match operation {
                Operation::Insert { .. } => Kind::Create,
                Operation::Update { .. } => Kind::Update,
                Operation::Delete { .. } => Kind::Delete,
            };
            changes.push(change(kind, new.or(old).expect("an operation has a row"), &key));
            continue;
        }
        // A change of the key is a deletion of the old one and a creation of the new one.
        if let Some(old) = old {
            let fate = fates.entry(old.name(&key)).or_insert(Fate { existed: true, first_image: old, now: None });
            fate.now = None;
        }
        if let Some(new) = new {
            let fate = fates.entry(new.name(&key)).or_insert(Fate { existed: false, first_image: new, now: None });
            fate.now = Some(new);
        }
    }
    for Fate { existed, first_image, now } in fates.into_values() {
        let key = primary_key(&first_image.relation.schema, &first_image.relation.name);
        match (existed, now) {
            (false, Some(now)) => changes.push(change(Kind::Create, now, &key)),
            (true, Some(now)) => changes.push(change(Kind::Update, now, &key)),
            (true, None) => changes.push(change(Kind::Delete, first_image, &key)),
            (false, None) => {}
        }
    }
    changes
}

impl<'a> Image<'a> {
    fn name(self, key: &[&str]) -> RowName<'a> {
        let value = |name: &&str| {
            let place = self.relation.columns.iter().position(|column| column.name == *name);
            self.row[place.expect("key columns stay")].as_deref()
        };
        (&self.relation.schema, &self.relation.name, key.iter().map(value).collect())
    }
}

fn change(kind: Kind, Image { relation, row }: Image, key: &[&str]) -> Change {
    let columns = relation.columns.iter().zip(row);
    let columns = columns.filter(|(column, _)| kind != Kind::Delete || key.contains(&column.name.as_str()));
    Change {
        schema: relation.schema.clone(),
        table: relation.name.clone(),
        kind,
        image: columns.map(|(column, value)| (column.clone(), value.clone())).collect(),
    }
}

/// The commit timestamps: nanoseconds that grow with each transaction, in the order in which the slot tells of them.
#[derive(Debug, Default)]
pub struct CommitClock(u64);

impl CommitClock {
    /// The timestamp of the next transaction, which PostgreSQL committed at this microsecond.
    pub fn tick(&mut self, committed: i64) -> u64 {
        self.0 = (u64::try_from(committed).expect("a commit after 1970") * 1_000).max(self.0 + 1);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn row(values: &[&str]) -> Row {
        values.iter().map(|value| Some((*value).to_owned())).collect()
    }

    fn insert(id: &str, text: &str) -> Operation {
        Operation::Insert { new: row(&[id, text]) }
    }

    fn update(from: (&str, &str), to: (&str, &str)) -> Operation {
        Operation::Update { old: row(&[from.0, from.1]), new: row(&[to.0, to.1]) }
    }

    fn delete(id: &str, text: &str) -> Operation {
        Operation::Delete { old: row(&[id, text]) }
    }

    /// Each change as its kind and the values of its image.
    fn changes(key: &[&'static str], operations: Vec<Operation>) -> Vec<String> {
        let columns = ["id", "text"].map(|name| Column { name: name.to_owned(), type_id: 25 }).to_vec();
        let relation = Arc::new(Relation { schema: "public".to_owned(), name: "t".to_owned(), columns });
        let operations = operations.into_iter().map(|operation| (Arc::clone(&relation), operation)).collect();
        let transaction = Transaction { id: 1, committed: 0, operations };
        let changes = net_effect(&transaction, |_, _| key.to_vec());
        let values = |change: &Change| change.image.iter().map(|(_, value)| value.clone().unwrap()).collect::<Vec<_>>();
        changes.iter().map(|change| format!("{:?} {}", change.kind, values(change).join(" "))).collect()
    }

    #[test]
    fn a_transaction_changes_a_row_once() {
        for (operations, expected) in [
            (vec![insert("1", "a")], &["Create 1 a"][..]),
            (vec![insert("1", "a"), update(("1", "a"), ("1", "b"))], &["Create 1 b"]),
            (vec![insert("1", "a"), delete("1", "a")], &[]),
            (vec![insert("1", "a"), delete("1", "a"), insert("1", "b")], &["Create 1 b"]),
            (vec![update(("1", "a"), ("1", "b")), update(("1", "b"), ("1", "c"))], &["Update 1 c"]),
            (vec![update(("1", "a"), ("1", "b")), delete("1", "b")], &["Delete 1"]),
            (vec![delete("1", "a"), insert("1", "b")], &["Update 1 b"]),
            (vec![delete("1", "a"), insert("1", "b"), delete("1", "b")], &["Delete 1"]),
            (vec![update(("1", "a"), ("2", "a"))], &["Delete 1", "Create 2 a"]),
            (vec![update(("1", "a"), ("2", "a")), update(("2", "a"), ("1", "b"))], &["Update 1 b"]),
            (vec![delete("2", "x"), update(("1", "a"), ("2", "a"))], &["Delete 1", "Update 2 a"]),
            (vec![insert("1", "a"), update(("1", "a"), ("2", "a"))], &["Create 2 a"]),
        ] {
            assert_eq!(changes(&["id"], operations.clone()), expected, "{operations:?}");
        }
    }

    #[test]
    fn rows_without_a_key_are_told_of_one_by_one_and_a_deletion_names_none() {
        assert_eq!(changes(&[], vec![insert("1", "a"), delete("1", "a")]), ["Create 1 a", "Delete "]);
    }

    #[test]
    fn commit_timestamps_grow() {
        let mut clock = CommitClock::default();
        let ticks: Vec<u64> = [5, 5, 4, 6].into_iter().map(|committed| clock.tick(committed)).collect();
        assert_eq!(ticks, [5_000, 5_001, 5_002, 6_000]);
    }
}
