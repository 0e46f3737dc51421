//! A chunked change is applied as soon as its set is complete, whichever member comes last, through whichever function,
//! however often.

mod harness;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dsql_view::batch::disposition::{Disposition, Failure, Superseded};
use dsql_view_support::cdc::{Change, Value, fragment};
use dsql_view_support::kinesis::{self, KinesisRecord};
use dsql_view_support::proxy::{Call, Fault, Service};
use harness::{BUCKET, PLENTY, World, items, orders};
use serde_json::Value as Json;

const COMMIT: u64 = 1_773_843_841_076_494_565;

fn user(commit: u64) -> Change {
    let text = Value::text("grün, \"quoted\"\n😀 and so on ".repeat(9));
    Change::upsert("users", Value::number(1), COMMIT + commit, vec![("name", text), ("age", Value::number(7))])
}

#[tokio::test]
async fn every_order_at_two_functions_ends_in_the_change() {
    let all = orders(4);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 24);
    let world = World::new().await;
    let functions = world.two_functions().await;
    for (number, order) in (0..).zip(all) {
        let change = user(number);
        let records = change.split(&format!("chunk-{number}"), 3);
        for (turn, place) in order.iter().enumerate() {
            let ends = functions[turn % 2].dispositions([&records[*place]], PLENTY).await;
            let expected = if turn == 3 { Disposition::Applied } else { Disposition::Kept };
            assert_eq!(ends, [expected], "turn {turn} of {order:?}");
        }
        world.assert_shows(std::slice::from_ref(&change)).await;
        // Each member comes again, once with others and once alone: nothing changes, and nothing waits.
        for (turn, place) in order.iter().enumerate() {
            assert!(functions[turn % 2].deliver([&records[*place]]).await.is_empty());
        }
        assert!(functions[1].deliver(order.iter().map(|place| &records[*place])).await.is_empty());
        world.assert_shows(std::slice::from_ref(&change)).await;
    }
}

#[tokio::test]
async fn every_order_in_one_batch_with_duplicates_ends_in_the_change() {
    for (number, order) in (0..).zip(orders(4)) {
        let world = World::new().await;
        let [function, _] = world.two_functions().await;
        let change = user(number);
        let records = change.split("x", 3);
        let batch: Vec<&String> = order.iter().chain(&order[..2]).map(|place| &records[*place]).collect();
        let ends = function.dispositions(batch, PLENTY).await;
        let applied = ends.iter().filter(|end| **end == Disposition::Applied).count();
        let superseded = ends.iter().filter(|end| **end == Disposition::Superseded(Superseded::Told)).count();
        assert_eq!((applied, superseded), (1, 5), "{order:?}");
        world.assert_shows(&[change]).await;
    }
}

#[tokio::test]
async fn two_functions_at_once_put_the_change_together() {
    for turn in 0..12 {
        let world = World::new().await;
        let functions = world.two_functions().await;
        let change = user(turn);
        let records = change.split("x", 3);
        let half = |function: usize| records.iter().skip(function).step_by(2);
        let (one, other) = tokio::join!(functions[0].deliver(half(0)), functions[1].deliver(half(1)));
        assert!(one.is_empty() && other.is_empty());
        world.assert_shows(&[change]).await;
    }
}

#[tokio::test]
async fn the_newest_commit_wins_whether_it_comes_chunked_or_whole() {
    let world = World::new().await;
    let [function, _] = world.two_functions().await;
    let deleted = Change::delete("users", Value::number(1), COMMIT + 5);
    let (older, newer) = (user(4), user(9));
    assert!(function.deliver([deleted.record()]).await.is_empty());
    let ends = function.dispositions(older.split("older", 2), PLENTY).await;
    assert_eq!(ends, [const { Disposition::Superseded(Superseded::Remembered) }; 3]);
    let batch: Vec<String> = newer.split("newer", 2).into_iter().chain([deleted.record(), older.record()]).collect();
    assert!(function.deliver(batch).await.is_empty());
    world.assert_shows(&[deleted.clone(), older, newer]).await;

    // A deletion with a chunked image, and a change of one row beside it.
    let last = Change::delete("users", Value::number(1), COMMIT + 20);
    assert!(function.deliver(last.split("last", 3)).await.is_empty());
    world.assert_shows(&[deleted, last]).await;
}

