//! The promise: the view ends as the reference model, whatever the order, the repetitions, the batches and the number
//! of functions.

mod harness;

use std::collections::BTreeMap;

use dsql_view::batch::disposition::{Disposition, Superseded};
use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::dynamodb::LocalDynamoDb;
use dsql_view_support::model::Model;
use harness::{Function, PLENTY, World, orders};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const FIRST_COMMIT: u64 = 1_773_843_841_076_494_565;
const TABLES: &str = r#"users(id), "Order Lines"(order_id, "Item Id")"#;

/// A history, and the order of its delivery as places in the history. Each place occurs at least once.
#[derive(Debug, Clone)]
struct Delivery {
    history: Vec<Change>,
    order: Vec<usize>,
    batch: usize,
    /// Whether each batch comes to a new function, which knows nothing of earlier batches: then DynamoDB alone decides.
    cold: bool,
    /// Whether the function sends creates together.
    together: bool,
}

impl Delivery {
    async fn function(&self, db: &LocalDynamoDb) -> Function {
        Function::creating(&db.endpoint(), TABLES, self.together).await
    }

    fn batches(&self) -> Vec<Vec<String>> {
        let records: Vec<String> = self.order.iter().map(|place| self.history[*place].record()).collect();
        records.chunks(self.batch).map(<[String]>::to_vec).collect()
    }
}

fn key() -> impl Strategy<Value = (&'static str, Vec<(String, Value)>)> {
    let id = |name: &str, value: Value| (name.to_owned(), value);
    prop_oneof![
        (0..3_i64).prop_map(move |user| ("users", vec![id("id", Value::number(user))])),
        (0..2_i64, prop_oneof![Just("a"), Just("a#"), Just("%23")]).prop_map(move |(order, item)| {
            ("Order Lines", vec![id("order_id", Value::number(order)), id("Item Id", Value::text(item))])
        }),
    ]
}

fn column() -> impl Strategy<Value = (String, Value)> {
    let value = prop_oneof![
        ".{0,8}".prop_map(Value::text),
        any::<i64>().prop_map(Value::number),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
        Just(Value::Number("12345678901234567890.0987654321".to_owned())),
    ];
    ("[a-e]", value)
}

fn change() -> impl Strategy<Value = Change> {
    let row = proptest::collection::btree_map("[a-e]", column().prop_map(|(_, value)| value), 0..4);
    let layout = prop_oneof![Just(Layout::Documented), Just(Layout::Preview)];
    (key(), 0..6_u64, proptest::option::weighted(0.7, row), -3..4_i64, layout).prop_map(
        |((table, key), commit, row, lag, layout)| Change {
            schema: "public".to_owned(),
            table: table.to_owned(),
            key,
            row: row.map(|row| row.into_iter().collect()),
            committed: FIRST_COMMIT + commit,
            transaction: format!("tx{commit}"),
            lag: if layout == Layout::Documented { lag } else { lag.abs() },
            layout,
        },
    )
}

/// A transaction changes a row once, so a key and a commit identify a change.
fn history() -> impl Strategy<Value = Vec<Change>> {
    proptest::collection::vec(change(), 1..24).prop_map(|changes| {
        let named: BTreeMap<(String, u64), Change> =
            changes.into_iter().map(|change| ((change.view_key(), change.committed), change)).collect();
        named.into_values().collect()
    })
}

fn delivery() -> impl Strategy<Value = Delivery> {
    history().prop_flat_map(|history| {
        let places = 0..history.len();
        let repeated = proptest::collection::vec(places.clone(), 0..16);
        let order = repeated.prop_flat_map(move |repeated| {
            let all: Vec<usize> = places.clone().chain(repeated).collect();
            Just(all).prop_shuffle()
        });
        (Just(history), order, 1..20_usize, any::<bool>(), any::<bool>())
            .prop_map(|(history, order, batch, cold, together)| Delivery { history, order, batch, cold, together })
    })
}

