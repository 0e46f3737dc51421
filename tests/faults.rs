//! Faults between the function and DynamoDB: each ends as the contract says, and the next delivery completes the view.

mod harness;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dsql_view::batch::disposition::{Disposition, Failure, Superseded};
use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::dynamodb::LocalDynamoDb;
use dsql_view_support::model::Model;
use dsql_view_support::proxy::{Call, Fault, FaultProxy};
use harness::{Function, PLENTY, VIEW};

const COMMIT: u64 = 1_773_843_841_076_494_565;

/// Creates: records in the preview's layout say that they create their row.
fn history(rows: u64) -> Vec<Change> {
    let create = |id| Change {
        layout: Layout::Preview,
        ..Change::upsert("users", Value::number(id), COMMIT + id, vec![("name", Value::text("Ada"))])
    };
    (0..rows).map(create).collect()
}

fn records(history: &[Change]) -> Vec<String> {
    history.iter().map(Change::record).collect()
}

/// A plan with this fault for every n-th call.
fn every(n: usize, fault: Fault) -> impl Fn(&Call) -> Fault + Send + Sync {
    move |call| if call.number % n == 0 { fault.clone() } else { Fault::None }
}

#[tokio::test]
async fn faults_that_pass_are_retried_and_nothing_is_reported() {
    for fault in [
        Fault::THROTTLED,
        Fault::Error { status: 400, code: "ThrottlingException" },
        Fault::Error { status: 400, code: "RequestLimitExceeded" },
        Fault::ERROR_BEFORE_THE_WRITE,
        Fault::Error { status: 503, code: "ServiceUnavailable" },
        Fault::ErrorAfterTheWrite,
        Fault::Cut,
        Fault::CutAfterTheWrite,
        Fault::Delay(Duration::from_millis(20)),
    ] {
        for together in [false, true] {
            let db = harness::dynamodb().await;
            let proxy = FaultProxy::start(&db.endpoint(), every(3, fault.clone()));
            let function = Function::creating(&proxy.endpoint(), "users(id)", together).await;
            let history = history(40);
            let dispositions = function.dispositions(records(&history), PLENTY).await;
            assert!(dispositions.iter().all(is_confirmed), "{fault:?}: {dispositions:?}");
            Model::of(&history).assert_equals(&harness::items(&db).await);
        }
    }
}

fn is_confirmed(end: &Disposition) -> bool {
    matches!(end, Disposition::Applied | Disposition::Superseded(Superseded::Told))
}

#[tokio::test]
async fn a_row_whose_writes_fail_is_reported_alone_and_applied_when_it_comes_again() {
    let faults = [
        (Fault::THROTTLED, false),
        (Fault::ERROR_BEFORE_THE_WRITE, false),
        (Fault::ErrorAfterTheWrite, true),
        (Fault::Cut, false),
        (Fault::CutAfterTheWrite, true),
        (Fault::Error { status: 400, code: "NewInAnotherYearException" }, false),
    ];
    for ((fault, written), together) in faults.iter().flat_map(|fault| [(fault.clone(), false), (fault.clone(), true)])
    {
        let db = harness::dynamodb().await;
        let failing = Arc::new(AtomicBool::new(true));
        let (switch, injected) = (Arc::clone(&failing), fault.clone());
        let proxy = FaultProxy::start(&db.endpoint(), move |call| {
            let fails = switch.load(Ordering::SeqCst) && call.writes("public.users#1");
            if fails { injected.clone() } else { Fault::None }
        });
        let function = Function::creating(&proxy.endpoint(), "users(id)", together).await;
        let history = history(3);

        // The function retries throttled writes for as long as there is time.
        let is_throttled = fault == Fault::THROTTLED;
        let time = if is_throttled { Duration::from_secs(5) } else { PLENTY };
        let dispositions = function.dispositions(records(&history), time).await;
        if written && dispositions[1] == Disposition::Superseded(Superseded::Told) {
            // A retry came through and found the row's own commit: success.
        } else if is_throttled {
            assert_eq!(dispositions[1], Disposition::Reported(Failure::OutOfTime));
        } else {
            let Disposition::Reported(failure @ Failure::Retryable(_)) = &dispositions[1] else {
                panic!("{fault:?}: {dispositions:?}");
            };
            assert!(!failure.is_poison());
        }
        // If they were created together with the failing row, their puts find their own commits.
        let by_themselves =
            if together && written { Disposition::Superseded(Superseded::Told) } else { Disposition::Applied };
        assert_eq!([&dispositions[0], &dispositions[2]], [&by_themselves; 2], "{fault:?}");

        failing.store(false, Ordering::SeqCst);
        let again = function.dispositions(records(&history), PLENTY).await;
        let expected = if written { Disposition::Superseded(Superseded::Told) } else { Disposition::Applied };
        assert_eq!(
            again,
            [
                Disposition::Superseded(Superseded::Remembered),
                expected,
                Disposition::Superseded(Superseded::Remembered)
            ],
            "{fault:?}"
        );
        Model::of(&history).assert_equals(&harness::items(&db).await);
    }
}

