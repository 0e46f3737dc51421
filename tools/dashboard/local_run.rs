//! Runs the functions for a while, with a bad time of the database in between. Collects the metrics that the functions
//! and AWS would tell.

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use dsql_view_support::cdc::{Change, Value, fragment};
use dsql_view_support::dynamodb::environment;
use dsql_view_support::kinesis::{KinesisRecord, event, on_failure, reported};
use dsql_view_support::proxy::{Call, Fault, FaultProxy};
use dsql_view_support::queues;
use dsql_view_support::random::Random;
use dsql_view_support::runtime_api::Function;
use dsql_view_support::services::LocalServices;
use dsql_view_support::shards::{LocalShards, Trimmed};
use dsql_view_tools::given::binary;
use serde_json::json;

use crate::numbers::{Metric, Numbers};
use crate::widgets::{DEAD_LETTERS, REDRIVE, STREAM, VIEW};

/// How long the run takes.
pub const TIME: Duration = Duration::from_secs(40);

const BUCKET: &str = "objects";
const TIMEOUT: Duration = Duration::from_secs(60);
const RECORDS_A_SECOND: f64 = 80.0;
const LARGEST_BATCH: usize = 200;

/// The seconds in which DynamoDB is slow and throttles, and those in which it fails for some rows.
const SLOW: std::ops::Range<u64> = 12..18;
const FAILING: std::ops::Range<u64> = 28..31;