#[tokio::test]
async fn a_split_row_over_400_kilobytes_goes_the_way_of_large_rows() {
    let world = World::new().await;
    let [function, _] = world.two_functions().await;
    let text = |length: usize| Value::text("ab\u{1}c".repeat(length / 4));
    let change =
        Change::upsert("users", Value::number(1), COMMIT, vec![("bio", text(1_000_000)), ("cv", text(300_000))]);
    assert!(function.deliver(change.split("x", 3)).await.is_empty());
    world.assert_shows(&[change]).await;
    assert_eq!(world.keys("overflow/").len(), 1);
}

#[tokio::test]
async fn a_crash_between_any_two_steps_ends_in_the_change() {
    let change = user(3);
    let records = change.split("x", 2);
    for after in [false, true] {
        for step in 1.. {
            let world = World::new().await;
            let [function, _] = world.two_functions().await;
            let (first, rest) = records.split_at(1);
            assert!(function.deliver(first).await.is_empty());
            let died = world.crash(rest, step, after).await;
            assert!(function.deliver(rest).await.is_empty());
            world.assert_shows(std::slice::from_ref(&change)).await;
            if !died {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_chunked_change_of_a_table_that_is_not_configured_is_filtered() {
    let world = World::new().await;
    let [function, _] = world.two_functions().await;
    let change = Change { table: "elsewhere".to_owned(), ..user(0) };
    let ends = function.dispositions(change.split("x", 2), PLENTY).await;
    assert_eq!(ends, [Disposition::Filtered, Disposition::Kept, Disposition::Kept]);
    assert!(items(&world.db).await.is_empty());
    assert!(world.keys("").iter().all(|key| key.starts_with("fragments/x/")));
    assert!(world.keys("fragments/x/").contains(&"fragments/x/not-needed.json".to_owned()));
}

fn quarantined(world: &World) -> Vec<Json> {
    let keys = world.keys("quarantine/");
    let objects = world.s3.objects(BUCKET);
    keys.iter().map(|key| serde_json::from_slice(&objects[key].body).unwrap()).collect()
}

#[tokio::test]
async fn a_set_with_a_wrong_checksum_is_quarantined() {
    let world = World::new().await;
    let [function, other] = world.two_functions().await;
    let mut records = user(0).split("x", 3);
    records[2] = fragment("x", 1, "something else");
    let numbered = |place: u64, record: &String| KinesisRecord::at(place, record.as_str());
    let first: Vec<KinesisRecord> = (0..).zip(&records[..2]).map(|(place, record)| numbered(place, record)).collect();
    assert_eq!(other.answer(&kinesis::event(&first)).await, serde_json::json!({ "batchItemFailures": [] }));
    let good = user(1).record();
    let rest: Vec<KinesisRecord> =
        (2..).zip([&good, &records[2], &records[3]]).map(|(place, record)| numbered(place, record)).collect();
    assert_eq!(function.answer(&kinesis::event(&rest)).await, serde_json::json!({ "batchItemFailures": [] }));
    world.assert_shows(&[user(1)]).await;
    let quarantined = quarantined(&world);
    assert_eq!(quarantined.len(), 4, "{quarantined:?}");
    for object in quarantined {
        assert_eq!(object["stage"], "assemble");
        assert!(object["reason"].as_str().unwrap().contains("CRC32C"), "{object}");
    }
}

#[tokio::test]
async fn two_changes_of_one_set_each_have_their_own_fate() {
    let whole = user(0);
    let twin = Change { committed: COMMIT + 5, key: vec![("id".to_owned(), Value::number(2))], ..user(0) };
    // Two main records with one chunk_id. The fragments do not make the second one's image.
    let [first, second] = [&whole, &twin].map(|change| change.split("x", 2));
    let world = World::new().await;
    let [function, _] = world.two_functions().await;
    let ends = function.dispositions([&first[0], &second[0], &first[1], &first[2]], PLENTY).await;
    assert_eq!(ends[0], Disposition::Applied);
    assert!(matches!(ends[1], Disposition::Quarantined(_)), "{ends:?}");
    world.assert_shows(std::slice::from_ref(&whole)).await;

    // A change that needs more fragments than there are waits; the other change does not matter.
    let longer = user(7).split("y", 3);
    let shorter = user(8).split("y", 1);
    let ends = function.dispositions([&shorter[0], &shorter[1], &longer[0]], PLENTY).await;
    assert_eq!((&ends[0], &ends[2]), (&Disposition::Applied, &Disposition::Kept));
}

#[tokio::test]
async fn every_interleaving_of_two_functions_steps_ends_in_the_change() {
    // Each function writes its half of the set, then lists the set. The test lets the calls to the bucket through in
    // every order.
    let orders = [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0]];
    for (number, order) in (0..).zip(orders) {
        let world = World::new().await;
        let turn = Arc::new(Mutex::new(0_usize));
        let out_of_turn = Arc::new(AtomicUsize::new(0));
        let gate = |who: usize| {
            let (turn, out_of_turn) = (Arc::clone(&turn), Arc::clone(&out_of_turn));
            move |call: &Call| {
                let step = call.service == Service::S3 && (call.method == "PUT" || call.path.contains("list-type"));
                if step {
                    let started = std::time::Instant::now();
                    loop {
                        let mut turn = turn.lock().unwrap();
                        if order.get(*turn).is_none_or(|next| *next == who) {
                            *turn += 1;
                            break;
                        }
                        drop(turn);
                        if started.elapsed() > PLENTY {
                            out_of_turn.fetch_add(1, Ordering::SeqCst);
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                Fault::None
            }
        };
        let endpoints = [world.endpoint(gate(0)), world.endpoint(gate(1))];
        let functions = [world.function(&endpoints[0]).await, world.function(&endpoints[1]).await];
        let change = user(number);
        let records = change.split("x", 1);
        let (one, other) = tokio::join!(functions[0].deliver([&records[0]]), functions[1].deliver([&records[1]]));
        assert!(one.is_empty() && other.is_empty());
        assert_eq!(out_of_turn.load(Ordering::SeqCst), 0);
        world.assert_shows(&[change]).await;
    }
}

#[tokio::test]
async fn the_checksum_chooses_between_two_fragments_of_one_place() {
    for wrong_first in [false, true] {
        let world = World::new().await;
        let [function, _] = world.two_functions().await;
        let change = user(0);
        let records = change.split("x", 2);
        let wrong = fragment("x", 0, "something else");
        let pair = if wrong_first { [&wrong, &records[1]] } else { [&records[1], &wrong] };
        for record in pair.into_iter().chain([&records[0], &records[2]]) {
            assert!(function.deliver([record]).await.is_empty());
        }
        world.assert_shows(&[change]).await;
        assert!(world.keys("quarantine/").is_empty());
    }
}

#[tokio::test]
async fn a_fragment_outside_its_set_is_quarantined_and_the_set_is_applied() {
    let outside = fragment("x", 2, "outside");
    for place in 0..4 {
        let world = World::new().await;
        let [function, _] = world.two_functions().await;
        let change = user(0);
        let mut records = change.split("x", 2);
        records.insert(place, outside.clone());
        for record in &records {
            assert!(function.deliver([record]).await.is_empty());
        }
        world.assert_shows(&[change]).await;
        let quarantined = quarantined(&world);
        assert_eq!(quarantined.len(), 1, "{quarantined:?}");
        assert!(quarantined[0]["reason"].as_str().unwrap().contains("outside the set"), "{quarantined:?}");

        let again = world.two_functions().await[0].dispositions(&records, PLENTY).await;
        let is_quarantined = |end: &Disposition| matches!(end, Disposition::Quarantined(_));
        assert_eq!(again.iter().position(is_quarantined), Some(place), "{again:?}");
        assert_eq!(again.iter().filter(|end| is_quarantined(end)).count(), 1, "{again:?}");
    }
}

#[tokio::test]
async fn a_kept_fragment_with_a_changed_index_does_not_count_in_its_set() {
    for index in [2, 1000] {
        let world = World::new().await;
        let [function, _] = world.two_functions().await;
        let records = user(0).split("x", 2);
        assert!(function.deliver(&records[..2]).await.is_empty());
        let (key, kept) =
            world.s3.objects(BUCKET).into_iter().find(|(key, _)| key.contains("/piece-000")).expect("the first piece");
        let mut changed: Json = serde_json::from_slice(&kept.body).unwrap();
        changed["data"] = BASE64_STANDARD.encode(fragment("x", index, "\"a\"")).into();
        world.s3.put(BUCKET, &key, changed.to_string(), kept.written_at);

        let ends = function.dispositions([&records[2]], PLENTY).await;
        let [Disposition::Quarantined(failure)] = ends.as_slice() else { panic!("{ends:?}") };
        assert!(failure.to_string().contains("no record as it was kept there"), "{failure}");
        world.assert_shows(&[]).await;
    }
}

#[tokio::test]
async fn whatever_a_set_is_called_it_stays_in_its_folder() {
    let ids = ["../../quarantine/public.users", "a/b/../c", "..", ".", "x\u{0}y", "%2E%2E%2F", &"long/".repeat(300)];
    let world = World::new().await;
    let [function, _] = world.two_functions().await;
    for (number, id) in (0..).zip(ids) {
        let change = user(number);
        assert!(function.deliver(change.split(id, 2)).await.is_empty(), "{id}");
        world.assert_shows(&[change]).await;
    }
    for key in world.keys("") {
        let path: Vec<&str> = key.split('/').collect();
        assert!(matches!(path.as_slice(), ["fragments", folder, _] if !folder.is_empty() && *folder != ".."), "{key}");
        assert!(key.len() <= 1024, "{key}");
    }
}

#[tokio::test]
async fn set_members_are_reported_while_the_bucket_is_down_denied_or_slow_and_rows_are_not() {
    for fault in harness::faults_of_a_bucket() {
        for broken_method in ["PUT", "GET"] {
            let world = World::new().await;
            let of_s3 = fault.clone();
            let endpoint = world.endpoint(move |call| {
                let broken = call.service == Service::S3 && call.method == broken_method;
                if broken { of_s3.clone() } else { Fault::None }
            });
            let function = world.function(&endpoint).await;
            let (change, small) = (user(0), Change { key: vec![("id".to_owned(), Value::number(2))], ..user(0) });
            let batch: Vec<String> = change.split("x", 2).into_iter().chain([small.record()]).collect();
            let ends = function.dispositions(&batch, Duration::from_secs(8)).await;
            assert!(
                matches!(ends[0], Disposition::Reported(Failure::Objects(_) | Failure::OutOfTime)),
                "{fault:?}: {ends:?}"
            );
            assert_eq!(ends[3], Disposition::Applied, "{fault:?}: {ends:?}");
            // Only the reported records come again.
            let [mended, _] = world.two_functions().await;
            let reported = batch.iter().zip(&ends).filter(|(_, end)| matches!(end, Disposition::Reported(_)));
            assert!(mended.deliver(reported.map(|(record, _)| record)).await.is_empty());
            world.assert_shows(&[change, small]).await;
        }
    }
}

#[tokio::test]
async fn a_split_change_that_dynamodb_does_not_confirm_is_reported_by_one_record() {
    let world = World::new().await;
    let endpoint =
        world.endpoint(|call| if call.operation == "PutItem" { Fault::ERROR_BEFORE_THE_WRITE } else { Fault::None });
    let change = user(0);
    let records = change.split("x", 2);
    assert_eq!(world.function(&endpoint).await.deliver(&records).await, [0]);
    let [mended, _] = world.two_functions().await;
    assert!(mended.deliver(&records[..1]).await.is_empty());
    world.assert_shows(&[change]).await;
}

#[tokio::test]
async fn a_split_change_that_dynamodb_refuses_is_quarantined_whole() {
    let world = World::new().await;
    let refuses = Fault::Error { status: 400, code: "ValidationException" };
    let endpoint =
        world.endpoint(move |call| if call.writes("public.users#1") { refuses.clone() } else { Fault::None });
    let records = user(0).split("x", 2);
    let other = Change { key: vec![("id".to_owned(), Value::number(2))], ..user(0) };
    let batch: Vec<String> = records.into_iter().chain([other.record()]).collect();
    let ends = world.function(&endpoint).await.dispositions(&batch, PLENTY).await;
    assert!(matches!(ends[0], Disposition::Quarantined(Failure::Refused(_))), "{ends:?}");
    let quarantined = world.keys("quarantine/public.users/");
    assert_eq!(quarantined.len(), 3, "{quarantined:?}");
}
