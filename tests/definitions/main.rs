//! The promise with definitions: each table of the view ends as the reference model, whatever the order, the
//! repetitions, the batches and the number of functions. The model reads the definitions of `views.toml` by hand
//! (`reading.rs`).

#[path = "../harness/mod.rs"]
mod harness;
mod reading;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::{AttributeValue, KeyType, ScalarAttributeType};
use dsql_view::batch::disposition::{Disposition, Superseded};
use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::dynamodb::{Item, LocalDynamoDb, environment};
use dsql_view_support::events::{SampleRecord, samples, source_tables};
use dsql_view_support::model::Model;
use dsql_view_support::proxy::{Call, Fault};
use dsql_view_support::table::render;
use dsql_view_support::{kinesis, runtime_api};
use harness::{BUCKET, Function, PLENTY, World};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reading::{APP, BYTES, COUNTERS, DAYS, DOCUMENTS, INSTANTS, NUMERICS, UNLISTED, reading, row_of};

const FIRST_COMMIT: u64 = 1_773_843_841_076_494_565;
const PREFIX: &str = "v.";
/// The default of `TOMBSTONE_TTL`.
const GUARDED_FOR: u64 = 14 * 24 * 60 * 60;

fn definitions() -> String {
    format!("{}/tests/definitions/views.toml", env!("CARGO_MANIFEST_DIR"))
}

/// A file with these definitions.
fn file_of(name: &str, definitions: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, definitions).unwrap();
    path
}

async fn function(endpoint: &str, together: bool) -> Function {
    let settings =
        [("VIEW_DEFINITIONS", &*definitions()), ("BATCHED_CREATES", if together { "true" } else { "false" })];
    Function::with_settings(endpoint, "", &settings).await
}

async fn create_app(db: &LocalDynamoDb) {
    use KeyType::{Hash, Range};
    use ScalarAttributeType::S;
    db.create_table(APP, &[("pk", Hash, S), ("sk", Range, S)]).await;
    db.add_index(APP, "GSI1", &[("GSI1PK", Hash, S), ("GSI1SK", Range, S)]).await;
}

async fn create_counters(db: &LocalDynamoDb) {
    db.create_table(COUNTERS, &[("number", KeyType::Hash, ScalarAttributeType::N)]).await;
    db.add_index(COUNTERS, "by-total", &[("byTotal", KeyType::Hash, ScalarAttributeType::N)]).await;
}

async fn views() -> LocalDynamoDb {
    let db = LocalDynamoDb::start();
    create_app(&db).await;
    create_counters(&db).await;
    db
}

fn model<'a>(history: impl IntoIterator<Item = &'a Change>) -> Model {
    let mut model = Model::with(reading, PREFIX);
    history.into_iter().for_each(|change| model.commit(change));
    model
}

/// Everything in both tables, by table.
async fn all(db: &LocalDynamoDb) -> [Vec<Item>; 2] {
    let sorted = async |table| {
        let mut items = db.all(table, None).await;
        items.sort_by_key(|item| format!("{item:?}"));
        items
    };
    [sorted(APP).await, sorted(COUNTERS).await]
}

async fn ends_as_the_model(history: &[Change], db: &LocalDynamoDb) -> Result<(), TestCaseError> {
    let model = model(history);
    let [app, counters] = all(db).await;
    let differences = [model.differences_in(APP, &app), model.differences_in(COUNTERS, &counters)].concat();
    prop_assert!(differences.is_empty(), "{}", differences.join("\n"));
    // The indexes show the items that have their attributes, and no others.
    for (table, items, index, keys) in
        [(APP, app, "GSI1", &["GSI1PK", "GSI1SK"][..]), (COUNTERS, counters, "by-total", &["byTotal"])]
    {
        let with_keys = items.iter().filter(|item| keys.iter().all(|key| item.contains_key(*key))).count();
        prop_assert_eq!(db.all(table, Some(index)).await.len(), with_keys, "{}", index);
    }
    Ok(())
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(values.to_vec())
}

