//! The services that the functions run on, with storms before them.

use std::sync::Arc;
use std::time::Duration;

use dsql_view_support::dynamodb::environment;
use dsql_view_support::proxy::{FaultProxy, Statements};
use dsql_view_support::services::LocalServices;
use dsql_view_support::shards::{LocalShards, Trimmed};

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
}

impl World {
    pub async fn new(storms: Storms) -> Self {
        let shards = LocalShards::start(20, Trimmed::Oldest);
        shards.answer_with_empty_pages(1);
        let queues = [(ON_FAILURE, Some(DEAD)), (DEAD, None)];
        let services = LocalServices::start(VIEW, BUCKET, shards, &queues).await;
        let storms = Arc::new(storms);
        let faults = Arc::clone(&storms);
        let proxy = services.proxy(move |call| faults.fault(call));
        Self { services, storms, proxy }
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
        variables.extend([
            ("VIEW_TABLE", VIEW.to_owned()),
            ("SOURCE_TABLES", SOURCE_TABLES.to_owned()),
            ("OBJECTS_BUCKET", BUCKET.to_owned()),
            ("TOMBSTONE_TTL", format!("{TOMBSTONE_TTL}s")),
            ("WRITE_CONCURRENCY", write_concurrency.to_string()),
            ("BATCHED_CREATES", batched_creates.to_string()),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ]);
        variables
    }
}
