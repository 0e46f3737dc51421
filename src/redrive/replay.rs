//! Sends the records of the quarantine through the pipeline again.
//!
//! What may happen between any two steps, and why nothing is lost: an object is removed only when its record is
//! applied, superseded or filtered, or is in another object of the quarantine. If the function dies before that, the
//! object stays, and its record is superseded the next time.
//!
//! A record may have waited for longer than tombstones are kept. Then the view may no longer show that its row was
//! deleted since. So an old upsert is written only over an older item ([`Guard`]). Otherwise its object stays, and it
//! counts as held back. What may happen between any two steps: the older item expires or is replaced, but the write
//! evaluates the condition; the function dies, and the object stays. `force` drops this guard, for a person who knows
//! that the row is still in the database.
//!
//! [`Guard`]: crate::item::projection::Guard

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tokio::time::Instant;

use super::RedriveError;
use crate::batch::disposition::{Disposition, Failure, MAY_BE_DELETED};
use crate::batch::tally::Tally;
use crate::bucket::{MOST_OBJECTS_IN_FLIGHT, Objects, StoredObject};
use crate::deadline::Deadline;
use crate::handler::Handler;
use crate::item::projection::Origin;
use crate::observe::metrics::{self, Replayed};
use crate::quarantine::{self, QUARANTINE};
use crate::record::delivery::Batch;
use crate::write::view::View;

/// The most bytes of the objects of a batch, and the most records of a batch.
const LARGEST_BATCH: u64 = 8 * 1024 * 1024;
const MOST_RECORDS: usize = 100;

/// A replay of a part of the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The keys of its objects begin with this.
    pub prefix: String,
    /// The key after which to go on, if an earlier replay ran out of time.
    pub after: Option<String>,
    /// Whether to write rows, too, that may have been deleted since.
    pub force: bool,
}

/// How the records ended. All counts, with `kept`, add up to `replayed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayAnswer {
    /// All records.
    pub replayed: usize,
    /// Records that the view shows now.
    pub applied: usize,
    /// Records for which the view shows a newer change, or the same change already.
    pub superseded: usize,
    /// Records whose table is not configured.
    pub filtered: usize,
    /// Records that are still poison.
    pub quarantined: usize,
    /// Records that could not be replayed, and stay where they are.
    pub failed: usize,
    /// Records whose row may have been deleted since. They stay where they are.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_back: usize,
    /// Why records are held back and what to do, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_back_because: Option<&'static str>,
    /// Members of split changes that wait for other members.
    #[serde(skip_serializing_if = "is_zero")]
    pub kept: usize,
    /// The key after which to go on, if the time ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Replay {
    /// Replays the records that the quarantine has under the prefix, as far as the time allows.
    ///
    /// # Errors
    /// The prefix is not in the quarantine, or the bucket does not list its objects.
    pub async fn run<V: View, O: Objects>(
        self,
        handler: &Handler<V, O>,
        objects: &O,
        deadline: Deadline,
    ) -> Result<ReplayAnswer, RedriveError> {
        if !self.prefix.starts_with(QUARANTINE) {
            return Err(RedriveError::NotInQuarantine);
        }
        let origin = if self.force { Origin::Forced } else { Origin::Quarantine };
        let (ends, moved) = (Tally::default(), HashSet::new());
        let mut pass = Pass { handler, objects, origin, deadline, ends, held_back: 0, unread: 0, moved };
        let mut after = self.after;
        loop {
            let page = objects.list(&self.prefix, after.as_deref()).await?;
            for batch in batches(&page.objects) {
                if Instant::now() >= deadline.stop_starting || !pass.replay(batch).await {
                    return Ok(pass.ended(after.or(Some(String::new()))));
                }
                after = batch.last().map(|object| object.key.clone());
            }
            if !page.more {
                break;
            }
        }
        let counts = pass.ended(None);
        if counts.replayed == 0 {
            tracing::warn!(prefix = self.prefix, "the quarantine has nothing under this prefix");
        }
        Ok(counts)
    }
}

/// Groups of objects that are replayed as one batch each.
fn batches(page: &[StoredObject]) -> impl Iterator<Item = &[StoredObject]> {
    let mut rest = page;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |object: &&StoredObject| {
            bytes += object.size;
            bytes <= LARGEST_BATCH
        };
        let count = rest.iter().take(MOST_RECORDS).take_while(fits).count().max(1).min(rest.len());
        let (batch, others) = rest.split_at(count);
        rest = others;
        (!batch.is_empty()).then_some(batch)
    })
}

struct Pass<'h, V, O> {
    handler: &'h Handler<V, O>,
    objects: &'h O,
    origin: Origin,
    deadline: Deadline,
    ends: Tally,
    /// The reported records whose rows may have been deleted since.
    held_back: usize,
    /// Objects that hold no record, or that the bucket did not give.
    unread: usize,
    /// The objects into which this replay has put records again, so that it does not replay them twice.
    moved: HashSet<String>,
}

