//! The redrive function with independently made versions of Kinesis, SQS and S3, through their real interfaces.
//!
//! `make check-services` starts them, and passes their addresses in the SDK's own variables.

use std::path::Path;
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::{ACCESS_KEY, LocalDynamoDb, environment, sdk_config};
use dsql_view_support::model::Model;
use dsql_view_support::proxy::{Fault, FaultProxy};
use dsql_view_support::runtime_api::Function;
use serde_json::{Value as Json, json};

const COMMIT: u64 = 1_773_843_841_076_494_565;
const VIEW: &str = "view";
const LONG: Duration = Duration::from_secs(120);

fn endpoint(service: &str) -> String {
    let name = format!("AWS_ENDPOINT_URL_{service}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run `make check-services`"))
}

struct Services {
    kinesis: aws_sdk_kinesis::Client,
    sqs: aws_sdk_sqs::Client,
    s3: aws_sdk_s3::Client,
    db: LocalDynamoDb,
    /// The name of the stream, the bucket and the queues; tests with different names do not share them.
    name: &'static str,
    stream_arn: String,
    shard: String,
    failed: String,
    dead: String,
}

impl Services {
    async fn new(name: &'static str) -> Self {
        let db = LocalDynamoDb::start();
        db.create_view(VIEW).await;
        let s3 = aws_sdk_s3::Client::new(&sdk_config(&endpoint("S3")));
        s3.create_bucket().bucket(name).send().await.unwrap();

        let sqs = aws_sdk_sqs::Client::new(&sdk_config(&endpoint("SQS")));
        let dead = sqs.create_queue().queue_name(format!("{name}-dead")).send().await.unwrap().queue_url.unwrap();
        let dead_arn = queue_attribute(&sqs, &dead, QueueAttributeName::QueueArn).await;
        let policy = json!({ "deadLetterTargetArn": dead_arn, "maxReceiveCount": 2 }).to_string();
        let failed = sqs.create_queue().queue_name(name).attributes(QueueAttributeName::RedrivePolicy, policy);
        let failed = failed.send().await.unwrap().queue_url.unwrap();

        let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&endpoint("KINESIS")));
        kinesis.create_stream().stream_name(name).shard_count(1).max_record_size_in_kib(10_240).send().await.unwrap();
        let stream_arn = loop {
            let stream = kinesis.describe_stream_summary().stream_name(name).send().await.unwrap();
            let stream = stream.stream_description_summary.unwrap();
            if stream.stream_status.as_str() == "ACTIVE" {
                break stream.stream_arn;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let shards = kinesis.list_shards().stream_name(name).send().await.unwrap().shards.unwrap();
        Self { kinesis, sqs, s3, db, name, stream_arn, shard: shards[0].shard_id.clone(), failed, dead }
    }

    /// Puts a record; returns its sequence number.
    async fn put(&self, record: impl Into<Vec<u8>>) -> String {
        let request = self.kinesis.put_record().stream_arn(&self.stream_arn).partition_key("p");
        request.data(Blob::new(record.into())).send().await.unwrap().sequence_number
    }

    /// Sends a range to the on-failure queue, as Lambda does.
    async fn fail(&self, first: &str, last: &str) {
        let message = json!({
            "requestContext": { "condition": "RetryAttemptsExhausted", "approximateInvokeCount": 4 },
            "version": "1.0",
            "KinesisBatchInfo": {
                "shardId": self.shard, "streamArn": self.stream_arn, "batchSize": 1,
                "startSequenceNumber": first, "endSequenceNumber": last,
                "approximateArrivalOfFirstRecord": "2026-01-01T00:00:00.000Z",
            },
        });
        self.sqs.send_message().queue_url(&self.failed).message_body(message.to_string()).send().await.unwrap();
    }

    /// The redrive function, with the view behind this endpoint.
    fn redrive(&self, dynamodb: &str) -> Function {
        let mut variables = environment(dynamodb);
        for (name, value) in [
            ("AWS_ENDPOINT_URL_KINESIS", endpoint("KINESIS")),
            ("AWS_ENDPOINT_URL_SQS", endpoint("SQS")),
            ("AWS_ENDPOINT_URL_S3", endpoint("S3")),
            ("VIEW_TABLE", VIEW.to_owned()),
            ("SOURCE_TABLES", "users(id)".to_owned()),
            ("OBJECTS_BUCKET", self.name.to_owned()),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ] {
            variables.push((name, value));
        }
        Function::start(Path::new(env!("CARGO_BIN_EXE_redrive")), variables).unwrap()
    }

    /// Does once what Lambda does between the queue and the function. Returns `None` without a message, else whether
    /// the message is done.
    async fn deliver(&self, function: &mut Function) -> Option<bool> {
        let request = self.sqs.receive_message().queue_url(&self.failed).visibility_timeout(5);
        let received = request.message_system_attribute_names(MessageSystemAttributeName::All).send().await.unwrap();
        let message = received.messages.unwrap_or_default().pop()?;
        let count = &message.attributes.unwrap()[&MessageSystemAttributeName::ApproximateReceiveCount];
        let (id, receipt) = (message.message_id.unwrap(), message.receipt_handle.unwrap());
        let event = json!({ "Records": [{
            "messageId": id, "receiptHandle": receipt, "body": message.body,
            "attributes": { "ApproximateReceiveCount": count }, "eventSource": "aws:sqs",
            "eventSourceARN": queue_attribute(&self.sqs, &self.failed, QueueAttributeName::QueueArn).await,
        }] });
        let answer = function.invoke(event.to_string(), LONG).await.response();
        let done = answer == json!({ "batchItemFailures": [] });
        if done {
            self.sqs.delete_message().queue_url(&self.failed).receipt_handle(receipt).send().await.unwrap();
        } else {
            assert_eq!(answer, json!({ "batchItemFailures": [{ "itemIdentifier": id }] }));
        }
        Some(done)
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let listed = self.s3.list_objects_v2().bucket(self.name).prefix(prefix).send().await.unwrap();
        listed.contents.unwrap_or_default().into_iter().filter_map(|object| object.key).collect()
    }

    /// Checks the view, with its moved columns read from the bucket.
    async fn assert_shows(&self, history: &[Change]) {
        let mut items = self.db.items(VIEW).await;
        for item in items.values_mut() {
            let Some(moved) = item.remove("_overflow") else { continue };
            for (column, address) in moved.as_m().unwrap() {
                let prefix = format!("s3://{}/", self.name);
                let key = address.as_s().unwrap().strip_prefix(&prefix).unwrap();
                let object = self.s3.get_object().bucket(self.name).key(key).send().await.unwrap();
                let json = object.body.collect().await.unwrap().into_bytes();
                item.insert(column.clone(), Value::attribute_of_json(&json).unwrap());
            }
        }
        Model::of(history).assert_equals(&items);
    }
}

