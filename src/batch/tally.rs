//! What is counted of a batch: how its records ended, table by table, and how long what the view shows now was on its
//! way.
//!
//! Invariants: pure; of each tally, the records received are the sum of their ends; a distribution's number of values
//! is bounded whatever it is given, and its sum and its count are exact.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::batch::disposition::{Counts, Disposition};
use crate::batch::plan::PlannedRecord;
use crate::item::projection::{Notes, ViewItem};
use crate::item::reserved::DELETED;
use crate::record::change::CommitTimestamp;
use crate::record::tables::SourceTable;

/// DynamoDB counts a write by each kilobyte begun.
const BYTES_OF_A_WRITE_UNIT: usize = 1024;

/// What a record writes, as far as it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    committed: CommitTimestamp,
    units: usize,
    tombstone: bool,
    overflowed: bool,
    /// What is told of the change beside that.
    pub notes: Notes,
    /// A newer change of the row, or the same one, is in the batch and written in its place.
    pub coalesced: bool,
    /// How long after its commit the view showed it.
    freshness: Option<Duration>,
}

impl Write {
    /// What the write of an item counts for.
    pub fn of(item: &ViewItem) -> Self {
        Self {
            committed: item.committed,
            units: item.bytes.div_ceil(BYTES_OF_A_WRITE_UNIT),
            tombstone: item.attributes.contains_key(DELETED),
            overflowed: !item.moved.is_empty(),
            notes: item.notes.clone(),
            coalesced: false,
            freshness: None,
        }
    }

    /// The view confirmed it at `now`.
    pub fn shown(&mut self, now: SystemTime) {
        self.freshness = Some(self.committed.age(now));
    }
}

/// What became of some records.
#[derive(Debug, Default, PartialEq)]
pub struct Tally {
    /// How they ended.
    pub ends: Counts,
    /// Of the superseded: the function knew without asking the view.
    pub known: usize,
    /// Of the superseded, and none of the known: the very change is in the view, or twice in the batch, as was told.
    pub duplicates: usize,
    /// Whatever their end: they left the write to a newer change of their row in the batch, or to the same one.
    pub coalesced: usize,
    /// Whatever their end: they are said to be committed after the change stream made their record.
    pub clock_behind: usize,
    /// Of the applied: columns that stand as text, since DynamoDB or its readers cannot hold them as they are.
    pub stored_as_text: usize,
    /// Of the applied: attributes that are not there, since an index does not take them.
    pub left_out_of_indexes: usize,
    /// Of the applied: deleted rows.
    pub tombstones: usize,
    /// Of the applied: rows over DynamoDB's 400 KB.
    pub overflowed: usize,
    /// Of the applied: the write units of their items.
    pub write_units: usize,
    /// Of the applied: milliseconds from the commit until the view confirmed it.
    pub freshness: Distribution,
}

impl Tally {
    fn add(&mut self, record: &PlannedRecord<'_>) {
        self.ends.add(&record.disposition);
        self.known += usize::from(record.disposition == Disposition::Known);
        self.duplicates += usize::from(record.disposition == Disposition::Duplicate);
        let Some(write) = &record.write else { return };
        self.coalesced += usize::from(write.coalesced);
        self.clock_behind += usize::from(write.notes.clock_behind);
        if record.disposition == Disposition::Applied {
            self.stored_as_text += write.notes.as_text;
            self.left_out_of_indexes += write.notes.left_out.len();
            self.tombstones += usize::from(write.tombstone);
            self.overflowed += usize::from(write.overflowed);
            self.write_units += write.units;
            if let Some(freshness) = write.freshness {
                self.freshness.record(u64::try_from(freshness.as_millis()).unwrap_or(u64::MAX));
            }
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.ends += other.ends;
        self.known += other.known;
        self.duplicates += other.duplicates;
        self.coalesced += other.coalesced;
        self.clock_behind += other.clock_behind;
        self.stored_as_text += other.stored_as_text;
        self.left_out_of_indexes += other.left_out_of_indexes;
        self.tombstones += other.tombstones;
        self.overflowed += other.overflowed;
        self.write_units += other.write_units;
        self.freshness.merge(&other.freshness);
    }
}

/// A batch, all of it and by the configured tables that it has records of.
#[derive(Debug, Default)]
pub struct BatchTally<'a> {
    /// All of it.
    pub all: Tally,
    /// The records of each table.
    pub tables: Vec<(&'a SourceTable, Tally)>,
}

impl<'a> BatchTally<'a> {
    /// Counts a batch.
    pub fn of<'r>(records: impl IntoIterator<Item = &'r PlannedRecord<'a>>) -> Self
    where
        'a: 'r,
    {
        let mut tally = Self::default();
        for record in records {
            match record.table {
                Some(table) => tally.of_table(table).add(record),
                None => tally.all.add(record),
            }
        }
        for (_, of_table) in &tally.tables {
            tally.all.add_all(of_table);
        }
        tally
    }

    fn of_table(&mut self, table: &'a SourceTable) -> &mut Tally {
        // A table has one place in the settings. Most batches have few tables, and runs of records of one.
        let place = self.tables.iter().position(|(counted, _)| std::ptr::eq(*counted, table));
        let place = place.unwrap_or_else(|| {
            self.tables.push((table, Tally::default()));
            self.tables.len() - 1
        });
        &mut self.tables[place].1
    }
}

/// Of a value that is recorded, so many binary digits tell it from others: it is in a group with values that differ by
/// 3 % at most.
const DIGITS: u32 = 6;

/// Numbers, in groups of such as differ little.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution(BTreeMap<u64, Group>);

/// Numbers that differ little.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
}

