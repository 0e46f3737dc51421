//! The view with rows over DynamoDB's 400 KB: their moved columns first, then the item that names them.
//!
//! What may happen between any two steps, and why no item of the view ever names an object that is not there:
//! - The function dies after some objects, or before the item: nothing names them; the record comes again and writes
//!   the same objects.
//! - A newer change comes between the objects and the item: the item's write is not done, and our objects are retired.
//!   The view only moves on, so nothing will ever name them; should our record come again, it writes them anew first.
//! - The same change comes twice, also at once: both write the same objects, and neither retires them.
//! - The item is written, and the function dies before the replaced item's objects are retired: the record comes again,
//!   finds its own commit, and retires what the row's folder has of older ones. An item without moved columns of its
//!   own is marked with an empty `_overflow` until that is done, so that its record knows; the mark goes with a last
//!   write.
//! - A newer change comes before the mark goes: that one finds the mark, and takes over.
//! - A crash leaves objects, and its record comes again in one batch with a newer change of the row: it is not put any
//!   more, and what it has left is retired once the newer one stands in the view.
//!
//! Invariants: only objects of commits older than one that the view showed are retired; a row that neither has nor had
//! moved columns costs one write and no call to the bucket.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::aws::service_error::ServiceError;
use crate::batch::disposition::Superseded;
use crate::bucket::{Objects, list_all};
use crate::item::indexes::Indexes;
use crate::item::overflow::{self, MovedColumn};
use crate::item::projection::{Notes, ViewItem};
use crate::record::change::CommitTimestamp;
use crate::write::dynamodb::{Condition, DynamoDbView, Standing, Written};
use crate::write::view::{Put, View};

/// Of one row, at a time.
const MOST_OBJECTS_IN_FLIGHT: usize = 4;

/// A view whose rows may be larger than an item, where there is a bucket.
#[derive(Debug, Clone)]
pub struct OverflowView<O> {
    table: DynamoDbView,
    objects: Option<O>,
}

impl<O: Objects> OverflowView<O> {
    /// The view in `table` and, where there is a bucket, in its objects.
    pub fn new(table: DynamoDbView, objects: Option<O>) -> Self {
        Self { table, objects }
    }
}

impl<O: Objects> View for OverflowView<O> {
    async fn put(&self, item: ViewItem) -> Put {
        let Some(objects) = &self.objects else { return self.table.put(item).await };
        let row = Row { table: &self.table, objects };
        let put = if item.moved.is_empty() { row.put_whole(item).await } else { Box::pin(row.put_moved(item)).await };
        put.unwrap_or_else(|not_confirmed| not_confirmed)
    }

    fn indexes(&self) -> Arc<Indexes> {
        self.table.indexes()
    }

    async fn learn_indexes(&self, known: &Indexes) -> bool {
        self.table.learn_indexes(known).await
    }

    fn may_create(&self, item: &ViewItem) -> bool {
        item.moved.is_empty() && self.table.may_create(item)
    }

    async fn create(&self, items: Vec<ViewItem>) -> Vec<bool> {
        self.table.create(items).await
    }

    async fn clear(&self, superseded: &ViewItem) -> Result<(), String> {
        let Some(objects) = &self.objects else { return Ok(()) };
        let left = superseded.moved.iter().map(|column| column.object.clone());
        retire_left(objects, left).await.map_err(|error| error.to_string())
    }
}

/// One row's place in the table and in the bucket. An error is what the put ends as.
struct Row<'v, O> {
    table: &'v DynamoDbView,
    objects: &'v O,
}

/// How a commit stands to what the view shows.
enum Order {
    /// The view shows a newer commit, or does not tell.
    Behind,
    /// The view shows this commit.
    Same,
    /// The view shows an older commit, or nothing of its own.
    Ahead,
}

fn order(ours: CommitTimestamp, standing: Option<&Standing>) -> Order {
    match standing {
        None => Order::Behind,
        Some(Standing { committed: Some(committed), .. }) if *committed == ours => Order::Same,
        Some(Standing { committed: Some(committed), .. }) if committed.supersedes(ours) => Order::Behind,
        Some(_) => Order::Ahead,
    }
}

