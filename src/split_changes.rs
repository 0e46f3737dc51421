//! Keeps the main records and fragments of split changes until a set is whole, then applies the change that they make.
//!
//! What may happen between any two steps, and why each change is applied:
//! - A member is written, and the function dies: the record comes again and writes the same object.
//! - Two members of a set come to two functions at once: each function writes its own first and then lists the set.
//!   Whichever writes last sees both, because S3 lists everything that was written before. If both see the whole set,
//!   that does no harm: the second put of the change is superseded.
//! - The set is whole, and the function dies before the change is applied: the record that made it whole is not
//!   settled, and comes again.
//! - The change is applied, and a member comes again: the set is still whole, and the change is superseded by itself.
//! - A set is replayed from the quarantine and held back, because its row may have been deleted. Then a member of it
//!   comes again from the stream: the names of the objects tell that they were replayed, so the set is held back again.
//! - The bucket's lifecycle removes a set's objects, each fourteen days after its last delivery. Until then a listing
//!   shows that the set waits.
//!
//! Invariants: a member counts as kept only once its object is confirmed. Of the members of a set that come in one
//! batch, the first has the fate of the whole, so a whole set that is not applied is reported.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::stream::{self, StreamExt};

use crate::aws::service_error::ServiceError;
use crate::batch::coalesce::Candidate;
use crate::batch::disposition::{Disposition, Failure, Superseded};
use crate::batch::ledger::{Fate, Ledger, RecordId, Write};
use crate::batch::plan::{Planner, Role, SetObject};
use crate::bucket::{self, MOST_OBJECTS_IN_FLIGHT, Objects, StoredObject, list_all};
use crate::deadline::Deadline;
use crate::definitions::source_tables::SourceTable;
use crate::item::projection::{Circumstances, Origin, ViewItem};
use crate::item::schema::TableSchema;
use crate::observe::logs;
use crate::quarantine;
use crate::record::decode::{self, Envelope};
use crate::record::delivery::Record;
use crate::record::fragments::{self, AssemblyError, FragmentSet};
use crate::write::apply::apply;
use crate::write::pace::Pace;
use crate::write::view::{Target, View, schemas};

/// Puts split changes together.
#[derive(Debug)]
pub struct Assembler<'h, V, O> {
    /// Reads main records and fragments.
    pub planner: &'h Planner,
    /// Where the changes go.
    pub views: &'h [Target<V>],
    /// Where the members of sets wait.
    pub objects: &'h O,
    /// Where the records of this batch come from.
    pub origin: Origin,
}

/// A change made from a whole set, or the reason why the set makes no change; with the set's objects.
struct Assembled<'h> {
    table: Option<&'h SourceTable>,
    item: Result<Option<ViewItem>, Failure>,
    objects: Vec<String>,
}