#[tokio::test]
async fn without_table_permission_or_credentials_every_unapplied_record_is_reported_and_none_is_poison() {
    for code in [
        "ResourceNotFoundException",
        "AccessDeniedException",
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
    ] {
        let db = harness::dynamodb().await;
        // The first eight writes go through, then nothing does.
        let plan = move |call: &Call| if call.number < 8 { Fault::None } else { Fault::Error { status: 400, code } };
        let proxy = FaultProxy::start(&db.endpoint(), plan);
        let settings = [("SOURCE_TABLES", "users(id)"), ("WRITE_CONCURRENCY", "4")];
        let function = Function::with_settings(&proxy.endpoint(), VIEW, &settings).await;
        let history = history(500);
        let dispositions = function.dispositions(records(&history), PLENTY).await;

        let mut applied = 0;
        for end in &dispositions {
            match end {
                Disposition::Applied => applied += 1,
                Disposition::Reported(failure @ (Failure::Unavailable(_) | Failure::NotTried)) => {
                    assert!(!failure.is_poison());
                }
                other => panic!("{code}: {other:?}"),
            }
        }
        assert_eq!(applied, 8, "{code}");
        assert!(proxy.writes() < 30, "{code}: {} writes were tried", proxy.writes());
    }
}

#[tokio::test]
async fn a_table_that_is_gone_reports_the_batch() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    db.client().delete_table().table_name(VIEW).send().await.unwrap();
    assert_eq!(function.deliver(records(&history(3))).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_dynamodb_that_is_gone_reports_the_batch() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    drop(db);
    assert_eq!(function.deliver(records(&history(3))).await, [0, 1, 2]);
}

#[tokio::test]
async fn with_time_running_out_what_was_applied_counts_and_the_rest_is_reported() {
    let db = harness::dynamodb().await;
    let proxy = FaultProxy::start(&db.endpoint(), |_| Fault::Delay(Duration::from_millis(200)));
    let settings = [("SOURCE_TABLES", "users(id)"), ("WRITE_CONCURRENCY", "2")];
    let function = Function::with_settings(&proxy.endpoint(), VIEW, &settings).await;
    // All writes together would take a minute.
    let history = history(600);
    let started = Instant::now();
    let dispositions = function.dispositions(records(&history), Duration::from_secs(3)).await;
    assert!(started.elapsed() < Duration::from_secs(30), "the answer came after {:?}", started.elapsed());

    let applied: BTreeSet<usize> = dispositions
        .iter()
        .enumerate()
        .filter(|(_, end)| **end == Disposition::Applied)
        .map(|(place, _)| place)
        .collect();
    assert!(!applied.is_empty() && applied.len() < 600, "{} were applied", applied.len());
    for (place, end) in dispositions.iter().enumerate() {
        let expected =
            if applied.contains(&place) { Disposition::Applied } else { Disposition::Reported(Failure::OutOfTime) };
        assert_eq!(*end, expected);
    }
    // Nothing was started late: the view shows exactly the changes that the answer calls applied.
    let shown: Vec<&Change> = applied.iter().map(|place| &history[*place]).collect();
    Model::of(shown).assert_equals(&harness::items(&db).await);
}

