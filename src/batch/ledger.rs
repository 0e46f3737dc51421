//! The records of a batch, each with its table and how it has ended.
//!
//! Every record starts as reported, so that Lambda delivers a record again if nothing settles it. Writes, split changes
//! and the quarantine run at the same time, and each settles its records as their ends become known. So applied records
//! count even if the deadline cuts off the rest.
//!
//! Invariants: pure, with the time as an argument; every record has one end. An end stays, with two exceptions: a
//! reported record can still be applied or quarantined, and the view may confirm an end that came from memory.

use std::cell::{Ref, RefCell, RefMut};
use std::time::{Duration, SystemTime};

use crate::batch::disposition::{Disposition, Failure, Superseded};
use crate::definitions::source_tables::SourceTable;
use crate::item::notes::Notes;
use crate::item::projection::ViewItem;
use crate::record::delivery::Record;
use crate::record::order::CommitTimestamp;

/// DynamoDB counts one write unit for each kilobyte begun.
const BYTES_OF_A_WRITE_UNIT: usize = 1024;

/// Identifies a record of a batch by its position in the delivery, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub usize);

/// The records of a batch.
#[derive(Debug, Default)]
pub struct Ledger<'a>(RefCell<Vec<Entry<'a>>>);

/// A record of a batch.
#[derive(Debug)]
pub struct Entry<'a> {
    delivered: &'a Record,
    fate: Fate<'a>,
}

/// How a record has ended, and the facts known of it by then.
#[derive(Debug, Clone)]
pub struct Fate<'a> {
    /// Its table, as far as it is known and configured.
    pub table: Option<&'a SourceTable>,
    /// Its end.
    pub end: Disposition,
    /// Its write, if it came so far.
    pub write: Option<Write>,
    /// For a split change that DynamoDB refused: all objects of its set. They go to the quarantine in place of the
    /// record.
    pub refused_set: Vec<String>,
}

/// The counted facts of a record's write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    committed: CommitTimestamp,
    /// The write units of its item.
    pub units: usize,
    /// Whether it deletes the row.
    pub tombstone: bool,
    /// Whether it has columns that moved to objects.
    pub overflowed: bool,
    /// Other facts of the change that are counted and logged.
    pub notes: Notes,
    /// Whether the batch has a newer change of the row, or the same one, which is written in its place.
    pub coalesced: bool,
    /// How long after its commit the view showed it.
    pub freshness: Option<Duration>,
}

impl Write {
    /// The write of an item.
    pub fn of(item: &ViewItem) -> Self {
        Self {
            committed: item.committed,
            units: item.bytes.div_ceil(BYTES_OF_A_WRITE_UNIT),
            tombstone: item.tombstone,
            overflowed: !item.moved.is_empty(),
            notes: item.notes.clone(),
            coalesced: false,
            freshness: None,
        }
    }
}

impl Fate<'_> {
    /// The fate with this end, of which nothing else is known.
    pub fn of(end: impl Into<Disposition>) -> Self {
        Self { table: None, end: end.into(), write: None, refused_set: Vec::new() }
    }

    /// Takes over another fate of the same record if the end of that one has more weight. See [`Disposition::weight`].
    pub fn raise_to(&mut self, other: Self) {
        if other.end.weight() > self.end.weight() {
            *self = other;
        }
    }

    /// The write has ended, at `now`.
    pub fn settle(&mut self, end: Disposition, now: SystemTime) {
        if let (Disposition::Applied, Some(write)) = (&end, &mut self.write) {
            write.freshness = Some(write.committed.age(now));
        }
        self.end = end;
    }
}

impl<'a> Entry<'a> {
    /// The record, as it was delivered.
    pub fn delivered(&self) -> &'a Record {
        self.delivered
    }

    /// Its table, as far as it is known and configured.
    pub fn table(&self) -> Option<&'a SourceTable> {
        self.fate.table
    }

    /// The place of its view table, as far as its table is known and configured.
    pub fn view(&self) -> Option<usize> {
        self.table().map(SourceTable::view_place)
    }

    /// How it has ended.
    pub fn end(&self) -> &Disposition {
        &self.fate.end
    }

    /// Why it is reported, if it is.
    pub fn failure(&self) -> Option<&Failure> {
        if let Disposition::Reported(failure) = self.end() { Some(failure) } else { None }
    }

    /// Its write, if it came so far.
    pub fn write(&self) -> Option<&Write> {
        self.fate.write.as_ref()
    }

    /// For a split change that DynamoDB refused: all objects of its set.
    pub fn refused_set(&self) -> &[String] {
        &self.fate.refused_set
    }
}

impl<'a> Ledger<'a> {
    /// An empty ledger with room for this many records.
    pub fn with_capacity(records: usize) -> Self {
        Self(RefCell::new(Vec::with_capacity(records)))
    }

    /// Adds the next record of the batch.
    pub fn add(
        &mut self,
        delivered: &'a Record,
        table: Option<&'a SourceTable>,
        end: Disposition,
        write: Option<Write>,
    ) {
        let fate = Fate { table, write, ..Fate::of(end) };
        self.0.get_mut().push(Entry { delivered, fate });
    }

    /// Notes that a newer change of the same row is written in the place of this one.
    pub fn coalesce(&mut self, id: RecordId) {
        if let Some(write) = &mut self.0.get_mut()[id.0].fate.write {
            write.coalesced = true;
        }
    }