impl<'h, V: View, O: Objects> Assembler<'h, V, O> {
    /// Keeps the members of sets in a batch, applies the changes whose sets they make whole, and settles their records.
    /// A record that is not done in time stays reported.
    pub async fn settle(&self, ledger: &Ledger<'h>, parts: &[SetObject], deadline: Deadline) {
        for part in parts.iter().filter(|part| part.role == Role::Member) {
            ledger.settle_member(part.id, Fate::of(Failure::OutOfTime));
        }
        let mut sets: BTreeMap<&str, Vec<&SetObject>> = BTreeMap::new();
        let (mut not_noted, mut problem) = (Vec::new(), None);
        let puts = stream::iter(parts)
            .map(async |part: &'_ SetObject| {
                let delivered = ledger.entry(part.id).delivered();
                (part, self.keep(part, delivered).await)
            })
            .buffer_unordered(MOST_OBJECTS_IN_FLIGHT);
        tokio::pin!(puts);
        while let Ok(Some((part, kept))) = tokio::time::timeout_at(deadline.answer_by, puts.next()).await {
            match (part.role, kept) {
                (Role::Member, Ok(())) => sets.entry(&part.folder).or_default().push(part),
                (Role::Member, Err(error)) => ledger.settle_member(part.id, Fate::of(Failure::Objects(error))),
                (Role::NotNeeded, Ok(())) => {}
                (Role::NotNeeded, Err(error)) => {
                    not_noted.push(part.id);
                    problem = Some(error);
                }
            }
        }
        if let Some(error) = problem {
            let so = "fragments that nobody needs will look as if they waited for others";
            logs::bucket(ledger, &not_noted, &error, so);
        }
        for (folder, mut members) in sets {
            members.sort_unstable_by_key(|part| part.id);
            let set = self.settle_set(folder, &members, deadline);
            // Without an answer in time, all members stay reported; when they come again, they are kept again.
            let Ok(fates) = tokio::time::timeout_at(deadline.answer_by, set).await else { return };
            for (part, fate) in members.iter().zip(fates) {
                ledger.settle_member(part.id, fate);
            }
        }
    }

    async fn keep(&self, part: &SetObject, record: &Record) -> Result<(), ServiceError> {
        let body = match part.role {
            Role::Member => serde_json::to_vec(record),
            Role::NotNeeded => Ok(b"{}".to_vec()),
        };
        self.objects.put(&part.object, body.map_err(bucket::not_json)?).await
    }

    /// The fates of the members of a set that came in this batch, in their order. All of them are kept by now.
    async fn settle_set(&self, folder: &str, members: &[&SetObject], deadline: Deadline) -> Vec<Fate<'h>> {
        let mut fates: Vec<Fate<'h>> = members.iter().map(|_| Fate::of(Disposition::Kept)).collect();
        let completed = match list_all(self.objects, folder).await {
            Ok(objects) => self.complete(&FragmentSet::of(folder, objects), members, &mut fates, deadline).await,
            Err(error) => Err(error),
        };
        if let (Err(error), Some(first)) = (completed, fates.first_mut()) {
            first.end = Failure::Objects(error).into();
        }
        fates
    }

    /// Applies the changes for which the set is whole.
    ///
    /// # Errors
    /// The bucket failed, and the set has to be looked at again.
    async fn complete(
        &self,
        set: &FragmentSet,
        members: &[&SetObject],
        fates: &mut [Fate<'h>],
        deadline: Deadline,
    ) -> Result<(), ServiceError> {
        self.quarantine_outside(set, members, fates).await?;
        // A chunk_id names the fragments of one image. If two changes share an image, both main records are there.
        for (total, main_record) in set.whole() {
            // A main record shares the fate of its own change; a fragment that of every change it belongs to.
            let is_concerned = |part: &SetObject| {
                fragments::is_same(&part.object, &main_record.key) || !set.has_main_record(&part.object)
            };
            let concerned = members.iter().zip(fates.iter_mut()).filter(|(part, _)| is_concerned(part));
            let mut concerned = concerned.map(|(_, fate)| fate).peekable();
            if concerned.peek().is_none() {
                continue;
            }
            let fate = self.apply_change(set, total, main_record, deadline).await?;
            // All records of a set share its fate. Only one is reported: its redelivery completes the set again.
            let others = match &fate.end {
                Disposition::Reported(_) | Disposition::Kept => Disposition::Kept,
                Disposition::Applied => Superseded::Told.into(),
                Disposition::Superseded(_) | Disposition::Filtered | Disposition::Quarantined(_) => fate.end.clone(),
            };
            let others = Fate { table: fate.table, ..Fate::of(others) };
            for (place, member) in concerned.enumerate() {
                member.raise_to(if place == 0 { fate.clone() } else { others.clone() });
            }
        }
        Ok(())
    }

    /// Applies a change whose fragments are all there, or quarantines its set.
    ///
    /// # Errors
    /// The bucket failed.
    async fn apply_change(
        &self,
        set: &FragmentSet,
        total: u32,
        main_record: &StoredObject,
        deadline: Deadline,
    ) -> Result<Fate<'h>, ServiceError> {
        let known = schemas(self.views);
        let Assembled { table, item, objects } = self.assemble(set, total, main_record, &known).await?;
        let mut fate = Fate { table, ..Fate::of(Disposition::Filtered) };
        let to_quarantine = match item {
            Ok(None) => None,
            Ok(Some(item)) => {
                let place = item.key.view;
                self.put(item, &mut fate, deadline).await;
                if fate.end.is_refused() && self.views[place].view.learn_schema(known[place].as_deref()).await {
                    let again = self.assemble(set, total, main_record, &schemas(self.views)).await?;
                    match again.item {
                        Ok(Some(item)) => self.put(item, &mut fate, deadline).await,
                        Ok(None) => {}
                        Err(failure) if failure.is_poison() => {}
                        Err(failure) => fate.end = failure.into(),
                    }
                }
                match &fate.end {
                    Disposition::Reported(Failure::Refused(_)) => {
                        fate.refused_set = objects;
                        None
                    }
                    // A member from the stream has made a set whole that was replayed before. The replayed members are
                    // still in the quarantine.
                    Disposition::Reported(failure @ Failure::MayBeDeleted) if self.origin == Origin::Stream => {
                        let from_stream = objects.into_iter().filter(|object| !fragments::is_replayed(object));
                        Some((failure.clone(), from_stream.collect()))
                    }
                    _ => None,
                }
            }
            Err(failure) if failure.is_poison() => Some((failure, objects)),
            // Its view table is missing. The record that is reported completes the set again.
            Err(failure) => {
                fate.end = failure.into();
                None
            }
        };
        if let Some((failure, objects)) = to_quarantine {
            quarantine::copy_set(self.objects, &objects, table, &failure).await?;
            fate.end = Disposition::Quarantined(failure);
        }
        Ok(fate)
    }

    /// Puts fragments into the quarantine if their set has no place for them.
    async fn quarantine_outside(
        &self,
        set: &FragmentSet,
        members: &[&SetObject],
        fates: &mut [Fate<'h>],
    ) -> Result<(), ServiceError> {
        let Some((total, outside)) = set.outside() else { return Ok(()) };
        let failure = Failure::Assemble(AssemblyError::Outside { total });
        for fragment in outside {
            quarantine::copy_set(self.objects, std::slice::from_ref(&fragment.key), None, &failure).await?;
            let members = members.iter().zip(fates.iter_mut());
            for (_, fate) in members.filter(|(part, _)| fragments::is_same(&part.object, &fragment.key)) {
                *fate = Fate::of(Disposition::Quarantined(failure.clone()));
            }
        }
        Ok(())
    }

    async fn assemble(
        &self,
        set: &FragmentSet,
        total: u32,
        main_record: &StoredObject,
        tables: &[Option<Arc<TableSchema>>],
    ) -> Result<Assembled<'h>, ServiceError> {
        let fragments: Vec<&StoredObject> = set.fragments_of(total).collect();
        let objects =
            std::iter::once(main_record).chain(fragments.iter().copied()).map(|object| object.key.clone()).collect();
        let poison =
            |error| Ok(Assembled { table: None, item: Err(Failure::Assemble(error)), objects: Vec::clone(&objects) });
        let bytes = fragments.iter().map(|object| object.size).sum();
        if let Err(error) = fragments::check_size(bytes) {
            return poison(error);
        }
        let mut variants = vec![Vec::new(); total as usize];
        for object in fragments {
            let record = quarantine::kept_record(self.objects, &object.key).await?;
            if let Ok(Envelope::Fragment(fragment)) = decode::read(&record.data.0)
                && fragment.index < total
                && let Ok(text) = fragment.text()
            {
                variants[fragment.index as usize].push(text.into_owned());
            } else {
                return poison(AssemblyError::NotAMember { object: object.key.clone() });
            }
        }
        let record = quarantine::kept_record(self.objects, &main_record.key).await?;
        let was_replayed = self.origin == Origin::Stream && set.is_replayed(main_record, total);
        let origin = if was_replayed { Origin::Quarantine } else { self.origin };
        let now = Circumstances { written_at: SystemTime::now(), origin, tables };
        let (table, item) = self.planner.assemble(&record.data.0, variants, now);
        Ok(Assembled { table, item, objects })
    }

    async fn put(&self, item: ViewItem, fate: &mut Fate<'h>, deadline: Deadline) {
        fate.write = Some(Write::of(&item));
        fate.end = Failure::OutOfTime.into();
        let view = &self.views[item.key.view].view;
        let rows = vec![vec![Candidate { id: RecordId(0), item }]];
        apply(view, rows, &Pace::new(NonZeroUsize::MIN), deadline, |_, end| fate.settle(end, SystemTime::now())).await;
    }
}
