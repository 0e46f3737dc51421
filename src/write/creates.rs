//! Decides which creates are sent together, many in one request, and which rows are put one by one.
//!
//! A create that is sent together with others takes place only if nothing stands at its key. Something may stand there
//! if the record came again or out of order. Then the create has cost a write unit, and the row is put after all. So
//! after each failed create, many other rows are put one by one, and then requests begin anew with one under way. Each
//! request that goes well allows one more.
//!
//! What may happen between any two steps, and why the result is the same as if each row were put:
//! - The create takes place, and its answer is lost: the row is put, and the condition finds the row's own commit.
//! - The create takes place later, after the function has given it up or is gone: only if nothing stands there by then.
//! - Another function writes the key in between: the create does not take place, and the row is put.
//!
//! Invariants: no I/O, no clock; every row that comes in goes out once, and once more if it was not created. Apart from
//! the creates under way when the first one fails, at most one create in fifty is asked for twice.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::batch::coalesce::RowChanges;
use crate::item::projection::ViewItem;
use crate::lock::lock;

/// The most statements that DynamoDB takes in one request.
pub const MOST_TOGETHER: usize = 25;

/// After each failed create, this many other rows are put one by one.
const ROW_BY_ROW: usize = 50;

/// How creates have gone so far, from batch to batch.
#[derive(Debug)]
pub struct Creates(Mutex<TrackRecord>);

#[derive(Debug)]
struct TrackRecord {
    /// How many requests may be under way.
    requests: usize,
    /// How many rows are still to be put one by one.
    row_by_row: usize,
}

impl Default for Creates {
    fn default() -> Self {
        Self(Mutex::new(TrackRecord { requests: 1, row_by_row: 0 }))
    }
}

impl Creates {
    /// How many requests with creates may be under way now.
    fn requests(&self) -> usize {
        let record = lock(&self.0);
        if record.row_by_row > 0 { 0 } else { record.requests }
    }

    /// A request with creates has ended, and `left` of them were not created.
    fn ended(&self, left: usize) {
        let mut record = lock(&self.0);
        record.requests = if left == 0 { record.requests.saturating_add(1) } else { 1 };
        // Of several requests under way, only the worst counts. One bad moment of DynamoDB may have failed them all, so
        // their sum says nothing about the creates to come.
        record.row_by_row = record.row_by_row.max(left.saturating_mul(ROW_BY_ROW));
    }

    /// Counts a row that is put although it could have been created along with others.
    fn put(&self) {
        let mut record = lock(&self.0);
        record.row_by_row = record.row_by_row.saturating_sub(1);
    }
}

/// The rows of a batch that wait to be written.
#[derive(Debug)]
pub struct Queue<'c> {
    creates: Option<&'c Creates>,
    to_create: VecDeque<RowChanges>,
    to_put: VecDeque<RowChanges>,
    under_way: usize,
}

/// The next request to send.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// One row, by a put.
    Put(RowChanges),
    /// Several rows to create, in one request.
    Create(Vec<RowChanges>),
}

impl<'c> Queue<'c> {
    /// A queue of these rows. If there are `creates`, the rows whose newest change `may_create` allows may be created
    /// together.
    pub fn new(rows: Vec<RowChanges>, creates: Option<&'c Creates>, may_create: impl Fn(&ViewItem) -> bool) -> Self {
        let (to_create, to_put) = match creates {
            Some(_) => rows.into_iter().partition(|row| row.first().is_some_and(|newest| may_create(&newest.item))),
            None => (VecDeque::new(), rows.into()),
        };
        Self { creates, to_create, to_put, under_way: 0 }
    }

    /// Takes the next request to send.
    pub fn to_send(&mut self) -> Option<Next> {
        let Some(creates) = self.creates else { return self.to_put.pop_front().map(Next::Put) };
        if self.to_create.len() > 1 && self.under_way < creates.requests() {
            self.under_way += 1;
            let rows = self.to_create.drain(..MOST_TOGETHER.min(self.to_create.len()));
            return Some(Next::Create(rows.collect()));
        }
        let row = self.to_put.pop_front().or_else(|| {
            let row = self.to_create.pop_front()?;
            creates.put();
            Some(row)
        });
        row.map(Next::Put)
    }

