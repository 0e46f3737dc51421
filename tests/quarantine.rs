//! Poison records go to the quarantine, whole and once, and hold up no shard. Records that are not poison never go
//! there.

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dsql_view::batch::disposition::{Disposition, Failure, Superseded};
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::{LocalDynamoDb, environment};
use dsql_view_support::kinesis::{event_of, reported, sequence_number};
use dsql_view_support::model::Model;
use dsql_view_support::objects::LocalS3;
use dsql_view_support::proxy::{Call, Fault, FaultProxy, Service};
use dsql_view_support::runtime_api::Function;
use harness::{AGGREGATED, PLENTY, World};
use serde_json::{Value as Json, json};

const COMMIT: u64 = 1_773_843_841_076_494_565;
const VIEW: &str = "view";
const BUCKET: &str = "objects";
const LONG: Duration = Duration::from_secs(60);

async fn view() -> LocalDynamoDb {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    db
}

fn bucket() -> LocalS3 {
    let s3 = LocalS3::start();
    s3.create_bucket(BUCKET);
    s3
}

fn start(dynamodb: &str, s3: &str) -> Function {
    let mut variables = environment(dynamodb);
    for (name, value) in [
        ("AWS_ENDPOINT_URL_S3", s3),
        ("VIEW_TABLE", VIEW),
        ("SOURCE_TABLES", "users(id)"),
        ("OBJECTS_BUCKET", BUCKET),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
    ] {
        variables.push((name, value.to_owned()));
    }
    Function::start(Path::new(env!("CARGO_BIN_EXE_dsql-view")), variables).unwrap()
}

async fn deliver<D: AsRef<[u8]>>(function: &mut Function, data: impl IntoIterator<Item = D>) -> Vec<u64> {
    reported(&function.invoke(event_of(data).to_string(), LONG).await.response())
}

fn user(id: i64) -> Change {
    Change::upsert("users", Value::number(id), COMMIT, vec![("name", Value::text("Ada"))])
}

/// The bodies of the objects, by key.
fn quarantine(s3: &LocalS3) -> BTreeMap<String, Json> {
    let objects = s3.objects(BUCKET).into_iter();
    objects.map(|(key, object)| (key, serde_json::from_slice(&object.body).unwrap())).collect()
}

fn key(folder: &str, place: u64) -> String {
    format!("quarantine/{folder}/dsql-cdc/shardId-000000000000/{}.json", sequence_number(place))
}

