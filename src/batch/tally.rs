//! The counts of a batch: how its records ended, table by table, and how long its changes took to reach the view.
//!
//! Invariants: pure; the records received are the sum of the six ends; a distribution keeps a bounded number of values
//! for any input, and its sum and its count are exact.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use metrique::CloseValue;
use metrique::unit::Count;
use metrique::unit_of_work::metrics;
use metrique_writer::unit::NegativeScale;
use metrique_writer::{MetricFlags, Observation, Unit, Value, ValueWriter};

use crate::batch::disposition::{Disposition, Superseded};
use crate::batch::ledger::{Entry, Ledger};
use crate::definitions::source_tables::SourceTable;

/// The most values of one metric that CloudWatch's embedded metric format takes.
pub(crate) const MOST_VALUES: usize = 100;

/// How some records ended, as metrics.
///
/// A count is absent until something is counted, because CloudWatch bills each metric that has a value.
/// [`Tally::zeros`] has all counts.
#[metrics(subfield_owned)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// All records: the sum of the six ends that follow.
    #[metrics(unit = Count)]
    pub received: usize,
    /// The view shows them.
    #[metrics(unit = Count)]
    pub applied: Option<usize>,
    /// The view shows a newer change of their rows, or the same one.
    #[metrics(unit = Count)]
    pub superseded: Option<usize>,
    /// Their tables are not configured.
    #[metrics(unit = Count)]
    pub filtered: Option<usize>,
    /// They belong to split changes and wait for the other members of their sets.
    #[metrics(unit = Count)]
    pub kept: Option<usize>,
    /// They stand in the quarantine.
    #[metrics(unit = Count)]
    pub quarantined: Option<usize>,
    /// They are reported to Lambda, and are delivered again.
    #[metrics(unit = Count, name = "Failed")]
    pub reported: Option<usize>,
    /// Superseded, as the function knew from memory.
    #[metrics(unit = Count)]
    pub known: Option<usize>,
    /// Superseded by the same commit: already in the view, or twice in the batch.
    #[metrics(unit = Count)]
    pub duplicates: Option<usize>,
    /// Not written, because the batch has a newer change of the row, or the same one. Counted whatever their end.
    #[metrics(unit = Count)]
    pub coalesced: Option<usize>,
    /// Their commit timestamp is later than the time at which the change stream made the record. Counted whatever their
    /// end.
    #[metrics(unit = Count)]
    pub clock_behind: Option<usize>,
    /// Columns of applied records that stand as text, because DynamoDB or its readers cannot hold them as they are.
    #[metrics(unit = Count)]
    pub stored_as_text: Option<usize>,
    /// Columns of applied records whose values do not fit the types of the definition, and so stand as in the record.
    #[metrics(unit = Count)]
    pub unfit_values: Option<usize>,
    /// Columns of applied records that the definition does not list.
    #[metrics(unit = Count)]
    pub unlisted_columns: Option<usize>,
    /// Attributes that applied records lack, because an index does not take them.
    #[metrics(unit = Count)]
    pub left_out_of_indexes: Option<usize>,
    /// Applied deletions, those of hidden rows included.
    #[metrics(unit = Count)]
    pub tombstones: Option<usize>,
    /// Applied records of rows that the conditions of the definition hide.
    #[metrics(unit = Count)]
    pub hidden_rows: Option<usize>,
    /// Applied rows over DynamoDB's 400 KB.
    #[metrics(unit = Count)]
    pub overflowed: Option<usize>,
    /// The write units of the applied items.
    #[metrics(unit = Count)]
    pub write_units: Option<usize>,
    /// The time from the commit until the view confirmed it, for each applied record.
    pub freshness: Distribution<1>,
}

/// Adds to a count. Adding zero does not create a count.
pub(crate) fn add(count: &mut Option<usize>, more: usize) {
    if more > 0 {
        *count = Some(count.unwrap_or_default().saturating_add(more));
    }
}

impl Tally {
    /// A tally that has every count of a view without definitions, each at zero.
    pub fn zeros() -> Self {
        let zero = Some(0);
        Self {
            received: 0,
            applied: zero,
            superseded: zero,
            filtered: zero,
            kept: zero,
            quarantined: zero,
            reported: zero,
            known: zero,
            duplicates: zero,
            coalesced: zero,
            clock_behind: zero,
            stored_as_text: zero,
            left_out_of_indexes: zero,
            // Only a view with definitions has these.
            unfit_values: None,
            unlisted_columns: None,
            hidden_rows: None,
            tombstones: zero,
            overflowed: zero,
            write_units: zero,
            freshness: Distribution::default(),
        }
    }

