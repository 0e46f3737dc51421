//! The view has rows over DynamoDB's 400 KB in full: the item names the columns that do not fit, and never names an
//! object that does not exist.

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view::batch::disposition::{Disposition, Failure, Superseded};
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::KEY;
use dsql_view_support::proxy::{Call, Fault, Service};
use harness::{BUCKET, Function, PLENTY, VIEW, World, items};
use proptest::prelude::*;

const COMMIT: u64 = 1_773_843_841_076_494_565;

/// A change of a row, with texts of these lengths.
fn user(id: i64, commit: u64, lengths: &[usize]) -> Change {
    let names = ["bio", "cv", "notes", "log"];
    let text = |length: &usize| Value::text(format!("{commit},").chars().cycle().take(*length).collect::<String>());
    let columns = names.into_iter().zip(lengths.iter().map(text)).collect();
    Change::upsert("users", Value::number(id), COMMIT + commit, columns)
}

fn gone(id: i64, commit: u64) -> Change {
    Change::delete("users", Value::number(id), COMMIT + commit)
}

const LARGE: &[usize] = &[300_000, 250_000, 100];
const LARGER: &[usize] = &[250_000, 240_000, 260_000, 7];
const SMALL: &[usize] = &[10];

async fn deliver(world: &World, changes: &[&Change]) {
    let records: Vec<String> = changes.iter().map(|change| change.record()).collect();
    let [function, _] = world.two_functions().await;
    assert!(function.deliver(records).await.is_empty());
}

#[tokio::test]
async fn the_largest_columns_move_and_the_item_names_them() {
    let world = World::new().await;
    let row = user(1, 0, LARGE);
    deliver(&world, &[&row]).await;
    world.assert_shows(&[row]).await;
    let keys = world.keys("");
    let [object] = keys.as_slice() else { panic!("{keys:?}") };
    let path: Vec<&str> = object.split('/').collect();
    let ["overflow", "public.users", hash, commit, "bio"] = path.as_slice() else { panic!("{object}") };
    assert_eq!((hash.len(), *commit), (64, COMMIT.to_string().as_str()));
    let stored = &items(&world.db).await["public.users#1"];
    assert!(stored.contains_key("cv") && !stored.contains_key("bio"));
    let moved = stored["_overflow"].as_m().unwrap();
    assert_eq!(moved["bio"].as_s().unwrap(), &format!("s3://{BUCKET}/{object}"));
}

#[tokio::test]
async fn a_change_that_another_function_applied_is_a_duplicate_and_an_older_one_is_not() {
    for lengths in [SMALL, LARGE] {
        let world = World::new().await;
        let [one, other] = world.two_functions().await;
        let history = [user(1, 5, lengths), user(1, 4, lengths)];
        for (function, change, expected) in [
            (&one, &history[0], Disposition::Applied),
            (&other, &history[1], Disposition::Superseded(Superseded::Told)),
            (&other, &history[0], Disposition::Superseded(Superseded::Same)),
        ] {
            assert_eq!(function.dispositions([change.record()], PLENTY).await, [expected]);
        }
        world.assert_shows(&history).await;
    }
}

#[tokio::test]
async fn whatever_takes_a_large_row_s_place_leaves_no_object_behind() {
    for then in [user(1, 1, SMALL), user(1, 1, LARGER), user(1, 1, LARGE), gone(1, 1)] {
        let world = World::new().await;
        let first = user(1, 0, LARGER);
        deliver(&world, &[&first]).await;
        let before = world.s3.objects(BUCKET);
        deliver(&world, &[&then]).await;
        world.assert_shows(&[first.clone(), then.clone()]).await;
        // Readers may still be about to read an old object, so it stays for a day from now, not from when it was
        // written.
        for (key, object) in before {
            let now = &world.s3.objects(BUCKET)[&key];
            assert_eq!((now.tags.as_str(), &now.body), ("dsql-view=unneeded", &object.body), "{key}");
            assert!(now.written_at > object.written_at, "{key}");
        }
        let stored = &items(&world.db).await["public.users#1"];
        assert_eq!(stored.contains_key("_overflow"), then.record().len() > 409_600);
        // An older change that comes late leaves nothing behind either, and a duplicate of the live change removes
        // nothing.
        deliver(&world, &[&first]).await;
        deliver(&world, &[&then]).await;
        world.assert_shows(&[first, then]).await;
    }
}