impl Distribution {
    /// Adds a number.
    pub fn record(&mut self, number: u64) {
        self.add(number, Group { count: 1, sum: number });
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Self) {
        for (number, group) in &other.0 {
            self.add(*number, *group);
        }
    }

    /// Its groups, the lowest first: at most `most` (64 or more), for which they become coarser where they have to.
    pub fn groups(&self, most: usize) -> Vec<Group> {
        let coarse = (1..=DIGITS).rev().map(|digits| {
            let mut coarse: BTreeMap<u64, Group> = BTreeMap::new();
            for (number, group) in &self.0 {
                coarse.entry(rounded(*number, digits)).or_default().add(*group);
            }
            coarse
        });
        // With one digit there are no more than 65.
        coarse.into_iter().find(|groups| groups.len() <= most).unwrap_or_default().into_values().collect()
    }

    fn add(&mut self, number: u64, group: Group) {
        self.0.entry(rounded(number, DIGITS)).or_default().add(group);
    }
}

impl Group {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// The number with so many of its leading binary digits, and zeros.
fn rounded(number: u64, digits: u32) -> u64 {
    let dropped = (u64::BITS - number.leading_zeros()).saturating_sub(digits);
    number >> dropped << dropped
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;
    use crate::batch::disposition::Failure;
    use crate::record::tables::SourceTables;

    const COMMIT: u64 = 1_773_843_841_076_494_565;

    fn write(bytes: usize, tombstone: bool) -> Write {
        let deleted = tombstone.then(|| (DELETED.to_owned(), AttributeValue::Bool(true)));
        Write::of(&ViewItem {
            key: "k".to_owned(),
            committed: CommitTimestamp::from_nanoseconds(COMMIT).unwrap(),
            creates: false,
            attributes: HashMap::from_iter(deleted),
            moved: Vec::new(),
            bytes,
            guard: None,
            notes: Notes::default(),
        })
    }

    fn after(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(COMMIT) + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_batch_is_the_sum_of_its_tables_and_of_what_has_none() {
        let tables: SourceTables = "users(id), orders(id)".parse().unwrap();
        let [users, orders] = ["users", "orders"].map(|name| tables.get("public", name));
        let record = |table, disposition, write| PlannedRecord { table, disposition, write };
        let [mut row, mut tombstone, mut older] = [write(1025, false), write(60, true), write(1, false)];
        row.shown(after(7));
        tombstone.shown(after(9));
        older.coalesced = true;
        older.notes.clock_behind = true;
        row.notes = Notes { clock_behind: false, as_text: 2, left_out: vec!["a".to_owned()] };
        let records = [
            record(users, Disposition::Applied, Some(row)),
            record(users, Disposition::Superseded, Some(older.clone())),
            record(users, Disposition::Duplicate, Some(older.clone())),
            record(orders, Disposition::Applied, Some(tombstone)),
            record(orders, Disposition::Known, Some(write(4096, false))),
            record(orders, Failure::OutOfTime.into(), Some(older)),
            record(None, Disposition::Filtered, None),
            record(None, Disposition::Kept, None),
            record(None, Disposition::Quarantined(Failure::Part), None),
        ];
        let BatchTally { all, tables } = BatchTally::of(&records);
        let ends = Counts { applied: 2, superseded: 3, filtered: 1, kept: 1, quarantined: 1, reported: 1 };
        assert_eq!((all.ends, all.ends.received()), (ends, records.len()));
        assert_eq!((all.known, all.duplicates, all.coalesced), (1, 1, 3));
        assert_eq!((all.clock_behind, all.stored_as_text, all.left_out_of_indexes), (3, 2, 1));
        assert_eq!((all.tombstones, all.write_units), (1, 3));
        assert_eq!(all.freshness.groups(100), [Group { count: 1, sum: 7 }, Group { count: 1, sum: 9 }]);
        let received: Vec<_> = tables.iter().map(|(table, of)| (table.to_string(), of.ends.received())).collect();
        assert_eq!(received, [("public.users".to_owned(), 3), ("public.orders".to_owned(), 3)]);
    }

    #[test]
    fn a_clock_behind_the_commit_s_makes_no_age() {
        let mut write = write(1, false);
        write.shown(SystemTime::UNIX_EPOCH);
        assert_eq!(write.freshness, Some(Duration::ZERO));
    }

    #[test]
    fn a_distribution_has_few_groups_whatever_it_is_given_and_keeps_sum_and_count() {
        for (numbers, groups) in [(vec![], 0), (vec![0, 0], 1), (vec![1, 2, 31], 3), (vec![64, 65, 66], 2)] {
            let mut distribution = Distribution::default();
            for number in &numbers {
                distribution.record(*number);
            }
            assert_eq!(distribution.groups(100).len(), groups, "{numbers:?}");
        }
        let mut wide = Distribution::default();
        let mut expected = Group::default();
        for power in 0..48 {
            for step in 0..64 {
                let number = (1 << power) + step * (1 << power) / 64;
                wide.record(number);
                expected.add(Group { count: 1, sum: number });
            }
        }
        for most in [64, 100, 1000] {
            let groups = wide.groups(most);
            assert!(groups.len() <= most && groups.len() * 3 > most, "{} of {most}", groups.len());
            let mut all = Group::default();
            for group in groups {
                all.add(group);
            }
            assert_eq!(all, expected);
        }
    }
}
