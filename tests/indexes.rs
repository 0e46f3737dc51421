//! An index of the view's table never costs a row: the function leaves out a value that the index does not take, counts
//! it and logs it once.

mod harness;

use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeyType, ScalarAttributeType};
use dsql_view::batch::disposition::{Disposition, Failure};
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::{Item, LocalDynamoDb, environment};
use dsql_view_support::kinesis::event_of;
use dsql_view_support::proxy::{Fault, FaultProxy};
use dsql_view_support::runtime_api;
use harness::{Function, PLENTY, VIEW, World};
use serde_json::Value as Json;

const COMMIT: u64 = 1_773_843_841_076_494_565;
const PRICE: (&str, KeyType, ScalarAttributeType) = ("price", KeyType::Hash, ScalarAttributeType::N);
const NAME: (&str, KeyType, ScalarAttributeType) = ("name", KeyType::Range, ScalarAttributeType::S);

fn user(id: i64, price: Value) -> Change {
    Change::upsert("users", Value::number(id), COMMIT, vec![("price", price), ("name", Value::text("Ada"))])
}

async fn item(db: &LocalDynamoDb, id: i64) -> Item {
    harness::items(db).await.remove(&format!("public.users#{id}")).expect("the row is there")
}

#[tokio::test]
async fn a_value_that_an_index_refuses_is_left_out_and_the_row_is_there() {
    let db = harness::dynamodb().await;
    db.add_index(VIEW, "by_price", &[PRICE, NAME]).await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let long = "x".repeat(1025);
    for (id, price, name, left_out) in [
        (1, Value::number(7), Value::text("Ada"), &[][..]),
        (2, Value::text("NaN"), Value::text("Ada"), &["price"]),
        (3, Value::Bool(true), Value::text(""), &["price", "name"]),
        (4, Value::Null, Value::text(&long), &["name"]),
        (5, Value::List(vec![]), Value::Map(vec![]), &["price", "name"]),
        // In no index, because it is stored as text.
        (6, Value::Number("1e38".to_owned()), Value::Null, &["price"]),
    ] {
        let row = vec![("price", price.clone()), ("name", name.clone()), ("other", Value::text(""))];
        let change = Change::upsert("users", Value::number(id), COMMIT, row);
        // A batch of one record each time: nothing is reported, and nothing waits for a neighbour.
        assert_eq!(function.dispositions([change.record()], PLENTY).await, [Disposition::Applied], "{id}");
        let found = item(&db, id).await;
        for (column, value) in [("price", price), ("name", name)] {
            let expected = value.attribute().filter(|_| !left_out.contains(&column));
            assert_eq!(found.get(column), expected.as_ref(), "{column} of {id}");
        }
        assert_eq!(found["other"], AttributeValue::S(String::new()));
    }
}

#[tokio::test]
async fn an_index_that_is_added_under_a_running_function_costs_no_row() {
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let function = world.function(&endpoint).await;
    assert!(function.deliver([user(1, Value::text("free")).record()]).await.is_empty());

    world.db.add_index(VIEW, "by_price", &[PRICE]).await;
    let before = endpoint.writes();
    let refused = function.dispositions([user(2, Value::text("free")).record()], PLENTY).await;
    assert_eq!((refused, endpoint.writes() - before), (vec![Disposition::Applied], 2), "refused, then written again");
    let known = function.dispositions([3, 4].map(|id| user(id, Value::text("free")).record()), PLENTY).await;
    assert_eq!((known, endpoint.writes() - before), (vec![Disposition::Applied; 2], 4), "known by now");
    for id in [2, 3, 4] {
        let found = item(&world.db, id).await;
        assert_eq!((found.get("price"), &found["name"]), (None, &AttributeValue::S("Ada".to_owned())), "{id}");
    }
    assert!(world.keys("").is_empty(), "nothing is quarantined");
}

#[tokio::test]
async fn an_index_that_is_removed_under_a_running_function_is_noticed_within_minutes() {
    let db = harness::dynamodb().await;
    db.add_index(VIEW, "by_price", &[PRICE]).await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let change = |commit| Change { committed: COMMIT + commit, ..user(1, Value::text("free")) };
    assert!(function.deliver([change(1).record()]).await.is_empty());
    db.remove_index(VIEW, "by_price").await;
    // The batch that finds the time over asks for the indexes, and the next batch knows them.
    for (commit, minutes, expected) in [(2, 0, None), (3, 6, None), (4, 0, Some(AttributeValue::S("free".to_owned())))]
    {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60 * minutes)).await;
        tokio::time::resume();
        assert!(function.deliver([change(commit).record()]).await.is_empty());
        assert_eq!(item(&db, 1).await.get("price"), expected.as_ref(), "after change {commit}");
    }
}

