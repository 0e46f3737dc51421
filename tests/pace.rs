//! A table that throttles: all that the table accepts comes through, no row is reported, and the function does not
//! hammer the table.
//!
//! In virtual time, so that no machine is too slow. The view accepts a rate of writes, or refuses a share of them, and
//! repeats refused writes as the client does.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use dsql_view::batch::coalesce::{Candidate, RowChanges};
use dsql_view::batch::disposition::Disposition;
use dsql_view::batch::ledger::RecordId;
use dsql_view::deadline::Deadline;
use dsql_view::item::projection::ViewItem;
use dsql_view::item::schema::TableSchema;
use dsql_view::record::order::CommitTimestamp;
use dsql_view::write::apply::apply;
use dsql_view::write::dynamodb::retry::{FIRST_BACKOFF, THROTTLED_FOR, longest_backoff};
use dsql_view::write::pace::Pace;
use dsql_view::write::view::{Put, View};
use dsql_view_support::random::Random;
use futures_util::future::join_all;
use tokio::time::Instant;

const LATENCY: Duration = Duration::from_millis(5);
const WRITES_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// When an attempt is refused.
#[derive(Debug, Clone, Copy)]
enum Throttles {
    Never,
    /// This percentage of the attempts.
    Percent(u64),
    /// Attempts above this rate a second, beyond the burst.
    Above(f64),
}

struct Table {
    throttles: Throttles,
    state: RefCell<State>,
}

/// A function's access to the table.
struct Client<'t> {
    table: &'t Table,
    pace: &'t Pace,
}

struct State {
    random: Random,
    tokens: f64,
    counted_at: Instant,
    attempts: usize,
    refused: usize,
}

/// The burst that the table accepts, in seconds of its rate. DynamoDB tables accept bursts too.
const BURST: f64 = 0.05;

impl Table {
    fn new(throttles: Throttles, seed: u64) -> Self {
        let random = Random::new(seed);
        let state = State { random, tokens: 0.0, counted_at: Instant::now(), attempts: 0, refused: 0 };
        Self { throttles, state: RefCell::new(state) }
    }

    fn takes_an_attempt(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.attempts += 1;
        let takes = match self.throttles {
            Throttles::Never => true,
            Throttles::Percent(share) => !state.random.percent(share),
            Throttles::Above(rate) => {
                let now = Instant::now();
                let since = now.duration_since(state.counted_at).as_secs_f64();
                state.tokens = (state.tokens + since * rate).min((rate * BURST).max(1.0));
                state.counted_at = now;
                let takes = state.tokens >= 1.0;
                state.tokens -= f64::from(u8::from(takes));
                takes
            }
        };
        state.refused += usize::from(!takes);
        takes
    }

    fn backoff(&self, attempt: i32, throttled_for: Duration) -> Duration {
        let share = f64::from(u32::try_from(self.state.borrow_mut().random.below(1000)).unwrap()) / 1000.0;
        FIRST_BACKOFF.mul_f64(2_f64.powi(attempt.min(20))).min(longest_backoff(throttled_for)).mul_f64(share)
    }

    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    fn refused(&self) -> f64 {
        let state = self.state.borrow();
        state.refused as f64 / state.attempts as f64
    }
}

impl View for Client<'_> {
    fn schema(&self) -> Option<Arc<TableSchema>> {
        None
    }

    async fn put(&self, _: ViewItem) -> Put {
        tokio::time::sleep(LATENCY).await;
        let first = Instant::now();
        for attempt in 0.. {
            let takes = self.table.takes_an_attempt();
            self.pace.answered(!takes);
            if takes {
                return Put::Applied;
            }
            if first.elapsed() >= THROTTLED_FOR {
                break;
            }
            tokio::time::sleep(self.table.backoff(attempt, first.elapsed()) + LATENCY).await;
        }
        Put::Retryable("throttled".to_owned())
    }

    async fn clear(&self, _: &ViewItem) -> Result<(), String> {
        Ok(())
    }
}

fn row(record: usize) -> RowChanges {
    let committed = CommitTimestamp::from_nanoseconds(1).unwrap();
    let item = ViewItem::without_attributes(record.to_string(), committed);
    vec![Candidate { id: RecordId(record), item }]
}

/// The result of a batch.
struct Batch {
    took: Duration,
    reported: usize,
    refused: f64,
}

/// Writes this number of rows, after the batches that the pace has seen.
async fn write(pace: &Pace, rows: usize, throttles: Throttles, seed: u64) -> Batch {
    write_from(&[pace], rows, throttles, seed).await
}