async fn queue_attribute(sqs: &aws_sdk_sqs::Client, queue: &str, name: QueueAttributeName) -> String {
    let attributes = sqs.get_queue_attributes().queue_url(queue).attribute_names(name.clone()).send().await.unwrap();
    attributes.attributes.unwrap().remove(&name).unwrap()
}

fn user(id: i64, commit: u64, length: usize) -> Change {
    Change::upsert("users", Value::number(id), COMMIT + commit, vec![("bio", Value::text("\u{1}".repeat(length)))])
}

#[tokio::test]
#[ignore = "takes a Kinesis, an SQS and an S3: make check-services runs it beside them"]
async fn what_lambda_could_not_deliver_comes_from_the_shard_into_the_view() {
    assert_eq!(ACCESS_KEY, std::env::var("AWS_ACCESS_KEY_ID").unwrap());
    let services = Services::new("comes-back").await;
    // Over Lambda's limit: each character takes six bytes in the JSON. The row's own size is that of DSQL's largest
    // row.
    let large = user(1, 0, 850_000);
    assert!(large.record().len() > 4_800_000);
    let (small, split) = (user(2, 0, 10), user(3, 0, 40_000));
    let mut numbers = vec![services.put(small.record()).await, services.put(large.record()).await];
    numbers.push(services.put("poison").await);
    for part in split.split("a chunk", 2).into_iter().rev() {
        numbers.push(services.put(part).await);
    }
    services.put(user(4, 0, 10).record()).await;
    services.fail(&numbers[0], &numbers[numbers.len() - 1]).await;

    let mut redrive = services.redrive(&services.db.endpoint());
    assert_eq!(services.deliver(&mut redrive).await, Some(true), "{}", redrive.lines().join("\n"));
    assert_eq!(services.deliver(&mut redrive).await, None);
    services.assert_shows(&[small.clone(), large.clone(), split.clone()]).await;
    assert_eq!(services.keys("quarantine/unread/").await.len(), 1);
    let objects = services.keys("overflow/").await;
    assert_eq!(objects.len(), 1);

    // A newer, smaller row retires the old row's object, which stays for a day from now.
    let before = services.s3.head_object().bucket(services.name).key(&objects[0]).send().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let smaller = user(1, 1, 10);
    let number = services.put(smaller.record()).await;
    services.fail(&number, &number).await;
    assert_eq!(services.deliver(&mut redrive).await, Some(true));
    services.assert_shows(&[small, smaller, split]).await;
    let after = services.s3.head_object().bucket(services.name).key(&objects[0]).send().await.unwrap();
    assert!(after.last_modified.unwrap() > before.last_modified.unwrap());
    let tags = services.s3.get_object_tagging().bucket(services.name).key(&objects[0]).send().await.unwrap();
    let tags: Vec<(&str, &str)> = tags.tag_set.iter().map(|tag| (tag.key(), tag.value())).collect();
    assert_eq!(tags, [("dsql-view", "unneeded")]);

    // The replay finds that its record is still poison.
    let counts = redrive.invoke(json!({ "replay": "quarantine/" }).to_string(), LONG).await.response();
    assert_eq!((&counts["replayed"], &counts["quarantined"]), (&json!(1), &json!(1)), "{counts}");
    let found = redrive.invoke(json!({ "check": "fragments" }).to_string(), LONG).await.response();
    assert_eq!(found["incompleteSets"], 0);
}

