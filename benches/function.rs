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
    println!("  ratio                             {:>10.2}", ours.as_secs_f64() / theirs.as_secs_f64());
    println!("  binaries                          {:.1} MB and {:.1} MB", megabytes(function)?, megabytes(&bare)?);

    println!("\nFull payloads: 6 MB with {RECORDS} rows each, on a DynamoDB in this process");
    let event = |round: u64| {
        let commit = 1_773_843_841_076_494_565 + round;
        let row = |id: u64| {
            Change::upsert(
                "users",
                Value::number(id),
                commit,
                vec![("email", Value::text(format!("{id}@example.com")))],
            )
        };
        kinesis::event_of((0..RECORDS).map(|id| row(id).record())).to_string()
    };
    let mut running = Function::start(function, settings)?;
    running.ready().await;
    let process = running.id().ok_or("the function has ended")?;
    println!("  before                            {:>6.1} MB resident at most", peak_memory(process)?);
    for round in 0..FULL_PAYLOADS {
        let event = event(round as u64);
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
