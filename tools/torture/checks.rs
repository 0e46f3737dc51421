//! The checks that must hold whenever everything that came has been settled, and the expiry that comes with time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view_support::dynamodb::{Item, Items, KEY};
use dsql_view_support::model::Model;
use dsql_view_support::objects::{left_behind, resolved};
use dsql_view_tools::quarantine::{FOLDER, Poison, differences};

use crate::figures::Figures;
use crate::workload::Shows;
use crate::world::{BUCKET, DEAD, TOMBSTONE_TTL, World};

/// Compares the view with the model item by item, and the quarantine with the poison records.
pub async fn compare(world: &World, model: &Model, poison: &Poison, figures: &mut Figures) {
    let items = world.items().await;
    for table in world.tables() {
        let strays = world.services.db.items(table).await.into_keys();
        let strays =
            strays.filter(|key| model.table_of(key).is_some_and(|of_row| !of_row.is_empty() && of_row != table));
        figures.problems.extend(strays.map(|key| format!("{key} stands in {table}, where it does not belong")));
    }
    let left = left_behind(&items, &world.services.s3, BUCKET);
    figures.problems.extend(left.into_iter().map(|object| format!("nothing names the object {object}")));
    figures.items = items.len();
    match resolved(items, &world.services.s3, BUCKET) {
        Ok(view) => {
            let differences = model.differences(&view);
            figures.divergent += differences.len() as u64;
            figures.problems.extend(differences);
        }
        Err(problem) => {
            figures.divergent += 1;
            figures.problems.push(problem);
        }
    }

    let objects = world.services.s3.objects(BUCKET).into_iter().filter(|(key, _)| key.starts_with(FOLDER));
    let quarantine = differences(poison, objects.map(|(key, object)| (key, object.body)));
    figures.unaccounted += quarantine.missing.len() as u64;
    figures.problems.extend(quarantine.wrong.into_iter().chain(quarantine.missing));

    let dead = world.services.queues.queue(DEAD).sent;
    figures.problems.extend(dead.into_iter().map(|message| format!("told to be lost: {message}")));
}

/// Lets DynamoDB remove expired tombstones and rows from before `horizon`, and returns their keys. Nothing older can be
/// delivered behind these any more.
///
/// Those of later commits were written since the round `began`, and expire accordingly.
pub async fn expire(
    world: &World,
    horizon: u64,
    began: SystemTime,
    model: &mut Model,
    figures: &mut Figures,
) -> Vec<String> {
    let mut expired = Vec::new();
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (began, now) = (seconds(began), seconds(SystemTime::now()));
    for table in world.tables() {
        for (key, item) in world.services.db.items(table).await {
            let Some(expiry) = number(&item, "_expires_at") else { continue };
            // The model has checked that it is a tombstone, or a row that expires. Such rows tell a time that has passed.
            if expiry > now + TOMBSTONE_TTL {
                figures.problems.push(format!("{key} expires too late"));
            }
            let committed = commit(&item);
            if committed > horizon && expiry < began + TOMBSTONE_TTL {
                figures.problems.push(format!("{key} expires too early"));
            }
            if expiry <= now && committed < horizon {
                let client = world.services.db.client();
                let removal = client.delete_item().table_name(table).key(KEY, AttributeValue::S(key.clone()));
                if let Err(error) = removal.send().await {
                    figures.problems.push(format!("{key} could not be removed: {error}"));
                    continue;
                }
                model.expire(&key, committed);
                if item.contains_key("_deleted") {
                    figures.expired_tombstones += 1;
                } else {
                    figures.expired_rows += 1;
                }
                expired.push(key);
            }
        }
    }
    expired
}

/// Does the work of the bucket's lifecycle. Fragments go if they were written before `since`, and unneeded objects go
/// at once.
pub fn expire_objects(world: &World, since: SystemTime) {
    for (key, object) in world.services.s3.objects(BUCKET) {
        let old_part = key.starts_with("fragments/") && object.written_at < since;
        if old_part || object.tags == "dsql-view=unneeded" {
            world.services.s3.remove(BUCKET, &key);
        }
    }
}

/// Looks at the view from time to time. No row may step back in commit time, or disappear. Each change that Lambda was
/// told to be done must be there, and so must each object that an item names.
#[derive(Debug, Default)]
pub struct Watch {
    seen: BTreeMap<String, u64>,
    /// The newest commit of each row that the functions are done with.
    done: BTreeMap<String, u64>,
    /// The members that the functions are done with, of sets that have other members left.
    parts: BTreeMap<(String, u64), BTreeSet<usize>>,
}

impl Watch {
    /// Notes that a record is done with. From now on the view must show its change or a newer one.
    pub fn done(&mut self, shows: Shows) {
        let Shows { key, commit, part, of } = shows;
        let parts = self.parts.entry((key.clone(), commit)).or_default();
        parts.insert(part);
        if parts.len() == of {
            let newest = self.done.entry(key).or_default();
            *newest = commit.max(*newest);
        }
    }

    pub fn look(&mut self, world: &World, items: &Items, figures: &mut Figures) {
        for (key, done) in &self.done {
            let shown = items.get(key).map(commit);
            if shown.is_none_or(|shown| shown < *done) {
                figures.unaccounted += 1;
                figures.problems.push(format!("{key}: {done} was said to be done, and the view shows {shown:?}"));
            }
        }
        // Objects are removed only between rounds. So each object that an item names is there, whether it was retired
        // since or not.
        let objects = world.services.s3.objects(BUCKET);
        for (key, item) in items {
            let Some(AttributeValue::M(moved)) = item.get("_overflow") else { continue };
            for address in moved.values().filter_map(|address| address.as_s().ok()) {
                let object = address.strip_prefix(&format!("s3://{BUCKET}/"));
                if object.is_none_or(|object| !objects.contains_key(object)) {
                    figures.problems.push(format!("{key} names {address}, which is not there"));
                }
            }
        }
        let mut now: BTreeMap<String, u64> = items.iter().map(|(key, item)| (key.clone(), commit(item))).collect();
        for (key, before) in &self.seen {
            match now.get(key) {
                Some(committed) if committed >= before => {}
                found => figures.problems.push(format!("{key} stepped back from {before} to {found:?}")),
            }
        }
        std::mem::swap(&mut self.seen, &mut now);
    }

    /// Begins anew after tombstones were removed.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

fn commit(item: &Item) -> u64 {
    number(item, "_ts_ns").unwrap_or_default()
}

fn number(item: &Item, attribute: &str) -> Option<u64> {
    item.get(attribute)?.as_n().ok()?.parse().ok()
}