/// Writes this number of rows from each of several functions at once.
async fn write_from(paces: &[&Pace], rows: usize, throttles: Throttles, seed: u64) -> Batch {
    let table = Table::new(throttles, seed);
    let began = Instant::now();
    let functions = paces.iter().map(async |pace| {
        let mut reported = 0;
        let client = Client { table: &table, pace };
        let deadline = Deadline::after(Duration::from_secs(900));
        apply(&client, (0..rows).map(row).collect(), pace, deadline, |_, end| {
            reported += usize::from(end != Disposition::Applied);
        })
        .await;
        reported
    });
    let reported = join_all(functions).await.into_iter().sum();
    Batch { took: began.elapsed(), reported, refused: table.refused() }
}

/// The share of the rate that comes through, for this number of functions, each with at most `most` writes in flight
/// and this number of rows.
async fn goodput(functions: usize, most: usize, rows: u32, rate: u32) -> (f64, Batch) {
    let paces: Vec<Pace> = (0..functions).map(|_| Pace::new(NonZeroUsize::new(most).unwrap())).collect();
    let paces: Vec<&Pace> = paces.iter().collect();
    let batch = write_from(&paces, rows as usize, Throttles::Above(f64::from(rate)), 1).await;
    let ideal = f64::from(rows) * f64::from(u32::try_from(functions).unwrap()) / f64::from(rate);
    (ideal / batch.took.as_secs_f64(), batch)
}

#[tokio::test(start_paused = true)]
async fn a_table_that_takes_a_rate_of_writes_gets_nearly_that_rate_and_nothing_is_reported() {
    for (rate, rows) in [(100, 1_000), (200, 1_000), (1_000, 5_000), (3_000, 10_000), (8_000, 20_000)] {
        let (goodput, batch) = goodput(1, WRITES_IN_FLIGHT.get(), rows, rate).await;
        assert_eq!(batch.reported, 0, "at {rate} a second");
        assert!(goodput > 0.95, "{:.1} % of {rate} a second", goodput * 100.0);
        // With a table as slow as this, the first writes in flight are most of a second's.
        let refused = if rate < 200 { 0.8 } else { 0.55 };
        assert!(
            batch.refused < refused,
            "{:.1} % of the attempts at {rate} a second were refused",
            batch.refused * 100.0
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_many_functions_or_writes_in_flight_share_gets_nearly_its_rate_too() {
    for (functions, most, rows, rate) in
        [(4, 64, 1_000, 500), (8, 64, 500, 500), (32, 64, 250, 500), (1, 1024, 1_000, 500), (1, 64, 100, 10)]
    {
        let (goodput, batch) = goodput(functions, most, rows, rate).await;
        let which = format!("{functions} functions with {most} in flight, at {rate} a second");
        assert_eq!(batch.reported, 0, "{which}");
        // With a table as slow as this, the burst between two attempts of one write is lost.
        let least = if rate < 20 { 0.7 } else { 0.9 };
        assert!(goodput > least, "{which}: {:.1} %", goodput * 100.0);
    }
}

#[tokio::test(start_paused = true)]
async fn some_throttled_requests_slow_a_batch_no_more_than_their_repetitions_do() {
    let none = write(&Pace::new(WRITES_IN_FLIGHT), 1_000, Throttles::Never, 0).await.took.as_secs_f64();
    for (percent, most) in [(5, 3.0), (30, 8.0)] {
        for seed in 0..8 {
            let batch = write(&Pace::new(WRITES_IN_FLIGHT), 1_000, Throttles::Percent(percent), seed).await;
            let times = batch.took.as_secs_f64() / none;
            assert_eq!(batch.reported, 0);
            assert!(times < most, "{percent} % throttled: {times:.1} times as long, seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_that_is_throttled_for_long_slows_no_batch_much_more_than_the_first() {
    let none = write(&Pace::new(WRITES_IN_FLIGHT), 1_000, Throttles::Never, 0).await.took.as_secs_f64();
    for seed in 0..8 {
        let pace = Pace::new(WRITES_IN_FLIGHT);
        let (mut sum, batches) = (0.0, 16_u32);
        for batch in 0..batches {
            let batch = write(&pace, 1_000, Throttles::Percent(30), 100 * seed + u64::from(batch)).await;
            assert_eq!(batch.reported, 0);
            sum += batch.took.as_secs_f64() / none;
        }
        let mean = sum / f64::from(batches);
        assert!(mean < 8.0, "{mean:.1} times as long, seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_storm_a_batch_is_as_fast_as_before() {
    let pace = Pace::new(WRITES_IN_FLIGHT);
    write(&pace, 1_000, Throttles::Never, 0).await;
    let before = write(&pace, 1_000, Throttles::Never, 0).await.took;
    write(&pace, 2_000, Throttles::Above(200.0), 0).await;
    assert!(pace.writes_in_flight() < 16, "{} in flight", pace.writes_in_flight());
    write(&pace, 1_000, Throttles::Never, 0).await;
    assert_eq!(pace.writes_in_flight(), WRITES_IN_FLIGHT.get());
    assert_eq!(write(&pace, 1_000, Throttles::Never, 0).await.took, before);
}