#[tokio::test]
#[ignore = "takes a Kinesis, an SQS and an S3: make check-services runs it beside them"]
async fn a_message_waits_at_sqs_and_ends_in_the_dead_letter_queue() {
    let services = Services::new("waits").await;
    let row = user(1, 0, 10);
    let number = services.put(row.record()).await;
    services.fail(&number, &number).await;
    let broken =
        FaultProxy::start(&services.db.endpoint(), |_| Fault::Error { status: 400, code: "AccessDeniedException" });
    let mut redrive = services.redrive(&broken.endpoint());
    assert_eq!(services.deliver(&mut redrive).await, Some(false));
    // Longer than the receipt's five seconds: the function has asked SQS to wait for a minute.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(services.deliver(&mut redrive).await, None);
    let waiting =
        queue_attribute(&services.sqs, &services.failed, QueueAttributeName::ApproximateNumberOfMessagesNotVisible);
    assert_eq!(waiting.await, "1");

    // A message that Lambda did not send does not wait, and SQS moves it to the dead-letter queue after its deliveries.
    services.sqs.send_message().queue_url(&services.failed).message_body("{}").send().await.unwrap();
    for _ in 0..2 {
        assert_eq!(services.deliver(&mut redrive).await, Some(false));
    }
    assert_eq!(services.deliver(&mut redrive).await, None);
    let dead = services.sqs.receive_message().queue_url(&services.dead).send().await.unwrap();
    assert_eq!(dead.messages.unwrap()[0].body.as_deref(), Some("{}"));
}

#[tokio::test]
#[ignore = "takes a Kinesis, an SQS and an S3: make check-services runs it beside them"]
async fn a_range_that_the_shard_does_not_hold_is_told_to_the_dead_letter_queue() {
    let services = Services::new("lost").await;
    let row = user(1, 0, 10);
    let number = services.put(row.record()).await;
    // Lower than any sequence number in the shard, like that of an expired record.
    let gone = number.replacen('4', "3", 1);
    services.fail(&gone, &number).await;
    let mut redrive = services.redrive(&services.db.endpoint());
    assert_eq!(services.deliver(&mut redrive).await, Some(true), "{}", redrive.lines().join("\n"));
    services.assert_shows(&[row]).await;
    let dead = services.sqs.receive_message().queue_url(&services.dead).send().await.unwrap();
    let lost: Json = serde_json::from_str(dead.messages.unwrap()[0].body.as_deref().unwrap()).unwrap();
    let range = &lost["KinesisBatchInfo"];
    assert_eq!((&range["startSequenceNumber"], &range["shardId"]), (&json!(gone), &json!(services.shard)));
    assert!(range["endSequenceNumber"].as_str().unwrap() < number.as_str());
}