    /// Counts a record.
    pub fn add(&mut self, entry: &Entry<'_>) {
        self.received += 1;
        let end = match entry.end() {
            Disposition::Applied => &mut self.applied,
            Disposition::Superseded(how) => {
                match how {
                    Superseded::Told => {}
                    Superseded::Same => add(&mut self.duplicates, 1),
                    Superseded::Remembered => add(&mut self.known, 1),
                }
                &mut self.superseded
            }
            Disposition::Filtered => &mut self.filtered,
            Disposition::Kept => &mut self.kept,
            Disposition::Quarantined(_) => &mut self.quarantined,
            Disposition::Reported(_) => &mut self.reported,
        };
        add(end, 1);
        let Some(write) = entry.write() else { return };
        add(&mut self.coalesced, usize::from(write.coalesced));
        add(&mut self.clock_behind, usize::from(write.notes.clock_behind));
        if *entry.end() == Disposition::Applied {
            add(&mut self.stored_as_text, write.notes.as_text);
            add(&mut self.left_out_of_indexes, write.notes.left_out.len());
            add(&mut self.unfit_values, write.notes.unfit.len());
            add(&mut self.unlisted_columns, write.notes.unlisted.len());
            add(&mut self.hidden_rows, usize::from(write.notes.hidden));
            add(&mut self.tombstones, usize::from(write.tombstone));
            add(&mut self.overflowed, usize::from(write.overflowed));
            add(&mut self.write_units, write.units);
            if let Some(freshness) = write.freshness {
                self.freshness.record(freshness);
            }
        }
    }
}

/// The counts of a batch, in total and for each configured table that it has records of.
#[derive(Debug)]
pub struct BatchTally<'a> {
    /// The counts of all its records.
    pub all: Tally,
    /// The records of each table.
    pub tables: Vec<(&'a SourceTable, Tally)>,
    /// The place of each table in `tables`, by its address: each table stands once in the settings.
    places: HashMap<*const SourceTable, usize>,
}

impl<'a> BatchTally<'a> {
    /// Counts a batch.
    pub fn of(ledger: &Ledger<'a>) -> Self {
        let mut tally = Self { all: Tally::zeros(), tables: Vec::new(), places: HashMap::new() };
        for entry in &*ledger.entries() {
            tally.all.add(entry);
            if let Some(table) = entry.table() {
                tally.of_table(table).add(entry);
            }
        }
        tally
    }

    fn of_table(&mut self, table: &'a SourceTable) -> &mut Tally {
        let place = *self.places.entry(std::ptr::from_ref(table)).or_insert_with(|| {
            self.tables.push((table, Tally::default()));
            self.tables.len() - 1
        });
        &mut self.tables[place].1
    }
}

/// How many leading binary digits tell numbers apart. The numbers of a group differ by 3 % at most.
const DIGITS: u32 = 6;

/// Durations, in groups of values that differ little. A millisecond has `PER_MILLISECOND` units. The metric is in
/// milliseconds.
///
/// Kept by hand because `Histogram` of `metrique-aggregation` 0.1.19 keeps no sums (1,025 ms becomes 1,056 ms, 3 %
/// more), and gives 205 values for the times of 1 ms to 60 s, where a line may have 100.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution<const PER_MILLISECOND: u32>(BTreeMap<u64, Group>);

/// Numbers that differ little.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
}

impl<const PER_MILLISECOND: u32> Distribution<PER_MILLISECOND> {
    /// Adds a duration.
    pub fn record(&mut self, time: Duration) {
        let number = time.as_micros() * u128::from(PER_MILLISECOND) / 1000;
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        self.0.entry(rounded(number, DIGITS)).or_default().add(Group { count: 1, sum: number });
    }

    /// Adds all durations of another distribution.
    pub fn add(&mut self, other: &Self) {
        for (number, group) in &other.0 {
            self.0.entry(*number).or_default().add(*group);
        }
    }

    /// Its groups, the lowest first, and at most `most` of them, which is 64 or more. If there are too many, the groups
    /// become coarser.
    pub fn groups(&self, most: usize) -> Vec<Group> {
        let coarse = (1..=DIGITS).rev().map(|digits| {
            let mut coarse: BTreeMap<u64, Group> = BTreeMap::new();
            for (number, group) in &self.0 {
                coarse.entry(rounded(*number, digits)).or_default().add(*group);
            }
            coarse
        });
        // With one digit there are at most 65 groups.
        coarse.into_iter().find(|groups| groups.len() <= most).unwrap_or_default().into_values().collect()
    }
}

impl<const PER_MILLISECOND: u32> CloseValue for Distribution<PER_MILLISECOND> {
    type Closed = Self;

    fn close(self) -> Self {
        self
    }
}