impl<O: Objects> Row<'_, O> {
    /// Puts an item without moved columns.
    async fn put_whole(&self, item: ViewItem) -> Result<Put, Put> {
        let standing = match self.table.write(item.clone(), Condition::NewerAndNothingMoved).await? {
            Written::Done(_) => return Ok(Put::Applied),
            Written::NotMet(standing) => standing,
        };
        match (order(item.committed, standing.as_ref()), &standing) {
            (Order::Same, Some(Standing { moved: Some(_), .. })) => {
                // On the heap, as all that is rare here: the common way stays small.
                Box::pin(self.finish(item, Put::Superseded(Superseded::Same))).await
            }
            (Order::Same, _) => Ok(Put::Superseded(Superseded::Same)),
            (Order::Behind, Some(_)) => Ok(Put::Superseded(Superseded::Told)),
            (_, None) if item.guard.is_some() => Ok(Put::NothingToReplace),
            (Order::Ahead, _) | (Order::Behind, None) => Box::pin(self.take_over(item)).await,
        }
    }

    /// Puts an item without moved columns in place of one that has some.
    async fn take_over(&self, item: ViewItem) -> Result<Put, Put> {
        let is_guarded = item.guard.is_some();
        let mut marked = item.clone();
        overflow::mark(&mut marked.attributes);
        match self.table.write(marked, Condition::Newer).await? {
            Written::Done(replaced) => {
                self.retire_replaced(&item.key, item.committed, replaced).await?;
                self.unmark(item, Put::Applied).await
            }
            Written::NotMet(standing) => match order(item.committed, standing.as_ref()) {
                Order::Same => self.finish(item, Put::Superseded(Superseded::Same)).await,
                Order::Ahead if is_guarded => Ok(Put::NothingToReplace),
                Order::Behind if is_guarded && standing.is_none() => Ok(Put::NothingToReplace),
                Order::Behind | Order::Ahead => Ok(Put::Superseded(Superseded::Told)),
            },
        }
    }

    /// Does what another delivery of a marked item's change has left.
    async fn finish(&self, item: ViewItem, put: Put) -> Result<Put, Put> {
        self.retire_older(&item.key, item.committed).await?;
        self.unmark(item, put).await
    }

    /// Puts an item with moved columns.
    async fn put_moved(&self, mut item: ViewItem) -> Result<Put, Put> {
        let (key, committed, is_guarded) = (item.key.clone(), item.committed, item.guard.is_some());
        if let Some(guard) = item.guard {
            // Asked first: objects of a row that is held back, and may be deleted, would stay for good.
            let standing = match self.table.write(look(&item), Condition::Never).await? {
                Written::NotMet(standing) => standing,
                Written::Done(_) => return Err(Put::Retryable("a condition that is never met was met".to_owned())),
            };
            let is_ahead = matches!(order(committed, standing.as_ref()), Order::Ahead);
            if standing.is_none_or(|standing| is_ahead && !standing.lets(guard)) {
                return Ok(Put::NothingToReplace);
            }
        }
        let moved = std::mem::take(&mut item.moved);
        let puts = stream::iter(moved)
            .map(|MovedColumn { object, json }| async move { self.objects.put(&object, json.into_bytes()).await });
        puts.buffer_unordered(MOST_OBJECTS_IN_FLIGHT).try_collect::<()>().await.map_err(not_confirmed)?;

        match self.table.write(item, Condition::Newer).await? {
            Written::Done(replaced) => {
                self.retire_replaced(&key, committed, replaced).await?;
                Ok(Put::Applied)
            }
            Written::NotMet(standing) => {
                match (order(committed, standing.as_ref()), standing) {
                    (Order::Same, _) => {
                        self.retire_older(&key, committed).await?;
                        return Ok(Put::Superseded(Superseded::Same));
                    }
                    // Ours among them; and those of an item that ours has replaced, should a crash or a lost answer
                    // have come between that and their retiring.
                    (Order::Behind, Some(Standing { committed: Some(newer), .. })) => {
                        self.retire_older(&key, newer).await?;
                    }
                    // What stood there has expired since. Our objects stay: another replay, without a guard, may have made
                    // them the live ones meanwhile.
                    (Order::Ahead, _) | (Order::Behind, None) if is_guarded => return Ok(Put::NothingToReplace),
                    // Nobody said that ours are not the live ones.
                    (Order::Ahead | Order::Behind, _) => {}
                }
                Ok(Put::Superseded(Superseded::Told))
            }
        }
    }

    /// Takes the mark off the item, if it still stands there; `put` is what came of it before.
    async fn unmark(&self, item: ViewItem, put: Put) -> Result<Put, Put> {
        match self.table.write(item, Condition::ThisCommit).await {
            Ok(Written::Done(_) | Written::NotMet(_)) => Ok(put),
            // It was taken a moment ago: a repetition tells.
            Err(Put::Refused(reason)) => Err(Put::Retryable(reason)),
            Err(other) => Err(other),
        }
    }

    /// Retires the objects of an item that a commit has replaced.
    async fn retire_replaced(&self, key: &str, by: CommitTimestamp, replaced: Option<Standing>) -> Result<(), Put> {
        let Some(Standing { moved: Some(addresses), .. }) = replaced else { return Ok(()) };
        if addresses.is_empty() {
            // It was marked: what it had replaced itself may not be retired yet.
            return self.retire_older(key, by).await;
        }
        let folder = overflow::folder(key);
        let here = format!("s3://{}/", self.objects.bucket());
        let older = |object: &&str| overflow::commit_of(&folder, object).is_some_and(|commit| by.supersedes(commit));
        let objects = addresses.iter().filter_map(|address| address.strip_prefix(&here)).filter(older);
        retire(self.objects, objects.map(str::to_owned).collect()).await.map_err(not_confirmed)
    }

    /// Retires whatever the row has of older commits and is not retired yet.
    async fn retire_older(&self, key: &str, than: CommitTimestamp) -> Result<(), Put> {
        let folder = overflow::folder(key);
        let objects = list_all(self.objects, &folder).await.map_err(not_confirmed)?;
        let older = objects
            .into_iter()
            .map(|object| object.key)
            .filter(|object| overflow::commit_of(&folder, object).is_some_and(|commit| than.supersedes(commit)));
        retire_left(self.objects, older).await.map_err(not_confirmed)
    }
}

