//! Creates that are sent together make the same view as puts one after the other, in fewer requests.

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dsql_view::batch::disposition::Disposition;
use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::dynamodb::{Items, LocalDynamoDb};
use dsql_view_support::model::Model;
use dsql_view_support::proxy::{Fault, FaultProxy};
use harness::{Function, PLENTY, VIEW};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

const COMMIT: u64 = 1_773_843_841_076_494_565;

fn create(id: u64, row: Vec<(&str, Value)>) -> Change {
    Change { layout: Layout::Preview, ..Change::upsert("users", Value::number(id), COMMIT + id, row) }
}

fn creates(ids: std::ops::Range<u64>) -> Vec<Change> {
    ids.map(|id| create(id, vec![("name", Value::text(format!("{id}")))])).collect()
}

fn records(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::record).collect()
}

/// A proxy that only counts the PutItem and the BatchExecuteStatement calls.
fn counting(db: &LocalDynamoDb) -> (FaultProxy, impl Fn() -> [usize; 2]) {
    let counts = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let counted = Arc::clone(&counts);
    let proxy = FaultProxy::start(&db.endpoint(), move |call| {
        counted[usize::from(call.operation != "PutItem")].fetch_add(1, Ordering::SeqCst);
        Fault::None
    });
    (proxy, move || counts.each_ref().map(|count| count.swap(0, Ordering::SeqCst)))
}

#[tokio::test]
async fn creates_go_together_and_what_finds_its_row_is_put() {
    let db = harness::dynamodb().await;
    let (proxy, calls) = counting(&db);
    // One request at a time, so that the counts do not depend on which of two answers comes first.
    let settings = [("SOURCE_TABLES", "users(id)"), ("WRITE_CONCURRENCY", "1"), ("BATCHED_CREATES", "true")];
    let function = Function::with_settings(&proxy.endpoint(), VIEW, &settings).await;
    let other = Function::with_settings(&db.endpoint(), VIEW, &settings).await;

    let first = creates(0..60);
    let ends = function.dispositions(records(&first), PLENTY).await;
    assert!(ends.iter().all(|end| *end == Disposition::Applied), "{ends:?}");
    assert_eq!(calls(), [0, 3]);
    // The function asks nothing about rows that it knows, and finds the row that another function wrote.
    other.deliver(records(&creates(60..61))).await;
    let ends = function.dispositions(records(&creates(50..70)), PLENTY).await;
    let applied = ends.iter().filter(|end| **end == Disposition::Applied).count();
    assert_eq!((applied, ends.len()), (9, 20));
    assert_eq!(calls(), [1, 1]);
    // After that, the function puts fifty rows one by one.
    function.deliver(records(&creates(70..170))).await;
    assert_eq!(calls(), [50, 2]);
    Model::of(&creates(0..170)).assert_equals(&harness::items(&db).await);
}

#[tokio::test]
async fn without_the_setting_and_without_a_create_each_row_is_put() {
    for (setting, layout) in [("false", Layout::Preview), ("true", Layout::Documented)] {
        let db = harness::dynamodb().await;
        let (proxy, calls) = counting(&db);
        let settings = [("SOURCE_TABLES", "users(id)"), ("BATCHED_CREATES", setting)];
        let function = Function::with_settings(&proxy.endpoint(), VIEW, &settings).await;
        let changes: Vec<Change> = creates(0..30).into_iter().map(|change| Change { layout, ..change }).collect();
        assert!(function.deliver(records(&changes)).await.is_empty());
        assert_eq!(calls(), [30, 0], "{setting} {layout:?}");
    }
}

/// The view after these creates, each put by itself or sent together, and the number of requests with many statements.
/// The view's table has this name.
async fn view(table: &str, changes: &[Change], together: bool) -> (Items, usize) {
    let db = LocalDynamoDb::start();
    db.create_view(table).await;
    let (proxy, calls) = counting(&db);
    let settings = [("SOURCE_TABLES", "users(id)"), ("BATCHED_CREATES", if together { "true" } else { "false" })];
    let function = Function::with_settings(&proxy.endpoint(), table, &settings).await;
    let ends = function.dispositions(records(changes), PLENTY).await;
    assert!(ends.iter().all(|end| *end == Disposition::Applied), "{ends:?}");
    (db.items(table).await, calls()[1])
}

