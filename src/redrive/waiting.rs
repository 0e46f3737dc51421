//! Looks for records that wait in the bucket. Sets of split changes wait for some of their members: how many sets, for
//! how long, and which? Poison records wait for a person.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures_util::stream::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::aws::service_error::ServiceError;
use crate::bucket::{Objects, StoredObject, pages};
use crate::observe::metrics::{self, IncompleteSets};
use crate::quarantine::QUARANTINE;
use crate::record::fragments::{FRAGMENTS, FragmentSet};

/// The most sets that the log names.
const MOST_NAMED: usize = 20;

/// The sets that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The number of sets that wait.
    pub incomplete_sets: usize,
    /// How long the oldest member of these sets has waited, in seconds.
    pub oldest_seconds: u64,
}

/// The most listings that are read to count the quarantine. Each has up to a thousand records.
const MOST_LISTINGS: usize = 50;

/// Counts the records of the quarantine, and emits the metric [`metrics::Quarantine`]. If there are very many records,
/// not all are counted.
///
/// # Errors
/// The bucket did not list its objects.
pub async fn check_quarantine<O: Objects>(objects: &O) -> Result<usize, ServiceError> {
    let pages = pages(objects, QUARANTINE).take(MOST_LISTINGS);
    let quarantined = pages.try_fold(0, async |count, page| Ok(count + page.len())).await?;
    metrics::emit(metrics::Quarantine { quarantined_objects: quarantined });
    Ok(quarantined)
}

/// Looks at all sets, and tells which ones wait, in the log and by the metric [`IncompleteSets`].
///
/// # Errors
/// The bucket did not list its objects.
pub async fn check<O: Objects>(objects: &O) -> Result<Found, ServiceError> {
    let mut found = Found::default();
    let mut set: Vec<StoredObject> = Vec::new();
    let mut pages = pin!(pages(objects, FRAGMENTS));
    while let Some(page) = pages.try_next().await? {
        // A listing has the objects of a set one after the other.
        for object in page {
            if set.first().is_some_and(|first| folder(&first.key) != folder(&object.key)) {
                found.add(std::mem::take(&mut set));
            }
            set.push(object);
        }
    }
    found.add(set);
    metrics::emit(IncompleteSets {
        incomplete_sets: found.incomplete_sets,
        oldest_incomplete_set: Duration::from_secs(found.oldest_seconds),
    });
    Ok(found)
}

impl Found {
    fn add(&mut self, objects: Vec<StoredObject>) {
        let Some(folder) = objects.first().map(|first| folder(&first.key).to_owned()) else { return };
        let set = FragmentSet::of(&folder, objects);
        let Some(missing) = set.waits_for() else { return };
        let age = set.oldest().and_then(|oldest| SystemTime::now().duration_since(oldest).ok()).unwrap_or_default();
        self.incomplete_sets += 1;
        self.oldest_seconds = self.oldest_seconds.max(age.as_secs());
        if self.incomplete_sets <= MOST_NAMED {
            let (set, seconds) = (folder, age.as_secs());
            tracing::warn!(set, waits_for = %missing, seconds, "a split change waits for its parts");
        }
    }
}

/// The folder of an object, with its last slash.
fn folder(key: &str) -> &str {
    key.rfind('/').map_or(key, |end| &key[..=end])
}
