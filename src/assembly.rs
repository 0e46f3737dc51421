//! Keeping the parts of split changes until a set is whole, then applying the change that they make.
//!
//! What may happen between any two steps, and why each change is applied:
//! - A part is written, and the function dies: the record comes again and writes the same object.
//! - Two parts of a set come to two functions at once: each writes its own first and then lists the set. Whichever
//!   writes last sees both, since S3 lists what was written before. That both see the whole set does no harm: the
//!   second put of the change is superseded.
//! - The set is whole, and the function dies before the change is applied: the record that made it whole is not
//!   settled, and comes again.
//! - The change is applied, and a part comes again: the set is whole still, and the change is superseded by itself.
//! - A set is replayed from the quarantine, held back since its row may have been deleted, and a part of it comes again
//!   by the stream: the names of the objects tell that they were replayed, so that the set is held back again.
//! - A set's objects go by their lifecycle: that is fourteen days after the last delivery of each; until then a listing
//!   shows that it waits.
//!
//! Invariants: a part counts as kept only when its object is confirmed; of the parts of a set that come in one batch,
//! the first one has the fate of the whole, so that a whole set which is not applied is reported.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::SystemTime;

use futures_util::stream::{self, StreamExt};

use crate::batch::coalesce::Candidate;
use crate::batch::disposition::{Disposition, Failure};
use crate::batch::plan::{Part, Planner, Role};
use crate::batch::tally::Write;
use crate::bucket::{Objects, ObjectsError, StoredObject, list_all};
use crate::deadline::Deadline;
use crate::item::indexes::Indexes;
use crate::item::projection::{Circumstances, Origin, ViewItem};
use crate::observe::logs;
use crate::quarantine;
use crate::record::decode::{self, Envelope};
use crate::record::delivery::Record;
use crate::record::fragments::{self, AssemblyError, FragmentSet};
use crate::record::tables::SourceTable;
use crate::write::apply::apply;
use crate::write::pace::Pace;
use crate::write::view::View;

/// A part can have megabytes: so many are on their way to the bucket at a time, at most.
const MOST_OBJECTS_IN_FLIGHT: usize = 8;

/// What became of a record that is a part of a split change.
#[derive(Debug)]
pub struct Settled<'a> {
    /// The place of the record in the batch.
    pub record: usize,
    /// The table of the change, where it is known by now.
    pub table: Option<&'a SourceTable>,
    /// The end of its way.
    pub disposition: Disposition,
    /// What it writes, where it applied the change.
    pub write: Option<Write>,
    /// The objects of the whole set, where DynamoDB refused its change: all of them are what has to be quarantined.
    pub refused_set: Vec<String>,
}

impl Settled<'_> {
    /// A part that was not settled before the invocation's time ran out.
    pub fn out_of_time(record: usize) -> Self {
        plain(record, Failure::OutOfTime.into())
    }
}

/// Puts split changes together.
#[derive(Debug)]
pub struct Assembler<'h, V, O> {
    /// Reads the parts.
    pub planner: &'h Planner,
    /// Where the changes go.
    pub view: &'h V,
    /// Where the parts wait.
    pub objects: &'h O,
    /// Where the parts of this batch come from.
    pub origin: Origin,
}

/// A change out of a whole set, or why it is none; with the set's objects.
struct Assembled<'h> {
    table: Option<&'h SourceTable>,
    item: Result<Option<ViewItem>, Failure>,
    objects: Vec<String>,
}

