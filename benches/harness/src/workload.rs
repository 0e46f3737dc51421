//! The changes that the bench writes: rows as applications have them, some 460 bytes as a record. They come as events
//! and as the items that they become.

use std::collections::HashMap;
use std::ops::Range;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::kinesis;
use dsql_view_support::random::Random;

/// The table of all rows, as `SOURCE_TABLES` names it.
pub const SOURCE_TABLES: &str = "order_items(id)";

/// The partition key of the view.
pub const PARTITION_KEY: &str = "pk";

/// The view's table.
pub const VIEW: &str = "view";

const TABLE: &str = "order_items";
const FIRST_COMMIT: u64 = 1_773_843_841_076_494_565;

/// A source of rows that are new in every batch, so that a function cannot know them.
#[derive(Debug, Default)]
pub struct Workload {
    next: u64,
}

impl Workload {
    /// This number of rows that no batch had before.
    pub fn rows(&mut self, count: u64) -> Range<u64> {
        let first = self.next;
        self.next += count;
        first..self.next
    }

    /// The event of this number of changes of rows that no batch had before.
    pub fn event(&mut self, count: u64) -> Bytes {
        event(self.rows(count).map(|row| change(row, row)))
    }

    /// Like [`Workload::event`], but each change says that it created its row.
    pub fn event_of_creates(&mut self, count: u64) -> Bytes {
        event(self.rows(count).map(|row| Change { layout: Layout::Preview, ..change(row, row) }))
    }

    /// Like [`Workload::event`], but the text in each row has this number of bytes.
    pub fn event_of_size(&mut self, count: u64, bytes: usize) -> Bytes {
        let text = "x".repeat(bytes);
        let sized = |row| {
            Change::upsert(TABLE, Value::number(row), FIRST_COMMIT + row, vec![("text", Value::text(text.clone()))])
        };
        event(self.rows(count).map(sized))
    }

    /// The event of this number of changes of this number of rows, in an order in which some commits come late.
    pub fn event_of_history(&mut self, changes: u64, rows: u64) -> Bytes {
        let first = self.rows(rows).start;
        let mut history: Vec<Change> = (0..changes).map(|number| change(first + number % rows, number)).collect();
        Random::new(first).shuffle(&mut history);
        event(history)
    }
}

/// The event of the first changes of this number of rows, always the same.
pub fn event_of_first(rows: u64) -> Bytes {
    event((0..rows).map(|row| change(row, row)))
}

/// A row's change; commits have the order of their numbers.
pub fn change(row: u64, commit: u64) -> Change {
    Change::order_item(row, FIRST_COMMIT + commit)
}

/// The item that the view holds after an upsert.
pub fn item(change: &Change) -> HashMap<String, AttributeValue> {
    let columns = change.key.iter().chain(change.row.iter().flatten());
    let mut item: HashMap<String, AttributeValue> =
        columns.filter_map(|(name, value)| Some((name.clone(), value.attribute()?))).collect();
    item.insert(PARTITION_KEY.to_owned(), AttributeValue::S(change.view_key()));
    item.insert("_ts_ns".to_owned(), AttributeValue::N(change.committed.to_string()));
    item.insert("_tx_id".to_owned(), AttributeValue::S(change.transaction.clone()));
    item
}

fn event(changes: impl IntoIterator<Item = Change>) -> Bytes {
    kinesis::event_of(changes.into_iter().map(|change| change.record())).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_some_460_bytes_and_a_payload_of_6_mib_holds_5300() {
        for row in [0, 1_000, 1_000_000] {
            assert!((440..480).contains(&change(row, row).record().len()), "{}", change(row, row).record().len());
        }
        let mut workload = Workload { next: 10_000_000 };
        assert!((6_000_000..6 * 1024 * 1024).contains(&workload.event(5_300).len()));
    }

    #[test]
    fn no_batch_has_a_row_of_another() {
        let mut workload = Workload::default();
        assert_eq!((workload.rows(10), workload.rows(5)), (0..10, 10..15));
    }
}