impl<const PER_MILLISECOND: u32> Value for Distribution<PER_MILLISECOND> {
    #[expect(clippy::cast_precision_loss, reason = "a time, in a metric")]
    fn write(&self, writer: impl ValueWriter) {
        let observations = self.groups(MOST_VALUES).into_iter().map(|group| Observation::Repeated {
            total: group.sum as f64 / f64::from(PER_MILLISECOND),
            occurrences: group.count,
        });
        writer.metric(observations, Unit::Second(NegativeScale::Milli), [], MetricFlags::empty());
    }
}

impl Group {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// Keeps the leading `digits` binary digits of a number, and sets the others to zero.
fn rounded(number: u64, digits: u32) -> u64 {
    let dropped = (u64::BITS - number.leading_zeros()).saturating_sub(digits);
    number >> dropped << dropped
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::batch::disposition::Failure;
    use crate::batch::ledger::{RecordId, Write};
    use crate::definitions::source_tables::SourceTables;
    use crate::item::notes::Notes;
    use crate::item::projection::ViewItem;
    use crate::record::delivery::Record;
    use crate::record::order::CommitTimestamp;

    const COMMIT: u64 = 1_773_843_841_076_494_565;

    fn write(bytes: usize, tombstone: bool) -> Write {
        let item = ViewItem {
            bytes,
            ..ViewItem::without_attributes("k".to_owned(), CommitTimestamp::from_nanoseconds(COMMIT).unwrap())
        };
        {
            let mut write = Write::of(&item);
            write.tombstone = tombstone;
            write
        }
    }

    fn after(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(COMMIT) + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_batch_is_the_sum_of_its_tables_and_of_records_without_a_table() {
        let tables: SourceTables = "users(id), orders(id)".parse().unwrap();
        let [users, orders] = ["users", "orders"].map(|name| tables.get("public", name));
        let [mut row, tombstone, mut older] = [write(1025, false), write(60, true), write(1, false)];
        older.coalesced = true;
        older.notes.clock_behind = true;
        row.notes =
            Notes { clock_behind: false, as_text: 2, left_out: vec!["a".to_owned()], hidden: true, ..Notes::default() };
        row.notes.unfit = vec!["b".to_owned()];
        row.notes.unlisted = vec!["c".to_owned(), "d".to_owned()];
        let record = Record::default();
        let mut ledger = Ledger::default();
        for (table, end, write) in [
            (users, Failure::OutOfTime.into(), Some(row)),
            (users, Superseded::Told.into(), Some(older.clone())),
            (users, Superseded::Same.into(), Some(older.clone())),
            (orders, Failure::OutOfTime.into(), Some(tombstone)),
            (orders, Superseded::Remembered.into(), Some(write(4096, false))),
            (orders, Failure::OutOfTime.into(), Some(older)),
            (None, Disposition::Filtered, None),
            (None, Disposition::Kept, None),
            (None, Disposition::Quarantined(Failure::NoBucket), None),
        ] {
            ledger.add(&record, table, end, write);
        }
        ledger.settle(RecordId(0), Disposition::Applied, after(7));
        ledger.settle(RecordId(3), Disposition::Applied, after(9));
        let BatchTally { all, tables, .. } = BatchTally::of(&ledger);
        let mut freshness = Distribution::default();
        [7, 9].map(Duration::from_millis).into_iter().for_each(|time| freshness.record(time));
        let expected = Tally {
            received: 9,
            applied: Some(2),
            superseded: Some(3),
            filtered: Some(1),
            kept: Some(1),
            quarantined: Some(1),
            reported: Some(1),
            known: Some(1),
            duplicates: Some(1),
            coalesced: Some(3),
            clock_behind: Some(3),
            stored_as_text: Some(2),
            left_out_of_indexes: Some(1),
            unfit_values: Some(1),
            unlisted_columns: Some(2),
            hidden_rows: Some(1),
            tombstones: Some(1),
            overflowed: Some(0),
            write_units: Some(3),
            freshness,
        };
        assert_eq!(all, expected);
        let received: Vec<_> = tables.iter().map(|(table, of)| (table.to_string(), of.received, of.filtered)).collect();
        assert_eq!(received, [("public.users".to_owned(), 3, None), ("public.orders".to_owned(), 3, None)]);
    }

    #[test]
    fn a_distribution_has_few_groups_whatever_it_is_given_and_keeps_sum_and_count() {
        for (numbers, groups) in [(vec![], 0), (vec![0, 0], 1), (vec![1, 2, 31], 3), (vec![64, 65, 66], 2)] {
            let mut distribution = Distribution::<1000>::default();
            for number in &numbers {
                distribution.record(Duration::from_micros(*number));
            }
            assert_eq!(distribution.groups(100).len(), groups, "{numbers:?}");
        }
        let mut wide = Distribution::<1000>::default();
        let mut expected = Group::default();
        for power in 0..48 {
            for step in 0..64 {
                let number = (1 << power) + step * (1 << power) / 64;
                wide.record(Duration::from_micros(number));
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