#[tokio::test]
async fn names_and_values_of_every_kind_are_the_same_either_way() {
    let values = [
        json!({ "text": "", "quoted": "it's \"?\" \\ \n é😀 \u{0}", "t": true, "f": false, "null": null }),
        json!({ "list": [1, [], {}, null, ["x", { "a": [true] }]], "map": { "it's": { "": 1, "b": null } } }),
        json!({ "a\"\"b": 1, "it's": 2, "?": 3, "': ?, 'x": 4, "{}": 5, "é😀": 6, " ": 7, "a.b-c:d": 8, "#a": 9 }),
        json!({ "select": 1, "VALUE": 2, "\\": 3, "a\nb": 4, "\u{7f}": 5 }),
    ];
    let mut changes = creates(0..3);
    let mut row = |row: Vec<(String, Value)>| {
        let row = row.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        changes.push(create(changes.len() as u64, row));
    };
    for value in values {
        let members = value.as_object().unwrap().iter();
        let nameless = |value: &serde_json::Value| value["it's"].get("").is_some();
        row(members
            .filter(|(_, value)| !nameless(value))
            .map(|(name, value)| (name.clone(), Value::of(value)))
            .collect());
    }
    let digits = ["0", "-0.0", "1E-130", "9.99E125", "12345678901234567890.0987654321", "1e400", "0.10"];
    row(digits.iter().enumerate().map(|(at, n)| (format!("n{at}"), Value::Number((*n).to_owned()))).collect());
    // Names that are too long for a statement, a value that is too large, and too many columns.
    row(vec![("'".repeat(5000), Value::Bool(true))]);
    row(vec![("large".to_owned(), Value::text("x".repeat(20_000)))]);
    row((0..900).map(|column| (format!("column{column}"), Value::Bool(true))).collect());
    for table in ["view", "my.view-2_b"] {
        let (one_by_one, requests) = view(table, &changes, false).await;
        assert_eq!((one_by_one.len(), requests), (changes.len(), 0));
        Model::of(&changes).assert_equals(&one_by_one);
        let (together, requests) = view(table, &changes, true).await;
        assert_eq!(together, one_by_one);
        assert_eq!(requests, 1);
    }
}

#[test]
fn whatever_the_columns_the_items_are_the_same_either_way() {
    let value = || {
        prop_oneof![
            any::<String>().prop_map(Value::text),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| Value::Number(n.to_string())),
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Null),
            proptest::collection::vec(any::<Option<i64>>(), 0..4).prop_map(|list| Value::of(&json!(list))),
            proptest::collection::btree_map(".{1,4}", any::<String>(), 0..4).prop_map(|map| Value::of(&json!(map))),
        ]
    };
    let name = prop_oneof!["[a-z]{1,3}", "['\"?{},: ]{1,6}", ".{1,6}", any::<char>().prop_map(String::from)];
    let free = name.prop_filter("a name of the view's own", |name| !name.starts_with('_') && name != "id");
    let row = proptest::collection::btree_map(free, value(), 0..6);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let result = runner.run(&proptest::collection::vec(row, 2..30), |rows| {
        let row = |(id, row): (u64, &std::collections::BTreeMap<String, Value>)| {
            create(id, row.iter().map(|(name, value)| (name.as_str(), value.clone())).collect())
        };
        let changes: Vec<Change> = (0..).zip(&rows).map(row).collect();
        runtime.block_on(async {
            let [one_by_one, together] = [view(VIEW, &changes, false).await, view(VIEW, &changes, true).await];
            prop_assert_eq!(one_by_one.0, together.0);
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[tokio::test]
async fn a_create_that_is_done_late_brings_nothing_back() {
    let db = harness::dynamodb().await;
    let proxy = FaultProxy::start(&db.endpoint(), |call| {
        let is_late = (10..20).any(|id| call.writes(&format!("public.users#{id}")));
        if is_late { Fault::Delay(std::time::Duration::from_secs(7)) } else { Fault::None }
    });
    let settings = [("SOURCE_TABLES", "users(id)"), ("BATCHED_CREATES", "true")];
    let slow = Function::with_settings(&proxy.endpoint(), VIEW, &settings).await;
    let old = creates(0..10);
    let given_up = slow.deliver(records(&old[..])).await;
    assert!(given_up.is_empty());
    drop(slow);

    let late = creates(10..20);
    let slow = Function::with_settings(&proxy.endpoint(), VIEW, &settings).await;
    let ends = slow.dispositions(records(&late), std::time::Duration::from_secs(4)).await;
    assert!(ends.iter().all(|end| matches!(end, Disposition::Reported(_))), "{ends:?}");
    let deleted = Change::delete("users", Value::number(12_u64), COMMIT + 100);
    Function::new(&db.endpoint(), "users(id)").await.deliver([deleted.record()]).await;
    assert!(!proxy.is_quiet() && !harness::items(&db).await.contains_key("public.users#13"));
    while !proxy.is_quiet() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Model::of(old.iter().chain(&late).chain([&deleted])).assert_equals(&harness::items(&db).await);
}

#[tokio::test]
async fn statements_that_are_refused_for_a_while_are_put() {
    for code in ["ThrottlingError", "InternalServerError", "AccessDenied", "ValidationError", "NewInAnotherYear"] {
        let db = harness::dynamodb().await;
        let proxy = FaultProxy::start(&db.endpoint(), move |_| Fault::Statements { code });
        let settings = [("SOURCE_TABLES", "users(id)"), ("BATCHED_CREATES", "true")];
        let function = Function::with_settings(&proxy.endpoint(), VIEW, &settings).await;
        let changes = creates(0..30);
        let ends = function.dispositions(records(&changes), PLENTY).await;
        assert!(ends.iter().all(|end| *end == Disposition::Applied), "{code}: {ends:?}");
        Model::of(&changes).assert_equals(&harness::items(&db).await);
    }
}
