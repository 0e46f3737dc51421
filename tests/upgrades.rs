//! A new version, other tables, and a view that is filled again from the stream: no change is lost meanwhile, and no
//! item goes back to an older state.
//!
//! The stream is read as Lambda's event source mapping reads it from `TRIM_HORIZON`. docs/upgrading.md has the commands
//! for each case.

mod harness;

use std::time::Duration;

use dsql_view::config::Config;
use dsql_view::deadline::Deadline;
use dsql_view::redrive::{Answer, Invocation, Redrive};
use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::dynamodb::{Item, Items, KEY, sdk_config};
use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::mapping::{Delivery, Mapping, Outcome, Settings, TooOld};
use dsql_view_support::model::Model;
use dsql_view_support::proxy::{Fault, FaultProxy, Service};
use dsql_view_support::queues::{self, LocalQueues};
use dsql_view_support::random::Random;
use dsql_view_support::shards::{LocalShards, Trimmed};
use harness::{BUCKET, Function, PLENTY, VIEW, World, items};
use serde_json::json;

const COMMIT: u64 = 1_773_843_841_076_494_565;
const BOTH: &str = "users(id), orders(id)";

/// A history of two tables, in the order of its commits.
fn history(seed: u64, changes: u64) -> Vec<Change> {
    let mut random = Random::new(seed);
    let change = |number: u64| {
        let table = if random.percent(50) { "users" } else { "orders" };
        let id = Value::number(i64::try_from(random.below(12)).unwrap());
        if random.percent(25) {
            return Change::delete(table, id, COMMIT + number);
        }
        let layout = if random.percent(50) { Layout::Preview } else { Layout::Documented };
        let text = if random.percent(3) { "x".repeat(410_000) } else { format!("value {number}") };
        Change { layout, ..Change::upsert(table, id, COMMIT + number, vec![("text", Value::text(text))]) }
    };
    (0..changes).map(change).collect()
}

fn of_table<'c>(table: &'c str, changes: &'c [Change]) -> impl Iterator<Item = &'c Change> {
    changes.iter().filter(move |change| change.table == table)
}

/// The records of changes on three shards, from `place` on, in any order and some of them twice.
fn stream(place: u64, changes: &[Change], seed: u64) -> Vec<KinesisRecord> {
    let mut random = Random::new(seed);
    let mut records: Vec<String> = changes.iter().map(Change::record).collect();
    let twice: Vec<String> = records.iter().filter(|_| random.percent(20)).cloned().collect();
    records.extend(twice);
    random.shuffle(&mut records);
    let record = |(place, record): (u64, String)| {
        let shard = u32::try_from(random.below(3)).unwrap();
        KinesisRecord { shard, ..KinesisRecord::at(place, record) }
    };
    (place..).zip(records).map(record).collect()
}

/// A mapping that begins with the oldest record.
fn from_trim_horizon(records: &[KinesisRecord], settings: Settings) -> Mapping {
    let mut mapping = Mapping::new(settings, 7);
    put(&mut mapping, records);
    mapping
}

fn put(mapping: &mut Mapping, records: &[KinesisRecord]) {
    for record in records {
        mapping.put(record.clone());
    }
}

async fn invoke(function: &Function, delivery: &Delivery) -> Outcome {
    Outcome::Response(function.answer(&delivery.event()).await)
}

/// Delivers all records that are there.
async fn drain(mapping: &mut Mapping, function: &Function) {
    while let Some(delivery) = mapping.next_delivery() {
        let outcome = invoke(function, &delivery).await;
        mapping.settle(&delivery, &outcome);
    }
    assert!(mapping.is_through());
}

/// A newly deployed function: it knows nothing of what others have written.
async fn deployed(endpoint: &FaultProxy, source_tables: &str, creates_together: bool) -> Function {
    let settings = [
        ("SOURCE_TABLES", source_tables),
        ("OBJECTS_BUCKET", BUCKET),
        ("BATCHED_CREATES", if creates_together { "true" } else { "false" }),
    ];
    Function::with_settings(&endpoint.endpoint(), VIEW, &settings).await
}

async fn remove(world: &World, key: &str) {
    let key = aws_sdk_dynamodb::types::AttributeValue::S(key.to_owned());
    world.db.client().delete_item().table_name(VIEW).key(KEY, key).send().await.unwrap();
}