#[tokio::test]
async fn an_update_hour_by_hour_does_not_keep_old_objects_alive() {
    let world = World::new().await;
    let history: Vec<Change> = (0..4).map(|hour| user(1, hour, LARGE)).collect();
    for change in &history {
        deliver(&world, &[change]).await;
    }
    let retired = |world: &World| -> Vec<SystemTime> {
        let objects = world.s3.objects(BUCKET).into_values();
        objects.filter(|object| !object.tags.is_empty()).map(|object| object.written_at).collect()
    };
    let before = retired(&world);
    assert_eq!(before.len(), 3);
    // Neither a duplicate nor the next update touches objects that are retired already.
    deliver(&world, &[&history[3]]).await;
    assert_eq!(retired(&world), before);
    deliver(&world, &[&user(1, 4, LARGE)]).await;
    let after = retired(&world);
    assert!(after.len() == 4 && before.iter().all(|at| after.contains(at)));
}

/// Kills the function at each of its calls in turn, before and after the call takes effect, while the function delivers
/// `last` to a view that has seen `before`. Then the record comes again.
async fn check_every_crash(before: &[Change], last: &Change) {
    for after in [false, true] {
        for step in 1.. {
            let world = World::new().await;
            for change in before {
                deliver(&world, &[change]).await;
            }
            let died = world.crash(&[last.record()], step, after).await;
            // Wherever the function died, a reader finds the objects that the view names.
            world.view().await;
            deliver(&world, &[last]).await;
            let history: Vec<Change> = before.iter().chain([last]).cloned().collect();
            world.assert_shows(&history).await;
            assert!(
                items(&world.db)
                    .await
                    .values()
                    .all(|item| { item.get("_overflow").is_none_or(|moved| !moved.as_m().unwrap().is_empty()) })
            );
            if !died {
                assert!(step > 1, "it has made no call");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_a_first_large_row_ends_right() {
    check_every_crash(&[], &user(1, 5, LARGER)).await;
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_a_large_row_over_a_large_one_ends_right() {
    check_every_crash(&[user(1, 0, LARGER)], &user(1, 5, LARGER)).await;
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_a_small_row_over_a_large_one_ends_right() {
    check_every_crash(&[user(1, 0, LARGER)], &user(1, 5, SMALL)).await;
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_a_deletion_of_a_large_row_ends_right() {
    check_every_crash(&[user(1, 0, LARGER)], &gone(1, 5)).await;
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_a_late_large_row_ends_right() {
    check_every_crash(&[user(1, 7, LARGER)], &user(1, 5, LARGER)).await;
    check_every_crash(&[user(1, 7, SMALL)], &user(1, 5, LARGER)).await;
}

#[tokio::test]
async fn a_crash_whose_record_a_newer_change_overtakes_leaves_nothing_behind() {
    for after in [false, true] {
        for step in 1.. {
            let world = World::new().await;
            let history = [user(1, 0, LARGER), user(1, 5, SMALL), user(1, 9, LARGE), gone(1, 12)];
            deliver(&world, &[&history[0]]).await;
            let died = world.crash(&[history[1].record()], step, after).await;
            for (seen, next) in [(3, &history[2]), (4, &history[3])] {
                deliver(&world, &[next]).await;
                world.assert_shows(&history[..seen]).await;
            }
            if !died {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_large_row_whose_crash_a_newer_change_overtakes_leaves_nothing_behind_when_it_comes_again() {
    for last in [user(1, 9, LARGE), user(1, 9, SMALL), gone(1, 9)] {
        for after in [false, true] {
            for step in 1.. {
                let world = World::new().await;
                let history = [user(1, 0, LARGER), user(1, 5, LARGER), last.clone()];
                deliver(&world, &[&history[0]]).await;
                let died = world.crash(&[history[1].record()], step, after).await;
                deliver(&world, &[&history[2]]).await;
                // The unsettled record comes again.
                deliver(&world, &[&history[1]]).await;
                world.assert_shows(&history).await;
                if !died {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_lost_answer_that_a_newer_change_follows_leaves_nothing_behind() {
    let world = Arc::new(World::new().await);
    let history = [user(1, 0, LARGER), user(1, 5, LARGER), user(1, 9, SMALL)];
    deliver(&world, &[&history[0]]).await;
    // The write happens and its answer is cut; the newer change arrives before the SDK tries again.
    let (seen, newer) = (Arc::clone(&world), history[2].record());
    let cut = AtomicUsize::new(0);
    let endpoint = world.endpoint(move |call| {
        if call.operation != "PutItem" {
            return Fault::None;
        }
        match cut.fetch_add(1, Ordering::SeqCst) {
            0 => Fault::CutAfterTheWrite,
            1 => {
                let (world, newer) = (Arc::clone(&seen), newer.clone());
                let beside = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async { world.two_functions().await[0].deliver([newer]).await })
                });
                assert!(beside.join().unwrap().is_empty());
                Fault::None
            }
            _ => Fault::None,
        }
    });
    let ends = world.function(&endpoint).await.dispositions([history[1].record()], PLENTY).await;
    assert_eq!(ends, [Disposition::Superseded(Superseded::Told)]);
    world.assert_shows(&history).await;
}

#[tokio::test]
async fn objects_left_by_a_crash_go_when_the_change_comes_again_after_a_newer_one() {
    for newer in [user(1, 9, SMALL), user(1, 9, LARGER), gone(1, 9)] {
        let world = World::new().await;
        let crashed = user(1, 5, LARGER);
        // The objects of the crashed change exist, its item does not: call 3 writes the item, after the two objects.
        assert!(world.crash(&[crashed.record()], 3, false).await);
        assert_eq!((world.keys("overflow/").len(), items(&world.db).await.len()), (2, 0));
        // With a duplicate of each change in the batch; the objects of the newer one must stay.
        deliver(&world, &[&crashed, &newer, &crashed, &newer]).await;
        world.assert_shows(&[crashed, newer]).await;
    }
}

#[tokio::test]
async fn objects_left_by_a_crash_go_when_the_change_comes_again_to_the_function_that_applied_it() {
    for newer in [user(1, 9, SMALL), user(1, 9, LARGE), gone(1, 9)] {
        for after in [false, true] {
            for step in 1.. {
                let world = World::new().await;
                let change = user(1, 5, LARGER);
                let [one, other] = world.two_functions().await;
                for (function, change) in [(&one, &change), (&other, &newer)] {
                    assert!(function.deliver([change.record()]).await.is_empty());
                }
                // The first function still takes its change for the newest. A third function puts the change's objects
                // again, and dies.
                let died = world.crash(&[change.record()], step, after).await;
                assert!(one.deliver([change.record()]).await.is_empty());
                world.assert_shows(&[change, newer.clone()]).await;
                if !died {
                    assert!(step > 2, "no object was put");
                    break;
                }
            }
        }
    }
}

/// More than the promise, because the tombstone is gone too early: a function that remembers the tombstone still takes
/// nothing from the item.
#[tokio::test]
async fn a_row_that_is_back_behind_a_tombstone_that_a_function_remembers_keeps_what_it_names() {
    let world = World::new().await;
    let [one, other] = world.two_functions().await;
    let (large, gone) = (user(1, 5, LARGER), gone(1, 7));
    assert!(one.deliver([gone.record()]).await.is_empty());
    let key = AttributeValue::S("public.users#1".to_owned());
    world.db.client().delete_item().table_name(VIEW).key(KEY, key).send().await.unwrap();
    for function in [&other, &one] {
        assert!(function.deliver([large.record()]).await.is_empty());
        world.assert_shows(std::slice::from_ref(&large)).await;
    }
    assert!(one.deliver([large.record(), gone.record()]).await.is_empty());
    world.assert_shows(&[large, gone]).await;
}

#[tokio::test]
async fn a_batch_of_ordinary_rows_makes_no_call_to_the_bucket() {
    let world = World::new().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let endpoint = world.endpoint(move |call| {
        counted.fetch_add(usize::from(call.service == Service::S3), Ordering::SeqCst);
        Fault::None
    });
    let history: Vec<Change> =
        (0..20).map(|id| user(id % 7, id.unsigned_abs(), &[300_000])).chain([gone(3, 99)]).collect();
    for _ in 0..2 {
        let function = world.function(&endpoint).await;
        for batch in history.chunks(4) {
            assert!(function.deliver(batch.iter().map(Change::record)).await.is_empty());
        }
    }
    world.assert_shows(&history).await;
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(endpoint.writes(), 42, "a write a change, and no more");
}

#[tokio::test]
async fn a_large_row_waits_for_a_bucket_that_is_down_denied_or_slow_and_the_others_do_not() {
    for fault in harness::faults_of_a_bucket() {
        let world = World::new().await;
        let (large, small) = (user(1, 0, LARGE), user(2, 0, SMALL));
        let of_s3 = fault.clone();
        let broken = world.endpoint(move |call| if call.service == Service::S3 { of_s3.clone() } else { Fault::None });
        let function = world.function(&broken).await;
        let ends = function.dispositions([large.record(), small.record()], Duration::from_secs(8)).await;
        assert!(
            matches!(&ends[0], Disposition::Reported(Failure::Retryable(_) | Failure::OutOfTime)),
            "{fault:?}: {ends:?}"
        );
        assert_eq!(ends[1], Disposition::Applied);
        world.assert_shows(std::slice::from_ref(&small)).await;
        deliver(&world, &[&large]).await;
        world.assert_shows(&[large, small]).await;
    }
}

#[tokio::test]
async fn objects_that_cannot_be_retired_hold_the_record_until_they_can() {
    let world = World::new().await;
    let history = [user(1, 0, LARGE), user(1, 1, SMALL)];
    deliver(&world, &[&history[0]]).await;
    let copies = |call: &Call| call.service == Service::S3 && call.method == "PUT";
    let broken =
        world.endpoint(
            move |call| if copies(call) { Fault::Error { status: 403, code: "AccessDenied" } } else { Fault::None },
        );
    assert_eq!(world.function(&broken).await.deliver([history[1].record()]).await, [0]);
    deliver(&world, &[&history[1]]).await;
    world.assert_shows(&history).await;
}

#[tokio::test]
async fn without_a_bucket_a_large_row_is_reported_as_before() {
    let db = harness::dynamodb().await;
    let function = Function::new(&db.endpoint(), "users(id)").await;
    assert_eq!(function.deliver([user(1, 0, LARGE).record(), user(2, 0, SMALL).record()]).await, [0]);
}

fn history() -> impl Strategy<Value = Vec<Change>> {
    let length = prop_oneof![Just(10_usize), Just(150_000), Just(420_000)];
    let change = (0..2_i64, proptest::option::weighted(0.8, proptest::collection::vec(length, 3)));
    proptest::collection::vec(change, 2..10).prop_map(|changes| {
        let place = |(commit, (id, lengths)): (u64, (i64, Option<Vec<usize>>))| match lengths {
            Some(lengths) => user(id, commit, &lengths),
            None => gone(id, commit),
        };
        (1..).zip(changes).map(place).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_that_grow_and_shrink_converge_in_any_order_at_two_functions_at_once(
        history in history(),
        order in proptest::collection::vec((0..10_usize, any::<bool>()), 4..24),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let world = World::new().await;
            let functions = world.two_functions().await;
            let mut batches = [Vec::new(), Vec::new()];
            for (change, to_second) in &order {
                batches[usize::from(*to_second)].push(history[change % history.len()].record());
            }
            let run = async |function: &Function, batch: &[String]| {
                for part in batch.chunks(2) {
                    assert!(function.deliver(part).await.is_empty());
                }
            };
            tokio::join!(run(&functions[0], &batches[0]), run(&functions[1], &batches[1]));
            world.view().await;
            for change in &history {
                deliver(&world, &[change]).await;
            }
            world.assert_shows(&history).await;
        });
    }
}