#[tokio::test]
async fn poison_is_quarantined_whole_and_its_neighbours_are_applied() {
    let (db, s3) = (view().await, bucket());
    let mut function = start(&db.endpoint(), &s3.endpoint());
    let good = [user(1), user(2)];
    let batch = [
        good[0].record().into_bytes(),
        b"\xff\x00broken".to_vec(),
        user(3).record().replace(r#""id":3"#, r#""id":null"#).into_bytes(),
        good[1].record().into_bytes(),
        user(4).record().replace(r#""name""#, r#""_ts_ns""#).into_bytes(),
    ];
    for _ in 0..2 {
        assert!(deliver(&mut function, &batch).await.is_empty());
        Model::of(&good).assert_equals(&db.items(VIEW).await);
        let found = quarantine(&s3);
        let keys: Vec<&String> = found.keys().collect();
        assert_eq!(keys, [&key("public.users", 2), &key("public.users", 4), &key("unread", 1)]);
        let unread = &found[&key("unread", 1)];
        assert_eq!((&unread["data"], &unread["stage"]), (&json!("/wBicm9rZW4="), &json!("decode")));
        assert_eq!(unread["sequenceNumber"], sequence_number(1));
        assert_eq!(unread["streamArn"], "arn:aws:kinesis:us-east-1:123456789012:stream/dsql-cdc");
        assert_eq!(unread["shardId"], "shardId-000000000000");
        assert!(unread["reason"].as_str().unwrap().contains("is not JSON"));
        assert_eq!(found[&key("public.users", 2)]["stage"], "project");
    }
    let log = function.log_line("batch", 1).await.unwrap();
    for (name, count) in [("received", 5), ("applied", 2), ("quarantined", 3), ("reported", 0)] {
        assert_eq!(log[name], count, "{name} of {log}");
    }
    // One line a record, with the object that holds it.
    for (number, place) in [(1, 1), (2, 2), (3, 4)] {
        let line = function.log_line("quarantined", number).await.unwrap();
        let object = key(if place == 1 { "unread" } else { "public.users" }, place);
        assert_eq!((&line["object"], &line["sequence_number"]), (&json!(object), &json!(sequence_number(place))));
    }
}

#[tokio::test]
async fn a_record_that_the_kinesis_producer_library_has_aggregated_is_quarantined_byte_for_byte() {
    let world = World::new().await;
    let [function, _] = world.two_functions().await;
    let good = [user(1), user(2)];
    let [first, last] = good.each_ref().map(|change| change.record().into_bytes());
    let ends = function.dispositions([&first[..], AGGREGATED, &last[..]], PLENTY).await;
    assert!(matches!(&ends[..], [Disposition::Applied, Disposition::Quarantined(_), Disposition::Applied]), "{ends:?}");
    world.assert_shows(&good).await;
    let quarantined = &quarantine(&world.s3)[&key("unread", 1)];
    assert_eq!(BASE64_STANDARD.decode(quarantined["data"].as_str().unwrap()).unwrap(), AGGREGATED);
}

#[tokio::test]
async fn a_quarantine_that_cannot_be_written_reports_the_record() {
    let batch = [user(1).record(), "broken".to_owned()];
    let s3 = bucket();
    let in_front = |fault: Fault| FaultProxy::before_everything(&s3.endpoint(), move |_| fault.clone());
    let proxies = harness::faults_of_a_bucket().map(in_front);
    for proxy in &proxies {
        let db = view().await;
        let mut function = start(&db.endpoint(), &proxy.endpoint());
        let event = event_of(&batch).to_string();
        let answer = function.invoke(event, Duration::from_secs(8)).await.response();
        assert_eq!(reported(&answer), [1]);
        Model::of([&user(1)]).assert_equals(&db.items(VIEW).await);
    }
    assert!(quarantine(&s3).is_empty());
}

#[tokio::test]
async fn the_log_says_which_records_the_quarantine_did_not_take() {
    let (db, s3) = (view().await, bucket());
    let denied = Fault::Quote { status: 403, code: "AccessDenied" };
    let proxy = FaultProxy::before_services(&[(Service::S3, s3.endpoint())], move |_| denied.clone());
    let mut function = start(&db.endpoint(), &proxy.endpoint());
    let batch = [user(1).record(), "broken".to_owned(), user(2).record(), "too".to_owned(), user(3).record()];
    assert_eq!(deliver(&mut function, &batch).await, [1, 3]);
    let message = "poison records are reported, since the quarantine does not take them";
    let line = function.log_line(message, 1).await.expect("a line of what was not taken");
    let request = &function.log_line("batch", 1).await.expect("a line a batch")["request_id"];
    assert!(request.is_string() && line["request_id"] == *request, "{line}");
    assert_eq!((&line["shard"], &line["records"]), (&json!("shardId-000000000000"), &json!(2)));
    assert_eq!([&line["lowest"], &line["highest"]], [&json!(sequence_number(1)), &json!(sequence_number(3))]);
}

#[tokio::test]
async fn a_slow_dynamodb_does_not_keep_poison_out_of_the_quarantine() {
    let (db, s3) = (view().await, bucket());
    let proxy = FaultProxy::start(&db.endpoint(), |_| Fault::Delay(LONG));
    let mut function = start(&proxy.endpoint(), &s3.endpoint());
    let event = event_of(["broken".to_owned(), user(1).record()]).to_string();
    let answer = function.invoke(event, Duration::from_secs(8)).await.response();
    // The checkpoint moves behind the poison.
    assert_eq!(reported(&answer), [1]);
    assert_eq!(quarantine(&s3).keys().collect::<Vec<_>>(), [&key("unread", 0)]);
}

#[tokio::test]
async fn missing_permissions_and_tables_are_never_poison() {
    let s3 = bucket();
    for code in ["AccessDeniedException", "ResourceNotFoundException", "ExpiredTokenException"] {
        let db = view().await;
        let proxy = FaultProxy::start(&db.endpoint(), move |_| Fault::Error { status: 400, code });
        let mut function = start(&proxy.endpoint(), &s3.endpoint());
        assert_eq!(deliver(&mut function, [user(1).record(), user(2).record()]).await, [0, 1]);
    }
    assert!(quarantine(&s3).is_empty());
}

#[tokio::test]
async fn what_dynamodb_refuses_is_poison_unless_it_refuses_everything_alike() {
    let (db, s3) = (view().await, bucket());
    let refuses = |keys: &'static [&str]| {
        move |call: &Call| {
            let refused = keys.iter().any(|key| call.writes(key));
            if refused { Fault::Error { status: 400, code: "ValidationException" } } else { Fault::None }
        }
    };
    let everything = FaultProxy::start(&db.endpoint(), refuses(&["public.users#1", "public.users#2"]));
    let mut function = start(&everything.endpoint(), &s3.endpoint());
    assert_eq!(deliver(&mut function, [user(1).record(), user(2).record()]).await, [0, 1]);
    assert!(quarantine(&s3).is_empty());

    let one = FaultProxy::start(&db.endpoint(), refuses(&["public.users#1"]));
    let mut function = start(&one.endpoint(), &s3.endpoint());
    assert!(deliver(&mut function, [user(1).record(), user(2).record()]).await.is_empty());
    let found = quarantine(&s3);
    assert_eq!(found.keys().collect::<Vec<_>>(), [&key("public.users", 0)]);
    assert_eq!(found[&key("public.users", 0)]["stage"], "apply");
    Model::of([&user(2)]).assert_equals(&db.items(VIEW).await);
}

const REFUSED: Fault = Fault::Error { status: 400, code: "ValidationException" };

/// Whether the call writes one of these users.
fn writes_any(call: &Call, ids: &[i64]) -> bool {
    ids.iter().any(|id| call.writes(&format!("public.users#{id}")))
}

/// How many records ended in each way that counts here: known, superseded, applied, reported as refused, quarantined.
fn ends(dispositions: &[Disposition]) -> [usize; 5] {
    let mut ends = [0; 5];
    for disposition in dispositions {
        let end = match disposition {
            Disposition::Superseded(Superseded::Remembered) => 0,
            Disposition::Superseded(Superseded::Told | Superseded::Same) => 1,
            Disposition::Applied => 2,
            Disposition::Reported(Failure::Refused(_)) => 3,
            Disposition::Quarantined(Failure::Refused(_)) => 4,
            other => panic!("{other:?}"),
        };
        ends[end] += 1;
    }
    ends
}

#[tokio::test]
async fn rows_refused_alike_do_not_hold_the_shard_of_a_function_that_knows_the_others() {
    let world = World::new().await;
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let proxy = world.endpoint(move |call| match call.service {
        Service::S3 if is_down.load(Ordering::SeqCst) => Fault::Error { status: 403, code: "AccessDenied" },
        _ if writes_any(call, &[11, 12]) => REFUSED,
        _ => Fault::None,
    });
    let function = world.function(&proxy).await;
    let records: Vec<String> = (10..20).map(|id| user(id).record()).collect();
    assert_eq!(ends(&function.dispositions(&records, PLENTY).await), [0, 0, 8, 2, 0]);

    down.store(false, Ordering::SeqCst);
    // The whole batch again, a part of it, and the whole batch as if the answer was lost. Each costs one write of a
    // known row.
    for (batch, known) in [(&records[..], 8), (&records[..4], 2), (&records[..], 8)] {
        let before = proxy.writes();
        assert_eq!(ends(&function.dispositions(batch, PLENTY).await), [known - 1, 1, 0, 0, 2]);
        assert_eq!(proxy.writes() - before, 3);
    }
    assert_eq!(world.keys("quarantine/").len(), 2);
    let shown: Vec<Change> = (10..20).filter(|id| ![11, 12].contains(id)).map(user).collect();
    world.assert_shows(&shown).await;
}

#[tokio::test]
async fn refusals_that_begin_while_the_function_lives_do_not_fill_the_quarantine() {
    let world = World::new().await;
    let misconfigured = Arc::new(AtomicBool::new(false));
    let is_misconfigured = Arc::clone(&misconfigured);
    // Like an index whose key has another type than its column: a tombstone has no such column.
    let proxy = world.endpoint(move |call| {
        let is_tombstone = call.body.windows(8).any(|window| window == b"_deleted");
        let refused = is_misconfigured.load(Ordering::SeqCst) && call.is_write() && !is_tombstone;
        if refused { REFUSED } else { Fault::None }
    });
    let function = world.function(&proxy).await;
    let gone = |id| Change::delete("users", Value::number(id), COMMIT);
    let known = [gone(1), user(2), user(3), gone(4)];
    let new = [user(5), user(6), user(7)];
    assert!(function.deliver(known.iter().map(Change::record)).await.is_empty());

    misconfigured.store(true, Ordering::SeqCst);
    let all: Vec<Change> = known.iter().chain(&new).cloned().collect();
    for _ in 0..2 {
        let before = proxy.writes();
        let found = function.dispositions(all.iter().map(Change::record), PLENTY).await;
        assert_eq!((ends(&found), proxy.writes() - before), ([4, 0, 0, 3, 0], 4));
    }
    assert!(world.keys("").is_empty());

    misconfigured.store(false, Ordering::SeqCst);
    let found = function.dispositions(all.iter().map(Change::record), PLENTY).await;
    assert_eq!(ends(&found), [4, 0, 3, 0, 0]);
    world.assert_shows(&all).await;
}

#[tokio::test]
async fn until_dynamodb_answers_on_a_known_row_refused_rows_are_not_taken_for_poison() {
    const ANSWERS: u8 = 0;
    const HAS_A_BAD_TIME: u8 = 1;
    const IS_SLOW: u8 = 2;
    let world = World::new().await;
    let state = Arc::new(AtomicU8::new(ANSWERS));
    let seen = Arc::clone(&state);
    let proxy = world.endpoint(move |call| match seen.load(Ordering::SeqCst) {
        _ if writes_any(call, &[1, 2]) => REFUSED,
        HAS_A_BAD_TIME if call.is_write() => Fault::Error { status: 400, code: "NewInAnotherYearException" },
        IS_SLOW if call.is_write() => Fault::Delay(PLENTY),
        _ => Fault::None,
    });
    let function = world.function(&proxy).await;
    assert!(function.deliver([user(3).record()]).await.is_empty());
    let batch = [1, 2, 3].map(|id| user(id).record());
    for (of_dynamodb, time, expected) in [
        (HAS_A_BAD_TIME, PLENTY, [1, 0, 0, 2, 0]),
        (IS_SLOW, Duration::from_secs(8), [1, 0, 0, 2, 0]),
        (ANSWERS, PLENTY, [0, 1, 0, 0, 2]),
    ] {
        state.store(of_dynamodb, Ordering::SeqCst);
        assert_eq!(ends(&function.dispositions(&batch, time).await), expected);
    }
}

#[tokio::test]
async fn without_a_quarantine_no_known_row_is_asked_for() {
    let db = view().await;
    let proxy = FaultProxy::start(&db.endpoint(), |call| if writes_any(call, &[1, 2]) { REFUSED } else { Fault::None });
    let function = harness::Function::new(&proxy.endpoint(), "users(id)").await;
    let batch = [1, 2, 3].map(|id| user(id).record());
    for (known, applied) in [(0, 1), (1, 0)] {
        assert_eq!(ends(&function.dispositions(&batch, PLENTY).await), [known, 0, applied, 2, 0]);
    }
    assert_eq!(proxy.writes(), 5);
}

#[tokio::test]
async fn a_crash_between_any_two_steps_ends_with_each_poison_record_there_once() {
    let good = user(1);
    let batch = [
        "broken".to_owned(),
        good.record(),
        user(2).record().replace(r#""id":2"#, r#""id":null"#),
        user(3).record().replace(r#""name""#, r#""_ts_ns""#),
    ];
    for after in [false, true] {
        for step in 1.. {
            let world = harness::World::new().await;
            let died = world.crash(&batch, step, after).await;
            let [function, _] = world.two_functions().await;
            assert!(function.deliver(&batch).await.is_empty());
            world.assert_shows(std::slice::from_ref(&good)).await;
            let expected = [key("public.users", 2), key("public.users", 3), key("unread", 0)];
            assert_eq!(world.keys(""), expected, "step {step}");
            if !died {
                break;
            }
        }
    }
}
