//! The library's handler on a DynamoDB of the test's own.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dsql_view::aws::https;
use dsql_view::batch::disposition::Disposition;
use dsql_view::config::Config;
use dsql_view::deadline::Deadline;
use dsql_view::handler::DynamoDbHandler;
use dsql_view::item::projection::Origin;
use dsql_view::record::delivery::Batch;
use dsql_view_support::cdc::Change;
use dsql_view_support::dynamodb::{Items, LocalDynamoDb, sdk_config};
use dsql_view_support::kinesis;
use dsql_view_support::model::Model;
use dsql_view_support::objects::{LocalS3, left_behind, resolved};
use dsql_view_support::proxy::{Call, Fault, FaultProxy, Service};
use serde_json::Value;

pub const VIEW: &str = "view";

/// An aggregated record as Amazon's Kinesis Producer Library writes it: its magic number, a Protobuf message with one
/// record of JSON in it, and the message's MD5.
pub const AGGREGATED: &[u8] = b"\xf3\x89\x9a\xc2\x0a\x01a\x1a)\x08\x00\x1a%{\"id\":2,\"card\":\"4111-1111-1111-1111\"}\
    5\x93\xc5^\x95[{$\xa9\x93\x03\xc5\x89&\xf4\x80";

/// Longer than any test takes, so that no deadline is near.
pub const PLENTY: Duration = Duration::from_secs(120);

/// A function's handler.
pub struct Function {
    handler: DynamoDbHandler,
}

impl Function {
    /// A function that keeps `source_tables` in the table [`VIEW`] behind `endpoint`.
    pub async fn new(endpoint: &str, source_tables: &str) -> Self {
        Self::with_settings(endpoint, VIEW, &[("SOURCE_TABLES", source_tables)]).await
    }

    /// Like [`Function::new`], with creates sent together or not.
    pub async fn creating(endpoint: &str, source_tables: &str, together: bool) -> Self {
        let together = if together { "true" } else { "false" };
        Self::with_settings(endpoint, VIEW, &[("SOURCE_TABLES", source_tables), ("BATCHED_CREATES", together)]).await
    }

    /// A function with these settings.
    pub async fn with_settings(endpoint: &str, view_table: &str, settings: &[(&str, &str)]) -> Self {
        let variable = |name: &str| match name {
            "VIEW_TABLE" => Some(view_table.to_owned()),
            _ => settings.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()),
        };
        let config = Config::from_variables(variable).expect("settings of the test's own");
        let sdk_config = sdk_config(endpoint).into_builder().http_client(https::client().unwrap()).build();
        let handler = DynamoDbHandler::start(config, &sdk_config).await.expect("a view that fits");
        Self { handler }
    }

    /// Delivers a batch of these data; returns what became of each record.
    pub async fn dispositions<D: AsRef<[u8]>>(
        &self,
        data: impl IntoIterator<Item = D>,
        time: Duration,
    ) -> Vec<Disposition> {
        let event = parsed(&kinesis::event_of(data));
        let ledger = self.handler.process(&event, Origin::Stream, Deadline::after(time)).await.ledger;
        let entries = ledger.entries();
        assert_eq!(entries.len(), event.records.len(), "every record ends");
        entries.iter().map(|entry| entry.end().clone()).collect()
    }

    /// Delivers a batch of these data; returns the places of the reported records.
    pub async fn deliver<D: AsRef<[u8]>>(&self, data: impl IntoIterator<Item = D>) -> Vec<u64> {
        kinesis::reported(&self.answer(&kinesis::event_of(data)).await)
    }

    /// Delivers a Lambda event; returns the answer as Lambda gets it.
    pub async fn answer(&self, event: &Value) -> Value {
        let response = self.handler.handle(&parsed(event), Deadline::after(PLENTY)).await;
        serde_json::to_value(response).expect("an answer is JSON")
    }
}

/// The bucket of a [`World`].
pub const BUCKET: &str = "objects";