async fn empty(world: &World) {
    for key in items(&world.db).await.into_keys() {
        remove(world, &key).await;
    }
    for key in world.keys("overflow/") {
        world.s3.remove(BUCKET, &key);
    }
}

/// Version 0.1.0 took the earlier of a record's two timestamps for the commit's, as `COMMIT_TIMESTAMP=earliest` still
/// does.
#[tokio::test]
async fn rows_that_the_old_order_has_wrong_are_right_once_the_stream_was_read_again() {
    // Commits are 100 nanoseconds apart, and the change stream's clock is sometimes behind by up to two microseconds.
    const APART: u64 = 100;
    const BEHIND: u64 = 2_000;
    let mut rows_that_were_wrong = 0;
    for seed in 0..4 {
        let world = World::new().await;
        let endpoint = world.endpoint(|_| Fault::None);
        let mut random = Random::new(seed);
        let history: Vec<Change> = (0..120)
            .map(|number| {
                let id = Value::number(i64::try_from(random.below(4)).unwrap());
                let committed = COMMIT + number * APART;
                let behind = i64::try_from(random.number() % BEHIND).unwrap();
                let lag = if random.percent(30) { -behind } else { 98_700_000 };
                let row = vec![("text", Value::text("x".repeat(if random.percent(3) { 410_000 } else { 10 })))];
                let upsert = Change { lag, ..Change::upsert("users", id, committed, row) };
                if random.percent(25) { Change { row: None, ..upsert } } else { upsert }
            })
            .collect();
        let records = stream(0, &history, seed + 100);
        let mut mapping = from_trim_horizon(&records, Settings { batch_size: 5, ..Settings::default() });
        let earliest = [("SOURCE_TABLES", "users(id)"), ("OBJECTS_BUCKET", BUCKET), ("COMMIT_TIMESTAMP", "earliest")];
        let old = Function::with_settings(&endpoint.endpoint(), VIEW, &earliest).await;
        let new = deployed(&endpoint, "users(id)", false).await;
        while let Some(delivery) = mapping.next_delivery() {
            let outcome = invoke(if random.percent(60) { &old } else { &new }, &delivery).await;
            mapping.settle(&delivery, &outcome);
        }
        // Only rows with two changes within the time by which the clock was behind are wrong.
        let view = world.view().await;
        for id in 0..4 {
            let of_row: Vec<&Change> = history.iter().filter(|change| change.key[0].1 == Value::number(id)).collect();
            let Some(newest) = of_row.last() else { continue };
            let shown = view[&newest.view_key()]["_tx_id"].as_s().unwrap();
            if *shown != newest.transaction {
                rows_that_were_wrong += 1;
                let closest = of_row.windows(2).map(|pair| pair[1].committed - pair[0].committed).min().unwrap();
                assert!(closest <= BEHIND, "row {id} of {seed}: {closest}");
            }
        }
        let next = deployed(&endpoint, "users(id)", false).await;
        drain(&mut from_trim_horizon(&records, Settings::default()), &next).await;
        world.assert_shows(&history).await;
    }
    assert!(rows_that_were_wrong > 0, "the old order has some wrong");
}

#[tokio::test]
async fn a_new_version_takes_over_in_the_middle_of_the_stream() {
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let history = history(1, 200);
    let mut mapping = from_trim_horizon(&stream(0, &history, 2), Settings { batch_size: 5, ..Settings::default() });
    let old = deployed(&endpoint, BOTH, false).await;
    for _ in 0..8 {
        let delivery = mapping.next_delivery().unwrap();
        let outcome = invoke(&old, &delivery).await;
        mapping.settle(&delivery, &outcome);
    }
    // For one of the old version's invocations, no answer reaches Lambda.
    let (one, other) = (mapping.next_delivery().unwrap(), mapping.next_delivery().unwrap());
    let (answer, _) = tokio::join!(invoke(&old, &one), invoke(&old, &other));
    mapping.settle(&one, &answer);
    mapping.settle(&other, &Outcome::Failed);
    // Both versions run for a while.
    let new = deployed(&endpoint, BOTH, true).await;
    for _ in 0..6 {
        let (one, other) = (mapping.next_delivery().unwrap(), mapping.next_delivery().unwrap());
        let (of_old, of_new) = tokio::join!(invoke(&old, &one), invoke(&new, &other));
        mapping.settle(&one, &of_old);
        mapping.settle(&other, &of_new);
    }
    assert!(mapping.backlog() > 0, "the new version has something left to do");
    drain(&mut mapping, &new).await;
    assert!(mapping.on_failure().is_empty());
    world.assert_shows(&history).await;
}

