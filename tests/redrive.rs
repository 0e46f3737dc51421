//! The redrive function brings back what Lambda could not deliver, says what is lost, and replays the quarantine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::{KEY, environment};
use dsql_view_support::kinesis::{self, KinesisRecord, on_failure, sequence_number};
use dsql_view_support::model::Model;
use dsql_view_support::objects::{LocalS3, resolved};
use dsql_view_support::proxy::{Call, Fault, FaultProxy, Service};
use dsql_view_support::queues;
use dsql_view_support::runtime_api::{Function, Outcome};
use dsql_view_support::services::LocalServices;
use dsql_view_support::shards::{LocalShards, Trimmed};
use serde_json::{Value as Json, json};

const COMMIT: u64 = 1_773_843_841_076_494_565;
const VIEW: &str = "view";
const BUCKET: &str = "objects";
const LONG: Duration = Duration::from_secs(60);

struct World {
    services: LocalServices,
}

impl World {
    async fn new() -> Self {
        Self::with_shards(LocalShards::start(3, Trimmed::Oldest)).await
    }

    async fn with_shards(shards: LocalShards) -> Self {
        let queues = [("failed", Some("dead")), ("dead", None), ("alone", None)];
        Self { services: LocalServices::with(LocalS3::with_pages_of(2), VIEW, BUCKET, shards, &queues).await }
    }

