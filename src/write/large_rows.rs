//! The view with rows over DynamoDB's 400 KB. It writes their moved columns first, then the item that names them.
//!
//! What may happen between any two steps, and why no item of the view ever names an object that is not there:
//! - The function dies after some objects, or before the item: nothing names these objects. The record comes again and
//!   writes the same ones.
//! - A newer change comes between the objects and the item: the item is not written, and our objects are retired. The
//!   view only moves on, so nothing will ever name them. If our record comes again, it first writes them anew.
//! - The same change comes twice, perhaps at the same time: both deliveries write the same objects, and neither retires
//!   them.
//! - The item is written, and the function dies before the replaced item's objects are retired: the record comes again,
//!   finds its own commit, and retires the objects of older commits in the row's folder. An item without moved columns
//!   of its own is marked with an empty `_overflow` until that is done, so that its record knows. A last write removes
//!   the mark.
//! - A newer change comes before the mark is removed: that one finds the mark, and takes over.
//! - A crash leaves objects, and their record comes again in one batch with a newer change of the row: the older change
//!   is not put any more. Its objects are retired once the newer one stands in the view.
//!
//! Invariants: an object is retired only if its commit is older than one that the view showed; a row that neither has
//! nor had moved columns costs one write and no call to the bucket.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::aws::service_error::ServiceError;
use crate::batch::disposition::Superseded;
use crate::bucket::{Objects, list_all};
use crate::item::large_rows::{self, MovedColumn};
use crate::item::notes::Notes;
use crate::item::projection::ViewItem;
use crate::item::schema::TableSchema;
use crate::record::order::CommitTimestamp;
use crate::write::dynamodb::{Condition, DynamoDbView, Standing, Written};
use crate::write::view::{Put, View};

/// The most objects of one row that are on their way at a time.
const MOST_OBJECTS_IN_FLIGHT: usize = 4;

/// A view whose rows may be larger than an item, if there is a bucket.
#[derive(Debug, Clone)]
pub struct OverflowView<O> {
    table: DynamoDbView,
    objects: Option<O>,
}

impl<O: Objects> OverflowView<O> {
    /// The view in `table` and, if there is a bucket, in its objects.
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

    fn schema(&self) -> Option<Arc<TableSchema>> {
        self.table.schema()
    }

    async fn learn_schema(&self, known: Option<&TableSchema>) -> bool {
        self.table.learn_schema(known).await
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

/// One row's place in the table and in the bucket. Its methods return the outcome of a put also as their error.
struct Row<'v, O> {
    table: &'v DynamoDbView,
    objects: &'v O,
}

/// How a commit compares with the one that the view shows.
enum Order {
    /// The view shows a newer commit, or did not tell which commit it shows.
    Behind,
    /// The view shows this commit.
    Same,
    /// The view shows an older commit, or an item that is not its own.
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
                // On the heap, like everything rare here, so that the common path stays small.
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
        large_rows::mark(self.table.marks(), &mut marked.attributes);
        match self.table.write(marked, Condition::Newer).await? {
            Written::Done(replaced) => {
                self.retire_replaced(&folder(&item), item.committed, replaced).await?;
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

    /// Finishes the work that another delivery of a marked item's change has left.
    async fn finish(&self, item: ViewItem, put: Put) -> Result<Put, Put> {
        self.retire_older(&folder(&item), item.committed).await?;
        self.unmark(item, put).await
    }

    /// Puts an item with moved columns.
    async fn put_moved(&self, mut item: ViewItem) -> Result<Put, Put> {
        let (folder, committed, is_guarded) = (folder(&item), item.committed, item.guard.is_some());
        if let Some(guard) = item.guard {
            // Ask first: if the row is held back because it may be deleted, its objects would stay for good.
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
                self.retire_replaced(&folder, committed, replaced).await?;
                Ok(Put::Applied)
            }
            Written::NotMet(standing) => {
                match (order(committed, standing.as_ref()), standing) {
                    (Order::Same, _) => {
                        self.retire_older(&folder, committed).await?;
                        return Ok(Put::Superseded(Superseded::Same));
                    }
                    // This retires our objects. It also retires those of an item that ours replaced, if a crash or a
                    // lost answer came before they were retired.
                    (Order::Behind, Some(Standing { committed: Some(newer), .. })) => {
                        self.retire_older(&folder, newer).await?;
                    }
                    // The item that stood there has expired since. Our objects stay: another replay, without a guard,
                    // may have made them the live ones meanwhile.
                    (Order::Ahead, _) | (Order::Behind, None) if is_guarded => return Ok(Put::NothingToReplace),
                    // Our objects may be the live ones, so leave them.
                    (Order::Ahead | Order::Behind, _) => {}
                }
                Ok(Put::Superseded(Superseded::Told))
            }
        }
    }

    /// Removes the mark from the item, if the item still stands there. `put` is the outcome so far.
    async fn unmark(&self, item: ViewItem, put: Put) -> Result<Put, Put> {
        match self.table.write(item, Condition::ThisCommit).await {
            Ok(Written::Done(_) | Written::NotMet(_)) => Ok(put),
            // DynamoDB took the item a moment ago: a repetition will show whether it still does.
            Err(Put::Refused(reason)) => Err(Put::Retryable(reason)),
            Err(other) => Err(other),
        }
    }

    /// Retires the objects of an item that a commit has replaced.
    async fn retire_replaced(&self, folder: &str, by: CommitTimestamp, replaced: Option<Standing>) -> Result<(), Put> {
        let Some(Standing { moved: Some(addresses), .. }) = replaced else { return Ok(()) };
        if addresses.is_empty() {
            // The replaced item was marked: the objects of the item before it may not be retired yet.
            return self.retire_older(folder, by).await;
        }
        let here = format!("s3://{}/", self.objects.bucket());
        let older = |object: &&str| large_rows::commit_of(folder, object).is_some_and(|commit| by.supersedes(commit));
        let objects = addresses.iter().filter_map(|address| address.strip_prefix(&here)).filter(older);
        retire(self.objects, objects.map(str::to_owned).collect()).await.map_err(not_confirmed)
    }

    /// Retires all objects of the row's older commits that are not retired yet.
    async fn retire_older(&self, folder: &str, than: CommitTimestamp) -> Result<(), Put> {
        let objects = list_all(self.objects, folder).await.map_err(not_confirmed)?;
        let older = objects
            .into_iter()
            .map(|object| object.key)
            .filter(|object| large_rows::commit_of(folder, object).is_some_and(|commit| than.supersedes(commit)));
        retire_left(self.objects, older).await.map_err(not_confirmed)
    }
}

/// A copy of an item without its contents, to ask only which item stands at its key.
fn look(item: &ViewItem) -> ViewItem {
    let attributes = HashMap::new();
    let (key, objects_folder) = (item.key.clone(), Arc::clone(&item.objects_folder));
    ViewItem { attributes, moved: Vec::new(), key, objects_folder, notes: Notes::default(), ..*item }
}

/// The folder of a row's objects.
fn folder(item: &ViewItem) -> String {
    large_rows::folder(&item.objects_folder, &item.key)
}

/// Retires those of the objects that exist and are not retired yet. To retire one again would keep it for longer.
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

/// The put is not confirmed. The record comes again, and goes on where this attempt ended.
#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn not_confirmed(error: ServiceError) -> Put {
    Put::Retryable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_ahead_of_older_ones_and_of_items_that_are_not_the_view_s() {
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
