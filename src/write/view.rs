//! The materialized view, as the handler sees it: a place that takes an item if it is newer than what is there.
//!
//! Invariant: what [`Put`] says of an outcome holds: `Applied` and `Superseded` are only said where the
//! view confirmed it.

use std::future::Future;
use std::sync::Arc;

use crate::batch::disposition::Superseded;
use crate::item::indexes::Indexes;
use crate::item::projection::ViewItem;

/// Where items are written. One trait, so that the handler knows nothing of DynamoDB.
pub trait View {
    /// Puts the item in place of what stands at its key, if it is newer than that.
    fn put(&self, item: ViewItem) -> impl Future<Output = Put>;

    /// As [`View::put`], and the view is asked also where it is known to show a newer commit of the row, or the same.
    fn put_without_memory(&self, item: ViewItem) -> impl Future<Output = Put> {
        self.put(item)
    }

    /// Whether the item may be created along with others, by [`View::create`].
    fn may_create(&self, _item: &ViewItem) -> bool {
        false
    }

    /// Creates some items, each where nothing stands at its key, in one request. In their order: whether the view
    /// confirmed it; nothing is known of the others.
    fn create(&self, items: Vec<ViewItem>) -> impl Future<Output = Vec<bool>> {
        std::future::ready(vec![false; items.len()])
    }

    /// The indexes of the view, as far as they are known; a change of them is learned by [`View::learn_indexes`].
    fn indexes(&self) -> Arc<Indexes> {
        Arc::default()
    }

    /// Looks at the indexes again, since an item was refused: whether they are others than `known`.
    fn learn_indexes(&self, _known: &Indexes) -> impl Future<Output = bool> {
        std::future::ready(false)
    }

    /// Clears what an earlier delivery may have left of an item that will not be put, since the view shows a newer one
    /// of its row.
    fn clear(&self, superseded: &ViewItem) -> impl Future<Output = Result<(), String>>;
}

/// What came of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The view shows the item.
    Applied,
    /// The view shows a newer commit of the row, or this one: it came again, or the answer to its write was lost.
    Superseded(Superseded),
    /// The item may only replace an older one (see [`crate::item::projection::Guard`]), and there is none, or only a tombstone
    /// that was written late.
    NothingToReplace,
    /// The item itself is not taken; no repetition will change that. With the reason, free of values.
    Refused(String),
    /// An index of the view does not take the item: without what the index refuses, or with another index, it is
    /// taken. With the reason, free of values.
    RefusedByIndex(String),
    /// Not confirmed: it may or may not have happened, and may work another time. With the reason.
    Retryable(String),
    /// Nothing can be written at present, this item or another. With the reason.
    Unavailable(String),
}
