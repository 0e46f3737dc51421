//! DynamoDB stores what was sent, and agrees with us on sizes.

mod harness;

use std::collections::HashMap;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view::item::values::{self, LARGEST_ITEM};
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::{KEY, LocalDynamoDb};
use dsql_view_support::model::Model;
use harness::{Function, VIEW};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::value::RawValue;

const COMMIT: u64 = 1_773_843_841_076_494_565;

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("JSON has no such number", |number| number.is_finite())
            .prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,45})(\\.[0-9]{1,45})?",
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?[eE][+-]?[0-9]{1,3}",
        "-?[1-9][0-9]{36,38}",
        "0\\.0{0,128}[1-9][0-9]{0,37}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => number().prop_map(Value::Number),
        3 => "\\PC{0,24}".prop_map(Value::text),
        1 => ".{0,8}".prop_map(Value::text),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(6, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            proptest::collection::btree_map("[a-z%#. é]{1,6}", inner, 0..4)
                .prop_map(|members| Value::Map(members.into_iter().collect())),
        ]
    })
}

fn row() -> impl Strategy<Value = Vec<(String, Value)>> {
    proptest::collection::btree_map("[a-z][a-z_ é]{0,8}", value(), 0..8).prop_map(|mut columns| {
        for reserved in ["id", KEY] {
            columns.remove(reserved);
        }
        columns.into_iter().collect()
    })
}

fn for_all<S: Strategy>(cases: u32, strategy: &S, check: &impl AsyncFn(S::Value, &LocalDynamoDb)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let db = runtime.block_on(harness::dynamodb());
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(strategy, |case| {
        runtime.block_on(check(case, &db));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn what_is_read_back_is_what_was_sent() {
    for_all(256, &(row(), any::<u32>()), &async |(row, id), db| {
        let change = Change { row: Some(row), ..Change::upsert("users", Value::number(id), COMMIT, vec![]) };
        let function = Function::new(&db.endpoint(), "users(id)").await;
        assert!(function.deliver([change.record()]).await.is_empty());
        let mut items = harness::items(db).await;
        items.retain(|key, _| *key == change.view_key());
        Model::of([&change]).assert_equals(&items);
        // The next case may have the same id.
        db.client().delete_item().table_name(VIEW).key(KEY, AttributeValue::S(change.view_key())).send().await.unwrap();
    });
}

/// A date counts days, from 1970 or, as PostgreSQL stores it, from 2000, in 32 or in 64 bits. The documentation does
/// not say which number stands for an infinite date.
#[tokio::test]
async fn the_numbers_that_stand_for_infinite_dates_and_timestamps_are_stored_digit_for_digit() {
    let sentinels = [
        ("timestamp_infinity", "9223372036825200000"),
        ("timestamp_minus_infinity", "-9223372036832400000"),
        ("date_infinity", "2147494604"),
        ("date_minus_infinity", "-2147472691"),
        ("date_infinity_from_2000", "2147483647"),
        ("date_minus_infinity_from_2000", "-2147483648"),
        ("date_infinity_in_64_bits", "106751991166"),
        ("date_minus_infinity_in_64_bits", "-106751991168"),
        ("any_infinity", "9223372036854775807"),
        ("any_minus_infinity", "-9223372036854775808"),
    ];
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let row = sentinels.map(|(column, digits)| (column, Value::Number(digits.to_owned()))).into();
    let change = Change::upsert("users", Value::number(1), COMMIT, row);
    assert!(function.deliver([change.record()]).await.is_empty());
    let item = &harness::items(&db).await["public.users#1"];
    for (column, digits) in sentinels {
        assert_eq!(item[column], AttributeValue::N(digits.to_owned()), "{column}");
    }
}

fn attribute(value: &Value) -> Option<AttributeValue> {
    let json: Box<RawValue> = serde_json::from_str(&value.json()).unwrap();
    values::column(&json).value
}

#[test]
fn the_size_of_an_item_is_what_dynamodb_counts_at_the_edge() {
    for_all(48, &row(), &async |row, db| {
        let mut item: HashMap<String, AttributeValue> =
            row.iter().filter_map(|(name, value)| Some((name.clone(), attribute(value)?))).collect();
        item.insert(KEY.to_owned(), AttributeValue::S("public.users#1".to_owned()));
        item.insert("padding".to_owned(), AttributeValue::S(String::new()));
        let padding = LARGEST_ITEM - values::item_size(&item);
        for (padding, fits) in [(padding, true), (padding + 1, false)] {
            item.insert("padding".to_owned(), AttributeValue::S("x".repeat(padding)));
            let put = db.client().put_item().table_name(VIEW).set_item(Some(item.clone())).send().await;
            match put {
                Ok(_) => assert!(fits, "DynamoDB took an item that we count {} bytes", values::item_size(&item)),
                Err(error) => {
                    let message = error.message().unwrap_or_default().to_owned();
                    assert!(!fits && message.contains("Item size"), "DynamoDB refused an item at the edge: {message}");
                }
            }
        }
    });
}

#[tokio::test]
async fn a_row_of_exactly_400_kilobytes_is_applied() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let row =
        |length: usize| Change::upsert("users", Value::number(1), COMMIT, vec![("t", Value::text("x".repeat(length)))]);
    // The names, the key (twice), the timestamp and the transaction take the rest.
    let item = |change: &Change| {
        let transaction = AttributeValue::S(change.transaction.clone());
        HashMap::from([
            (KEY.to_owned(), AttributeValue::S(change.view_key())),
            ("id".to_owned(), AttributeValue::N("1".to_owned())),
            ("t".to_owned(), AttributeValue::S(String::new())),
            ("_ts_ns".to_owned(), AttributeValue::N(change.committed.to_string())),
            ("_tx_id".to_owned(), transaction),
        ])
    };
    let room = LARGEST_ITEM - values::item_size(&item(&row(0)));
    assert_eq!(function.deliver([row(room + 1).record()]).await, [0]);
    assert!(function.deliver([row(room).record()]).await.is_empty());
    Model::of([&row(room)]).assert_equals(&harness::items(&db).await);
}

#[tokio::test]
async fn the_deepest_nesting_that_dynamodb_stores_is_applied() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let nested = |levels: usize| (0..levels).fold(Value::number(1), |inner, _| Value::List(vec![inner]));
    let row = |levels| Change::upsert("users", Value::number(1), COMMIT, vec![("tree", nested(levels))]);
    assert!(function.deliver([row(31).record()]).await.is_empty());
    Model::of([&row(31)]).assert_equals(&harness::items(&db).await);
    // With one more level, the value is stored as text.
    let deeper = Change { committed: COMMIT + 1, ..row(32) };
    assert!(function.deliver([deeper.record()]).await.is_empty());
    let text = vec![("tree", Value::text(nested(32).json()))];
    let as_text =
        Change { transaction: deeper.transaction, ..Change::upsert("users", Value::number(1), COMMIT + 1, text) };
    Model::of([&as_text]).assert_equals(&harness::items(&db).await);
    // DynamoDB agrees: it refuses the deeper value.
    let too_deep = nested(32).attribute().unwrap();
    let put =
        db.client().put_item().table_name(VIEW).item(KEY, AttributeValue::S("x".to_owned())).item("tree", too_deep);
    assert!(put.send().await.unwrap_err().message().unwrap_or_default().contains("Nesting Levels"));
}