impl<V: View, O: Objects> Pass<'_, V, O> {
    /// Makes the answer, and emits its metrics. The next replay goes on after the object `after`, if there is one.
    fn ended(self, after: Option<String>) -> ReplayAnswer {
        let Self { ends, held_back, unread, .. } = self;
        let count = Option::unwrap_or_default;
        let counts = ReplayAnswer {
            replayed: ends.received + unread,
            applied: count(ends.applied),
            superseded: count(ends.superseded),
            filtered: count(ends.filtered),
            quarantined: count(ends.quarantined),
            failed: count(ends.reported) - held_back + unread,
            held_back,
            held_back_because: (held_back > 0).then_some(MAY_BE_DELETED),
            kept: count(ends.kept),
            after,
        };
        let failed_replays = counts.quarantined + counts.failed + held_back;
        metrics::emit(Replayed { replayed_records: counts.replayed, failed_replays });
        counts
    }

    /// Replays a batch, and returns whether there was time for all of it.
    async fn replay(&mut self, batch: &[StoredObject]) -> bool {
        let keys: Vec<&String> =
            batch.iter().map(|object| &object.key).filter(|key| !self.moved.contains(*key)).collect();
        let objects = stream::iter(&keys)
            .map(|key| quarantine::kept_record(self.objects, key))
            .buffered(MOST_OBJECTS_IN_FLIGHT)
            .collect::<Vec<_>>();
        let Ok(objects) = tokio::time::timeout_at(self.deadline.stop_starting, objects).await else { return false };
        let mut replayed = Vec::new();
        let mut unread = 0;
        let mut delivery = Batch::default();
        for (key, object) in keys.into_iter().zip(objects) {
            match object {
                Ok(record) => {
                    replayed.push(key);
                    delivery.records.push(record);
                }
                Err(error) => {
                    unread += 1;
                    tracing::warn!(key, %error, "an object of the quarantine is not replayed");
                }
            }
        }
        let ledger = self.handler.process_observed(&delivery, self.origin, self.deadline).await;
        let out_of_time = Disposition::Reported(Failure::OutOfTime);
        let was_time = !ledger.any(|entry| *entry.end() == out_of_time);
        let mut done = Vec::new();
        for (key, entry) in replayed.into_iter().zip(&*ledger.entries()) {
            let stays = match entry.end() {
                Disposition::Applied | Disposition::Superseded(_) | Disposition::Filtered => false,
                // A member of a set may wait for the others for longer than the fragments are kept.
                Disposition::Kept | Disposition::Reported(_) => true,
                Disposition::Quarantined(_) => {
                    // The key names the record's table, which may be known by now, or not any more.
                    let again = quarantine::key(entry.delivered(), entry.table());
                    let stays = again == *key;
                    self.moved.insert(again);
                    stays
                }
            };
            if !stays {
                done.push(key);
            }
            // If the time is over, the next replay goes on before this batch, and then counts the records that stay.
            if was_time || !stays {
                self.ends.add(entry);
                self.held_back += usize::from(entry.failure() == Some(&Failure::MayBeDeleted));
            }
        }
        self.unread += if was_time { unread } else { 0 };
        // If there is no time to remove an object, its record is superseded in the next replay.
        let removed = stream::iter(done).for_each_concurrent(MOST_OBJECTS_IN_FLIGHT, async |key| {
            if let Err(error) = self.objects.delete(key).await {
                tracing::warn!(key, %error, "a replayed object stays in the quarantine");
            }
        });
        let _ = tokio::time::timeout_at(self.deadline.answer_by, removed).await;
        was_time
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn an_answer_names_kept_and_held_back_records_only_if_there_are_any() {
        let answer = |counts| serde_json::to_value(counts).unwrap();
        let expected = serde_json::json!({
            "replayed": 0, "applied": 0, "superseded": 0, "filtered": 0, "quarantined": 0, "failed": 0,
        });
        assert_eq!(answer(ReplayAnswer::default()), expected);
        assert_eq!(answer(ReplayAnswer { kept: 2, ..ReplayAnswer::default() })["kept"], 2);
        let held_back =
            ReplayAnswer { held_back: 3, held_back_because: Some(MAY_BE_DELETED), ..ReplayAnswer::default() };
        assert_eq!(answer(held_back.clone())["heldBack"], 3);
        let because = answer(held_back)["heldBackBecause"].to_string();
        assert!(because.contains("may have been deleted") && because.contains("replay with force"), "{because}");
    }

    #[test]
    fn batches_are_bounded_by_bytes_and_by_records() {
        let objects = |sizes: &[u64]| -> Vec<StoredObject> {
            let object =
                |size: &u64| StoredObject { key: String::new(), size: *size, written_at: SystemTime::UNIX_EPOCH };
            sizes.iter().map(object).collect()
        };
        let sizes = |page: &[u64]| -> Vec<usize> { batches(&objects(page)).map(<[_]>::len).collect() };
        assert_eq!(sizes(&[]), [0_usize; 0]);
        assert_eq!(sizes(&[1, 1]), [2]);
        assert_eq!(sizes(&[LARGEST_BATCH * 2, 1, LARGEST_BATCH, 1]), [1, 1, 1, 1]);
        // Halves of 8 MiB, and objects of a byte more.
        assert_eq!(sizes(&[4_194_304; 5]), [2, 2, 1]);
        assert_eq!(sizes(&[4_194_305; 3]), [1, 1, 1]);
        assert_eq!(sizes(&[1; 201]), [100, 100, 1]);
    }
}