    /// A request with creates has ended: the rows in `left` were not created, as far as is known, and are put next.
    pub fn not_created(&mut self, left: Vec<RowChanges>) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(creates) = self.creates {
            creates.ended(left.len());
        }
        self.to_put.extend(left);
    }

    /// The rows that still wait.
    pub fn into_rows(self) -> impl Iterator<Item = RowChanges> {
        self.to_put.into_iter().chain(self.to_create)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::coalesce::Candidate;
    use crate::batch::ledger::RecordId;
    use crate::record::order::CommitTimestamp;

    fn row(key: usize) -> RowChanges {
        let item = ViewItem {
            creates: true,
            ..ViewItem::without_attributes(key.to_string(), CommitTimestamp::from_nanoseconds(1).unwrap())
        };
        vec![Candidate { id: RecordId(key), item }]
    }

    fn rows(count: usize) -> Vec<RowChanges> {
        (0..count).map(row).collect()
    }

    fn even(item: &ViewItem) -> bool {
        item.key.partition.parse::<usize>().unwrap().is_multiple_of(2)
    }

    /// Writes `count` rows that may all be created. Those that `finds` names find something at their keys. Returns how
    /// many creates were asked for, and how many rows were put.
    fn write(creates: &Creates, count: usize, finds: impl Fn(usize) -> bool) -> (usize, usize) {
        let mut waiting = Queue::new(rows(count), Some(creates), |_| true);
        let (mut asked, mut put) = (0, 0);
        while let Some(next) = waiting.to_send() {
            match next {
                Next::Put(_) => put += 1,
                Next::Create(rows) => {
                    asked += rows.len();
                    waiting.not_created(rows.into_iter().filter(|row| finds(row[0].id.0)).collect());
                }
            }
        }
        (asked, put)
    }

    #[test]
    fn without_creates_each_row_is_put_in_its_turn() {
        let mut waiting = Queue::new(rows(3), None, |_| true);
        let next: Vec<_> = std::iter::from_fn(|| waiting.to_send()).collect();
        assert_eq!(next, [0, 1, 2].map(row).map(Next::Put));
    }

    #[test]
    fn rows_that_may_be_created_go_together_and_the_rest_are_put() {
        let creates = Creates::default();
        let mut waiting = Queue::new(rows(7), Some(&creates), even);
        assert_eq!(waiting.to_send(), Some(Next::Create([0, 2, 4, 6].map(row).into())));
        assert_eq!(waiting.to_send(), Some(Next::Put(row(1))));
        waiting.not_created(vec![row(4)]);
        let rest: Vec<_> = std::iter::from_fn(|| waiting.to_send()).collect();
        assert_eq!(rest, [3, 5, 4].map(row).map(Next::Put));
        assert_eq!(waiting.into_rows().count(), 0);
    }

    #[test]
    fn one_create_alone_is_put() {
        let creates = Creates::default();
        let mut waiting = Queue::new(rows(1), Some(&creates), |_| true);
        assert_eq!(waiting.to_send(), Some(Next::Put(row(0))));
        assert_eq!(waiting.to_send(), None);
    }

    #[test]
    fn requests_hold_no_more_than_dynamodb_takes_and_become_more_as_they_go_well() {
        let creates = Creates::default();
        for expected in [1, 2, 3] {
            let mut waiting = Queue::new(rows(1000), Some(&creates), |_| true);
            let next: Vec<_> = (0..10).filter_map(|_| waiting.to_send()).collect();
            let together = next.iter().filter(|next| matches!(next, Next::Create(rows) if rows.len() == MOST_TOGETHER));
            // While those are under way, others are put.
            assert_eq!((next.len(), together.count()), (10, expected));
            waiting.not_created(Vec::new());
            assert_eq!(waiting.into_rows().count(), 1000 - expected * MOST_TOGETHER - (10 - expected));
        }
    }

    #[test]
    fn few_rows_are_asked_for_twice_when_creates_find_something_at_their_keys() {
        for (percent, most_put) in [(0, 0), (1, 11_000), (5, 16_000), (50, 20_000), (100, 20_000)] {
            let creates = Creates::default();
            let finds = |record: usize| record * 7 % 100 < percent;
            let (asked, put) = write(&creates, 20_000, finds);
            let twice = asked + put - 20_000;
            assert!(twice <= MOST_TOGETHER + 20_000 / ROW_BY_ROW, "{percent} %: {twice} were asked for twice");
            assert!(put <= most_put, "{percent} %: {put} were put");
        }
    }

    #[test]
    fn creates_go_together_again_when_they_find_nothing_any_more() {
        let creates = Creates::default();
        assert_eq!(write(&creates, 100, |_| true), (25, 100));
        // 75 of the 1,250 were put already.
        assert_eq!(write(&creates, 1175, |_| false), (0, 1175));
        assert_eq!(write(&creates, 1000, |_| false), (1000, 0));
    }

    #[test]
    fn requests_that_fail_at_the_same_moment_count_as_one() {
        let creates = Creates::default();
        assert_eq!(write(&creates, 1000, |_| false), (1000, 0));
        let mut waiting = Queue::new(rows(1000), Some(&creates), |_| true);
        let mut under_way = Vec::new();
        while let Some(Next::Create(rows)) = waiting.to_send() {
            under_way.push(rows);
        }
        assert_eq!(under_way.len(), 40);
        for rows in under_way {
            waiting.not_created(rows);
        }
        assert_eq!(write(&creates, 1250, |_| false), (0, 1250));
        assert_eq!(write(&creates, 1000, |_| false), (1000, 0));
    }
}
