//! If a function knows that the view shows a change, it makes no request for it; and it never hides a change that the
//! view would take.

mod harness;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view::batch::disposition::{Disposition, Superseded};
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::KEY;
use dsql_view_support::model::Model;
use dsql_view_support::proxy::{Fault, FaultProxy};
use harness::{Function, PLENTY, VIEW};

const COMMIT: u64 = 1_773_843_841_076_494_565;

fn user(id: u64, commit: u64) -> Change {
    let row = vec![("email", Value::text(format!("{id}@{commit}.example.com")))];
    Change::upsert("users", Value::number(id), COMMIT + commit, row)
}

fn records<'c>(changes: impl IntoIterator<Item = &'c Change>) -> Vec<String> {
    changes.into_iter().map(Change::record).collect()
}

#[tokio::test]
async fn a_batch_costs_one_write_a_row_and_delivered_again_none() {
    let db = harness::dynamodb().await;
    let proxy = FaultProxy::start(&db.endpoint(), |_| Fault::None);
    let function = Function::new(&proxy.endpoint(), "users(id)").await;
    let history: Vec<Change> = (0..200).map(|place| user(place % 50, place)).collect();
    function.deliver(records(&history)).await;
    assert_eq!(proxy.writes(), 50);

    for again in [records(&history), records(history.iter().rev()), records(&history[..7])] {
        let dispositions = function.dispositions(again, PLENTY).await;
        assert!(
            dispositions.iter().all(|end| *end == Disposition::Superseded(Superseded::Remembered)),
            "{dispositions:?}"
        );
    }
    assert_eq!(proxy.writes(), 50);
    Model::of(&history).assert_equals(&harness::items(&db).await);
}

#[tokio::test]
async fn after_a_partly_failed_batch_only_the_failed_rows_are_written_again() {
    let db = harness::dynamodb().await;
    let failing = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&failing);
    let refused = Fault::Error { status: 400, code: "NewInAnotherYearException" };
    let proxy = FaultProxy::start(&db.endpoint(), move |call| {
        let fails = switch.load(Ordering::SeqCst) && (0..5).any(|id| call.writes(&format!("public.users#{id}")));
        if fails { refused.clone() } else { Fault::None }
    });
    let function = Function::new(&proxy.endpoint(), "users(id)").await;
    let history: Vec<Change> = (0..40).map(|id| user(id, 0)).collect();
    let reported: BTreeSet<u64> = function.deliver(records(&history)).await.into_iter().collect();
    assert_eq!(reported, (0..5).collect());

    failing.store(false, Ordering::SeqCst);
    let before = proxy.writes();
    assert!(function.deliver(records(&history)).await.is_empty());
    assert_eq!(proxy.writes() - before, 5);
    Model::of(&history).assert_equals(&harness::items(&db).await);
}

#[tokio::test]
async fn what_another_function_wrote_meanwhile_stays() {
    let db = harness::dynamodb().await;
    let one = Function::new(&db.endpoint(), "users(id)").await;
    let other = Function::new(&db.endpoint(), "users(id)").await;
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|commit| user(7, commit));
    for (function, change, expected) in [
        (&one, &first, Disposition::Applied),
        (&other, &third, Disposition::Applied),
        // Newer than the change that this function knows, older than the one that the view shows.
        (&one, &second, Disposition::Superseded(Superseded::Told)),
        (&one, &third, Disposition::Superseded(Superseded::Told)),
        (&one, &second, Disposition::Superseded(Superseded::Remembered)),
        (&one, &fourth, Disposition::Applied),
        (&other, &fourth, Disposition::Superseded(Superseded::Told)),
    ] {
        assert_eq!(function.dispositions([change.record()], PLENTY).await, [expected]);
    }
    Model::of([&first, &second, &third, &fourth]).assert_equals(&harness::items(&db).await);
}

#[tokio::test]
async fn a_row_whose_tombstone_has_expired_stays_deleted() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let delete = Change::delete("users", Value::number(7), COMMIT + 2);
    for change in [user(7, 1), delete.clone()] {
        function.deliver([change.record()]).await;
    }
    let key = AttributeValue::S("public.users#7".to_owned());
    db.client().delete_item().table_name(VIEW).key(KEY, key).send().await.unwrap();
    for late in [user(7, 1), delete] {
        assert_eq!(
            function.dispositions([late.record()], PLENTY).await,
            [Disposition::Superseded(Superseded::Remembered)]
        );
    }
    assert!(harness::items(&db).await.is_empty());
    // A new insert of the row is a newer commit.
    assert_eq!(function.dispositions([user(7, 3).record()], PLENTY).await, [Disposition::Applied]);
    Model::of([&user(7, 3)]).assert_equals(&harness::items(&db).await);
}
