//! Old changes that come back from the quarantine after their row was deleted and its tombstone has expired.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dsql_view_support::cdc::Change;
use dsql_view_support::dynamodb::environment;
use dsql_view_support::kinesis::{STREAM, sequence_number};
use dsql_view_support::model::Model;
use dsql_view_support::objects::resolved;
use dsql_view_support::random::Random;
use dsql_view_support::runtime_api::{Function, Outcome};
use serde_json::json;

use crate::figures::Figures;
use crate::world::{BUCKET, World};

const FOLDER: &str = "quarantine/replayed/";
/// The most rows that a round replays.
const MOST_ROWS: usize = 25;
const LONG: Duration = Duration::from_secs(60);

/// The changes that were committed so far, by row.
pub struct Replays {
    redrive: PathBuf,
    /// Whether the function is told that it may write all of them, which brings rows back.
    force: bool,
    random: Random,
    history: BTreeMap<String, Vec<Change>>,
    number: u64,
}

impl Replays {
    /// Replays by the binary of the redrive function.
    pub fn new(redrive: PathBuf, force: bool, random: Random) -> Self {
        Self { redrive, force, random, history: BTreeMap::new(), number: 0 }
    }

    /// Takes note of changes.
    pub fn committed(&mut self, changes: &[Change]) {
        for change in changes {
            self.history.entry(change.view_key()).or_default().push(change.clone());
        }
    }

    /// Replays older changes of some rows whose tombstones or items have `expired`. No row may come back. The deletions
    /// and hidden rows among these changes may leave tombstones, which the `model` gets too.
    pub async fn replay(
        &mut self,
        world: &World,
        expired: &[String],
        model: &mut Model,
        figures: &mut Figures,
    ) -> Result<(), Box<dyn Error>> {
        let rows: BTreeSet<&String> = expired.iter().take(MOST_ROWS).collect();
        // All changes but the newest, which is the one that has expired.
        let older = |changes: &'_ Vec<Change>| changes.len().saturating_sub(1);
        let of_rows = rows.iter().filter_map(|row| self.history.get(*row));
        let mut changes: Vec<&Change> = of_rows.flat_map(|changes| &changes[..older(changes)]).collect();
        self.random.shuffle(&mut changes);
        if changes.is_empty() {
            return Ok(());
        }
        for change in &changes {
            self.number += 1;
            let object = json!({
                "reason": "a reason", "stage": "apply", "streamArn": STREAM, "shardId": "shardId-000000000000",
                "sequenceNumber": sequence_number(self.number), "partitionKey": "p",
                "data": BASE64_STANDARD.encode(change.record()),
            });
            let key = format!("{FOLDER}{:08}.json", self.number);
            world.services.s3.put(BUCKET, &key, object.to_string(), SystemTime::now());
        }
        // The replay is killed on its way, and begun anew.
        let event = json!({ "replay": FOLDER, "force": self.force }).to_string();
        let killed_after = Duration::from_millis(self.random.number() % 40);
        let mut killed = start(world, &self.redrive)?;
        let _ = tokio::time::timeout(killed_after, killed.invoke(event.clone(), LONG)).await;
        drop(killed);
        world.quiet().await;
        let outcome = start(world, &self.redrive)?.invoke(event, LONG).await;
        let Outcome::Response(counts) = &outcome else { return Err(format!("a replay gave {outcome:?}").into()) };
        figures.replayed += counts["replayed"].as_u64().unwrap_or_default();
        figures.held_back += counts["heldBack"].as_u64().unwrap_or_default();

        for change in changes {
            if model.is_tombstone(change) {
                model.commit(change);
            }
        }
        let view = resolved(world.items().await, &world.services.s3, BUCKET)?;
        let differences = model.differences(&view);
        figures.divergent += differences.len() as u64;
        figures.problems.extend(differences.into_iter().map(|difference| format!("after a replay: {difference}")));
        // This is the work of a person who has looked at the database: remove the records that are held back.
        for (key, _) in world.services.s3.objects(BUCKET) {
            if key.starts_with(FOLDER) {
                world.services.s3.remove(BUCKET, &key);
            }
        }
        Ok(())
    }
}

/// Starts the function without the storms, because they do to a replay what they do to any batch.
fn start(world: &World, redrive: &Path) -> Result<Function, Box<dyn Error>> {
    let mut variables = environment(&world.services.db.endpoint());
    variables.push(("AWS_ENDPOINT_URL_S3", world.services.s3.endpoint()));
    variables.extend(world.settings());
    Ok(Function::start(redrive, variables)?)
}