#[tokio::test]
async fn a_table_that_is_added_later_has_what_changes_from_then_on_and_all_once_the_stream_is_read_again() {
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let history = history(3, 160);
    let (before, after) = history.split_at(100);
    let first = stream(0, before, 4);
    let second = stream(first.len() as u64, after, 5);
    let mut mapping = from_trim_horizon(&first, Settings::default());
    drain(&mut mapping, &deployed(&endpoint, "users(id)", false).await).await;
    Model::of(of_table("users", before)).assert_equals(&world.view().await);

    // The mapping goes on where it was.
    let both = deployed(&endpoint, BOTH, false).await;
    put(&mut mapping, &second);
    drain(&mut mapping, &both).await;
    Model::of(of_table("users", before).chain(after)).assert_equals(&world.view().await);

    let mut again = from_trim_horizon(&[first, second].concat(), Settings::default());
    drain(&mut again, &deployed(&endpoint, BOTH, false).await).await;
    world.assert_shows(&history).await;
}

#[tokio::test]
async fn a_table_that_is_taken_out_keeps_its_items_and_is_filtered_until_it_comes_back() {
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let history = history(6, 120);
    let (before, after) = history.split_at(60);
    let first = stream(0, before, 7);
    let second = stream(first.len() as u64, after, 8);
    let mut mapping = from_trim_horizon(&first, Settings::default());
    drain(&mut mapping, &deployed(&endpoint, BOTH, false).await).await;
    put(&mut mapping, &second);
    drain(&mut mapping, &deployed(&endpoint, "users(id)", false).await).await;
    Model::of(of_table("orders", before).chain(of_table("users", &history))).assert_equals(&world.view().await);
    assert!(world.keys("quarantine/").is_empty());

    let mut again = from_trim_horizon(&second, Settings::default());
    drain(&mut again, &deployed(&endpoint, BOTH, false).await).await;
    world.assert_shows(&history).await;
}

#[tokio::test]
async fn a_table_with_other_key_columns_has_items_of_its_own_beside_the_old_ones() {
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let order =
        |commit: u64| Change::upsert("orders", Value::number(1), COMMIT + commit, vec![("item", Value::number(7))]);
    for (source_tables, commit) in [("orders(id)", 0), ("orders(id, item)", 1)] {
        assert!(deployed(&endpoint, source_tables, false).await.deliver([order(commit).record()]).await.is_empty());
    }
    let keys: Vec<String> = items(&world.db).await.into_keys().collect();
    assert_eq!(keys, ["public.orders#1", "public.orders#1#7"]);
}

/// Fills a view from a history whose stream also has poison. Returns the function, the stream, and the view's items.
async fn filled(world: &World, endpoint: &FaultProxy, history: &[Change]) -> (Function, Vec<KinesisRecord>, Items) {
    let mut records = stream(0, history, 10);
    records.extend((0..3).map(|place| KinesisRecord::at(1000 + place, format!("poison {place}"))));
    let function = deployed(endpoint, BOTH, false).await;
    drain(&mut from_trim_horizon(&records, Settings::default()), &function).await;
    world.assert_shows(history).await;
    (function, records, items(&world.db).await)
}

#[tokio::test]
async fn a_stream_that_is_read_again_mends_the_view_and_takes_nothing_back() {
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let history = history(9, 120);
    let (_, records, before) = filled(&world, &endpoint, &history).await;
    let quarantined = world.keys("quarantine/");
    assert_eq!(quarantined.len(), 3);
    // One item is lost, and another is an older copy; neither row is large or deleted.
    let small = |key: &&String| !before[*key].contains_key("_overflow") && !before[*key].contains_key("_deleted");
    let damaged: Vec<String> = before.keys().filter(small).take(2).cloned().collect();
    for key in &damaged {
        remove(&world, key).await;
    }
    let oldest = history.iter().find(|change| change.view_key() == damaged[1]).unwrap();
    deployed(&endpoint, BOTH, false).await.deliver([oldest.record()]).await;

    let function = deployed(&endpoint, BOTH, false).await;
    let mut again = from_trim_horizon(&records, Settings::default());
    while let Some(delivery) = again.next_delivery() {
        let outcome = invoke(&function, &delivery).await;
        again.settle(&delivery, &outcome);
        let now = items(&world.db).await;
        for (key, item) in before.iter().filter(|(key, _)| !damaged.contains(key)) {
            assert_eq!(&now[key], item, "what was right stays as it is, a tombstone's expiry too");
        }
    }
    world.assert_shows(&history).await;
    // The poison records go to the same objects again.
    assert_eq!(world.keys("quarantine/"), quarantined);
}

