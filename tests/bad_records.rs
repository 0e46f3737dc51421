//! Bad records, kind by kind. Each stands between good neighbours: they must be applied, and the bad record alone is
//! reported, with a reason that says what to look at and shows no value of the row.

mod harness;

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view::batch::disposition::{Disposition, Failure, Superseded};
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::LocalDynamoDb;
use dsql_view_support::model::Model;
use dsql_view_support::proxy::{Call, Fault, FaultProxy};
use harness::{AGGREGATED, Function, PLENTY};

const COMMIT: u64 = 1_773_843_841_076_494_565;
const SECRET: &str = "4111-1111-1111-1111";

/// A record of `users` with this operation, these images and these timestamps.
fn record(op: &str, before: &str, after: &str) -> String {
    format!(
        concat!(
            r#"{{"type":"full","op":"{}","before":{},"after":{},"source":{{"version":"1.0","ts_ns":{},"txId":"t","#,
            r#""schema":"public","table":"users","db":"postgres","cluster":"c"}},"ts_ns":{}}}"#
        ),
        op,
        before,
        after,
        COMMIT,
        COMMIT + 1
    )
}

fn upsert(columns: &str) -> String {
    record("u", "null", &format!(r#"{{"id":2,"card":"{SECRET}"{columns}}}"#))
}

/// Delivers `bad` between two good records, checks that it alone is reported, and returns its failure.
async fn deliver_between_good_ones(db: &LocalDynamoDb, function: &Function, bad: &[u8]) -> Failure {
    let good = [1, 3].map(|id| Change::upsert("users", Value::number(id), COMMIT, vec![("name", Value::text("Ada"))]));
    let [first, last] = good.each_ref().map(|change| change.record().into_bytes());
    let batch = [first.as_slice(), bad, last.as_slice()];

    assert_eq!(function.deliver(batch).await, [1], "only the bad record is reported");
    Model::of(&good).assert_equals(&harness::items(db).await);
    let mut again = function.dispositions(batch, PLENTY).await;
    match again.swap_remove(1) {
        Disposition::Reported(failure) => failure,
        other => panic!("expected the bad record to be reported, found {other:?}"),
    }
}

async fn check(name: &str, bad: impl AsRef<[u8]>, poison: bool, expected: &str) {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let failure = deliver_between_good_ones(&db, &function, bad.as_ref()).await;
    let reason = failure.to_string();
    assert!(reason.contains(expected), "{name}: the reason is: {reason}\nexpected: {expected}");
    assert!(!reason.contains(SECRET), "{name}: {reason}");
    assert_eq!(failure.is_poison(), poison, "{name}: {failure:?}");
}

#[tokio::test]
async fn each_kind_of_bad_record_is_reported_alone_with_its_reason() {
    let long_key = format!(r#"{{"id":"{}"}}"#, "k".repeat(2048));
    let large = upsert(&format!(r#","text":"{}""#, "x".repeat(409_600)));
    let timestamps = |with: &str| upsert("").replace(r#""ts_ns":1773843841076494565,"#, with);
    for (name, bad, expected) in [
        ("not JSON", SECRET.to_owned(), "is not JSON"),
        ("nothing at all", String::new(), "is not JSON"),
        ("cut off", upsert("")[..200].to_owned(), "is not JSON"),
        ("no envelope", format!(r#"{{"hello":"{SECRET}"}}"#), "expected source to be an object"),
        ("an array", format!(r#"["{SECRET}"]"#), "expected the record to be an object, found an array"),
        ("an unknown type", upsert("").replace("full", "snapshot"), "type is not known"),
        ("no commit timestamp", timestamps(""), "no usable commit timestamp"),
        (
            "a commit timestamp of floating point",
            timestamps(r#""ts_ns":1.773843841076494565e18,"#),
            "no usable commit timestamp",
        ),
        ("a commit timestamp as text", timestamps(r#""ts_ns":"1773843841076494565","#), "no usable commit timestamp"),
        (
            "a key column missing",
            record("u", "null", &format!(r#"{{"card":"{SECRET}"}}"#)),
            "the key column id is missing",
        ),
        ("a key column null", record("u", "null", r#"{"id":null}"#), "the key column id is null"),
        ("a deleted key column missing", record("d", "{}", "null"), "the key column id is missing"),
        ("a delete without before", record("d", "null", "null"), "a delete without before"),
        ("an upsert without after", record("c", r#"{"id":2}"#, "null"), "an upsert without after"),
        ("an unknown operation without after", record("t", "null", "null"), "an upsert without after"),
        ("a key over 2048 bytes", record("c", "null", &long_key), "the key has 2061 bytes"),
        ("a deleted key over 2048 bytes", record("d", &long_key, "null"), "the key has 2061 bytes"),
        (
            "a column named as the key",
            upsert(r#","_key":1"#),
            "the column _key has the name of the view table's partition key",
        ),
        ("a column _ts_ns", upsert(r#","_ts_ns":1"#), "the column _ts_ns has the name of an attribute"),
        ("a column _tx_id", upsert(r#","_tx_id":"x""#), "the column _tx_id"),
        ("a column _deleted", upsert(r#","_deleted":false"#), "the column _deleted"),
        ("a column _expires_at", upsert(r#","_expires_at":null"#), "the column _expires_at"),
        ("an item over 400 KB", large, "DynamoDB takes at most 409600"),
        ("half a surrogate pair in a column's name", upsert(r#","\ud800":1"#), "it holds text that is no JSON string"),
    ] {
        check(name, bad, true, expected).await;
    }
    check("bytes that are no UTF-8", b"\xff\xfe{}", true, "is not JSON").await;
    check("records that the KPL has aggregated", AGGREGATED, true, "is not JSON").await;
}

#[tokio::test]
async fn the_length_of_a_key_counts_each_escape_as_three_bytes() {
    let user = |signs: usize| Change::upsert("users", Value::text("#".repeat(signs)), COMMIT, vec![]);
    // `public.users#`, and three bytes each.
    check("a key of 700 #", user(700).record(), true, "the key has 2113 bytes (each # and % of a value counts three)")
        .await;
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    assert!(function.deliver([user(600).record()]).await.is_empty());
    Model::of([&user(600)]).assert_equals(&harness::items(&db).await);
}

fn main_record() -> String {
    let change = Change::upsert("users", Value::number(2), COMMIT, vec![("card", Value::text(SECRET))]);
    change.split("x", 2).swap_remove(0)
}

#[tokio::test]
async fn set_members_are_reported_and_never_dropped() {
    for (name, part) in [
        ("a fragment", format!(r#"{{"type":"fragment","chunk_id":"x","index":0,"data":"{SECRET}"}}"#)),
        ("a main record", main_record()),
    ] {
        check(name, part, false, "a part of a change over 9 MiB").await;
    }
}

#[tokio::test]
async fn a_main_record_that_does_not_describe_its_fragments_is_poison() {
    let no_chunks = main_record().replace(r#""chunked":{"#, r#""elsewhere":{"#);
    check("no chunks", no_chunks, true, "expected chunked to be an object").await;
    let none = main_record().replace(r#""total_fragments":2"#, r#""total_fragments":0"#);
    check("no pieces", none, true, "total_fragments to be a whole number from 1 to 1000").await;
}

#[tokio::test]
async fn a_record_of_a_table_that_is_not_configured_is_filtered_whatever_is_wrong_with_it() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let other_table = upsert(r#","_ts_ns":1"#).replace("users", "Users");
    let other_schema = upsert("").replace("public", "sales");
    let dispositions = function.dispositions([other_table, other_schema], PLENTY).await;
    assert_eq!(dispositions, [Disposition::Filtered, Disposition::Filtered]);
    assert!(harness::items(&db).await.is_empty());
}

#[tokio::test]
async fn a_row_that_dynamodb_refuses_is_poison_and_an_older_one_of_the_batch_takes_its_place() {
    let db = harness::dynamodb().await;
    let refuse = |call: &Call| {
        let is_refused = call.is_write() && call.body.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        if is_refused { Fault::Error { status: 400, code: "ValidationException" } } else { Fault::None }
    };
    let proxy = FaultProxy::start(&db.endpoint(), refuse);
    let function = Function::new(&proxy.endpoint(), "users(id)").await;
    let change = |id: i64, commit: u64, price| {
        Change::upsert("users", Value::number(id), COMMIT + commit, vec![("price", price)])
    };
    let history = [
        change(1, 0, Value::Number("29.99".to_owned())),
        change(2, 1, Value::number(1)),
        change(2, 3, Value::text(SECRET)),
        change(2, 2, Value::number(2)),
        change(3, 0, Value::Null),
    ];
    let dispositions = function.dispositions(history.iter().map(Change::record), PLENTY).await;
    let refused = &dispositions[2];
    let Disposition::Reported(failure @ Failure::Refused(reason)) = refused else { panic!("found {refused:?}") };
    assert!(failure.is_poison() && !reason.contains(SECRET), "{reason}");
    let (applied, superseded) = (&Disposition::Applied, &Disposition::Superseded(Superseded::Told));
    let expected = [applied, superseded, refused, applied, applied];
    assert_eq!(dispositions.iter().collect::<Vec<_>>(), expected);

    let shown = [&history[0], &history[3], &history[4]];
    Model::of(shown).assert_equals(&harness::items(&db).await);
}

/// A value that DynamoDB cannot hold does not cost the row: the item has the value's JSON text.
#[tokio::test]
async fn an_odd_value_is_its_json_text_and_the_row_is_there() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    let deep = |levels: usize| format!("{}0{}", "[".repeat(levels), "]".repeat(levels));
    for (id, (name, json)) in [
        ("nested 40 levels", deep(40)),
        ("nested deeper than any stack", deep(100_000)),
        ("a member without a name", r#"{"":1,"a":2}"#.to_owned()),
        ("half a surrogate pair", r#""text \ud800""#.to_owned()),
        ("half a surrogate pair in a name", r#"{"\udc00":1}"#.to_owned()),
        ("the largest real", "3.4028235e38".to_owned()),
        ("the largest double", "1.7976931348623157e308".to_owned()),
        ("39 digits", "123456789012345678901234567890123456789".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let odd = record("u", "null", &format!(r#"{{"id":{id},"odd":{json},"name":"Ada"}}"#));
        let found = function.dispositions([odd], PLENTY).await;
        assert_eq!(found, [Disposition::Applied], "{name}");
        let item = harness::items(&db).await.remove(&format!("public.users#{id}")).unwrap();
        assert_eq!(item["odd"], AttributeValue::S(json), "{name}");
        assert_eq!(item["name"], AttributeValue::S("Ada".to_owned()), "{name}");
    }
}

/// The function does not apply a record of another cluster, or one of an envelope that it does not know.
#[tokio::test]
async fn another_cluster_and_another_version_are_poison() {
    let of = |from: &str, to: &str| upsert("").replace(from, to);
    check("a version", of(r#""version":"1.0""#, r#""version":"2.0""#), true, "source.version to be 1.x, found 2.0")
        .await;
    let db = harness::dynamodb().await;
    let settings = [("SOURCE_TABLES", "users(id)"), ("SOURCE_CLUSTER", "kmabugltfmjdaj2siqr2qbxgju")];
    let function = Function::with_settings(&db.endpoint(), harness::VIEW, &settings).await;
    let failure = deliver_between_good_ones(&db, &function, upsert("").as_bytes()).await;
    let reason = failure.to_string();
    assert!(
        failure.is_poison() && reason.contains("kmabugltfmjdaj2siqr2qbxgju") && reason.contains("found c"),
        "{reason}"
    );
    // Without the setting both are applied. The function logs this once (src/observe/notices.rs).
    let any = Function::new(&db.endpoint(), "users(id)").await;
    assert_eq!(any.dispositions([upsert("")], PLENTY).await, [Disposition::Applied]);
}
