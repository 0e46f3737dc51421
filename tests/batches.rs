//! Batches of every shape: empty, filtered as a whole, all of one row, as large as Lambda delivers them.

mod harness;

use std::time::Duration;

use dsql_view::batch::disposition::Disposition;
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::model::Model;
use dsql_view_support::proxy::{Fault, FaultProxy};
use harness::{Function, PLENTY, VIEW};
use serde_json::json;

const COMMIT: u64 = 1_773_843_841_076_494_565;

/// The largest event that Lambda sends, Base64 and metadata included.
const LARGEST_PAYLOAD: usize = 6 * 1024 * 1024;

fn user(id: u64, commit: u64) -> Change {
    Change::upsert(
        "users",
        Value::number(id),
        COMMIT + commit,
        vec![("email", Value::text(format!("{id}@example.com")))],
    )
}

#[tokio::test]
async fn an_empty_batch_is_answered_with_an_empty_list() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    assert_eq!(function.answer(&json!({ "Records": [] })).await, json!({ "batchItemFailures": [] }));
}

#[tokio::test]
async fn a_batch_of_filtered_tables_writes_nothing() {
    let db = harness::dynamodb().await;
    let proxy = FaultProxy::start(&db.endpoint(), |_| Fault::None);
    let function = Function::new(&proxy.endpoint(), "orders(id)").await;
    let dispositions = function.dispositions((0..20).map(|id| user(id, 0).record()), PLENTY).await;
    assert_eq!(dispositions, vec![Disposition::Filtered; 20]);
    assert_eq!(proxy.writes(), 0);
}

#[tokio::test]
async fn five_thousand_changes_of_one_row_are_one_write() {
    let db = harness::dynamodb().await;
    let proxy = FaultProxy::start(&db.endpoint(), |_| Fault::None);
    let function = Function::new(&proxy.endpoint(), "users(id)").await;
    // A stride that is coprime to 5,000 visits each commit once, out of order.
    let history: Vec<Change> = (0..5000).map(|place| user(1, place * 1237 % 5000)).collect();
    let dispositions = function.dispositions(history.iter().map(Change::record), PLENTY).await;
    let applied: Vec<usize> = (0..5000).filter(|place| dispositions[*place] == Disposition::Applied).collect();
    assert_eq!(applied.len(), 1);
    assert_eq!(history[applied[0]].committed, COMMIT + 4999);
    assert_eq!(proxy.writes(), 1);
    Model::of(&history).assert_equals(&harness::items(&db).await);
}

#[tokio::test]
async fn the_largest_batch_is_applied_with_no_more_writes_in_flight_than_set() {
    let db = harness::dynamodb().await;
    // Once the pace is at its highest, as many writes as may be in flight are delayed for so long that they overlap,
    // however slow the machine.
    let proxy = FaultProxy::start(&db.endpoint(), |call| {
        Fault::Delay(Duration::from_millis(if (1000..1048).contains(&call.number) { 2000 } else { 2 }))
    });
    let settings = [("SOURCE_TABLES", "users(id)"), ("WRITE_CONCURRENCY", "48")];
    let function = Function::with_settings(&proxy.endpoint(), VIEW, &settings).await;
    let history: Vec<Change> = (0..6200).map(|id| user(id, id)).collect();
    let event = dsql_view_support::kinesis::event_of(history.iter().map(Change::record));
    let bytes = event.to_string().len();
    assert!((LARGEST_PAYLOAD * 9 / 10..=LARGEST_PAYLOAD).contains(&bytes), "the event has {bytes} bytes");

    assert_eq!(function.answer(&event).await, json!({ "batchItemFailures": [] }));
    Model::of(&history).assert_equals(&harness::items(&db).await);
    // One write a row, and repetitions: a slow machine does not answer some writes in time, and each of these is still
    // on its way beside its repetition.
    let repeated = proxy.writes() - 6200;
    assert!(repeated < 300, "{repeated} writes are repeated");
    let most = proxy.most_in_flight();
    assert!((48..=48 + repeated).contains(&most), "{most} writes in flight, {repeated} repeated");
}

#[tokio::test]
async fn an_event_may_hold_records_of_several_shards_and_reports_the_lowest_first() {
    use dsql_view_support::kinesis::{self, KinesisRecord};
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let at = |shard: u32, sequence_number: &str| KinesisRecord {
        shard,
        sequence_number: sequence_number.to_owned(),
        ..KinesisRecord::at(0, "broken")
    };
    let event = kinesis::event(&[at(1, "100"), at(0, "99"), at(1, "101")]);
    let numbers = ["99", "100", "101"].map(|number| json!({ "itemIdentifier": number }));
    assert_eq!(function.answer(&event).await, json!({ "batchItemFailures": numbers }));
}