/// A DynamoDB with an empty view, and an S3 with an empty bucket.
pub struct World {
    pub db: LocalDynamoDb,
    pub s3: LocalS3,
    faultless: FaultProxy,
}

impl World {
    pub async fn new() -> Self {
        let s3 = LocalS3::start();
        s3.create_bucket(BUCKET);
        let db = dynamodb().await;
        let faultless = endpoint(&db, &s3, |_| Fault::None);
        Self { db, s3, faultless }
    }

    /// One endpoint for both; `plan` decides its faults.
    pub fn endpoint(&self, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> FaultProxy {
        endpoint(&self.db, &self.s3, plan)
    }

    /// Two functions that see no faults.
    pub async fn two_functions(&self) -> [Function; 2] {
        [self.function(&self.faultless).await, self.function(&self.faultless).await]
    }

    /// A function on an endpoint of [`World::endpoint`].
    pub async fn function(&self, endpoint: &FaultProxy) -> Function {
        let settings = [("SOURCE_TABLES", "users(id)"), ("OBJECTS_BUCKET", BUCKET)];
        Function::with_settings(&endpoint.endpoint(), VIEW, &settings).await
    }

    /// The view as a reader sees it who follows `_overflow`.
    pub async fn view(&self) -> Items {
        let items = items(&self.db).await;
        resolved(items, &self.s3, BUCKET).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Checks that the view shows the newest of these changes for each row, and that no object is left behind.
    pub async fn assert_shows(&self, history: &[Change]) {
        Model::of(history).assert_equals(&self.view().await);
        let left = left_behind(&items(&self.db).await, &self.s3, BUCKET);
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// The keys of the bucket that begin with this prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.s3.objects(BUCKET).into_keys().filter(|key| key.starts_with(prefix)).collect()
    }

    /// Delivers a batch to a function that dies at its `step`-th call, before or after the call takes effect. Returns
    /// whether the function made that many calls.
    pub async fn crash(&self, batch: &[String], step: usize, after: bool) -> bool {
        let (reached, mut crash) = tokio::sync::mpsc::unbounded_channel();
        let calls = AtomicUsize::new(0);
        let endpoint = self.endpoint(move |_| {
            if calls.fetch_add(1, Ordering::SeqCst) != step {
                return Fault::None;
            }
            if after {
                return Fault::DelayAfterTheWrite(PLENTY);
            }
            let _ = reached.send(());
            Fault::Cut
        });
        let happened = async {
            while !endpoint.holds_an_answer_back() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // Call 0 is DescribeTable.
        let function = self.function(&endpoint).await;
        tokio::select! {
            biased;
            _ = crash.recv() => true,
            () = happened => true,
            _ = function.deliver(batch) => false,
        }
    }
}

fn endpoint(db: &LocalDynamoDb, s3: &LocalS3, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> FaultProxy {
    FaultProxy::before_services(&[(Service::DynamoDb, db.endpoint()), (Service::S3, s3.endpoint())], plan)
}

fn parsed(event: &Value) -> Batch {
    serde_json::from_str(&event.to_string()).expect("a Lambda event")
}

/// A DynamoDB with an empty view.
pub async fn dynamodb() -> LocalDynamoDb {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    db
}

/// The faults of a bucket: access denied, down, cut off, slow.
pub fn faults_of_a_bucket() -> [Fault; 4] {
    [
        Fault::Error { status: 403, code: "AccessDenied" },
        Fault::Error { status: 503, code: "SlowDown" },
        Fault::Cut,
        Fault::Delay(PLENTY),
    ]
}

/// Everything in the view.
pub async fn items(db: &LocalDynamoDb) -> Items {
    db.items(VIEW).await
}

/// All orders of this number of things.
pub fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let places = |order: &Vec<usize>| -> Vec<Vec<usize>> {
        (0..count)
            .map(|place| {
                let mut longer = order.clone();
                longer.insert(place, count - 1);
                longer
            })
            .collect()
    };
    shorter.iter().flat_map(places).collect()
}
