//! A table of the materialized view, as the handler sees it: it takes an item only if that is newer than the item in its place.
//!
//! Invariant: the outcomes of [`Put`] hold: the answer is `Applied` or `Superseded` only if the view confirmed that.

use std::future::Future;
use std::sync::Arc;

use crate::batch::disposition::Superseded;
use crate::item::projection::ViewItem;
use crate::item::schema::TableSchema;
use crate::write::attempts::Attempts;
use crate::write::pace::Pace;

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

    /// The key and the indexes of the view's table, as far as they are known. [`View::learn_schema`] learns of a change.
    fn schema(&self) -> Option<Arc<TableSchema>>;

    /// Reads the schema again, for example because an item was refused. Returns whether it differs from `known`.
    fn learn_schema(&self, _known: Option<&TableSchema>) -> impl Future<Output = bool> {
        std::future::ready(false)
    }

    /// Clears whatever an earlier delivery may have left of an item. The item will not be put, because the view shows a
    /// newer one of its row.
    fn clear(&self, superseded: &ViewItem) -> impl Future<Output = Result<(), String>>;
}

/// A table of the view with everything that a function knows of it. A table that is throttled or missing does not slow
/// the others down.
#[derive(Debug)]
pub struct Target<V> {
    /// The name of the DynamoDB table.
    pub name: String,
    /// The table.
    pub view: V,
    /// How many writes may be in flight.
    pub pace: Arc<Pace>,
    /// The outcome of its requests.
    pub attempts: Arc<Attempts>,
}

/// The schemas of these tables, as far as they are known now.
pub fn schemas<V: View>(targets: &[Target<V>]) -> Vec<Option<Arc<TableSchema>>> {
    targets.iter().map(|target| target.view.schema()).collect()
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