impl<'h, V: View, O: Objects> Assembler<'h, V, O> {
    /// Keeps the parts of a batch, and applies the changes whose sets they make whole. Parts that are not in the answer
    /// were not settled in time.
    pub async fn settle(
        &self,
        parts: &[Part],
        delivered: &[Record],
        request_id: &str,
        deadline: Deadline,
    ) -> Vec<Settled<'h>> {
        let mut settled = Vec::new();
        let mut sets: BTreeMap<&str, Vec<&Part>> = BTreeMap::new();
        let (mut not_noted, mut problem) = (Vec::new(), None);
        let puts = stream::iter(parts)
            .map(async |part: &'_ Part| (part, self.keep(part, &delivered[part.record]).await))
            .buffer_unordered(MOST_OBJECTS_IN_FLIGHT);
        tokio::pin!(puts);
        while let Ok(Some((part, kept))) = tokio::time::timeout_at(deadline.answer_by, puts.next()).await {
            match (part.role, kept) {
                (Role::Member, Ok(())) => sets.entry(&part.folder).or_default().push(part),
                (Role::Member, Err(error)) => settled.push(plain(part.record, Failure::Objects(error).into())),
                (Role::NotNeeded, Ok(())) => {}
                (Role::NotNeeded, Err(error)) => {
                    not_noted.push(&delivered[part.record]);
                    problem = Some(error);
                }
            }
        }
        if let Some(error) = problem {
            let so = "fragments that nobody needs will look as if they waited for others";
            logs::log_bucket(request_id, &not_noted, &error, so);
        }
        for (folder, mut members) in sets {
            members.sort_unstable_by_key(|part| part.record);
            let set = self.settle_set(folder, &members, deadline);
            match tokio::time::timeout_at(deadline.answer_by, set).await {
                Ok(set) => settled.extend(set),
                // Reported, all of them: what is kept is kept again.
                Err(_) => return settled,
            }
        }
        settled
    }

    async fn keep(&self, part: &Part, record: &Record) -> Result<(), ObjectsError> {
        let body = match part.role {
            Role::Member => serde_json::to_vec(record),
            Role::NotNeeded => Ok(b"{}".to_vec()),
        };
        let body = body.map_err(|_| ObjectsError { action: "take an object", reason: "it is no JSON".to_owned() })?;
        self.objects.put(&part.object, body).await
    }