fn texts(values: &[&'static str]) -> impl Strategy<Value = Value> + use<> {
    one_of(values).prop_map(Value::text)
}

fn instants() -> impl Strategy<Value = Value> {
    one_of(&INSTANTS).prop_map(|(micros, ..)| Value::number(micros))
}

fn numerics() -> impl Strategy<Value = Value> {
    one_of(&NUMERICS).prop_map(|(text, ..)| Value::text(text))
}

/// Values for the columns of a row. Some are null, and most conditions hold.
fn columns(table: &'static str) -> BoxedStrategy<Vec<(String, Value)>> {
    let nullable = |nulls: u32, value: BoxedStrategy<Value>| {
        prop_oneof![nulls => Just(Value::Null), (10 - nulls) => value].boxed()
    };
    let status = || nullable(1, texts(&["open", "draft", "Open#1", "100%", "É", ""]).boxed());
    let small = |values: &'static [i64]| one_of(values).prop_map(Value::number).boxed();
    let columns: Vec<(&'static str, BoxedStrategy<Value>)> = match table {
        "users" => vec![
            ("status", status()),
            ("joined", nullable(2, instants().boxed())),
            ("balance", nullable(2, numerics().boxed())),
            ("born", nullable(2, one_of(&DAYS).prop_map(|(days, _)| Value::number(days)).boxed())),
            ("street", nullable(4, ".{0,5}".prop_map(Value::text).boxed())),
            ("city", nullable(4, ".{0,5}".prop_map(Value::text).boxed())),
            ("settings", nullable(2, texts(&DOCUMENTS).boxed())),
            ("photo", nullable(2, one_of(&BYTES).prop_map(|(base64, _)| Value::text(base64)).boxed())),
            ("until", nullable(5, instants().boxed())),
            ("note", nullable(3, texts(&["a note"]).boxed())),
            ("_deleted", nullable(3, any::<bool>().prop_map(Value::Bool).boxed())),
        ],
        "Order Lines" => vec![
            ("quantity", nullable(1, small(&[-1, 0, 1, 7, 9_999, 10_000]))),
            ("price", nullable(2, numerics().boxed())),
            ("status", status()),
            ("changed", nullable(2, instants().boxed())),
        ],
        _ => vec![
            ("total", nullable(2, numerics().boxed())),
            ("deleted_at", nullable(7, instants().boxed())),
            ("valid_until", nullable(4, instants().boxed())),
        ],
    };
    let later =
        prop::option::weighted(0.2, any::<i32>().prop_map(|number| (UNLISTED.to_owned(), Value::number(number))));
    let named: Vec<_> =
        columns.into_iter().map(|(name, value)| value.prop_map(move |value| (name.to_owned(), value))).collect();
    (named, later).prop_map(|(named, later)| named.into_iter().chain(later).collect()).boxed()
}

/// A table, and the key of one of its rows; few different ones, so that histories are long.
fn key() -> impl Strategy<Value = (&'static str, Vec<(String, Value)>)> {
    let column = |name: &str, value: Value| (name.to_owned(), value);
    prop_oneof![
        (texts(&["acme", "a#", "a%23", "internal", ""]), texts(&["1", "-2.5"]))
            .prop_map(move |(tenant, id)| ("users", vec![column("tenant", tenant), column("id", id)])),
        (one_of(&[0_i64, 2, 3]), texts(&["a", "a#b", "%23"])).prop_map(move |(order, item)| {
            ("Order Lines", vec![column("order_id", Value::number(order)), column("Item Id", item)])
        }),
        one_of(&[-1_i64, 0, 7, i64::MAX])
            .prop_map(move |number| ("counters", vec![column("number", Value::number(number))])),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let with_row = |(table, key)| {
        let row = prop::option::weighted(0.8, columns(table));
        // A record of a preview stream may lack columns, which are null.
        let layout = prop_oneof![Just(None), any::<u32>().prop_map(Some)];
        (Just(table), Just(key), row, 0..6_u64, layout)
    };
    key().prop_flat_map(with_row).prop_map(|(table, key, row, commit, preview)| Change {
        schema: "public".to_owned(),
        table: table.to_owned(),
        key,
        row: row.map(|row| {
            let kept = row.into_iter().zip(0..).filter(|(_, place)| preview.is_none_or(|kept| kept >> place & 3 != 0));
            kept.map(|(column, _)| column).collect()
        }),
        committed: FIRST_COMMIT + commit,
        transaction: format!("tx{commit}"),
        lag: 1,
        layout: if preview.is_some() { Layout::Preview } else { Layout::Documented },
    })
}

/// A history, the order of its delivery as places in it, the size of batches, and whether creates are sent together.
type Delivery = (Vec<Change>, Vec<usize>, usize, bool);

fn delivery() -> impl Strategy<Value = Delivery> {
    // A transaction changes a row once, so a key and a commit identify a change.
    let history = prop::collection::vec(change(), 1..32).prop_map(|changes| {
        let named: BTreeMap<(String, u64), Change> =
            changes.into_iter().map(|change| ((change.view_key(), change.committed), change)).collect();
        named.into_values().collect::<Vec<_>>()
    });
    history.prop_flat_map(|history| {
        let places = 0..history.len();
        let order = prop::collection::vec(places.clone(), 0..16)
            .prop_flat_map(move |repeated| Just(places.clone().chain(repeated).collect::<Vec<_>>()).prop_shuffle());
        (Just(history), order, 1..20_usize, any::<bool>())
    })
}

fn batches((history, order, size, _): &Delivery) -> Vec<Vec<String>> {
    let records: Vec<String> = order.iter().map(|place| history[*place].record()).collect();
    records.chunks(*size).map(<[String]>::to_vec).collect()
}

/// Runs `check` on many cases, each with tables of its own, and fails with the smallest case that fails.
fn for_all<S: Strategy>(
    cases: u32,
    strategy: &S,
    check: &impl AsyncFn(&S::Value, &LocalDynamoDb) -> Result<(), TestCaseError>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(strategy, |case| runtime.block_on(async { check(&case, &views().await).await }));
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn any_delivery_of_any_history_ends_in_the_reference_model_in_each_table() {
    for_all(96, &delivery(), &async |delivery, db| {
        let functions = [function(&db.endpoint(), delivery.3).await, function(&db.endpoint(), false).await];
        for (number, batch) in batches(delivery).iter().enumerate() {
            // Every third batch comes to a function that knows nothing of the others.
            let reported = match functions.get(number % 3) {
                Some(function) => function.deliver(batch).await,
                None => function(&db.endpoint(), delivery.3).await.deliver(batch).await,
            };
            prop_assert!(reported.is_empty(), "reported {reported:?}");
        }
        ends_as_the_model(&delivery.0, db).await
    });
}

#[test]
fn two_functions_at_once_end_in_the_reference_model_and_a_redelivery_changes_nothing() {
    for_all(48, &delivery(), &async |delivery, db| {
        let one = function(&db.endpoint(), delivery.3).await;
        let other = function(&db.endpoint(), false).await;
        let batches = batches(delivery);
        let deliver_half = async |function: &Function, half: usize| {
            for batch in batches.iter().skip(half).step_by(2) {
                assert!(function.deliver(batch).await.is_empty());
            }
        };
        tokio::join!(deliver_half(&one, 0), deliver_half(&other, 1));
        ends_as_the_model(&delivery.0, db).await?;

        let before = all(db).await;
        let cold = function(&db.endpoint(), delivery.3).await;
        for ((_, batch), places) in (0..).zip(&batches).zip(delivery.1.chunks(delivery.2)) {
            let ends = cold.dispositions(batch, PLENTY).await;
            for (end, place) in ends.iter().zip(places) {
                let expected = match reading(&delivery.0[*place]) {
                    None => *end == Disposition::Filtered,
                    Some(_) => matches!(end, Disposition::Superseded(_)),
                };
                prop_assert!(expected, "{end:?}");
            }
        }
        prop_assert_eq!(before, all(db).await);
        Ok(())
    });
}

/// Rows whose keys use few characters, so that two rows often look alike.
fn rows() -> impl Strategy<Value = Vec<Change>> {
    let upsert = |table: &str, key: Vec<(&str, Value)>, row: Vec<(&str, Value)>| Change {
        key: key.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        layout: Layout::Preview,
        lag: 1,
        ..Change::upsert(table, Value::Null, FIRST_COMMIT, row)
    };
    let (text, number) = (|| "[%#.2a35SERU]{0,5}", || prop_oneof![0..3_i64, any::<i32>().prop_map(i64::from)]);
    let numeric = (number(), prop::option::of(1..100_u32)).prop_map(|(whole, fraction)| match fraction {
        Some(fraction) if fraction % 10 > 0 => format!("{whole}.{fraction:02}"),
        _ => whole.to_string(),
    });
    let row = prop_oneof![
        (text(), numeric).prop_map(move |(tenant, id)| {
            let key = vec![("tenant", Value::text(tenant)), ("id", Value::text(id))];
            upsert("users", key, vec![("status", Value::text("open"))])
        }),
        (0..3_i64, text()).prop_map(move |(order, item)| {
            let key = vec![("order_id", Value::number(order)), ("Item Id", Value::text(item))];
            upsert("Order Lines", key, vec![("quantity", Value::number(1))])
        }),
        number()
            .prop_map(move |number| { upsert("counters", vec![("number", Value::number(number.abs()))], Vec::new()) }),
    ];
    prop::collection::vec(row, 1..60)
}

#[test]
fn two_different_rows_never_share_a_key_and_each_key_tells_its_row() {
    for_all(48, &rows(), &async |rows, db| {
        let function = function(&db.endpoint(), false).await;
        prop_assert!(function.deliver(rows.iter().map(Change::record)).await.is_empty());
        let of_change = |change: &Change| {
            let plain = |(_, value): &(String, Value)| match value {
                Value::Text(text) => text.clone(),
                value => value.json(),
            };
            (change.table.clone(), change.key.iter().map(plain).collect::<Vec<_>>())
        };
        let mut expected: Vec<_> = rows.iter().filter(|row| reading(row).is_some()).map(of_change).collect();
        expected.sort();
        expected.dedup();
        let items = all(db).await.concat();
        let told = items.iter().map(|item| row_of(item).map(|(table, key)| (table.to_owned(), key)));
        let mut told: Vec<_> = told.collect::<Option<_>>().expect("keys by the templates");
        told.sort();
        prop_assert_eq!(told, expected);
        Ok(())
    });
}

fn user(commit: u64, row: Option<Vec<(&str, Value)>>) -> Change {
    let key = vec![("tenant".to_owned(), Value::text("acme")), ("id".to_owned(), Value::text("1"))];
    let deleted = row.is_none();
    let change = Change::upsert("users", Value::Null, FIRST_COMMIT + commit, row.unwrap_or_default());
    Change { key, row: if deleted { None } else { change.row.clone() }, ..change }
}

/// Removes what expires by this time, as DynamoDB does some time later; returns how many items that were.
async fn expire(db: &LocalDynamoDb, table: &str, key: &[&str], now: u64) -> usize {
    let mut removed = 0;
    for item in db.all(table, None).await {
        let expiry = item.get("v.expires_at").and_then(|expiry| expiry.as_n().ok()?.parse::<u64>().ok());
        if expiry.is_some_and(|expiry| expiry <= now) {
            let key = key.iter().map(|name| ((*name).to_owned(), item[*name].clone())).collect();
            db.client().delete_item().table_name(table).set_key(Some(key)).send().await.unwrap();
            removed += 1;
        }
    }
    removed
}

#[tokio::test]
async fn a_late_older_change_after_ttl_brings_no_hidden_deleted_or_expired_row_back() {
    let status = |status: &str| ("status", Value::text(status));
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let past = ("until", Value::number(1_000_000));
    let soon = ("until", Value::number(i64::try_from((seconds() + 60) * 1_000_000).unwrap()));
    for (what, row) in [
        ("hidden", Some(vec![status("draft")])),
        ("hidden and expired", Some(vec![status("draft"), past.clone()])),
        ("deleted", None),
        ("expired", Some(vec![status("open"), past.clone()])),
        ("expired soon", Some(vec![status("open"), soon])),
    ] {
        let db = views().await;
        let began = seconds();
        let older = user(1, Some(vec![status("open"), past.clone()]));
        let newest = user(2, row);
        assert!(function(&db.endpoint(), false).await.deliver([newest.record()]).await.is_empty());
        let before = all(&db).await;
        // The time of the row's own column has come, and that of the guard has not.
        for now in [seconds() + 120, began + GUARDED_FOR - 1] {
            assert_eq!(expire(&db, APP, &["pk", "sk"], now).await, 0, "{what}");
            for together in [false, true] {
                let function = function(&db.endpoint(), together).await;
                let ends =
                    function.dispositions([Change { layout: Layout::Preview, ..older.clone() }.record()], PLENTY);
                assert_eq!(ends.await, [Disposition::Superseded(Superseded::Told)], "{what}");
            }
            assert_eq!(all(&db).await, before, "{what}");
        }
        assert_eq!(expire(&db, APP, &["pk", "sk"], seconds() + GUARDED_FOR).await, 1, "{what}");
    }
}

#[tokio::test]
async fn an_expiry_that_lies_beyond_the_guard_s_is_the_column_s() {
    let db = views().await;
    let until = |commit, micros: i64| {
        user(commit, Some(vec![("status", Value::text("open")), ("until", Value::number(micros))]))
    };
    let function = function(&db.endpoint(), false).await;
    for (commit, micros, expected) in [
        (1, 32_503_680_000_000_000, Some("32503680000")),
        // A row that begins to hold for ever, and no longer does.
        (2, 9_223_372_036_825_200_000, None),
        (3, 32_503_680_000_000_001, Some("32503680001")),
    ] {
        function.deliver([until(commit, micros).record()]).await;
        let [app, _] = all(&db).await;
        let expiry = app[0].get("v.expires_at").map(|expiry| expiry.as_n().unwrap().as_str());
        assert_eq!(expiry, expected);
    }
}

/// Rows of both tables: the places of those of [`COUNTERS`] are even.
fn mixed(from: u64, count: u64, commit: u64) -> Vec<Change> {
    let rows = (from..from + count).flat_map(|number| {
        let counter = Change {
            key: vec![("number".to_owned(), Value::number(number))],
            ..Change::upsert("counters", Value::Null, FIRST_COMMIT + commit, vec![("deleted_at", Value::Null)])
        };
        let row = vec![("status", Value::text("open"))];
        let id = Value::text(number.to_string());
        let user = Change::upsert("users", id.clone(), FIRST_COMMIT + commit, row);
        [counter, Change { key: vec![("tenant".to_owned(), Value::text("acme")), ("id".to_owned(), id)], ..user }]
    });
    rows.collect()
}

fn records(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::record).collect()
}

/// Checks the ends of [`mixed`] rows: those of [`COUNTERS`], and those of [`APP`].
fn assert_ends(ends: &[Disposition], counters: impl Fn(&Disposition) -> bool, app: impl Fn(&Disposition) -> bool) {
    for pair in ends.chunks(2) {
        assert!(counters(&pair[0]) && app(&pair[1]), "{pair:?}");
    }
}

fn is_reported(end: &Disposition) -> bool {
    matches!(end, Disposition::Reported(_))
}

fn is_applied(end: &Disposition) -> bool {
    *end == Disposition::Applied
}

fn is_superseded(end: &Disposition) -> bool {
    matches!(end, Disposition::Superseded(_))
}

async fn with_bucket(endpoint: &str) -> Function {
    let settings = [("VIEW_DEFINITIONS", &*definitions()), ("OBJECTS_BUCKET", BUCKET)];
    Function::with_settings(endpoint, "", &settings).await
}

/// Lets ten seconds pass, after which a missing table is described again.
async fn ten_seconds_later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_table_that_is_missing_at_the_start_reports_its_rows_until_it_is_there() {
    let world = World::new().await;
    create_app(&world.db).await;
    let endpoint = world.endpoint(|_| Fault::None);
    let function = with_bucket(&endpoint.endpoint()).await;
    let rows = mixed(0, 3, 0);
    assert_ends(&function.dispositions(records(&rows), PLENTY).await, is_reported, is_applied);
    create_counters(&world.db).await;
    ten_seconds_later().await;
    // A batch that finds the table still unknown learns of it, and the next delivery writes its rows.
    assert_ends(&function.dispositions(records(&rows), PLENTY).await, is_reported, is_superseded);
    assert_ends(&function.dispositions(records(&rows), PLENTY).await, is_applied, is_superseded);
    ends_as_the_model(&rows, &world.db).await.unwrap();
    assert_eq!(world.keys("quarantine/"), [""; 0]);
}

#[tokio::test]
async fn a_split_change_waits_for_its_table_like_a_whole_one() {
    let world = World::new().await;
    create_app(&world.db).await;
    let endpoint = world.endpoint(|_| Fault::None);
    let function = with_bucket(&endpoint.endpoint()).await;
    let change = mixed(0, 3, 0).into_iter().find(|change| change.table == "counters" && change.row.is_some()).unwrap();
    let change = Change { layout: Layout::Documented, ..change };
    let records = change.split("c-1", 2);
    let reported = function.dispositions(&records, PLENTY).await.iter().filter(|end| is_reported(end)).count();
    assert_eq!(reported, 1, "one record brings the set again");
    create_counters(&world.db).await;
    ten_seconds_later().await;
    function.dispositions(&records, PLENTY).await;
    let ends = function.dispositions(&records, PLENTY).await;
    assert!(ends.iter().any(is_applied), "{ends:?}");
    ends_as_the_model(&[change], &world.db).await.unwrap();
    assert_eq!(world.keys("quarantine/"), [""; 0]);
}

#[tokio::test]
async fn a_table_that_goes_while_running_reports_its_rows_until_it_comes_back() {
    let world = World::new().await;
    create_app(&world.db).await;
    create_counters(&world.db).await;
    let endpoint = world.endpoint(|_| Fault::None);
    let function = with_bucket(&endpoint.endpoint()).await;
    let (before, after) = (mixed(0, 2, 0), mixed(2, 3, 1));
    assert_ends(&function.dispositions(records(&before), PLENTY).await, is_applied, is_applied);
    world.db.client().delete_table().table_name(COUNTERS).send().await.unwrap();
    assert_ends(&function.dispositions(records(&after), PLENTY).await, is_reported, is_applied);
    create_counters(&world.db).await;
    assert_ends(&function.dispositions(records(&after), PLENTY).await, is_applied, is_superseded);
    let [app, counters] = all(&world.db).await;
    let all_rows = [before, after.clone()].concat();
    assert_eq!(model(&all_rows).differences_in(APP, &app), [""; 0]);
    assert_eq!(model(&after).differences_in(COUNTERS, &counters), [""; 0]);
    assert_eq!(world.keys("quarantine/"), [""; 0]);
}

/// Whether a call writes to this table.
fn writes_to(call: &Call, table: &str) -> bool {
    let name = format!("\"{table}\"");
    // A statement quotes the table's name within a JSON string.
    let quoted = format!("\\\"{table}\\\"");
    call.is_write()
        && [name, quoted].iter().any(|name| call.body.windows(name.len()).any(|found| found == name.as_bytes()))
}

#[tokio::test]
async fn a_table_that_is_denied_while_running_reports_its_rows_until_it_is_allowed() {
    let world = World::new().await;
    create_app(&world.db).await;
    create_counters(&world.db).await;
    let denied = Arc::new(AtomicBool::new(true));
    let is_denied = Arc::clone(&denied);
    let endpoint = world.endpoint(move |call| {
        let is_denied = writes_to(call, COUNTERS) && is_denied.load(Ordering::SeqCst);
        if is_denied { Fault::Error { status: 400, code: "AccessDeniedException" } } else { Fault::None }
    });
    let function = with_bucket(&endpoint.endpoint()).await;
    let rows = mixed(0, 20, 0);
    assert_ends(&function.dispositions(records(&rows), PLENTY).await, is_reported, is_applied);
    denied.store(false, Ordering::SeqCst);
    assert_ends(&function.dispositions(records(&rows), PLENTY).await, is_applied, is_superseded);
    ends_as_the_model(&rows, &world.db).await.unwrap();
    assert_eq!(world.keys("quarantine/"), [""; 0]);
}

#[tokio::test]
async fn the_log_names_the_table_that_is_missing() {
    let db = LocalDynamoDb::start();
    create_app(&db).await;
    let mut settings = environment(&db.endpoint());
    let mapped = "app=app, counters=the-table-of-counters".to_owned();
    settings.extend([("VIEW_DEFINITIONS", definitions()), ("VIEW_TABLES", mapped)]);
    settings.push(("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()));
    let mut function = runtime_api::Function::start(Path::new(env!("CARGO_BIN_EXE_dsql-view")), settings).unwrap();
    let answer = function.invoke(kinesis::event_of(records(&mixed(0, 2, 0))).to_string(), PLENTY).await.response();
    assert_eq!(kinesis::reported(&answer), [0, 2]);
    function.log_line("batch", 1).await.expect("a line a batch");
    let lines = function.take_lines();
    let names = |line: &&String| line.contains("\"ERROR\"") && line.contains("the-table-of-counters");
    assert!(lines.iter().any(|line| names(&line)), "{lines:#?}");
}

#[tokio::test]
async fn a_throttled_table_does_not_slow_another_down() {
    // One write in flight: if the tables shared it, the rows of the throttled one would keep it until they are given up.
    let db = views().await;
    let rows = mixed(0, 40, 0);
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let proxy = dsql_view_support::proxy::FaultProxy::start(&db.endpoint(), move |call| {
        if writes_to(call, APP) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        // The table is throttled until each row of the other one was written.
        let is_throttled = writes_to(call, COUNTERS) && count.load(Ordering::SeqCst) < 40;
        if is_throttled { Fault::THROTTLED } else { Fault::None }
    });
    let settings = [("VIEW_DEFINITIONS", &*definitions()), ("WRITE_CONCURRENCY", "1")];
    let function = Function::with_settings(&proxy.endpoint(), "", &settings).await;
    assert_ends(&function.dispositions(records(&rows), PLENTY).await, is_applied, is_applied);
    assert_eq!(written.load(Ordering::SeqCst), 40);
    ends_as_the_model(&rows, &db).await.unwrap();
}

/// The view after the last event of the golden demo, as 0.1 left it.
fn golden() -> String {
    let demo = std::fs::read_to_string("tests/golden/demo.txt").unwrap();
    // The steps behind the events have a view of their own.
    let steps = samples().unwrap().len();
    let of_events = demo.split("\n━━ ").nth(steps).unwrap();
    let table = of_events.split_once("  view\n").unwrap().1;
    table.lines().take_while(|line| line.starts_with(['┌', '│', '╞', '├', '└'])).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn items_of_0_1_are_as_before_with_a_file_of_names_and_keys_alone() {
    let names_and_keys = r#"version = 1
        [[table]]
        name = "public.users"
        primary_key = ["id"]
        [[table]]
        name = "order_items"
        primary_key = ["order_id", "item_id"]
        [[table]]
        name = "public.measurements"
        primary_key = ["id"]
    "#;
    let file = file_of("names-and-keys.toml", names_and_keys).display().to_string();
    let short = source_tables().unwrap();
    let both = [("SOURCE_TABLES", &*short), ("VIEW_DEFINITIONS", &*file)];
    let ways = [&both[..1], &both[1..], &both];
    let deliver = async |db: &LocalDynamoDb, settings: &[(&str, &str)]| {
        let function = Function::with_settings(&db.endpoint(), harness::VIEW, settings).await;
        let mut ends = Vec::new();
        for sample in samples().unwrap() {
            ends.extend(function.dispositions(sample.records.iter().map(SampleRecord::data), PLENTY).await);
        }
        (ends, harness::items(db).await)
    };
    for first in ways {
        let db = harness::dynamodb().await;
        let (ends, items) = deliver(&db, first).await;
        assert!(ends.iter().any(is_applied));
        assert_eq!(render(&items), golden(), "{first:?}");
        for again in ways {
            let (ends, after) = deliver(&db, again).await;
            assert!(!ends.iter().any(is_applied) && ends.iter().any(is_superseded), "{again:?}: {ends:?}");
            assert_eq!(after, items, "{first:?}, then {again:?}");
        }
        let deleted = items.values().filter(|item| item.get("_deleted") == Some(&AttributeValue::Bool(true))).count();
        assert!(deleted > 0, "the demo deletes a row");
    }
}