    /// The function on an endpoint; `plan` decides the endpoint's faults.
    fn function(&self, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> Redrive {
        // The changes of these tests are old; with tombstones kept this long, none has expired since.
        self.function_with("36500d", plan)
    }

    fn function_with(&self, tombstone_ttl: &str, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> Redrive {
        self.start(env!("CARGO_BIN_EXE_redrive"), tombstone_ttl, plan)
    }

    fn start(
        &self,
        binary: &str,
        tombstone_ttl: &str,
        plan: impl Fn(&Call) -> Fault + Send + Sync + 'static,
    ) -> Redrive {
        let endpoint = self.services.proxy(plan);
        let mut variables = environment(&endpoint.endpoint());
        for (name, value) in [
            ("AWS_ENDPOINT_URL", endpoint.endpoint().as_str()),
            ("VIEW_TABLE", VIEW),
            ("SOURCE_TABLES", "users(id)"),
            ("OBJECTS_BUCKET", BUCKET),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            ("TOMBSTONE_TTL", tombstone_ttl),
        ] {
            variables.push((name, value.to_owned()));
        }
        let function = Function::start(Path::new(binary), variables).unwrap();
        Redrive { function, _endpoint: endpoint }
    }

    /// Puts changes into the first shard, from `place` on.
    fn put(&self, place: u64, records: impl IntoIterator<Item = impl Into<Vec<u8>>>) {
        self.services.shards.put((place..).zip(records).map(|(place, record)| KinesisRecord::at(place, record)));
    }

    /// Writes the item of a change into the view, as a function did at `written_at`, in seconds since the epoch.
    /// Tombstones are kept for 14 days.
    async fn stand(&self, change: &Change, written_at: u64) {
        let mut view = self.start(env!("CARGO_BIN_EXE_dsql-view"), "14d", no_fault);
        let answer = view.invoke(&kinesis::event_of([change.record()])).await;
        assert!(kinesis::reported(&answer).is_empty());
        if change.row.is_none() {
            let expiry = AttributeValue::N((written_at + 14 * 86_400).to_string());
            let update = self.services.db.client().update_item().table_name(VIEW);
            let update = update.key(KEY, AttributeValue::S(change.view_key()));
            let update = update.update_expression("SET #e = :e").expression_attribute_names("#e", "_expires_at");
            update.expression_attribute_values(":e", expiry).send().await.unwrap();
        }
    }

    async fn assert_shows(&self, history: &[Change]) {
        let view = resolved(self.services.db.items(VIEW).await, &self.services.s3, BUCKET).unwrap();
        Model::of(history).assert_equals(&view);
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        self.services.s3.objects(BUCKET).into_keys().filter(|key| key.starts_with(prefix)).collect()
    }

    /// The record's bytes in an object of the quarantine, in Base64.
    fn data(&self, key: &str) -> String {
        let object: Json = serde_json::from_slice(&self.services.s3.objects(BUCKET)[key].body).unwrap();
        object["data"].as_str().unwrap().to_owned()
    }

    /// The ranges that the dead-letter queue was told of, by the places of their ends. An end that is no record's
    /// number is `None`.
    fn told_to_be_lost(&self) -> Vec<(String, String)> {
        let range = |body: &String| {
            let body: Json = serde_json::from_str(body).unwrap();
            assert_eq!(body["requestContext"]["condition"], "RecordsLost");
            let number = |name: &str| body["KinesisBatchInfo"][name].as_str().unwrap().to_owned();
            (number("startSequenceNumber"), number("endSequenceNumber"))
        };
        self.services.queues.queue("dead").sent.iter().map(range).collect()
    }
}

struct Redrive {
    function: Function,
    _endpoint: FaultProxy,
}

impl Redrive {
    /// Delivers a message; returns whether it is done.
    async fn deliver(&mut self, body: &Json, times: u32) -> bool {
        self.deliver_from("failed", &body.to_string(), times, LONG).await
    }

    async fn deliver_from(&mut self, queue: &str, body: &str, times: u32, time: Duration) -> bool {
        let event = queues::event(queue, "m1", body, times);
        let answer = self.function.invoke(event.to_string(), time).await.response();
        let failed = json!({ "batchItemFailures": [{ "itemIdentifier": "m1" }] });
        assert!(answer == failed || answer == json!({ "batchItemFailures": [] }), "{answer}");
        answer != failed
    }

    async fn invoke(&mut self, event: &Json) -> Json {
        self.function.invoke(event.to_string(), LONG).await.response()
    }

    /// The highest memory use of its process so far, in kilobytes.
    fn peak_memory(&self) -> u64 {
        let process = self.function.id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The lines with this metric; waits for this many, because the function's output comes through its own pipe.
    async fn metric(&self, name: &str, count: usize) -> Vec<Json> {
        let found = || -> Vec<Json> {
            let lines = self.function.lines();
            let metrics = lines.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
            metrics
                .filter(|line| {
                    line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "dsql-view" && !line[name].is_null()
                })
                .collect()
        };
        let started = Instant::now();
        while found().len() < count && started.elapsed() < LONG {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        found()
    }
}

fn user(id: u64) -> Change {
    Change::upsert("users", Value::number(i64::try_from(id).unwrap()), COMMIT + id, vec![("name", Value::text("Ada"))])
}

fn no_fault(_: &Call) -> Fault {
    Fault::None
}

#[tokio::test]
async fn a_range_over_several_pages_with_poison_and_other_tables_ends_in_the_view() {
    for empty_pages in [0, 1, 5] {
        let world = World::new().await;
        world.services.shards.answer_with_empty_pages(empty_pages);
        let changes: Vec<Change> = (0..12).map(user).collect();
        let elsewhere = Change { table: "elsewhere".to_owned(), ..user(99) };
        let mut records: Vec<Vec<u8>> = changes.iter().map(|change| change.record().into_bytes()).collect();
        records[5] = b"\xffpoison".to_vec();
        records[6] = elsewhere.record().into_bytes();
        world.put(0, records);
        let mut redrive = world.function(no_fault);
        // Places 2 to 9, over at least three pages.
        assert!(redrive.deliver(&on_failure(0, 2, 9), 1).await);
        let expected: Vec<Change> = [2, 3, 4, 7, 8, 9].map(|place: usize| changes[place].clone()).into();
        world.assert_shows(&expected).await;
        let key = format!("quarantine/unread/dsql-cdc/shardId-000000000000/{}.json", sequence_number(5));
        assert_eq!(world.keys(""), [key]);
        assert!(world.told_to_be_lost().is_empty());
        assert!(world.services.shards.pages_read() >= 3 * (empty_pages + 1));
        let line = redrive.function.log_line("redriven", 1).await.unwrap();
        assert_eq!((&line["records"], &line["message_id"]), (&json!(8), &json!("m1")));
        // Once more, as SQS may deliver: nothing changes.
        assert!(redrive.deliver(&on_failure(0, 2, 9), 2).await);
        world.assert_shows(&expected).await;
    }
}

#[tokio::test]
async fn records_over_lambda_s_limit_and_rows_over_dynamodb_s_come_back() {
    let world = World::new().await;
    let text = |length: usize| Value::text("x\u{1}".repeat(length / 2));
    let large = Change::upsert("users", Value::number(1), COMMIT, vec![("bio", text(900_000)), ("cv", text(800_000))]);
    let split =
        Change::upsert("users", Value::number(2), COMMIT, vec![("bio", text(1_000_000)), ("cv", text(900_000))]);
    let records: Vec<String> = std::iter::once(large.record()).chain(split.split("x", 2)).collect();
    assert!(records[0].len() > 5_000_000);
    world.put(0, records);
    let mut redrive = world.function(no_fault);
    assert!(redrive.deliver(&on_failure(0, 0, 3), 1).await);
    world.assert_shows(&[large, split]).await;
}

#[tokio::test]
async fn memory_is_bounded_by_a_page_and_not_by_the_range() {
    const RECORDS: u64 = 30;
    let world = World::new().await;
    // Pages of three records, some 3 MB each page.
    let text = "x".repeat(1_000_000);
    let row = |id: u64| Change { row: Some(vec![("bio".to_owned(), Value::text(text.as_str()))]), ..user(id) };
    world.put(0, (0..RECORDS).map(|id| row(id).record()));
    let mut redrive = world.function(no_fault);
    assert!(redrive.deliver(&on_failure(0, 0, 5), 1).await);
    let after_two_pages = redrive.peak_memory();
    assert!(redrive.deliver(&on_failure(0, 0, RECORDS - 1), 1).await);
    let after_ten_pages = redrive.peak_memory();
    // Eight more pages would be 24 MB more.
    assert!(after_ten_pages < after_two_pages + 12_000, "{after_two_pages} kB, then {after_ten_pages} kB");
    let all: Vec<Change> = (0..RECORDS).map(row).collect();
    world.assert_shows(&all).await;
}

/// A row has at most 2 MiB in storage. Where storage compresses its text, its JSON is many times longer.
#[tokio::test]
async fn a_row_of_sixty_megabytes_in_fragments_of_nine_is_applied_within_the_least_memory_of_the_function() {
    const FRAGMENTS: usize = 7;
    // The least `RedriveMemorySize` that the template takes, in kilobytes.
    const LEAST_MEMORY: u64 = 512 * 1024;
    let world = World::with_shards(LocalShards::start(1, Trimmed::Oldest)).await;
    let text = "All work and no play. ".repeat(2_730_000);
    let change = Change { row: Some(vec![("bio".to_owned(), Value::text(text))]), ..user(1) };
    let mut records = change.split("x", FRAGMENTS);
    assert!(records.iter().map(String::len).sum::<usize>() > 60_000_000);
    records.rotate_left(3);
    world.put(0, records);
    let mut redrive = world.function(no_fault);
    assert!(redrive.deliver(&on_failure(0, 0, 7), 1).await);
    world.assert_shows(&[change]).await;
    assert_eq!((world.keys("overflow/").len(), world.keys("quarantine/").len()), (1, 0));
    let peak = redrive.peak_memory();
    assert!(peak < LEAST_MEMORY, "{peak} kB");
}

#[tokio::test]
async fn what_is_not_applied_comes_again_later_and_later() {
    let world = World::new().await;
    world.put(0, (0..4).map(|id| user(id).record()));
    let mut failing =
        world.function(|call| if call.writes("public.users#2") { Fault::ERROR_BEFORE_THE_WRITE } else { Fault::None });
    for times in [1, 2, 3] {
        assert!(!failing.deliver(&on_failure(0, 0, 3), times).await);
    }
    let waits: Vec<u64> = world.services.queues.queue("failed").waits.iter().map(|(_, seconds)| *seconds).collect();
    assert_eq!(waits, [60, 120, 240]);
    assert_eq!(world.services.queues.queue("failed").waits[0].0, "receipt of m1");
    world.assert_shows(&[user(0), user(1), user(3)]).await;
    assert!(world.function(no_fault).deliver(&on_failure(0, 0, 3), 4).await);
    world.assert_shows(&[user(0), user(1), user(2), user(3)]).await;
}

#[tokio::test]
async fn what_the_stream_no_longer_holds_is_said_to_be_lost_by_range() {
    for trimmed in [Trimmed::Oldest, Trimmed::Error] {
        let world = World::with_shards(LocalShards::start(3, trimmed)).await;
        world.put(0, (0..8).map(|id| user(id).record()));
        world.services.shards.expire(0, 4);
        let mut redrive = world.function(no_fault);
        // A range that is all there, one that is partly gone, one that is all gone.
        assert!(redrive.deliver(&on_failure(0, 4, 6), 1).await);
        assert!(world.told_to_be_lost().is_empty());
        assert!(redrive.deliver(&on_failure(0, 2, 6), 1).await);
        assert!(redrive.deliver(&on_failure(0, 0, 3), 1).await);
        world.assert_shows(&[user(4), user(5), user(6)]).await;
        let lost = world.told_to_be_lost();
        let oldest = sequence_number(4);
        let (head, tail) = oldest.split_at(40);
        let before_it = format!("{head}{:016}", tail.parse::<u64>().unwrap() - 1);
        assert_eq!(lost[0], (sequence_number(2), before_it));
        assert_eq!(lost[1], (sequence_number(0), sequence_number(3)));
        assert_eq!(lost.len(), 2);
        let redriven = redrive.metric("RedrivenRanges", 3).await;
        assert_eq!(redriven.iter().map(|line| &line["RedrivenRecords"]).collect::<Vec<_>>(), [3, 3, 0]);
        let metrics = redrive.metric("LostRanges", 2).await;
        assert_eq!((metrics.len(), &metrics[1]["LastSequenceNumber"]), (2, &json!(sequence_number(3))));
    }
}

#[tokio::test]
async fn a_shard_that_is_gone_has_lost_the_range() {
    let world = World::new().await;
    world.put(0, [user(0).record()]);
    world.services.shards.remove(0);
    assert!(world.function(no_fault).deliver(&on_failure(0, 0, 3), 1).await);
    assert_eq!(world.told_to_be_lost(), [(sequence_number(0), sequence_number(3))]);
}

#[tokio::test]
async fn records_that_expire_while_their_range_is_read_are_said_to_be_lost() {
    let world = World::new().await;
    world.put(0, (0..9).map(|id| user(id).record()));
    let shards = Arc::clone(&world.services.shards);
    let first_write_of_page_one = move |call: &Call| {
        if call.writes("public.users#1") {
            shards.expire(0, 6);
        }
        Fault::None
    };
    assert!(world.function(first_write_of_page_one).deliver(&on_failure(0, 0, 8), 1).await);
    world.assert_shows(&[0, 1, 2, 6, 7, 8].map(user)).await;
    let lost = world.told_to_be_lost();
    assert_eq!(lost.len(), 1);
    assert!(
        lost[0].0 > sequence_number(2) && lost[0].0 < sequence_number(3) && lost[0].1 < sequence_number(6),
        "{lost:?}"
    );
}

#[tokio::test]
async fn records_that_expire_while_a_range_without_its_start_is_read_are_said_to_be_lost_too() {
    let world = World::new().await;
    world.put(0, (0..12).map(|id| user(id).record()));
    world.services.shards.expire(0, 2);
    let shards = Arc::clone(&world.services.shards);
    let expire_more = move |call: &Call| {
        if call.writes("public.users#2") {
            shards.expire(0, 5);
        }
        Fault::None
    };
    assert!(world.function(expire_more).deliver(&on_failure(0, 0, 11), 1).await);
    world.assert_shows(&[2, 3, 4, 7, 8, 9, 10, 11].map(user)).await;
    let lost = world.told_to_be_lost();
    let told = |place: u64| lost.iter().any(|(first, last)| (first..=last).contains(&&sequence_number(place)));
    assert!([0, 1, 5, 6].into_iter().all(told), "{lost:?}");
    assert!(![2, 3, 4, 7, 11].into_iter().any(told), "{lost:?}");
}

#[tokio::test]
async fn a_range_that_expires_as_a_whole_while_it_is_read_does_not_make_it_read_the_shard() {
    let world = World::new().await;
    world.put(0, (0..60).map(|id| user(id).record()));
    let shards = Arc::clone(&world.services.shards);
    let expire_more = move |call: &Call| {
        if call.writes("public.users#2") {
            shards.expire(0, 12);
        }
        Fault::None
    };
    assert!(world.function(expire_more).deliver(&on_failure(0, 0, 11), 1).await);
    assert!(world.services.shards.pages_read() < 6, "{}", world.services.shards.pages_read());
    assert!(!world.told_to_be_lost().is_empty());
}

#[tokio::test]
async fn a_message_is_not_done_while_its_loss_cannot_be_told() {
    let world = World::new().await;
    world.put(0, (0..4).map(|id| user(id).record()));
    world.services.shards.expire(0, 2);
    // A queue without a dead-letter queue, and an SQS that takes no message.
    let body = on_failure(0, 0, 3).to_string();
    assert!(!world.function(no_fault).deliver_from("alone", &body, 1, LONG).await);
    let denied = |call: &Call| match call.operation.as_str() {
        "SendMessage" => Fault::Error { status: 403, code: "AccessDenied" },
        _ => Fault::None,
    };
    assert!(!world.function(denied).deliver_from("failed", &body, 1, LONG).await);
    world.assert_shows(&[user(2), user(3)]).await;
}

#[tokio::test]
async fn a_kinesis_that_fails_is_no_loss() {
    for code in ["InternalFailure", "AccessDeniedException", "KMSAccessDeniedException"] {
        for operation in ["GetShardIterator", "GetRecords"] {
            let world = World::new().await;
            world.put(0, [user(0).record()]);
            let fails = move |call: &Call| {
                if call.operation == operation { Fault::Error { status: 400, code } } else { Fault::None }
            };
            assert!(!world.function(fails).deliver(&on_failure(0, 0, 0), 1).await, "{code} of {operation}");
            assert!(world.told_to_be_lost().is_empty());
            assert!(world.function(no_fault).deliver(&on_failure(0, 0, 0), 2).await);
            world.assert_shows(&[user(0)]).await;
        }
    }
}

#[tokio::test]
async fn an_iterator_that_expires_is_got_again() {
    let world = World::new().await;
    world.put(0, (0..7).map(|id| user(id).record()));
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let second_expires = move |call: &Call| {
        let get_records = call.operation == "GetRecords";
        if get_records && calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            Fault::Error { status: 400, code: "ExpiredIteratorException" }
        } else {
            Fault::None
        }
    };
    assert!(world.function(second_expires).deliver(&on_failure(0, 0, 6), 1).await);
    world.assert_shows(&(0..7).map(user).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_message_that_names_no_range_stays_for_people() {
    let world = World::new().await;
    let mut redrive = world.function(no_fault);
    for body in ["secret", "{}", r#"{"KinesisBatchInfo":{"shardId":"secret"}}"#] {
        assert!(!redrive.deliver_from("failed", body, 1, LONG).await, "{body}");
    }
    let waits: Vec<u64> = world.services.queues.queue("failed").waits.iter().map(|(_, seconds)| *seconds).collect();
    assert_eq!(waits, [0, 0, 0]);
    let line = redrive.function.log_line("no message of an on-failure queue", 1).await.unwrap();
    assert!(line["error"].as_str().unwrap().contains("expected KinesisBatchInfo"), "{line}");
    assert!(!redrive.function.lines().join("").contains("secret"));
}

#[tokio::test]
async fn time_that_runs_out_leaves_the_message() {
    let world = World::new().await;
    world.put(0, (0..9).map(|id| user(id).record()));
    let mut slow = world.function(|call| if call.operation == "PutItem" { Fault::Delay(LONG) } else { Fault::None });
    let body = on_failure(0, 0, 8).to_string();
    assert!(!slow.deliver_from("failed", &body, 1, Duration::from_secs(8)).await);
    assert!(world.function(no_fault).deliver_from("failed", &body, 2, LONG).await);
    world.assert_shows(&(0..9).map(user).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn an_event_that_asks_for_nothing_known_is_an_error_without_its_values() {
    let world = World::new().await;
    let mut redrive = world.function(no_fault);
    for event in [
        json!({ "secret": 1 }),
        json!("secret"),
        json!({ "replay": ["secret"] }),
        json!({ "check": "secret" }),
        json!({ "replay": "quarantine/", "check": "fragments" }),
        json!({ "Records": [{ "body": "secret" }] }),
    ] {
        let outcome = redrive.function.invoke(event.to_string(), LONG).await;
        let Outcome::Error(error) = outcome else { panic!("{event} gave {outcome:?}") };
        assert!(
            error["errorMessage"].as_str().unwrap().contains("expected messages of the on-failure queue"),
            "{error}"
        );
        assert!(!redrive.function.lines().join("").contains("secret"));
    }
}

/// A poison record's object, as the view's function writes it; returns its key.
fn quarantined(world: &World, place: u64, folder: &str, data: &str) -> String {
    let number = sequence_number(place);
    let key = format!("quarantine/{folder}/dsql-cdc/shardId-000000000000/{number}.json");
    let encoded = {
        use base64::Engine;
        base64::prelude::BASE64_STANDARD.encode(data)
    };
    let object = json!({
        "reason": "a reason", "stage": "apply", "streamArn": dsql_view_support::kinesis::STREAM,
        "shardId": "shardId-000000000000", "sequenceNumber": number, "partitionKey": "p",
        "approximateArrivalTimestamp": 1_773_843_841.125, "data": encoded,
    });
    world.services.s3.put(BUCKET, &key, object.to_string(), SystemTime::now());
    key
}

#[tokio::test]
async fn a_replay_applies_what_can_be_applied_by_now_and_keeps_the_rest() {
    let world = World::new().await;
    let newer = Change { committed: COMMIT + 1000, ..user(1) };
    let elsewhere = Change { table: "elsewhere".to_owned(), ..user(2) };
    let outside = quarantined(&world, 0, "public.orders", &user(9).record());
    let mut stay = vec![outside];
    for (place, record) in [newer.record(), user(1).record(), user(3).record(), elsewhere.record()].iter().enumerate() {
        quarantined(&world, 1 + place as u64, "public.users", record);
    }
    stay.push(quarantined(&world, 20, "public.users", &user(4).record().replace(r#""id":4"#, r#""id":null"#)));
    let strange = "quarantine/public.users/strange.json".to_owned();
    world.services.s3.put(BUCKET, &strange, "no record", SystemTime::now());
    stay.push(strange);
    let unread = quarantined(&world, 21, "public.users", "not JSON");

    let mut redrive = world.function(no_fault);
    let counts = redrive.invoke(&json!({ "replay": "quarantine/public.users/" })).await;
    let expected =
        json!({ "replayed": 7, "applied": 2, "superseded": 1, "filtered": 1, "quarantined": 2, "failed": 1 });
    assert_eq!(counts, expected);
    let told = &redrive.metric("ReplayedRecords", 1).await[0];
    // Still poison, or unreadable.
    assert_eq!((&told["ReplayedRecords"], &told["FailedReplays"]), (&json!(7), &json!(3)));
    world.assert_shows(&[newer.clone(), user(1), user(3)]).await;
    // A record that is now poison for another reason moves to that reason's folder.
    assert!(!world.keys("").contains(&unread));
    stay.push(unread.replace("public.users", "unread"));
    stay.sort();
    assert_eq!(world.keys(""), stay);

    let again = redrive.invoke(&json!({ "replay": "quarantine/public.users/" })).await;
    assert_eq!(again["replayed"], 2);
    assert_eq!((&again["quarantined"], &again["failed"]), (&json!(1), &json!(1)));
    world.assert_shows(&[newer, user(1), user(3)]).await;
}

/// The state of a row when a change of it, committed after [`COMMIT`], is replayed from the quarantine, and the result
/// that must follow.
#[tokio::test]
async fn a_replay_does_not_bring_a_deleted_row_back() {
    let (ours, older, newer) = (COMMIT + 10, COMMIT, COMMIT + 20);
    let upsert = |committed| Change { committed, transaction: format!("tx{committed}"), ..user(1) };
    let delete = |committed| Change { row: None, ..upsert(committed) };
    let text = "x".repeat(410_000);
    let large = |committed| Change { row: Some(vec![("text".to_owned(), Value::text(&text))]), ..upsert(committed) };
    // A tombstone is late if it is written so long after its commit that a later deletion's tombstone may have expired
    // in between.
    let (in_time, late) = (false, true);
    for (name, change, standing, is_late, expected) in [
        ("nothing stands there", upsert(ours), None, in_time, "heldBack"),
        ("an older row", upsert(ours), Some(upsert(older)), in_time, "applied"),
        ("an older row with moved columns", upsert(ours), Some(large(older)), in_time, "applied"),
        ("an older tombstone", upsert(ours), Some(delete(older)), in_time, "applied"),
        ("an older tombstone that was written late", upsert(ours), Some(delete(older)), late, "heldBack"),
        ("the row itself", upsert(ours), Some(upsert(ours)), in_time, "superseded"),
        ("a newer row", upsert(ours), Some(upsert(newer)), in_time, "superseded"),
        ("a newer tombstone", upsert(ours), Some(delete(newer)), in_time, "superseded"),
        ("moved columns over nothing", large(ours), None, in_time, "heldBack"),
        ("moved columns over an older row", large(ours), Some(upsert(older)), in_time, "applied"),
        ("moved columns over a late tombstone", large(ours), Some(delete(older)), late, "heldBack"),
        ("moved columns under a newer tombstone", large(ours), Some(delete(newer)), in_time, "superseded"),
        (
            "moved columns under a newer tombstone that was written late",
            large(ours),
            Some(delete(newer)),
            late,
            "superseded",
        ),
        ("a deletion over nothing", delete(ours), None, in_time, "applied"),
        ("a deletion over an older row", delete(ours), Some(upsert(older)), in_time, "applied"),
        ("a deletion over a late tombstone", delete(ours), Some(delete(older)), late, "applied"),
    ] {
        let world = World::new().await;
        if let Some(standing) = &standing {
            // Tombstones are kept for 14 days; "in time" means a second after the commit.
            world.stand(standing, (standing.committed / 1_000_000_000) + 1 + u64::from(is_late) * 14 * 86_400).await;
        }
        let before = world.services.db.items(VIEW).await;
        let key = quarantined(&world, 1, "public.users", &change.record());
        let mut redrive = world.function_with("14d", no_fault);
        let counts = redrive.invoke(&json!({ "replay": "quarantine/" })).await;
        assert_eq!((&counts["replayed"], &counts[expected]), (&json!(1), &json!(1)), "{name}: {counts}");
        let is_held_back = expected == "heldBack";
        assert_eq!(world.keys("quarantine/"), if is_held_back { vec![key] } else { vec![] }, "{name}");
        if !is_held_back {
            world.assert_shows(&standing.into_iter().chain([change]).collect::<Vec<_>>()).await;
            continue;
        }
        assert_eq!(world.services.db.items(VIEW).await, before, "{name}");
        assert!(world.keys("overflow/").is_empty(), "{name}: nothing stays of what may be deleted");
        let because = counts["heldBackBecause"].as_str().unwrap();
        assert!(because.contains("may have been deleted since") && because.contains("replay with force"), "{because}");
        let line = redrive.function.log_line("reported", 1).await.expect("the log says it too");
        assert!(line["reason"].as_str().unwrap().contains("may have been deleted since"), "{line}");
        // A person who knows that the row still exists can force the replay.
        let forced = redrive.invoke(&json!({ "replay": "quarantine/", "force": true })).await;
        assert_eq!(forced["applied"], 1, "{name}: {forced}");
        world.assert_shows(&standing.into_iter().chain([change]).collect::<Vec<_>>()).await;
    }
}

#[tokio::test]
async fn a_chunked_change_that_is_held_back_stays_so_whichever_member_comes_last() {
    let records = user(1).split("chunk", 2);
    // The members of the set that are replayed before the others come through the stream.
    for replayed in [vec![0, 1, 2], vec![0, 1], vec![2], vec![0]] {
        let world = World::new().await;
        for place in &replayed {
            let folder = if *place == 0 { "public.users" } else { "unread" };
            quarantined(&world, 1 + *place as u64, folder, &records[*place]);
        }
        let mut redrive = world.function_with("14d", no_fault);
        // A listing has two objects here, so the set's members come in several batches.
        for _ in 0..2 {
            let counts = redrive.invoke(&json!({ "replay": "quarantine/" })).await;
            let count = |name: &str| counts[name].as_u64().unwrap_or_default();
            assert_eq!(count("replayed"), replayed.len() as u64, "{counts}");
            assert_eq!(count("heldBack") + count("kept"), replayed.len() as u64, "{counts}");
            assert_eq!(count("heldBack") > 0, replayed.len() == 3, "{counts}");
            assert_eq!(world.keys("quarantine/").len(), replayed.len(), "{replayed:?}");
        }
        // The other members come through the stream, twice; if all were replayed, a fragment comes again.
        let late: Vec<usize> = (0..3).filter(|place| !replayed.contains(place)).collect();
        for time in 1..=2 {
            for place in if late.is_empty() { vec![1] } else { late.clone() } {
                let number = 10 * time + place as u64;
                world.put(number, [records[place].clone()]);
                assert!(redrive.deliver(&on_failure(0, number, number), 1).await);
            }
        }
        assert!(world.services.db.items(VIEW).await.is_empty(), "{replayed:?}");
        let quarantined: std::collections::BTreeSet<String> =
            world.keys("quarantine/").iter().map(|key| world.data(key)).collect();
        assert_eq!(quarantined.len(), 3, "{replayed:?}: each part is in the quarantine");
        let forced = redrive.invoke(&json!({ "replay": "quarantine/", "force": true })).await;
        assert!(forced["applied"] == 1 && forced.get("heldBack").is_none(), "{replayed:?}: {forced}");
        world.assert_shows(&[user(1)]).await;
    }
}

#[tokio::test]
async fn an_old_deletion_that_is_replayed_does_not_vouch_for_an_old_update() {
    // The row was created, updated, and deleted for good, and the last deletion's tombstone has expired. An earlier
    // deletion and the update after it went into the quarantine.
    let deletion = Change { row: None, committed: COMMIT + 5, ..user(1) };
    let update = Change { committed: COMMIT + 7, transaction: format!("tx{}", COMMIT + 7), ..user(1) };
    for (together, first) in [(true, 0), (false, 0), (false, 1)] {
        let world = World::new().await;
        let records = [&deletion, &update];
        let mut redrive = world.function_with("14d", no_fault);
        let mut places = vec![first, 1 - first];
        if together {
            for place in &places {
                quarantined(&world, *place as u64, "public.users", &records[*place].record());
            }
            places.truncate(1);
        }
        for place in places {
            if !together {
                quarantined(&world, place as u64, "public.users", &records[place].record());
            }
            redrive.invoke(&json!({ "replay": "quarantine/" })).await;
        }
        world.assert_shows(std::slice::from_ref(&deletion)).await;
        assert_eq!(world.keys("quarantine/").len(), 1, "the update waits for a person");
    }
}

#[tokio::test]
async fn a_young_change_is_replayed_whatever_stands_there() {
    let world = World::new().await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let young = Change { committed: u64::try_from(now.as_nanos()).unwrap() - 3_600_000_000_000, ..user(1) };
    quarantined(&world, 1, "public.users", &young.record());
    let counts = world.function_with("14d", no_fault).invoke(&json!({ "replay": "quarantine/" })).await;
    assert_eq!((&counts["applied"], counts.get("heldBack")), (&json!(1), None), "{counts}");
    world.assert_shows(&[young]).await;
}

#[tokio::test]
async fn the_stream_and_the_redrive_bring_old_changes_as_they_come() {
    // A stream that keeps records for a year may be read into a new view.
    let world = World::new().await;
    world.put(0, [user(1).record()]);
    let mut redrive = world.function_with("14d", no_fault);
    assert!(redrive.deliver(&on_failure(0, 0, 0), 1).await);
    world.assert_shows(&[user(1)]).await;
}

#[tokio::test]
async fn a_replay_of_nothing_or_of_another_place_says_so() {
    let world = World::new().await;
    quarantined(&world, 0, "public.users", &user(0).record());
    let mut redrive = world.function(no_fault);
    let counts = redrive.invoke(&json!({ "replay": "quarantine/public.nothing/" })).await;
    assert_eq!(
        counts,
        json!({ "replayed": 0, "applied": 0, "superseded": 0, "filtered": 0, "quarantined": 0, "failed": 0 })
    );
    assert!(redrive.function.log_line("the quarantine has nothing under this prefix", 1).await.is_some());
    for prefix in ["", "fragments/", "overflow/", "quarantine", "../quarantine/"] {
        let outcome = redrive.function.invoke(json!({ "replay": prefix }).to_string(), LONG).await;
        let Outcome::Error(error) = outcome else { panic!("{prefix} gave {outcome:?}") };
        assert!(error["errorMessage"].as_str().unwrap().contains("a prefix within quarantine/"), "{error}");
    }
    assert_eq!(world.keys("").len(), 1);
}

#[tokio::test]
async fn a_replay_that_dynamodb_does_not_confirm_keeps_the_objects() {
    let world = World::new().await;
    let key = quarantined(&world, 0, "public.users", &user(0).record());
    let mut broken = world.function(|call| if call.operation == "PutItem" { Fault::Cut } else { Fault::None });
    let counts = broken.invoke(&json!({ "replay": "quarantine/" })).await;
    assert_eq!((&counts["replayed"], &counts["failed"]), (&json!(1), &json!(1)));
    assert_eq!(world.keys(""), [key]);
}

#[tokio::test]
async fn a_replay_that_runs_out_of_time_says_where_to_go_on() {
    let world = World::new().await;
    let changes: Vec<Change> = (0..6).map(user).collect();
    for (place, change) in (0..).zip(&changes) {
        quarantined(&world, place, "public.users", &change.record());
    }
    let slow_method = |method: &'static str| {
        move |call: &Call| {
            let slow = call.service == Service::S3 && call.method == method;
            if slow { Fault::Delay(Duration::from_millis(2500)) } else { Fault::None }
        }
    };
    for method in ["GET", "DELETE"] {
        let mut slow = world.function(slow_method(method));
        let event = json!({ "replay": "quarantine/" }).to_string();
        let answer = slow.function.invoke(event, Duration::from_secs(8)).await.response();
        // Objects are removed many at a time, which may be quick enough.
        assert!(answer["after"].is_string() || method == "DELETE", "{method}: {answer}");
        assert_eq!(answer["failed"], 0);
    }
    let mut redrive = world.function(no_fault);
    let first = redrive.invoke(&json!({ "replay": "quarantine/" })).await;
    assert_eq!((&first["after"], &first["failed"]), (&Json::Null, &json!(0)), "{first}");
    world.assert_shows(&changes).await;
    assert!(world.keys("").is_empty());

    // From the place where the answer said to go on.
    let keys: Vec<String> =
        (0..6).map(|place| quarantined(&world, place, "public.users", &user(place).record())).collect();
    let rest = redrive.invoke(&json!({ "replay": "quarantine/", "after": keys[3] })).await;
    assert_eq!((&rest["replayed"], world.keys("")), (&json!(2), keys[..4].to_vec()));
}

#[tokio::test]
async fn a_replay_goes_on_before_rows_that_it_had_no_time_for() {
    let world = World::new().await;
    let changes: Vec<Change> = (0..4).map(user).collect();
    let keys: Vec<String> = (0..)
        .zip(&changes)
        .map(|(place, change)| quarantined(&world, place, "public.users", &change.record()))
        .collect();
    let mut slow = world.function(|call| match call {
        call if call.writes("public.users#2") => Fault::Delay(LONG),
        call if call.writes("public.users#3") => Fault::Error { status: 400, code: "NewInAnotherYear" },
        _ => Fault::None,
    });
    let event = json!({ "replay": "quarantine/" }).to_string();
    let answer = slow.function.invoke(event, Duration::from_secs(8)).await.response();
    // A row that failed next to it counts only once it has failed for good.
    assert_eq!((&answer["applied"], &answer["failed"]), (&json!(2), &json!(0)), "{answer}");
    assert_eq!((&answer["after"], world.keys("")), (&json!(keys[1]), keys[2..].to_vec()));

    let event = json!({ "replay": "quarantine/", "after": keys[1] });
    let rest = world.function(no_fault).invoke(&event).await;
    assert_eq!((&rest["replayed"], &rest["applied"], &rest["after"]), (&json!(2), &json!(2), &Json::Null), "{rest}");
    world.assert_shows(&changes).await;
    assert!(world.keys("").is_empty());
}

#[tokio::test]
async fn a_replay_of_a_whole_split_change_applies_it() {
    let world = World::new().await;
    for (place, record) in (0..).zip(user(0).split("x", 2)) {
        quarantined(&world, place, "public.users", &record);
    }
    let mut redrive = world.function(no_fault);
    let mut counts = redrive.invoke(&json!({ "replay": "quarantine/" })).await;
    // A page of a listing has two objects here, so the set comes in two batches.
    assert_eq!(
        (&counts["replayed"], &counts["failed"], &counts["applied"]),
        (&json!(3), &json!(0), &json!(1)),
        "{counts}"
    );
    world.assert_shows(&[user(0)]).await;
    counts = redrive.invoke(&json!({ "replay": "quarantine/" })).await;
    assert_eq!(counts["kept"], Json::Null, "{counts}");
    assert!(world.keys("quarantine/").is_empty());
}

#[tokio::test]
async fn what_is_in_the_quarantine_is_counted_over_all_pages() {
    let world = World::new().await;
    let mut redrive = world.function(no_fault);
    assert_eq!(redrive.invoke(&json!({ "check": "quarantine" })).await, json!({ "quarantined": 0 }));
    for key in ["quarantine/a", "quarantine/b/1.json", "quarantine/b/2.json", "overflow/x", "fragments/x/y"] {
        world.services.s3.put(BUCKET, key, "{}", SystemTime::now());
    }
    assert_eq!(redrive.invoke(&json!({ "check": "quarantine" })).await, json!({ "quarantined": 3 }));
    let counts: Vec<_> =
        redrive.metric("QuarantinedObjects", 2).await.iter().map(|line| line["QuarantinedObjects"].clone()).collect();
    assert_eq!(counts, [0, 3]);
}

#[tokio::test]
async fn sets_that_wait_are_seen_with_their_age() {
    let world = World::new().await;
    let mut redrive = world.function(no_fault);
    let found = redrive.invoke(&json!({ "check": "fragments" })).await;
    assert_eq!(found, json!({ "incompleteSets": 0, "oldestSeconds": 0 }));

    let hours = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3600);
    for (key, written_at) in [
        ("fragments/waits/main-0003-a.json", hours(1)),
        ("fragments/waits/piece-001-a.json", hours(5)),
        ("fragments/alone/piece-000-a.json", hours(2)),
        ("fragments/whole/main-0001-a.json", hours(90)),
        ("fragments/whole/piece-000-a.json", hours(90)),
        ("fragments/elsewhere/piece-000-a.json", hours(90)),
        ("fragments/elsewhere/not-needed.json", hours(90)),
    ] {
        world.services.s3.put(BUCKET, key, "{}", written_at);
    }
    let found = redrive.invoke(&json!({ "check": "fragments" })).await;
    assert_eq!(found["incompleteSets"], 2);
    let oldest = found["oldestSeconds"].as_u64().unwrap();
    assert!((18_000..18_060).contains(&oldest), "{oldest}");
    let metrics = redrive.metric("OldestIncompleteSet", 2).await;
    assert_eq!((&metrics[1]["IncompleteSets"], metrics.len()), (&json!(2), 2));
    let line = redrive.function.log_line("a split change waits for its parts", 2).await.unwrap();
    assert_eq!((&line["set"], &line["waits_for"]), (&json!("fragments/waits/"), &json!("2 of 3 pieces")));
}