#[tokio::test]
async fn an_emptied_view_is_filled_by_a_function_that_is_deployed_anew_and_not_by_one_that_runs() {
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let history = history(11, 120);
    let (running, records, before) = filled(&world, &endpoint, &history).await;
    empty(&world).await;
    drain(&mut from_trim_horizon(&records, Settings::default()), &running).await;
    // The function remembers for five minutes what it wrote, but checks rows with moved columns anyway.
    let back = items(&world.db).await;
    let was_large = |change: &Change| change.record().len() > 409_600;
    let large: Vec<String> = history.iter().filter(|change| was_large(change)).map(Change::view_key).collect();
    assert!(back.len() < before.len() && back.keys().all(|key| large.contains(key)), "{:?}", back.keys());

    empty(&world).await;
    let new = deployed(&endpoint, BOTH, false).await;
    drain(&mut from_trim_horizon(&records, Settings::default()), &new).await;
    world.assert_shows(&history).await;
    assert!(items(&world.db).await.values().any(|item| item.contains_key("_deleted")), "tombstones are there again");
}

#[tokio::test]
async fn what_the_stream_no_longer_holds_stays_in_a_view_and_does_not_come_into_an_empty_one() {
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let history = history(12, 120);
    let (expired, held) = history.split_at(100);
    let (first, second) = (stream(0, expired, 13), stream(1000, held, 14));
    let all = [first, second.clone()].concat();
    drain(&mut from_trim_horizon(&all, Settings::default()), &deployed(&endpoint, BOTH, false).await).await;
    let read_again = async || {
        let function = deployed(&endpoint, BOTH, false).await;
        drain(&mut from_trim_horizon(&second, Settings::default()), &function).await;
    };
    read_again().await;
    world.assert_shows(&history).await;
    empty(&world).await;
    read_again().await;
    world.assert_shows(held).await;
    assert!(Model::of(&history).differences(&world.view().await).len() > 5, "rows are missing");
}

#[tokio::test]
async fn records_that_are_too_old_for_a_new_stack_s_mapping_come_by_the_redrive_function() {
    for too_old in [TooOld::Batch, TooOld::Records] {
        let world = World::new().await;
        let shards = LocalShards::start(20, Trimmed::Oldest);
        let queues = LocalQueues::start(&[("failed", Some("dead")), ("dead", None)]);
        let upstreams = [
            (Service::DynamoDb, world.db.endpoint()),
            (Service::S3, world.s3.endpoint()),
            (Service::Kinesis, shards.endpoint()),
            (Service::Sqs, queues.endpoint()),
        ];
        let endpoint = FaultProxy::before_services(&upstreams, |_| Fault::None);
        let history = history(15, 120);
        let (old, young) = history.split_at(60);
        let (first, second) = (stream(0, old, 16), stream(1000, young, 17));
        shards.put(first.iter().chain(&second).cloned());
        // After six hours, as in the template.
        let settings = Settings { maximum_age: Some(Duration::from_hours(6)), too_old, ..Settings::default() };
        let mut mapping = from_trim_horizon(&first, settings);
        mapping.pass(Duration::from_hours(7));
        put(&mut mapping, &second);
        drain(&mut mapping, &deployed(&endpoint, BOTH, false).await).await;

        let messages = mapping.on_failure();
        assert!(!messages.is_empty());
        let variable = |name: &str| match name {
            "VIEW_TABLE" => Some(VIEW.to_owned()),
            "SOURCE_TABLES" => Some(BOTH.to_owned()),
            "OBJECTS_BUCKET" => Some(BUCKET.to_owned()),
            _ => None,
        };
        let config = Config::from_variables(variable).unwrap();
        let redrive = Redrive::start(config, &sdk_config(&endpoint.endpoint())).await.unwrap();
        for message in messages {
            let event = queues::event("failed", "m", &message.to_string(), 1);
            let invocation: Invocation = serde_json::from_value(event).unwrap();
            let answer = redrive.handle(invocation, Deadline::after(PLENTY)).await.unwrap();
            let Answer::Sqs(answer) = answer else { panic!("{answer:?}") };
            assert_eq!(serde_json::to_value(answer).unwrap(), json!({ "batchItemFailures": [] }));
        }
        world.assert_shows(&history).await;
    }
}