    /// What becomes of a set and its parts in this batch, all of which are kept by now.
    async fn settle_set(&self, folder: &str, members: &[&Part], deadline: Deadline) -> Vec<Settled<'h>> {
        let mut settled: Vec<Settled<'h>> = members.iter().map(|part| plain(part.record, Disposition::Kept)).collect();
        let end = match list_all(self.objects, folder).await {
            Ok(objects) => self.complete(&FragmentSet::of(folder, objects), members, &mut settled, deadline).await,
            Err(error) => Err(error),
        };
        if let (Err(error), Some(first)) = (end, settled.first_mut()) {
            first.disposition = Failure::Objects(error).into();
        }
        settled
    }

    /// Applies what the set has whole.
    ///
    /// # Errors
    /// The bucket did not do its part; the set has to be looked at again.
    async fn complete(
        &self,
        set: &FragmentSet,
        members: &[&Part],
        settled: &mut [Settled<'h>],
        deadline: Deadline,
    ) -> Result<(), ObjectsError> {
        self.quarantine_outside(set, members, settled).await?;
        // A chunk_id names the pieces of one image. Should two changes share an image, both are there.
        for (total, main_record) in set.whole() {
            // A main record has its own change's fate; a piece that of every change it belongs to.
            let is_concerned =
                |part: &Part| fragments::is_same(&part.object, &main_record.key) || !set.has_main_record(&part.object);
            let mut concerned = members
                .iter()
                .zip(settled.iter_mut())
                .filter(|(part, _)| is_concerned(part))
                .map(|(_, settled)| settled);
            let Some(first) = concerned.next() else { continue };
            let indexes = self.view.indexes();
            let Assembled { table, item, objects } = self.assemble(set, total, main_record, &indexes).await?;
            let mut write = item.as_ref().ok().and_then(Option::as_ref).map(Write::of);
            let (disposition, refused_set) = match item {
                Ok(None) => (Disposition::Filtered, Vec::new()),
                Ok(Some(item)) => {
                    let mut end = self.put(item, deadline).await;
                    if end.is_refused() && self.view.learn_indexes(&indexes).await {
                        let again = self.assemble(set, total, main_record, &self.view.indexes()).await?;
                        if let Ok(Some(item)) = again.item {
                            write = Some(Write::of(&item));
                            end = self.put(item, deadline).await;
                        }
                    }
                    match end {
                        refused @ Disposition::Reported(Failure::Refused(_)) => (refused, objects),
                        // A part from the stream has made a set whole that was replayed before. What was replayed is in
                        // the quarantine as it is.
                        Disposition::Reported(failure @ Failure::MayBeDeleted) if self.origin == Origin::Stream => {
                            let of_stream: Vec<_> =
                                objects.into_iter().filter(|object| !fragments::is_replayed(object)).collect();
                            quarantine_set(self.objects, &of_stream, table, &failure).await?;
                            (Disposition::Quarantined(failure), Vec::new())
                        }
                        other => (other, Vec::new()),
                    }
                }
                Err(failure) => {
                    quarantine_set(self.objects, &objects, table, &failure).await?;
                    (Disposition::Quarantined(failure), Vec::new())
                }
            };
            // What shows one of the set's records shows them all. One that is to come again is enough to bring the set
            // again.
            let others = match &disposition {
                Disposition::Reported(_) | Disposition::Kept => Disposition::Kept,
                Disposition::Applied => Disposition::Superseded,
                Disposition::Superseded
                | Disposition::Duplicate
                | Disposition::Known
                | Disposition::Filtered
                | Disposition::Quarantined(_) => disposition.clone(),
            };
            if let (Disposition::Applied, Some(write)) = (&disposition, &mut write) {
                write.shown(SystemTime::now());
            }
            take_over(first, table, &disposition, refused_set);
            if first.disposition == disposition {
                first.write = write;
            }
            for other in concerned {
                take_over(other, table, &others, Vec::new());
            }
        }
        Ok(())
    }

    /// Puts pieces that their set has no place for into the quarantine.
    async fn quarantine_outside(
        &self,
        set: &FragmentSet,
        members: &[&Part],
        settled: &mut [Settled<'h>],
    ) -> Result<(), ObjectsError> {
        let Some((total, pieces)) = set.outside() else { return Ok(()) };
        let failure = Failure::Assemble(AssemblyError::Outside { total });
        for piece in pieces {
            quarantine_set(self.objects, std::slice::from_ref(&piece.key), None, &failure).await?;
            for (part, settled) in
                members.iter().zip(settled.iter_mut()).filter(|(part, _)| fragments::is_same(&part.object, &piece.key))
            {
                *settled = plain(part.record, Disposition::Quarantined(failure.clone()));
            }
        }
        Ok(())
    }

    async fn assemble(
        &self,
        set: &FragmentSet,
        total: u32,
        main_record: &StoredObject,
        indexes: &Indexes,
    ) -> Result<Assembled<'h>, ObjectsError> {
        let pieces: Vec<&StoredObject> = set.pieces_of(total).collect();
        let objects =
            std::iter::once(main_record).chain(pieces.iter().copied()).map(|object| object.key.clone()).collect();
        let poison =
            |error| Ok(Assembled { table: None, item: Err(Failure::Assemble(error)), objects: Vec::clone(&objects) });
        let bytes = pieces.iter().map(|object| object.size).sum();
        if let Err(error) = fragments::check_size(bytes) {
            return poison(error);
        }
        let mut variants = vec![Vec::new(); total as usize];
        for object in pieces {
            let record = record(self.objects, &object.key).await?;
            let text = match decode::read(&record.data.0) {
                Ok(Envelope::Fragment(fragment)) => {
                    fragment.text().map(|text| (fragment.index, text.into_owned())).ok()
                }
                _ => None,
            };
            match text {
                Some((index, text)) if index < total => variants[index as usize].push(text),
                _ => return poison(AssemblyError::NotAPart { object: object.key.clone() }),
            }
        }
        let record = record(self.objects, &main_record.key).await?;
        let was_replayed = self.origin == Origin::Stream && set.is_replayed(main_record, total);
        let origin = if was_replayed { Origin::Quarantine } else { self.origin };
        let now = Circumstances { written_at: SystemTime::now(), origin, indexes };
        let (table, item) = self.planner.assemble(&record.data.0, variants, now);
        Ok(Assembled { table, item, objects })
    }

    async fn put(&self, item: ViewItem, deadline: Deadline) -> Disposition {
        let mut end = Disposition::Reported(Failure::OutOfTime);
        let rows = vec![vec![Candidate { record: 0, item }]];
        apply(self.view, rows, &Pace::new(NonZeroUsize::MIN), deadline, |_, disposition| end = disposition).await;
        end
    }
}

