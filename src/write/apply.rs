//! Writes the rows of a batch: many rows at a time, within the invocation's time, and the changes of each row in turn.
//!
//! What may happen between any two steps, and why the view stays right:
//! - The function dies, or its answer is lost, after some writes: Lambda delivers the batch again. Because of the
//!   conditions on the writes, the changes that were applied are superseded then.
//! - Another function writes the same key in between: DynamoDB evaluates each condition with its write as one step, so
//!   the newest commit stays, whoever comes first.
//! - A write is not confirmed (time-out, 5xx, the deadline): its record is reported and comes again. If the write
//!   happened after all, or happens later still, the condition has the last word.
//! - Creates that were sent together are not confirmed, or find something at their keys: each of their rows is put, as
//!   if nothing had been sent.
//! - DynamoDB refuses the newest change of a row because of its content, or the change may only replace an item that is
//!   not there: the next older one is written in its place, and the refused one gets an end of its own.
//!
//! Invariants: a change counts as superseded only if the view confirmed a newer one or the same; a record that is not
//! settled here stays reported; at most as many writes are in flight as the pace allows.

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use crate::batch::coalesce::RowChanges;
use crate::batch::disposition::{Disposition, Failure, Superseded};
use crate::batch::ledger::RecordId;
use crate::deadline::Deadline;
use crate::write::creates::{Next, Queue};
use crate::write::pace::Pace;
use crate::write::view::{Put, View};

/// Writes `rows` to the view, as many at a time as `pace` allows. Calls `settle` with the id and the end of each record
/// that was written, superseded, refused or not confirmed. The other records were not settled in time.
pub async fn apply<V: View>(
    view: &V,
    rows: Vec<RowChanges>,
    pace: &Pace,
    deadline: Deadline,
    mut settle: impl FnMut(RecordId, Disposition),
) {
    pace.begin();
    let mut waiting = Queue::new(rows, pace.creates(), |item| view.may_create(item));
    let mut in_flight = FuturesUnordered::new();
    let mut nothing_can_be_written = false;
    let answer = tokio::time::sleep_until(deadline.answer_by);
    tokio::pin!(answer);

    loop {
        while in_flight.len() < pace.writes_in_flight()
            && !nothing_can_be_written
            && Instant::now() < deadline.stop_starting
            && let Some(next) = waiting.to_send()
        {
            in_flight.push(send(view, next, deadline.stop_starting));
        }
        let ended = tokio::select! {
            biased;
            ended = in_flight.next() => ended,
            () = &mut answer => None,
        };
        let Some(Ended { settled, left }) = ended else { break };
        if let Some(left) = left {
            waiting.not_created(left);
        }
        for (id, disposition) in settled {
            nothing_can_be_written |= matches!(disposition, Disposition::Reported(Failure::Unavailable(_)));
            settle(id, disposition);
        }
    }
    if nothing_can_be_written {
        for candidate in waiting.into_rows().flatten() {
            settle(candidate.id, Disposition::Reported(Failure::NotTried));
        }
    }
}

/// How a request has ended.
struct Ended {
    settled: Vec<(RecordId, Disposition)>,
    /// For creates that were sent together: the rows that were not created.
    left: Option<Vec<RowChanges>>,
}

async fn send<V: View>(view: &V, next: Next, stop_starting: Instant) -> Ended {
    match next {
        Next::Put(row) => Ended { settled: write(view, row, None, stop_starting).await, left: None },
        // On the heap, so that the future of a put stays small: many puts are in flight.
        Next::Create(rows) => Box::pin(create(view, rows, stop_starting)).await,
    }
}

/// Creates rows together, each from its newest change.
async fn create<V: View>(view: &V, rows: Vec<RowChanges>, stop_starting: Instant) -> Ended {
    let items = rows.iter().filter_map(|row| row.first()).map(|newest| newest.item.clone()).collect();
    let created = view.create(items).await;
    let mut settled = Vec::with_capacity(rows.len());
    let mut left = Vec::new();
    for (row, created) in rows.into_iter().zip(created) {
        if created {
            settled.extend(write(view, row, Some(Put::Applied), stop_starting).await);
        } else {
            left.push(row);
        }
    }
    Ended { settled, left: Some(left) }
}

