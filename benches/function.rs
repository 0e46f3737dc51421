//! The real binary in the release profile: its start against a function that does nothing, and its memory at full payloads.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::{LocalDynamoDb, environment};
use dsql_view_support::kinesis;
use dsql_view_support::runtime_api::Function;

const RUNS: usize = 31;
const FULL_PAYLOADS: usize = 40;
/// What fills an event of 6 MB.
const RECORDS: u64 = 6200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let function = Path::new(env!("CARGO_BIN_EXE_dsql-view"));
    let db = LocalDynamoDb::start();
    db.create_view("view").await;
    let mut settings = environment(&db.endpoint());
    settings.extend([("VIEW_TABLE", "view".to_owned()), ("SOURCE_TABLES", "users(id)".to_owned())]);

    println!("Start: from the process to its first request for an invocation, median of {RUNS} runs, side by side");
    let bare = bare_function()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(Function::start(function, settings.clone())?.ready().await);
        theirs.push(Function::start(&bare, [("AWS_REGION", "us-east-1")])?.ready().await);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("  dsql-view, with DescribeTable     {ours:>10.1?}");
    println!("  a function that does nothing      {theirs:>10.1?}");
    println!("  ratio                             {:>10.2}", ratio(ours, theirs));
    println!("  binaries                          {:.1} MB and {:.1} MB", megabytes(function)?, megabytes(&bare)?);

    with_a_bucket(function, &settings).await?;

    println!("\nFull payloads: 6 MB with {RECORDS} rows each, on a DynamoDB in this process");
    let mut running = Function::start(function, settings)?;
    running.ready().await;
    let process = running.id().ok_or("the function has ended")?;
    println!("  before                            {:>6.1} MB resident at most", peak_memory(process)?);
    for round in 0..FULL_PAYLOADS {
        let event = event(RECORDS, round as u64);
        let started = Instant::now();
        let answer = running.invoke(event, Duration::from_secs(300)).await.response();
        assert!(kinesis::reported(&answer).is_empty(), "records were reported");
        if [1, 10, 20, FULL_PAYLOADS].contains(&(round + 1)) {
            let took = started.elapsed();
            println!(
                "  after payload {:<3}                 {:>6.1} MB resident at most, {took:.1?}",
                round + 1,
                peak_memory(process)?
            );
        }
    }
    Ok(())
}

/// A batch of so many rows, each round's commits newer than the last one's.
fn event(records: u64, round: u64) -> String {
    let commit = 1_773_843_841_076_494_565 + round;
    let row = |id: u64| {
        Change::upsert("users", Value::number(id), commit, vec![("email", Value::text(format!("{id}@example.com")))])
    };
    kinesis::event_of((0..records).map(|id| row(id).record())).to_string()
}

/// What a bucket costs a function that does not need it: with and without, turn by turn.
async fn with_a_bucket(function: &Path, settings: &[(&'static str, String)]) -> Result<(), Box<dyn Error>> {
    const TURNS: u64 = 12;
    println!(
        "\nOBJECTS_BUCKET set, and not needed, against not set: {TURNS} batches of {RECORDS} rows each, turn by turn"
    );
    let mut bucket = settings.to_vec();
    // Where nothing listens: a call would fail.
    bucket.push(("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9".to_owned()));
    bucket.push(("OBJECTS_BUCKET", "not-needed".to_owned()));

    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        with.push(Function::start(function, bucket.clone())?.ready().await);
        without.push(Function::start(function, settings.to_vec())?.ready().await);
    }
    let (with, without) = (median(with), median(without));
    println!("  start                             {with:>10.1?} against {without:.1?}: {:.3}", ratio(with, without));

    let mut functions = [Function::start(function, bucket)?, Function::start(function, settings.to_vec())?];
    // The first round fills the view and the processes' memory; the second of each pair is superseded as a whole.
    let mut spent = [[Duration::ZERO; 2]; 2];
    for turn in 0..=TURNS {
        for (kind, of_kind) in spent.iter_mut().enumerate() {
            // The one that comes first in one turn comes last in the next.
            for (place, which) in (0_u64..).zip(if turn % 2 == 0 { [0, 1] } else { [1, 0] }) {
                let running = &mut functions[which];
                let commit = if kind == 0 { 2 * turn + place + 1 } else { 0 };
                let event = event(RECORDS, commit);
                let before = cpu_time(running.id().ok_or("the function has ended")?)?;
                let answer = running.invoke(event, Duration::from_secs(300)).await.response();
                assert!(kinesis::reported(&answer).is_empty(), "records were reported");
                let after = cpu_time(running.id().ok_or("the function has ended")?)?;
                if turn > 0 {
                    of_kind[which] += after.saturating_sub(before);
                }
            }
        }
    }
    for (kind, [with, without]) in ["CPU, rows that are newer", "CPU, rows that are superseded"].into_iter().zip(spent)
    {
        let each = |spent: Duration| spent / u32::try_from(TURNS * RECORDS).unwrap_or(u32::MAX);
        println!(
            "  {kind:<33} {:>10.1?} against {:.1?} a record: {:.3}",
            each(with),
            each(without),
            ratio(with, without)
        );
    }
    Ok(())
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// What a process has spent on the processor; Linux tells it, in nanoseconds.
fn cpu_time(process: u32) -> Result<Duration, Box<dyn Error>> {
    let spent = std::fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    let nanoseconds = spent.split(' ').next().ok_or("no time")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// The example `bare_function` of the same profile, two folders above which cargo puts a bench.
fn bare_function() -> Result<PathBuf, Box<dyn Error>> {
    let bench = std::env::current_exe()?;
    let folder = bench.parent().and_then(|folder| folder.parent()).ok_or("this bench has no folder")?;
    let bare = folder.join("examples/bare_function");
    if bare.exists() { Ok(bare) } else { Err("build it first: cargo build --release --example bare_function".into()) }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn megabytes(file: &Path) -> Result<f64, Box<dyn Error>> {
    let bytes = u32::try_from(std::fs::metadata(file)?.len())?;
    Ok(f64::from(bytes) / 1e6)
}

/// The most memory that a process ever had resident, in megabytes; Linux tells it.
fn peak_memory(process: u32) -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kilobytes: u32 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(f64::from(kilobytes) / 1024.0)
}
