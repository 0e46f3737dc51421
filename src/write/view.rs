//! The materialized view, as the handler sees it: it takes an item only if that is newer than the item in its place.
//!
//! Invariant: the outcomes of [`Put`] hold: the answer is `Applied` or `Superseded` only if the view confirmed that.

use std::future::Future;
use std::sync::Arc;

use crate::batch::disposition::Superseded;
use crate::item::indexes::Indexes;
use crate::item::projection::ViewItem;

/// A place to write items. It is a trait, so that the handler knows nothing of DynamoDB.
pub trait View {
    /// Puts the item in place of the one that stands at its key, if it is newer than that one.
    fn put(&self, item: ViewItem) -> impl Future<Output = Put>;

    /// Like [`View::put`], but asks the view even if it is known to show this commit of the row or a newer one.
    fn put_without_memory(&self, item: ViewItem) -> impl Future<Output = Put> {
        self.put(item)
    }

    /// Whether the item may be created along with others, by [`View::create`].
    fn may_create(&self, _item: &ViewItem) -> bool {
        false
    }

    /// Creates some items in one request, each only if nothing stands at its key. Returns for each item, in their
    /// order, whether the view confirmed it. Nothing is known of the others.
    fn create(&self, items: Vec<ViewItem>) -> impl Future<Output = Vec<bool>> {
        std::future::ready(vec![false; items.len()])
    }

    /// The indexes of the view, as far as they are known. [`View::learn_indexes`] learns of a change.
    fn indexes(&self) -> Arc<Indexes> {
        Arc::default()
    }

    /// Reads the indexes again, for example because an item was refused. Returns whether they differ from `known`.
    fn learn_indexes(&self, _known: &Indexes) -> impl Future<Output = bool> {
        std::future::ready(false)
    }

    /// Clears whatever an earlier delivery may have left of an item. The item will not be put, because the view shows a
    /// newer one of its row.
    fn clear(&self, superseded: &ViewItem) -> impl Future<Output = Result<(), String>>;
}

/// The outcome of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The view shows the item.
    Applied,
    /// The view shows a newer commit of the row, or this one, because it came again or the answer to its write was
    /// lost.
    Superseded(Superseded),
    /// The item may only replace an older one (see [`crate::item::projection::Guard`]). There is no older one, or only
    /// a tombstone that was written late.
    NothingToReplace,
    /// The view refuses the item itself, and no repetition will change that. With the reason, which holds no values.
    Refused(String),
    /// An index of the view refuses the item. The view takes it without the values that the index refuses, or with
    /// another index. With the reason, which holds no values.
    RefusedByIndex(String),
    /// The write is not confirmed: it may or may not have happened, and may succeed another time. With the reason.
    Retryable(String),
    /// Nothing can be written at present, neither this item nor another. With the reason.
    Unavailable(String),
}
