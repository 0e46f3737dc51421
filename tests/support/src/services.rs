//! All AWS services that the functions call, in the process.

use std::sync::Arc;

use crate::dynamodb::LocalDynamoDb;
use crate::objects::LocalS3;
use crate::proxy::{Call, Fault, FaultProxy, Service};
use crate::queues::LocalQueues;
use crate::secrets::LocalSecrets;
use crate::shards::LocalShards;

/// DynamoDB, S3, the shards of a stream, queues and a secret, each a server of its own.
pub struct LocalServices {
    pub db: LocalDynamoDb,
    pub s3: LocalS3,
    pub shards: Arc<LocalShards>,
    pub queues: LocalQueues,
    pub secrets: LocalSecrets,
}

impl LocalServices {
    /// Starts them with an empty view, an empty bucket and queues, each with its dead-letter queue if it has one.
    pub async fn start(view: &str, bucket: &str, shards: LocalShards, queues: &[(&str, Option<&str>)]) -> Self {
        Self::with(LocalS3::start(), view, bucket, shards, queues).await
    }

    /// Like [`Self::start`], with this S3.
    pub async fn with(
        s3: LocalS3,
        view: &str,
        bucket: &str,
        shards: LocalShards,
        queues: &[(&str, Option<&str>)],
    ) -> Self {
        let db = LocalDynamoDb::start();
        db.create_view(view).await;
        s3.create_bucket(bucket);
        let (queues, secrets) = (LocalQueues::start(queues), LocalSecrets::start("secret"));
        Self { db, s3, shards: Arc::new(shards), queues, secrets }
    }

    /// One endpoint for all of them; `plan` decides the fault of each call.
    pub fn proxy(&self, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> FaultProxy {
        let upstreams = [
            (Service::DynamoDb, self.db.endpoint()),
            (Service::S3, self.s3.endpoint()),
            (Service::Kinesis, self.shards.endpoint()),
            (Service::Sqs, self.queues.endpoint()),
            (Service::SecretsManager, self.secrets.endpoint()),
        ];
        FaultProxy::before_services(&upstreams, plan)
    }
}