/// A settled record of which no more is known.
fn plain<'a>(record: usize, disposition: Disposition) -> Settled<'a> {
    Settled { record, table: None, disposition, write: None, refused_set: Vec::new() }
}

/// Gives a record the end of a change that it is a part of, unless it has one already that asks for more.
fn take_over<'a>(
    settled: &mut Settled<'a>,
    table: Option<&'a SourceTable>,
    disposition: &Disposition,
    refused_set: Vec<String>,
) {
    if weight(disposition) > weight(&settled.disposition) {
        *settled =
            Settled { record: settled.record, table, disposition: disposition.clone(), write: None, refused_set };
    }
}

/// Which of two ends a record has that made two changes whole: the one that asks for more.
fn weight(disposition: &Disposition) -> u8 {
    match disposition {
        Disposition::Kept => 0,
        Disposition::Filtered => 1,
        Disposition::Superseded | Disposition::Duplicate | Disposition::Known => 2,
        Disposition::Applied => 3,
        Disposition::Quarantined(_) => 4,
        // Refused is no more than quarantined in the end; what may be applied another time must come again.
        Disposition::Reported(Failure::Refused(_)) => 5,
        Disposition::Reported(_) => 6,
    }
}

/// Copies records of a set into the quarantine, each as an object of its own, with why they are no change.
///
/// # Errors
/// Not all of them are confirmed to be there.
pub async fn quarantine_set<O: Objects>(
    objects: &O,
    set: &[String],
    table: Option<&SourceTable>,
    failure: &Failure,
) -> Result<(), ObjectsError> {
    for key in set {
        let record = record(objects, key).await?;
        quarantine::put(objects, &record, table, failure).await?;
    }
    Ok(())
}

/// A record that the bucket keeps.
///
/// # Errors
/// The bucket did not give it, or it is none.
pub async fn record<O: Objects>(objects: &O, key: &str) -> Result<Record, ObjectsError> {
    let body = objects.get(key).await?.ok_or_else(|| unreadable(key))?;
    serde_json::from_slice(&body).map_err(|_| unreadable(key))
}

fn unreadable(key: &str) -> ObjectsError {
    ObjectsError {
        action: "give a record that was kept",
        reason: format!("{key} is gone, or was changed by someone else"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tables::SourceTables;

    #[test]
    fn a_record_of_two_sets_has_the_end_that_asks_for_more_and_of_two_alike_the_first() {
        let tables: SourceTables = "a(id), b(id)".parse().unwrap();
        let [a, b] = [0, 1].map(|place| tables.iter().nth(place));
        let refused = || Disposition::Reported(Failure::Refused("why".to_owned()));
        for (first, second, expected, of) in [
            (Disposition::Kept, Disposition::Applied, Disposition::Applied, b),
            (Disposition::Applied, Disposition::Superseded, Disposition::Applied, a),
            (Disposition::Applied, Disposition::Applied, Disposition::Applied, a),
            (refused(), refused(), refused(), a),
            (refused(), Failure::OutOfTime.into(), Failure::OutOfTime.into(), b),
        ] {
            let mut settled = plain(7, Disposition::Kept);
            settled.table = a;
            settled.disposition = first;
            take_over(&mut settled, b, &second, vec!["object".to_owned()]);
            assert_eq!((settled.record, settled.table, settled.disposition), (7, of, expected));
            assert_eq!(settled.refused_set.is_empty(), of == a);
        }
    }
}