/// Writes the newest change of a row that the view takes, and settles the older ones with it. `done` is the outcome of
/// the newest change if that was written already.
async fn write<V: View>(
    view: &V,
    row: RowChanges,
    mut done: Option<Put>,
    stop_starting: Instant,
) -> Vec<(RecordId, Disposition)> {
    let mut settled = Vec::with_capacity(row.len());
    let mut changes = row.into_iter();
    while let Some(change) = changes.next() {
        let committed = change.item.committed;
        let put = match done.take() {
            Some(put) => put,
            // Next, the older changes' objects are cleared, so ask DynamoDB and do not trust the memory.
            None if changes.as_slice().iter().any(|older| !older.item.moved.is_empty()) => {
                view.put_without_memory(change.item).await
            }
            None => view.put(change.item).await,
        };
        let (end, end_of_older): (Disposition, Option<Disposition>) = match put {
            Put::Applied => (Disposition::Applied, Some(Superseded::Told.into())),
            Put::Superseded(how @ Superseded::Remembered) => (how.into(), Some(how.into())),
            Put::Superseded(how) => (how.into(), Some(Superseded::Told.into())),
            // The next older change is written in its place.
            Put::Refused(reason) => (Failure::Refused(reason).into(), None),
            Put::RefusedByIndex(reason) => (Failure::RefusedByIndex(reason).into(), None),
            Put::NothingToReplace => (Failure::MayBeDeleted.into(), None),
            Put::Retryable(reason) => (Failure::Retryable(reason).into(), Some(Failure::NewerReported.into())),
            Put::Unavailable(reason) => (Failure::Unavailable(reason).into(), Some(Failure::NewerReported.into())),
        };
        let is_shown = matches!(end, Disposition::Applied | Disposition::Superseded(Superseded::Same));
        settled.push((change.id, end));
        let Some(end_of_older) = end_of_older else {
            if Instant::now() >= stop_starting {
                break;
            }
            continue;
        };
        for older in changes.by_ref() {
            let is_older = committed.supersedes(older.item.committed);
            // The same change has the same objects, and they belong to the view now.
            let may_have_left_something =
                end_of_older == Disposition::Superseded(Superseded::Told) && !older.item.moved.is_empty() && is_older;
            let end = match if may_have_left_something { view.clear(&older.item).await } else { Ok(()) } {
                Ok(()) if is_shown && !is_older => Superseded::Same.into(),
                Ok(()) => end_of_older.clone(),
                Err(reason) => Disposition::Reported(Failure::Retryable(reason)),
            };
            settled.push((older.id, end));
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::num::NonZeroUsize;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::batch::coalesce::Candidate;
    use crate::item::large_rows::MovedColumn;
    use crate::item::projection::ViewItem;
    use crate::item::schema::TableSchema;
    use crate::record::order::CommitTimestamp;

    /// Answers as told, by key and commit. The tests with a real view check how a view behaves.
    struct Script<F> {
        answer: F,
        latency: Duration,
        asked: RefCell<Vec<String>>,
        in_flight: Cell<usize>,
        most_in_flight: Cell<usize>,
    }

    impl<F: Fn(&str, u64) -> Put> Script<F> {
        fn new(latency_ms: u64, answer: F) -> Self {
            let latency = Duration::from_millis(latency_ms);
            Self { answer, latency, asked: RefCell::default(), in_flight: Cell::new(0), most_in_flight: Cell::new(0) }
        }
    }

    impl<F: Fn(&str, u64) -> Put> View for Script<F> {
        fn schema(&self) -> Option<Arc<TableSchema>> {
            None
        }

        async fn put(&self, item: ViewItem) -> Put {
            self.in_flight.set(self.in_flight.get() + 1);
            self.most_in_flight.set(self.most_in_flight.get().max(self.in_flight.get()));
            tokio::time::sleep(self.latency).await;
            self.in_flight.set(self.in_flight.get() - 1);
            self.asked.borrow_mut().push(format!("{}@{}", item.key, item.committed));
            (self.answer)(&item.key.partition, item.committed.to_string().parse().unwrap())
        }

        async fn put_without_memory(&self, item: ViewItem) -> Put {
            self.asked.borrow_mut().push("anew".to_owned());
            self.put(item).await
        }

        fn may_create(&self, item: &ViewItem) -> bool {
            item.creates
        }

        async fn create(&self, items: Vec<ViewItem>) -> Vec<bool> {
            self.asked.borrow_mut().push(format!("create {}", items.len()));
            tokio::time::sleep(self.latency).await;
            items.iter().map(|item| !item.key.partition.starts_with("there")).collect()
        }

        async fn clear(&self, superseded: &ViewItem) -> Result<(), String> {
            self.asked.borrow_mut().push(format!("clear {}@{}", superseded.key, superseded.committed));
            Ok(())
        }
    }

    /// Rows of (key, commits from new to old); records are numbered in that order.
    fn rows(rows: &[(&str, &[u64])]) -> Vec<RowChanges> {
        let mut record = 0..;
        rows.iter()
            .map(|(key, commits)| {
                let candidates = commits.iter().map(|commit| Candidate {
                    id: RecordId(record.next().unwrap()),
                    item: ViewItem::without_attributes(
                        (*key).to_owned(),
                        CommitTimestamp::from_nanoseconds(*commit).unwrap(),
                    ),
                });
                candidates.collect()
            })
            .collect()
    }

    async fn run<F: Fn(&str, u64) -> Put>(
        view: &Script<F>,
        rows: Vec<RowChanges>,
        writes: usize,
        left_ms: u64,
    ) -> BTreeMap<usize, Disposition> {
        run_at(&Pace::new(NonZeroUsize::new(writes).unwrap()), view, rows, left_ms).await
    }

    async fn run_at<F: Fn(&str, u64) -> Put>(
        pace: &Pace,
        view: &Script<F>,
        rows: Vec<RowChanges>,
        left_ms: u64,
    ) -> BTreeMap<usize, Disposition> {
        let mut settled = BTreeMap::new();
        let deadline = Deadline::after(Duration::from_millis(left_ms));
        apply(view, rows, pace, deadline, |id, disposition| {
            assert!(settled.insert(id.0, disposition).is_none(), "{id:?} is settled twice");
        })
        .await;
        settled
    }

    #[tokio::test(start_paused = true)]
    async fn older_changes_of_a_row_are_superseded_without_a_write() {
        let view = Script::new(1, |_, _| Put::Applied);
        let settled = run(&view, rows(&[("a", &[3, 2, 1]), ("b", &[1])]), 8, 60_000).await;
        let [applied, superseded] = [Disposition::Applied, Disposition::Superseded(Superseded::Told)];
        let expected = [applied.clone(), superseded.clone(), superseded, applied];
        assert_eq!(settled.into_values().collect::<Vec<_>>(), expected);
        assert_eq!(*view.asked.borrow(), ["a@3", "b@1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_change_again_is_a_duplicate_if_the_view_is_known_to_show_it() {
        let [told, same, known] =
            [Superseded::Told, Superseded::Same, Superseded::Remembered].map(Disposition::Superseded);
        for (put, expected) in [
            (Put::Applied, [&Disposition::Applied, &same, &told]),
            (Put::Superseded(Superseded::Same), [&same, &same, &told]),
            (Put::Superseded(Superseded::Told), [&told; 3]),
            (Put::Superseded(Superseded::Remembered), [&known; 3]),
        ] {
            let view = Script::new(1, move |_, _| put.clone());
            let settled = run(&view, rows(&[("a", &[3, 3, 2])]), 8, 60_000).await;
            assert_eq!(settled.values().collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_change_gives_way_to_the_next_older_one() {
        let view = Script::new(1, |_, commit| if commit == 3 { Put::Refused("why".to_owned()) } else { Put::Applied });
        let settled = run(&view, rows(&[("a", &[3, 2, 1])]), 8, 60_000).await;
        let refused = Disposition::Reported(Failure::Refused("why".to_owned()));
        let expected = [refused, Disposition::Applied, Disposition::Superseded(Superseded::Told)];
        assert_eq!(settled.into_values().collect::<Vec<_>>(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn older_changes_are_reported_with_a_newer_one_that_is_not_confirmed() {
        let view = Script::new(1, |_, _| Put::Retryable("why".to_owned()));
        let settled = run(&view, rows(&[("a", &[2, 1])]), 8, 60_000).await;
        let expected = [Failure::Retryable("why".to_owned()), Failure::NewerReported].map(Disposition::Reported);
        assert_eq!(settled.into_values().collect::<Vec<_>>(), expected);
        assert_eq!(view.asked.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_can_be_written_the_rest_is_not_tried() {
        let view = Script::new(1, |_, _| Put::Unavailable("denied".to_owned()));
        let settled = run(&view, rows(&[("a", &[1]), ("b", &[1]), ("c", &[2, 1])]), 1, 60_000).await;
        let unavailable = Failure::Unavailable("denied".to_owned());
        let expected =
            [unavailable, Failure::NotTried, Failure::NotTried, Failure::NotTried].map(Disposition::Reported);
        assert_eq!(settled.into_values().collect::<Vec<_>>(), expected);
        assert_eq!(view.asked.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_created_row_is_settled_and_one_that_is_not_created_is_put() {
        let view = Script::new(1, |_, _| Put::Superseded(Superseded::Told));
        let mut rows = rows(&[("a", &[3, 2, 1]), ("there", &[2, 1]), ("b", &[1]), ("update", &[1])]);
        for row in &mut rows[..3] {
            row[0].item.creates = true;
        }
        rows[0][2].item.moved = vec![MovedColumn { object: "object".to_owned(), json: "1".to_owned() }];
        let pace = Pace::new(NonZeroUsize::MIN).with_creates_together();
        let settled = run_at(&pace, &view, rows, 60_000).await;
        let [applied, superseded] = [Disposition::Applied, Disposition::Superseded(Superseded::Told)];
        let mut expected = vec![superseded; 7];
        (expected[0], expected[5]) = (applied.clone(), applied);
        assert_eq!(settled.into_values().collect::<Vec<_>>(), expected);
        assert_eq!(*view.asked.borrow(), ["create 3", "clear a@1", "update@1", "there@2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_time_to_start_a_row_that_was_not_created_is_not_put() {
        let view = Script::new(4_000, |_, _| Put::Applied);
        let mut rows = rows(&[("a", &[1]), ("there", &[1])]);
        for row in &mut rows {
            row[0].item.creates = true;
        }
        let pace = Pace::new(NonZeroUsize::MIN).with_creates_together();
        let settled = run_at(&pace, &view, rows, 5_000).await;
        assert_eq!(settled, BTreeMap::from([(0, Disposition::Applied)]));
        assert_eq!(*view.asked.borrow(), ["create 2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_writes_are_in_flight_than_allowed() {
        let keys: Vec<String> = (0..100).map(|key| key.to_string()).collect();
        let all: Vec<(&str, &[u64])> = keys.iter().map(|key| (key.as_str(), &[1][..])).collect();
        let view = Script::new(10, |_, _| Put::Applied);
        let settled = run(&view, rows(&all), 7, 60_000).await;
        assert_eq!((settled.len(), view.most_in_flight.get()), (100, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn near_the_deadline_no_write_is_started_and_what_was_applied_counts() {
        let view = Script::new(1000, |_, _| Put::Applied);
        let started = Instant::now();
        // Ten seconds: writes start at 0, 1, … 8 s; the one that starts at 8 s ends in time.
        let settled = run(&view, rows(&[("a", &[1][..]); 20]), 1, 10_000).await;
        assert_eq!(settled.len(), 9);
        assert!(settled.values().all(|disposition| *disposition == Disposition::Applied));
        assert!(started.elapsed() < Duration::from_millis(9_500));
    }

    #[tokio::test(start_paused = true)]
    async fn exactly_at_the_time_limit_no_write_is_started() {
        let view = Script::new(1_500, |_, _| Put::Applied);
        // Six seconds: writes start at 0, 1.5 and 3 s; at 4.5 s it is too late.
        let settled = run(&view, rows(&[("a", &[1][..]); 20]), 1, 6_000).await;
        assert_eq!((settled.len(), view.in_flight.get()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn objects_of_older_changes_go_once_a_newer_one_stands() {
        for (end, cleared) in [
            (Put::Applied, true),
            (Put::Superseded(Superseded::Told), true),
            (Put::Superseded(Superseded::Same), true),
            (Put::Retryable(String::new()), false),
        ] {
            let view = Script::new(1, move |_, _| end.clone());
            let mut rows = rows(&[("a", &[3, 3, 2, 1])]);
            // The same change has the same objects; the oldest has none.
            for change in &mut rows[0][1..3] {
                change.item.moved = vec![MovedColumn { object: "object".to_owned(), json: "1".to_owned() }];
            }
            run(&view, rows, 1, 60_000).await;
            let expected: &[&str] = if cleared { &["anew", "a@3", "clear a@2"] } else { &["anew", "a@3"] };
            assert_eq!(*view.asked.borrow(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_invocation_gives_up_a_quarter_and_a_tenth_of_its_time() {
        for (left_ms, stop_starting_ms, answer_by_ms) in
            [(60_000, 58_500, 59_500), (6_000, 4_500, 5_500), (2_000, 1_500, 1_800), (400, 300, 360), (0, 0, 0)]
        {
            let deadline = Deadline::after(Duration::from_millis(left_ms));
            let left = |time: Instant| time.duration_since(Instant::now()).as_millis();
            assert_eq!((left(deadline.stop_starting), left(deadline.answer_by)), (stop_starting_ms, answer_by_ms));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_hangs_does_not_hold_the_answer() {
        let view = Script::new(3_600_000, |_, _| Put::Applied);
        let started = Instant::now();
        let settled = run(&view, rows(&[("a", &[1]), ("b", &[1])]), 2, 3_000).await;
        assert!(settled.is_empty());
        assert!(started.elapsed() < Duration::from_millis(2_800), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_invocation_whose_time_is_over_starts_nothing() {
        let view = Script::new(1, |_, _| Put::Applied);
        assert!(run(&view, rows(&[("a", &[1])]), 2, 0).await.is_empty());
        assert!(view.asked.borrow().is_empty());
    }
}