/// As little of an item as asks what stands at its key.
fn look(item: &ViewItem) -> ViewItem {
    let attributes = HashMap::new();
    ViewItem { attributes, moved: Vec::new(), key: item.key.clone(), notes: Notes::default(), ..*item }
}

/// Retires those of these objects that are there and not retired yet, so that none is kept for longer by another look.
async fn retire_left<O: Objects>(objects: &O, keys: impl IntoIterator<Item = String>) -> Result<(), ServiceError> {
    let mut left = Vec::new();
    for key in keys {
        if !objects.is_retired(&key).await? {
            left.push(key);
        }
    }
    retire(objects, left).await
}

async fn retire<O: Objects>(objects: &O, keys: Vec<String>) -> Result<(), ServiceError> {
    let retired = stream::iter(keys).map(|key| async move { objects.retire(&key).await });
    retired.buffer_unordered(MOST_OBJECTS_IN_FLIGHT).try_collect().await
}

/// The record comes again, and goes on where this ended.
#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn not_confirmed(error: ServiceError) -> Put {
    Put::Retryable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_ahead_of_older_ones_and_of_what_is_no_item_of_the_view() {
        let commit = |nanoseconds| CommitTimestamp::from_nanoseconds(nanoseconds).unwrap();
        let standing = |committed| Some(Standing { committed, moved: None, deleted: false, expires: None });
        for (standing, expected) in [
            (standing(Some(commit(4))), "ahead"),
            (standing(Some(commit(5))), "same"),
            (standing(Some(commit(6))), "behind"),
            (standing(None), "ahead"),
            (None, "behind"),
        ] {
            let found = match order(commit(5), standing.as_ref()) {
                Order::Behind => "behind",
                Order::Same => "same",
                Order::Ahead => "ahead",
            };
            assert_eq!(found, expected, "{standing:?}");
        }
    }
}