pub async fn run() -> Result<Numbers, Box<dyn Error>> {
    let queues = [("failed", Some(DEAD_LETTERS)), (DEAD_LETTERS, None)];
    let services = LocalServices::start("view", BUCKET, LocalShards::start(100, Trimmed::Oldest), &queues).await;
    let second = Arc::new(AtomicU64::new(0));
    let now = Arc::clone(&second);
    let proxy = services.proxy(move |call| fault(call, now.load(Ordering::Relaxed)));
    let mut view = start(&binary("FUNCTION", "debug", "dsql-view")?, VIEW, &proxy)?;
    let mut redrive = start(&binary("REDRIVE", "debug", "redrive")?, REDRIVE, &proxy)?;
    view.ready().await;
    redrive.ready().await;

    let began = SystemTime::now();
    let mut numbers = Numbers::since(began);
    let mut load = Load { random: Random::new(7), place: 0, waiting: VecDeque::new() };
    let start = Instant::now();
    let mut redriven = 0;
    while start.elapsed() < TIME {
        let elapsed = start.elapsed();
        second.store(elapsed.as_secs(), Ordering::Relaxed);
        load.arrive(elapsed);
        numbers.add(Metric::new("AWS/Kinesis", "GetRecords.Success", &[STREAM]), SystemTime::now(), 1.0);
        let batch = load.next_batch();
        if let Some(oldest) = batch.first() {
            let age = since_epoch().as_secs_f64() - oldest.arrival;
            numbers.add(Metric::new("AWS/Lambda", "IteratorAge", &[VIEW]), SystemTime::now(), age * 1000.0);
            let answer = view.invoke(event(&batch).to_string(), TIMEOUT).await.response();
            let again: Vec<u64> = reported(&answer);
            let is_reported = |record: &KinesisRecord| {
                again.iter().any(|place| record.sequence_number == dsql_view_support::kinesis::sequence_number(*place))
            };
            load.waiting.extend(batch.into_iter().filter(is_reported));
        }
        // Do every four seconds what the schedule and the queue do in half an hour.
        if elapsed.as_secs() / 4 >= redriven {
            let first = redriven * 10;
            services.shards.put((first..first + 10).map(|place| KinesisRecord::at(place, load.change().record())));
            if redriven == 6 {
                services.shards.expire(0, usize::try_from(first + 5)?);
            }
            let message = queues::event("failed", "m", &on_failure(0, first, first + 9).to_string(), 1);
            for asked in [message, json!({ "check": "quarantine" }), json!({ "check": "fragments" })] {
                redrive.invoke(asked.to_string(), TIMEOUT).await;
            }
            let dead_letters = u32::try_from(services.queues.queue(DEAD_LETTERS).sent.len())?;
            let visible = Metric::new("AWS/SQS", "ApproximateNumberOfMessagesVisible", &[DEAD_LETTERS]);
            numbers.add(visible, SystemTime::now(), f64::from(dead_letters));
            redriven += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (function, name) in [(&view, VIEW), (&redrive, REDRIVE)] {
        function.lines().iter().for_each(|line| numbers.read(line));
        // Neither function has failed as a whole, because such a failure would have ended the run.
        numbers.add(Metric::new("AWS/Lambda", "Errors", &[name]), SystemTime::now(), 0.0);
    }
    Ok(numbers)
}

fn start(binary: &Path, name: &str, proxy: &FaultProxy) -> Result<Function, Box<dyn Error>> {
    let mut variables = environment(&proxy.endpoint());
    for (variable, value) in [
        ("AWS_ENDPOINT_URL", proxy.endpoint().as_str()),
        ("AWS_LAMBDA_FUNCTION_NAME", name),
        ("VIEW_TABLE", "view"),
        ("SOURCE_TABLES", "users(id), orders(id)"),
        ("OBJECTS_BUCKET", BUCKET),
    ] {
        variables.push((variable, value.to_owned()));
    }
    Ok(Function::start(binary, variables)?)
}

fn fault(call: &Call, second: u64) -> Fault {
    if !call.is_write() {
        Fault::None
    } else if SLOW.contains(&second) {
        if call.number.is_multiple_of(3) { Fault::THROTTLED } else { Fault::Delay(Duration::from_millis(900)) }
    } else if FAILING.contains(&second) && call.number.is_multiple_of(9) {
        Fault::Error { status: 400, code: "NewInAnotherYearException" }
    } else {
        Fault::None
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The records that arrive in the stream and wait there.
struct Load {
    random: Random,
    place: u64,
    waiting: VecDeque<KinesisRecord>,
}

impl Load {
    /// Lets the records arrive that are due since the start and have not arrived yet.
    fn arrive(&mut self, elapsed: Duration) {
        // One fragment of a change whose other members never come.
        if self.place == 0 {
            self.push(fragment("alone", 0, "{}"));
        }
        while Duration::from_secs_f64(f64::from(u32::try_from(self.place).unwrap_or(u32::MAX)) / RECORDS_A_SECOND)
            < elapsed
        {
            let data = match self.random.below(1000) {
                ..4 => "no JSON".to_owned(),
                _ => self.change().record(),
            };
            self.push(data);
        }
    }

    fn push(&mut self, data: String) {
        let arrival = since_epoch().as_secs_f64();
        self.waiting.push_back(KinesisRecord { arrival, ..KinesisRecord::at(self.place, data) });
        self.place += 1;
    }

    /// A change that was committed a moment ago.
    fn change(&mut self) -> Change {
        let lag = Duration::from_millis(100 + self.random.number() % 400);
        let committed = u64::try_from(since_epoch().saturating_sub(lag).as_nanos()).unwrap_or(u64::MAX);
        let id = Value::number(self.random.number() % 1500);
        let table = ["users", "users", "users", "orders", "audit"][self.random.below(5)];
        if self.random.percent(8) {
            return Change::delete(table, id, committed);
        }
        let length = if self.random.number().is_multiple_of(700) { 420_000 } else { 300 };
        Change::upsert(table, id, committed, vec![("text", Value::text("x".repeat(length)))])
    }

    /// The next batch, with some of its records twice.
    fn next_batch(&mut self) -> Vec<KinesisRecord> {
        let count = self.waiting.len().min(LARGEST_BATCH);
        let mut batch: Vec<KinesisRecord> = self.waiting.drain(..count).collect();
        let again: Vec<KinesisRecord> = batch.iter().filter(|_| self.random.percent(4)).cloned().collect();
        batch.extend(again);
        batch
    }
}