/// A function with a definition of `users` that has these lines.
async fn defined(world: &World, lines: &str) -> Function {
    let name: String = lines.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = format!("{}/users-{name}.toml", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, format!("version = 1\n[[table]]\nname = \"users\"\nprimary_key = [\"id\"]\n{lines}"))
        .unwrap();
    Function::with_settings(&world.db.endpoint(), VIEW, &[("VIEW_DEFINITIONS", &path)]).await
}

/// The names of the columns of the only item, or none if that is a tombstone.
async fn columns(world: &World) -> Vec<String> {
    let items = items(&world.db).await;
    assert_eq!(items.len(), 1, "{items:?}");
    let names = items.into_values().flat_map(Item::into_keys);
    names.filter(|name| !name.starts_with('_') || name == "_deleted").collect()
}

#[tokio::test]
async fn an_item_keeps_its_shape_until_its_row_changes() {
    let text = |text: &str| Value::text(text);
    let change = |commit: u64, status: &str| {
        let row = vec![("name", text("Ada")), ("status", text(status)), ("email", text("ada@example.com"))];
        Change::upsert("users", Value::number(1), COMMIT + commit, row).record()
    };
    let all = ["email", "id", "name", "status"];
    let shown = r#"rows = [{ column = "status", not_in = ["closed"] }]"#;
    let indexed = r#"attributes = { GSI1PK = "STATUS#{status}" }"#;
    let grouped = r#"group = { person = ["name", "email"] }"#;
    for (before, after, first, second) in [
        ("", r#"except = ["email"]"#, &all[..], &["id", "name", "status"][..]),
        (r#"except = ["email"]"#, "", &["id", "name", "status"], &all),
        ("", r#"rename = { name = "fullName" }"#, &all, &["email", "fullName", "id", "status"]),
        ("", indexed, &all, &["GSI1PK", "email", "id", "name", "status"]),
        ("", grouped, &all, &["id", "person", "status"]),
        ("", shown, &all, &["_deleted"]),
        (shown, "", &["_deleted"], &all),
        // By its key the row is not in the view any more, so its item stays as it was.
        ("", r#"rows = [{ column = "id", equals = 2 }]"#, &all, &all),
    ] {
        let world = World::new().await;
        assert!(defined(&world, before).await.deliver([change(1, "closed")]).await.is_empty());
        assert_eq!(columns(&world).await, first, "{before}");
        // Equal commits are duplicates, whatever the definition says now.
        let function = defined(&world, after).await;
        assert!(function.deliver([change(1, "closed"), change(0, "open")]).await.is_empty());
        assert_eq!(columns(&world).await, first, "{after}, read again");
        assert!(function.deliver([change(2, "closed")]).await.is_empty());
        assert_eq!(columns(&world).await, second, "{after}, after the next commit");
    }
}

#[tokio::test]
async fn another_key_fills_a_new_view_table_from_the_stream() {
    let world = World::new().await;
    world.db.create_view("new").await;
    let history: Vec<Change> =
        of_table("users", &history(21, 200)).filter(|change| change.record().len() < 100_000).cloned().collect();
    let records: Vec<String> = history.iter().map(Change::record).collect();
    assert!(defined(&world, "").await.deliver(&records).await.is_empty());
    let before = items(&world.db).await;

    let function = defined(&world, "view = \"new\"\nkey = { pk = \"USER#{id}\" }").await;
    let mut again = records.clone();
    Random::new(22).shuffle(&mut again);
    assert!(function.deliver(&again).await.is_empty());
    assert_eq!(items(&world.db).await, before, "the old table stays as it was");
    let moved = |key: &str| key.replace("public.users#", "USER#");
    let found = world.db.items("new").await;
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), before.keys().map(|key| moved(key)).collect::<Vec<_>>());
    for (key, mut item) in before {
        let mut other = found[&moved(&key)].clone();
        for item in [&mut item, &mut other] {
            item.retain(|name, _| name != KEY && name != "_expires_at");
        }
        assert_eq!(item, other, "{key}");
    }
}