    /// All records, in the order of their delivery.
    ///
    /// Nothing can be settled while the returned borrow is in use.
    pub fn entries(&self) -> Ref<'_, [Entry<'a>]> {
        Ref::map(self.0.borrow(), Vec::as_slice)
    }

    /// The records for which `is_meant` holds.
    pub fn select(&self, is_meant: impl Fn(&Entry<'a>) -> bool) -> Vec<RecordId> {
        let entries = self.entries();
        let places = entries.iter().enumerate().filter(|(_, entry)| is_meant(entry));
        places.map(|(place, _)| RecordId(place)).collect()
    }

    /// Whether `is_meant` holds for any record.
    pub fn any(&self, is_meant: impl Fn(&Entry<'a>) -> bool) -> bool {
        self.entries().iter().any(is_meant)
    }

    /// One record.
    pub fn entry(&self, id: RecordId) -> Ref<'_, Entry<'a>> {
        Ref::map(self.0.borrow(), |entries| &entries[id.0])
    }

    fn open(&self, id: RecordId) -> Option<RefMut<'_, Fate<'a>>> {
        let fate = RefMut::map(self.0.borrow_mut(), |entries| &mut entries[id.0].fate);
        let is_open = matches!(fate.end, Disposition::Reported(_) | Disposition::Superseded(Superseded::Remembered));
        is_open.then_some(fate)
    }

    /// Settles a record whose write ended at `now`.
    pub fn settle(&self, id: RecordId, end: Disposition, now: SystemTime) {
        if let Some(mut fate) = self.open(id) {
            fate.settle(end, now);
        }
    }

    /// Gives a member of a split change's set the fate of that set.
    pub fn settle_member(&self, id: RecordId, of_set: Fate<'a>) {
        if let Some(mut fate) = self.open(id) {
            let table = fate.table.or(of_set.table);
            *fate = Fate { table, ..of_set };
        }
    }

    /// Notes that a reported record is in the quarantine now.
    pub fn quarantine(&self, id: RecordId) {
        if let Some(mut fate) = self.open(id)
            && let Disposition::Reported(failure) = &fate.end
        {
            fate.end = Disposition::Quarantined(failure.clone());
        }
    }

    /// Takes the writes of refused records from another plan of the same batch. A member of a set keeps its own: the
    /// change was written again when its set was put together.
    pub fn plan_again(&self, other: Ledger<'_>) {
        for (entry, other) in self.0.borrow_mut().iter_mut().zip(other.0.into_inner()) {
            if entry.fate.end.is_refused() && other.fate.write.is_some() {
                entry.fate.write = other.fate.write;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A ledger of records that have ended in these ways.
    pub(crate) fn ended<'a>(
        record: &'a Record,
        ends: impl IntoIterator<Item = (Option<&'a SourceTable>, Disposition)>,
    ) -> Ledger<'a> {
        let mut ledger = Ledger::default();
        for (table, end) in ends {
            ledger.add(record, table, end, None);
        }
        ledger
    }

    #[test]
    fn an_end_stays_unless_it_is_reported_or_from_memory() {
        let record = Record::default();
        let refused = || Disposition::from(Failure::Refused("why".to_owned()));
        for (end, then, expected) in [
            (refused(), Disposition::Applied, Disposition::Applied),
            (Superseded::Remembered.into(), Superseded::Told.into(), Superseded::Told.into()),
            (Disposition::Applied, refused(), Disposition::Applied),
            (Disposition::Filtered, Disposition::Applied, Disposition::Filtered),
            (Superseded::Told.into(), refused(), Superseded::Told.into()),
        ] {
            let ledger = ended(&record, [(None, end)]);
            ledger.settle(RecordId(0), then, SystemTime::UNIX_EPOCH);
            assert_eq!(*ledger.entry(RecordId(0)).end(), expected);
        }
    }

    #[test]
    fn only_a_reported_record_becomes_a_quarantined_one() {
        let record = Record::default();
        let ends =
            [Failure::NoBucket.into(), Disposition::Applied, Disposition::Filtered, Superseded::Remembered.into()];
        let ledger = ended(&record, ends.clone().map(|end| (None, end)));
        (0..4).for_each(|place| ledger.quarantine(RecordId(place)));
        let found: Vec<Disposition> = ledger.entries().iter().map(|entry| entry.end().clone()).collect();
        assert_eq!(found[0], Disposition::Quarantined(Failure::NoBucket));
        assert_eq!(found[1..], ends[1..]);
    }

    #[test]
    fn a_record_of_two_sets_has_the_end_that_asks_for_more_and_of_two_alike_the_first() {
        let refused = || Disposition::from(Failure::Refused("why".to_owned()));
        for (first, second, expected) in [
            (Disposition::Kept, Disposition::Applied, 1),
            (Disposition::Applied, Superseded::Told.into(), 0),
            (Disposition::Applied, Disposition::Applied, 0),
            (refused(), refused(), 0),
            (refused(), Failure::OutOfTime.into(), 1),
        ] {
            let [mut fate, second] = [(first, "first"), (second, "second")]
                .map(|(end, set)| Fate { refused_set: vec![set.to_owned()], ..Fate::of(end) });
            let expected = [&fate, &second][expected].clone();
            fate.raise_to(second);
            assert_eq!((fate.end, fate.refused_set), (expected.end, expected.refused_set));
        }
    }

    #[test]
    fn a_clock_behind_the_commit_s_makes_no_age() {
        let committed = CommitTimestamp::from_nanoseconds(1_773_843_841_076_494_565).unwrap();
        let write = Write {
            committed,
            units: 1,
            tombstone: false,
            overflowed: false,
            notes: Notes::default(),
            coalesced: false,
            freshness: None,
        };
        let mut fate = Fate { write: Some(write), ..Fate::of(Failure::OutOfTime) };
        fate.settle(Disposition::Applied, SystemTime::UNIX_EPOCH);
        assert_eq!(fate.write.unwrap().freshness, Some(Duration::ZERO));
    }
}