#[tokio::test]
async fn a_split_change_that_a_new_index_refuses_is_applied_without_the_value() {
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let function = world.function(&endpoint).await;
    world.db.add_index(VIEW, "by_price", &[PRICE]).await;
    assert!(function.deliver(user(1, Value::text("free")).split("chunk", 2)).await.is_empty());
    assert_eq!(item(&world.db, 1).await.get("price"), None);
    assert!(world.keys("quarantine/").is_empty());
}

#[tokio::test]
async fn an_index_that_dynamodb_does_not_tell_of_quarantines_nothing() {
    let world = World::new().await;
    let describes = std::sync::atomic::AtomicUsize::new(0);
    let endpoint = world.endpoint(move |call| {
        let is_first = describes
            .fetch_add(usize::from(call.operation == "DescribeTable"), std::sync::atomic::Ordering::SeqCst)
            == 0;
        if call.operation == "DescribeTable" && !is_first {
            Fault::Error { status: 400, code: "AccessDeniedException" }
        } else {
            Fault::None
        }
    });
    let function = world.function(&endpoint).await;
    world.db.add_index(VIEW, "by_price", &[PRICE]).await;
    for _ in 0..2 {
        let found = function.dispositions([user(1, Value::text("free")).record()], PLENTY).await;
        let [Disposition::Reported(failure @ Failure::RefusedByIndex(reason))] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert!(!failure.is_poison() && reason.contains("Index Key price") && !reason.contains("free"), "{reason}");
    }
    assert!(world.keys("").is_empty());
    // The next process learns of the index when it starts.
    let [next, _] = world.two_functions().await;
    assert!(next.deliver([user(1, Value::text("free")).record()]).await.is_empty());
}

#[tokio::test]
async fn an_index_on_what_guards_an_item_stops_the_start_and_costs_no_tombstone_later() {
    const DELETED: (&str, KeyType, ScalarAttributeType) = ("_deleted", KeyType::Hash, ScalarAttributeType::S);
    let world = World::new().await;
    let endpoint = world.endpoint(|_| Fault::None);
    let function = world.function(&endpoint).await;
    assert!(function.deliver([user(1, Value::number(1)).record()]).await.is_empty());
    world.db.add_index(VIEW, "by_mark", &[DELETED]).await;
    let gone = Change::delete("users", Value::number(1), COMMIT + 1);
    assert_eq!(function.deliver([gone.record()]).await, [0], "reported until the index is gone");
    assert!(world.keys("").is_empty() && !item(&world.db, 1).await.contains_key("_deleted"));

    let mut variables = environment(&world.db.endpoint());
    variables.extend([("VIEW_TABLE", VIEW.to_owned()), ("SOURCE_TABLES", "users(id)".to_owned())]);
    let mut next = runtime_api::Function::start(Path::new(env!("CARGO_BIN_EXE_dsql-view")), variables).unwrap();
    next.ready_or_ended().await;
    let error = next.init_error().expect("the start fails").to_string();
    assert!(error.contains("an index of the table view has the key attribute _deleted of type S"), "{error}");
}

#[tokio::test]
async fn what_is_left_out_is_counted_and_told_once() {
    let db = harness::dynamodb().await;
    db.add_index(VIEW, "by_price", &[PRICE]).await;
    let proxy = FaultProxy::start(&db.endpoint(), |_| Fault::None);
    let mut variables = environment(&proxy.endpoint());
    for (name, value) in [("VIEW_TABLE", VIEW), ("SOURCE_TABLES", "users(id)"), ("AWS_LAMBDA_LOG_FORMAT", "JSON")] {
        variables.push((name, value.to_owned()));
    }
    let mut function = runtime_api::Function::start(Path::new(env!("CARGO_BIN_EXE_dsql-view")), variables).unwrap();
    for batch in 0..2 {
        let rows = [1, 2].map(|row| user(10 * batch + row, Value::text("free")).record());
        function.invoke(event_of(rows).to_string(), Duration::from_secs(60)).await.response();
        function.log_line("batch", usize::try_from(batch).unwrap() + 1).await.expect("a line a batch");
    }
    let lines =
        || -> Vec<Json> { function.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    let counted = |lines: &[Json]| -> Vec<i64> {
        let received = lines.iter().filter(|line| line["Received"].is_number());
        received.filter_map(|line| line["LeftOutOfIndexes"].as_i64()).collect()
    };
    // A batch's metrics follow its line.
    let started = std::time::Instant::now();
    while counted(&lines()).len() < 4 && started.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lines = lines();
    let told: Vec<&Json> = lines
        .iter()
        .filter(|line| line["message"].as_str().is_some_and(|text| text.contains("is left out of these rows")))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let message = told[0]["message"].as_str().unwrap();
    assert!(
        message.contains("values of price") && message.contains("public.users") && message.contains("type N"),
        "{message}"
    );
    assert!(!message.contains("free"));
    // A line for the batch and one for its table, twice.
    assert_eq!(counted(&lines), [2, 2, 2, 2]);
}
