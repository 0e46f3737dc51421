//! The services that the functions run on, with storms before them.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dsql_view_support::dynamodb::{Items, environment};
use dsql_view_support::proxy::{FaultProxy, Statements};
use dsql_view_support::services::LocalServices;
use dsql_view_support::shards::{LocalShards, Trimmed};

use crate::definitions::{DEFINITIONS, VIEW_TABLES, VIEWS};
use crate::storms::Storms;
use crate::workload::SOURCE_TABLES;

pub const VIEW: &str = "view";
pub const BUCKET: &str = "objects";
pub const ON_FAILURE: &str = "on-failure";
pub const DEAD: &str = "dead";
/// In seconds. A round lasts longer, and records that are older than a round are delivered no more.
pub const TOMBSTONE_TTL: u64 = 2;

pub struct World {
    pub services: LocalServices,
    pub storms: Arc<Storms>,
    proxy: FaultProxy,
    /// The definitions file, if there is one.
    definitions: Option<PathBuf>,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(file) = &self.definitions {
            // A file that stays behind does no harm.
            let _ = std::fs::remove_file(file);
        }
    }
}

impl World {
    /// The services, with several tables of the view if there are definitions.
    pub async fn new(storms: Storms, with_definitions: bool) -> Result<Self, Box<dyn Error>> {
        let shards = LocalShards::start(20, Trimmed::Oldest);
        shards.answer_with_empty_pages(1);
        let queues = [(ON_FAILURE, Some(DEAD)), (DEAD, None)];
        let services = LocalServices::start(VIEW, BUCKET, shards, &queues).await;
        let mut definitions = None;
        if with_definitions {
            for table in VIEWS {
                services.db.create_view(table).await;
            }
            let file = std::env::temp_dir().join(format!("torture-{}.toml", std::process::id()));
            std::fs::write(&file, DEFINITIONS)?;
            definitions = Some(file);
        }
        let storms = Arc::new(storms);
        let faults = Arc::clone(&storms);
        let proxy = services.proxy(move |call| faults.fault(call));
        Ok(Self { services, storms, proxy, definitions })
    }

    /// The names of the view's tables.
    pub fn tables(&self) -> Vec<&'static str> {
        let more = VIEWS.into_iter().filter(|_| self.definitions.is_some());
        [VIEW].into_iter().chain(more).collect()
    }

    /// The items of all tables of the view. No two tables have the same key.
    pub async fn items(&self) -> Items {
        let mut items = Items::new();
        for table in self.tables() {
            items.extend(self.services.db.items(table).await);
        }
        items
    }

    /// Waits until no call is on its way. Calls of functions that are gone count too.
    pub async fn quiet(&self) {
        while !self.proxy.is_quiet() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The creates that were sent together and that reached DynamoDB.
    pub fn creates(&self) -> Statements {
        self.proxy.statements()
    }

    /// The functions' variables. The fewer writes are in flight, the more often an invocation's time ends in the middle
    /// of a batch.
    pub fn environment(&self, write_concurrency: usize, batched_creates: bool) -> Vec<(&'static str, String)> {
        let endpoint = self.proxy.endpoint();
        let mut variables = environment(&endpoint);
        for service in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL_SQS"] {
            variables.push((service, endpoint.clone()));
        }
        variables.extend(self.settings());
        variables.extend([
            ("WRITE_CONCURRENCY", write_concurrency.to_string()),
            ("BATCHED_CREATES", batched_creates.to_string()),
        ]);
        variables
    }

    /// The settings that all functions have.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("VIEW_TABLE", VIEW.to_owned()),
            ("OBJECTS_BUCKET", BUCKET.to_owned()),
            ("TOMBSTONE_TTL", format!("{TOMBSTONE_TTL}s")),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ];
        match &self.definitions {
            Some(file) => settings
                .extend([("VIEW_DEFINITIONS", file.display().to_string()), ("VIEW_TABLES", VIEW_TABLES.to_owned())]),
            None => settings.push(("SOURCE_TABLES", SOURCE_TABLES.to_owned())),
        }
        settings
    }
}