#[tokio::test]
async fn a_dynamodb_that_hangs_does_not_hold_the_answer() {
    let db = harness::dynamodb().await;
    let proxy = FaultProxy::start(&db.endpoint(), |call| {
        if call.writes("public.users#1") { Fault::Delay(Duration::from_secs(60)) } else { Fault::None }
    });
    let function = Function::new(&proxy.endpoint(), "users(id)").await;
    let started = Instant::now();
    let dispositions = function.dispositions(records(&history(3)), Duration::from_secs(4)).await;
    assert!(started.elapsed() < Duration::from_secs(30), "the answer came after {:?}", started.elapsed());
    let expected = [Disposition::Applied, Disposition::Reported(Failure::OutOfTime), Disposition::Applied];
    assert_eq!(dispositions, expected);
}

#[tokio::test]
async fn a_function_that_is_cut_off_in_the_middle_of_a_batch_loses_nothing() {
    for (cut_after, together) in [1, 30, 60, 90].into_iter().flat_map(|after| [(after, false), (after, true)]) {
        let db = harness::dynamodb().await;
        // Delayed calls take effect after the function is gone.
        let proxy = FaultProxy::start(&db.endpoint(), move |call| {
            Fault::Delay(Duration::from_millis(if call.operation == "PutItem" { 10 } else { 40 }))
        });
        let created = if together { "true" } else { "false" };
        let settings = [("SOURCE_TABLES", "users(id)"), ("WRITE_CONCURRENCY", "4"), ("BATCHED_CREATES", created)];
        let function = Function::with_settings(&proxy.endpoint(), VIEW, &settings).await;
        let history = history(if together { 200 } else { 40 });
        let cut = tokio::time::timeout(Duration::from_millis(cut_after), function.deliver(records(&history))).await;
        assert!(cut.is_err(), "the function was to be cut off before its answer");
        drop(function);
        let next = Function::new(&db.endpoint(), "users(id)").await;
        assert!(next.deliver(records(&history)).await.is_empty());
        Model::of(&history).assert_equals(&harness::items(&db).await);
    }
}

#[tokio::test]
async fn a_write_that_arrives_after_its_function_gave_up_takes_nothing_back() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let proxy = FaultProxy::start(&db.endpoint(), |_| Fault::Delay(Duration::from_secs(7)));
    let slow = Function::new(&proxy.endpoint(), "users(id)").await;
    let old = Change::upsert("users", Value::number(7), COMMIT, vec![("name", Value::text("old"))]);
    let new = Change::delete("users", Value::number(7), COMMIT + 1);

    let alone = Change::upsert("users", Value::number(8), COMMIT, vec![("name", Value::text("late"))]);

    let given_up = slow.dispositions([old.record(), alone.record()], Duration::from_secs(4)).await;
    assert_eq!(given_up, [const { Disposition::Reported(Failure::OutOfTime) }; 2]);
    let quick = Function::new(&db.endpoint(), "users(id)").await;
    assert_eq!(quick.dispositions([new.record()], PLENTY).await, [Disposition::Applied]);
    // The old writes are still on their way. Row 8 has no newer change, so its late write will take effect.
    assert!(!proxy.is_quiet() && !harness::items(&db).await.contains_key("public.users#8"));
    while !proxy.is_quiet() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(proxy.writes(), 2);
    Model::of([&old, &new, &alone]).assert_equals(&harness::items(&db).await);
}
