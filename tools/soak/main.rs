//! Runs one process of the function under load for many invocations. The memory and the connections
//! that it uses must not grow.
//!
//! `make soak` builds the release binary and starts this program. Some records arrive during each invocation, from the
//! event source mapping of the test kit. Three times the database has a bad time, so that a backlog builds up and goes
//! again. The program writes a plot of the run. It fails if memory or connections have grown, or if the view is not the
//! newest commit of every row.

mod load;
mod plot;
mod samples;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dsql_view_support::dynamodb::{LocalDynamoDb, environment};
use dsql_view_support::mapping::{Mapping, Outcome, Settings};
use dsql_view_support::model::Model;
use dsql_view_support::objects::{LocalS3, resolved};
use dsql_view_support::progress::Progress;
use dsql_view_support::proxy::{Call, Fault, FaultProxy, Service};
use dsql_view_support::random::Random;
use dsql_view_support::runtime_api::{Function, Outcome as End};
use dsql_view_tools::given::{binary, exit_code, variable};

use crate::load::Load;
use crate::samples::{Sample, Samples};

const VIEW: &str = "view";
const BUCKET: &str = "objects";
const TIMEOUT: Duration = Duration::from_secs(60);
/// Fewer invocations do not show what grows.
const FEWEST_INVOCATIONS: usize = 1000;
/// A sample is taken after this many invocations or this time, whichever comes first.
const INVOCATIONS_A_SAMPLE: usize = 10;
const TIME_A_SAMPLE: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(run().await.map(|()| true), "The soak failed")
}

async fn run() -> Result<(), Box<dyn Error>> {
    let invocations = variable("INVOCATIONS", "a whole number")?.unwrap_or(10_000);
    if invocations < FEWEST_INVOCATIONS {
        return Err(format!("INVOCATIONS: expected at least {FEWEST_INVOCATIONS}, found {invocations}").into());
    }
    let binary = binary("FUNCTION", "release", "dsql-view")?;
    let plot = PathBuf::from("target/soak.svg");

    let (db, s3) = (LocalDynamoDb::start(), LocalS3::start());
    db.create_view(VIEW).await;
    s3.create_bucket(BUCKET);
    let done = Arc::new(AtomicUsize::new(0));
    let storms = storms(Arc::clone(&done), invocations);
    let upstreams = [(Service::DynamoDb, db.endpoint()), (Service::S3, s3.endpoint())];
    let proxy = FaultProxy::before_services(&upstreams, storms);
    let mut variables = environment(&proxy.endpoint());
    for (name, value) in [
        ("AWS_ENDPOINT_URL_S3", proxy.endpoint()),
        ("VIEW_TABLE", VIEW.to_owned()),
        ("SOURCE_TABLES", load::SOURCE_TABLES.to_owned()),
        ("OBJECTS_BUCKET", BUCKET.to_owned()),
    ] {
        variables.push((name, value));
    }
    let mut function = Function::start(&binary, variables).map_err(|error| format!("{}: {error}", binary.display()))?;
    let process = function.id().ok_or("the function has no process")?;

    let mut load = Load::new(1);
    let mut model = Model::default();
    let mut mapping = Mapping::new(Settings { batch_size: 100, parallelization: 1, ..Settings::default() }, 1);
    let mut samples = Samples::default();
    let mut progress = Progress::start(invocations.try_into()?);
    let (mut arrived, mut due) = (0, 1);
    let mut last_sample = Instant::now();
    while samples.invocations < invocations || !mapping.is_through() {
        while due > 0 && samples.invocations < invocations {
            let (record, change) = load.record(arrived);
            if let Some(change) = &change {
                model.commit(change);
            }
            mapping.put(record);
            arrived += 1;
            due -= 1;
        }
        let Some(delivery) = mapping.next_delivery() else {
            return Err("the mapping holds records that it does not deliver".into());
        };
        let began = Instant::now();
        let outcome = match function.invoke(delivery.event().to_string(), TIMEOUT).await {
            End::Response(answer) => Outcome::Response(answer),
            other => return Err(format!("the function did not answer: {other:?}").into()),
        };
        let latency = began.elapsed();
        due = load::arrived_during(
            latency,
            weather(samples.invocations, invocations) != Weather::Fair,
            mapping.backlog(),
        );
        mapping.settle(&delivery, &outcome);
        samples.invocations += 1;
        done.store(samples.invocations, Ordering::Relaxed);
        function.take_lines();
        let is_time = last_sample.elapsed() >= TIME_A_SAMPLE;
        if is_time || samples.invocations.is_multiple_of(INVOCATIONS_A_SAMPLE) {
            last_sample = Instant::now();
            samples.push(Sample::of(process, progress.elapsed(), latency, mapping.backlog())?);
        }
        progress.show(samples.invocations.try_into()?, || format!("{} invocations", samples.invocations));
    }
    progress.finish();

    plot::draw(&plot, &samples)?;
    println!("{}", samples.table(arrived));
    println!("The run as a picture: {}", plot.display());
    let failed = mapping.on_failure();
    if !failed.is_empty() {
        return Err(format!("{} batches were given up", failed.len()).into());
    }
    let differences = model.differences(&resolved(db.items(VIEW).await, &s3, BUCKET)?);
    if !differences.is_empty() {
        return Err(format!("the view is not the newest commit of every row:\n{}", differences.join("\n")).into());
    }
    let quarantined = s3.objects(BUCKET).into_keys().filter(|key| key.starts_with("quarantine/")).count();
    if quarantined != load.poison() {
        return Err(format!("expected {} records in the quarantine, found {quarantined}", load.poison()).into());
    }
    samples.are_flat()?;
    println!("Memory and connections stayed what they were, and the view is the newest commit of every row.");
    Ok(())
}

/// The storms of a run. A time of throttling soon after the beginning opens the connections that a storm takes. Another
/// one comes in the middle, and then a slow time.
fn storms(done: Arc<AtomicUsize>, invocations: usize) -> impl Fn(&Call) -> Fault + Send + Sync {
    let random = Mutex::new(Random::new(1));
    move |_| match weather(done.load(Ordering::Relaxed), invocations) {
        Weather::Throttling if random.lock().expect("no holder panics").percent(40) => Fault::THROTTLED,
        Weather::Slow => Fault::Delay(Duration::from_millis(40)),
        Weather::Throttling | Weather::Fair => Fault::None,
    }
}

#[derive(PartialEq, Eq)]
enum Weather {
    Fair,
    Throttling,
    Slow,
}

/// The weather after `done` of all `invocations`.
fn weather(done: usize, invocations: usize) -> Weather {
    match done * 1000 / invocations.max(1) {
        50..52 | 400..402 => Weather::Throttling,
        650..653 => Weather::Slow,
        _ => Weather::Fair,
    }
}