/// Runs `check` on many cases, each with its own DynamoDB table, and fails with the smallest case that fails.
fn for_all<S: Strategy>(
    cases: u32,
    strategy: &S,
    check: &impl AsyncFn(&S::Value, &LocalDynamoDb) -> Result<(), TestCaseError>,
) where
    S::Value: Clone,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(strategy, |case| {
        runtime.block_on(async {
            let db = harness::dynamodb().await;
            check(&case, &db).await
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn ends_as_the_model(delivery: &Delivery, db: &LocalDynamoDb) -> Result<(), TestCaseError> {
    let differences = Model::of(&delivery.history).differences(&harness::items(db).await);
    prop_assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

#[test]
fn any_delivery_of_any_history_ends_in_the_reference_model() {
    for_all(96, &delivery(), &async |delivery, db| {
        let mut function = delivery.function(db).await;
        for batch in delivery.batches() {
            if delivery.cold {
                function = delivery.function(db).await;
            }
            let reported = function.deliver(batch).await;
            prop_assert!(reported.is_empty(), "reported {reported:?}");
        }
        ends_as_the_model(delivery, db).await
    });
}

#[test]
fn two_functions_at_once_end_in_the_reference_model() {
    for_all(64, &delivery(), &async |delivery, db| {
        let one = delivery.function(db).await;
        let other = delivery.function(db).await;
        let batches = delivery.batches();
        let deliver_half = async |function: &Function, half: usize| {
            for batch in batches.iter().skip(half).step_by(2) {
                assert!(function.deliver(batch).await.is_empty());
            }
        };
        tokio::join!(deliver_half(&one, 0), deliver_half(&other, 1));
        ends_as_the_model(delivery, db).await
    });
}

#[test]
fn a_history_delivered_again_is_superseded_whole_and_changes_nothing() {
    for_all(48, &delivery(), &async |delivery, db| {
        let function = delivery.function(db).await;
        for batch in delivery.batches() {
            function.deliver(batch).await;
        }
        let before = harness::items(db).await;
        let again = if delivery.cold { delivery.function(db).await } else { function };
        for batch in delivery.batches() {
            let dispositions = again.dispositions(batch, PLENTY).await;
            let superseded = |end: &Disposition| match end {
                Disposition::Superseded(Superseded::Remembered) => true,
                Disposition::Superseded(Superseded::Told) => delivery.cold,
                _ => false,
            };
            prop_assert!(dispositions.iter().all(superseded), "{dispositions:?}");
        }
        prop_assert_eq!(before, harness::items(db).await);
        Ok(())
    });
}

#[test]
fn a_function_that_dies_after_any_batch_loses_nothing() {
    for_all(32, &(delivery(), any::<prop::sample::Index>()), &async |(delivery, death), db| {
        let batches = delivery.batches();
        let applied_before_death = death.index(batches.len());
        let dying = delivery.function(db).await;
        for batch in &batches[..=applied_before_death] {
            dying.deliver(batch).await;
        }
        // The function's last answer was lost when it died, so the next function gets that batch again.
        let next = delivery.function(db).await;
        for batch in &batches[applied_before_death..] {
            next.deliver(batch).await;
        }
        ends_as_the_model(delivery, db).await
    });
}

#[tokio::test]
async fn late_update_does_not_resurrect_a_deleted_row() {
    let db = harness::dynamodb().await;
    let id = || Value::number(7);
    let insert = Change::upsert("users", id(), FIRST_COMMIT, vec![("name", Value::text("Ada"))]);
    let update = Change::upsert("users", id(), FIRST_COMMIT + 1, vec![("name", Value::text("Ada Lovelace"))]);
    let delete = Change::delete("users", id(), FIRST_COMMIT + 2);
    let remembers_the_delete = Function::new(&db.endpoint(), TABLES).await;
    let knows_nothing = Function::new(&db.endpoint(), TABLES).await;
    for (function, change) in
        [(&remembers_the_delete, &delete), (&remembers_the_delete, &insert), (&knows_nothing, &update)]
    {
        assert!(function.deliver([change.record()]).await.is_empty());
    }
    let items = harness::items(&db).await;
    Model::of([&insert, &update, &delete]).assert_equals(&items);
    assert_eq!(items["public.users#7"]["_deleted"].as_bool(), Ok(&true));
}

#[tokio::test]
async fn a_column_that_was_dropped_or_became_null_leaves_the_item() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), TABLES).await;
    let row = |commit: u64, row| Change::upsert("users", Value::number(7), FIRST_COMMIT + commit, row);
    let history = [
        row(0, vec![("name", Value::text("Ada")), ("fax", Value::text("1")), ("note", Value::text("x"))]),
        row(1, vec![("name", Value::text("Ada")), ("note", Value::Null)]),
    ];
    for change in &history {
        function.deliver([change.record()]).await;
    }
    let items = harness::items(&db).await;
    Model::of(&history).assert_equals(&items);
    let mut attributes: Vec<&str> = items["public.users#7"].keys().map(String::as_str).collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["_key", "_ts_ns", "_tx_id", "id", "name"]);
}

/// One transaction's change of the row with this key: its new contents, or a deletion without contents.
fn change_of_key(key: u64, commit: u64, contents: Option<&str>) -> Change {
    let row = contents.map(|name| vec![("name".to_owned(), Value::text(name))]);
    let change = Change::upsert("users", Value::number(key), FIRST_COMMIT + commit, Vec::new());
    Change { row, layout: Layout::Preview, ..change }
}

/// Delivers each history in each order, in batches of each size, twice: first to a function that creates rows together,
/// then to one that knows nothing of them and puts them one by one. Each case has its own keys, from the number that
/// `history` gets.
async fn every_order_ends_in_the_model<const CHANGES: usize>(history: impl Fn(u64) -> [Change; CHANGES]) {
    let db = harness::dynamodb().await;
    let endpoint = db.endpoint();
    let [first, second] = [true, false].map(|together| Function::creating(&endpoint, TABLES, together));
    let functions = [first.await, second.await];
    let sizes = 1..=CHANGES;
    let cases = orders(CHANGES).into_iter().flat_map(|order| sizes.clone().map(move |size| (order.clone(), size)));
    let mut all = Vec::new();
    for (case, (order, size)) in (1..).zip(cases) {
        let history = history(case * 10);
        let records: Vec<String> = order.iter().map(|place| history[*place].record()).collect();
        for function in &functions {
            for batch in records.chunks(size) {
                let reported = function.deliver(batch).await;
                assert!(reported.is_empty(), "{reported:?} of {order:?} in batches of {size}");
            }
        }
        all.extend(history);
    }
    Model::of(&all).assert_equals(&harness::items(&db).await);
}

#[tokio::test]
async fn two_rows_that_swap_their_keys_each_show_the_other_s_contents_whatever_the_order() {
    // The stream sends a transaction's net effect on each key: both rows are updated, in one commit.
    every_order_ends_in_the_model(|key| {
        [
            change_of_key(key, 0, Some("Ada")),
            change_of_key(key + 1, 0, Some("Grace")),
            change_of_key(key, 1, Some("Grace")),
            change_of_key(key + 1, 1, Some("Ada")),
        ]
    })
    .await;
}

#[tokio::test]
async fn a_row_whose_key_changes_and_changes_back_is_where_it_was_last_whatever_the_order() {
    // A change of a key deletes the old key and creates the new one, in one commit.
    every_order_ends_in_the_model(|key| {
        [
            change_of_key(key, 0, Some("Ada")),
            change_of_key(key, 1, None),
            change_of_key(key + 1, 1, Some("Ada")),
            change_of_key(key + 1, 2, None),
            change_of_key(key, 2, Some("Ada Lovelace")),
        ]
    })
    .await;
}

/// Delivers two changes of one row and one commit in this number of batches, all to one function or each to another.
/// Returns how they end, and whether the view shows the row as deleted.
async fn one_commit(order: [&Change; 2], batches: usize, one_function: bool) -> (Vec<Disposition>, bool) {
    let world = World::new().await;
    let functions = world.two_functions().await;
    let mut ends = Vec::new();
    for (place, records) in order.map(Change::record).chunks(2 / batches).enumerate() {
        let function = &functions[if one_function { 0 } else { place }];
        ends.extend(function.dispositions(records, PLENTY).await);
    }
    let view = world.view().await;
    let is_deleted = view[&order[0].view_key()].contains_key("_deleted");
    let shown = order.into_iter().find(|change| change.row.is_none() == is_deleted);
    Model::of(shown).assert_equals(&view);
    (ends, is_deleted)
}

// By the documentation, a transaction never has two records of one row. These two tests show what would happen.

#[tokio::test]
async fn of_a_delete_and_an_upsert_of_one_row_and_one_commit_the_first_delivered_stays() {
    let (upsert, delete) = (change_of_key(1, 0, Some("Ada")), change_of_key(1, 0, None));
    for (order, deleted) in [([&delete, &upsert], true), ([&upsert, &delete], false)] {
        for (batches, one_function, second) in [
            (1, true, Disposition::Superseded(Superseded::Same)),
            (2, true, Disposition::Superseded(Superseded::Remembered)),
            (2, false, Disposition::Superseded(Superseded::Same)),
        ] {
            let found = one_commit(order, batches, one_function).await;
            let expected = (vec![Disposition::Applied, second], deleted);
            assert_eq!(found, expected, "{order:?} in {batches} batches, one function: {one_function}");
        }
    }
}

#[tokio::test]
async fn of_a_delete_and_a_large_upsert_of_one_row_and_one_commit_the_delete_stays_unless_the_upsert_is_known() {
    let (upsert, delete) = (change_of_key(1, 0, Some(&"x".repeat(500_000))), change_of_key(1, 0, None));
    for (order, batches, one_function, deleted) in [
        ([&delete, &upsert], 1, true, true),
        ([&delete, &upsert], 2, true, true),
        ([&delete, &upsert], 2, false, true),
        ([&upsert, &delete], 1, true, false),
        ([&upsert, &delete], 2, true, false),
        ([&upsert, &delete], 2, false, true),
    ] {
        let (_, found) = one_commit(order, batches, one_function).await;
        assert_eq!(
            found,
            deleted,
            "delete first: {}, in {batches} batches, one function: {one_function}",
            order[0].row.is_none()
        );
    }
}
