//! Runs the whole system on one machine: a local AWS with `template.yaml` deployed to it, a change stream, and the
//! view. One can look at it while it runs. In the end, the view is compared with the changes that were sent.
//!
//! | step | file |
//! |---|---|
//! | a local AWS with the template's resources | `aws.rs`, which starts `aws.py` |
//! | changes, some of whose records come late or again | `workload.rs` |
//! | into the stream, and out of it | `../src/stream.rs` |
//! | by the event source mapping to the deployed function, and to the on-failure queue | `delivery.rs`, `function.rs` |
//! | from that queue to the deployed redrive function | the local AWS alone |
//! | the figures on the screen | `figures.rs`, `screen.rs` |
//! | the comparison | `verdict.rs` |
//!
//! `make local` installs and builds what is needed, and starts this program. The exit code tells whether the view holds
//! what was sent. Ctrl-C ends the changes, and a second one ends everything. In either case no process and no file is
//! left.

mod aws;
mod delivery;
mod figures;
mod function;
mod screen;
mod settings;
mod verdict;
mod workload;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use dsql_view_support::dynamodb::sdk_config;
use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::random::Random;
use dsql_view_tools::Failure;
use dsql_view_tools::given::{binary, exit_code, variable};
use dsql_view_tools::stream::Stream;
use futures_util::future::try_join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::aws::LocalAws;
use crate::delivery::Deliveries;
use crate::figures::Figures;
use crate::screen::{Phase, Screen, summary};
use crate::settings::Settings;
use crate::verdict::Storage;
use crate::workload::Workload;

/// The time between two looks at the work that is due.
const TICK: Duration = Duration::from_millis(50);

/// The time between two reads of a shard. Lambda reads once a second.
const POLL: Duration = Duration::from_millis(250);

/// No changes are made while more records wait than this number and those of `MOST_BEHIND` together. One step makes at
/// most the changes of `LONGEST_STEP`.
const MOST_WAITING: u64 = 200;
const MOST_BEHIND: Duration = Duration::from_secs(5);
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// How long the records on their way may take without any of them being done.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(120);

/// The most differences that are shown.
const SHOWN: usize = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let (stop, stopped) = watch::channel(false);
    // What ends here is dropped, and the local AWS with it.
    let ended = tokio::select! {
        ended = run(stopped) => ended,
        why = ended_at_once(&stop) => Err(why.into()),
    };
    exit_code(ended, "The run has no verdict")
}

/// The first Ctrl-C ends the changes. Waits for the second one, or for another signal.
async fn ended_at_once(stop: &watch::Sender<bool>) -> String {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [mut interrupt, mut terminate, mut hangup] =
        signals.map(|kind| signal(kind).expect("a signal that can be caught"));
    tokio::select! {
        _ = async { interrupt.recv().await; stop.send_replace(true); interrupt.recv().await } => "interrupted",
        _ = terminate.recv() => "terminated",
        _ = hangup.recv() => "the terminal is gone",
    }
    .to_owned()
}

/// Whether the view holds what was sent.
async fn run(mut stopped: watch::Receiver<bool>) -> Result<bool, Failure> {
    let settings = Settings::from_variables(|name| std::env::var(name).ok())?;
    let python = variable::<PathBuf>("PYTHON", "a path")?.ok_or("PYTHON is not set: run `make local`")?;
    let (function, redrive) = (binary("FUNCTION", "debug", "dsql-view")?, binary("REDRIVE", "debug", "redrive")?);
    println!("Starting a local AWS and deploying template.yaml to it");
    let aws = tokio::select! {
        aws = LocalAws::start(&python, &function, &redrive, settings.faults) => aws?,
        _ = stopped.changed() => return Err("interrupted before it began".into()),
    };
    let stack = &aws.stack;
    println!("{DIFFERENT}");
    let seed = u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos());
    let mut random = Random::new(seed);
    println!(
        "{} changes a second. Of a hundred records {} come late, and {} again;\nof a hundred writes DynamoDB refuses {}.",
        settings.rate, settings.disorder, settings.duplicates, settings.faults
    );

    let figures = RefCell::new(Figures::new());
    let stream = Stream::open(Client::new(&sdk_config(&stack.endpoint)), &stack.stream_arn).await?;
    let storage = Storage::new(stack);
    let deliveries = Deliveries::new(stack, random.number(), &figures);
    let mut workload = Workload::new(settings, random.number());
    let (is_complete, is_delivered) = (Cell::new(false), Cell::new(false));
    let (read, to_deliver) = mpsc::channel(1_000);
    let mut made_in = Duration::ZERO;
    let made = async {
        let began = Instant::now();
        make(&mut workload, settings, &stream, &mut random, &figures, &mut stopped).await?;
        is_complete.set(true);
        made_in = began.elapsed();
        Ok::<_, Failure>(())
    };
    let shards = stream.shards.iter().map(|shard| read_shard(&stream, shard, read.clone(), &figures, &is_complete));
    let shards = try_join_all(shards.collect::<Vec<_>>());
    drop(read);
    let delivered = async {
        let poison = deliveries.run(to_deliver).await?;
        is_delivered.set(true);
        Ok::<_, Failure>(poison)
    };
    let watched = storage.watch(&figures, || is_delivered.get());
    let screen = Screen::start(settings);
    let phase = || if is_complete.get() { Phase::Draining } else { Phase::Running };
    let everything = async { tokio::try_join!(made, shards, delivered, watched) };
    let ended = tokio::select! {
        ended = everything => ended,
        never = screen.show(&figures, phase) => match never {},
        () = standstill(&figures, &is_complete) => Err(stood_still(&figures.borrow()).into()),
    };
    screen.finish();
    let ((), _, poison, ()) = ended?;

    let (compared, differences) = storage.differences(&workload.model, &poison).await?;
    let (rows, tombstones) = workload.model.rows_and_tombstones();
    let mut figures = figures.into_inner();
    figures.workload = workload.counts;
    println!("{}", summary(&figures, compared, tombstones, differences.len()));
    if made_in.as_secs() > 0 && workload.counts.changes * 10 < made_in.as_secs() * settings.rate * 9 {
        let a_second = workload.counts.changes / made_in.as_secs();
        println!(
            "The local AWS does not take {} changes a second on this machine: {a_second} were made.",
            settings.rate
        );
    }
    if let Some(failure) = &figures.last_failure {
        println!("The function's last error: {failure}");
    }
    for difference in differences.iter().take(SHOWN) {
        println!("{}", difference.chars().take(1000).collect::<String>());
    }
    let count = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    if differences.is_empty() {
        println!(
            "The view is what was sent: {} and {}.\nThe quarantine is what was poison: {}.",
            count(rows, "row"),
            count(tombstones, "tombstone"),
            count(poison.len(), "record"),
        );
    } else {
        println!("The view is NOT what was sent: {}.", count(differences.len(), "difference"));
    }
    Ok(differences.is_empty())
}

/// The differences from AWS, which are printed in any case.
const DIFFERENT: &str = "
What is not as on AWS here:
  - The mapping of the stream is the test kit's, with the settings of the
    deployed one: ministack's takes a batch for done whatever the function
    reports of it, and would lose records.
  - Records end at 1 MiB, so that none is too large for Lambda. In place of
    such, one batch in 50 is given up untried, and goes by the on-failure queue
    to the redrive function.
  - Before DynamoDB stands a proxy, which refuses some writes.
  - Roles allow everything, and no metrics are made of the functions' logs: the
    alarms are there, and silent.
Stream, table, bucket, queues, both functions and the queue's mapping are
ministack's, from the template.
";

/// Makes changes for the given time, or until it is stopped, and puts their records into the stream. If the local AWS
/// does not keep up, it makes fewer.
async fn make(
    workload: &mut Workload,
    settings: Settings,
    stream: &Stream,
    random: &mut Random,
    figures: &RefCell<Figures>,
    stopped: &mut watch::Receiver<bool>,
) -> Result<(), Failure> {
    let began = Instant::now();
    let (mut clock, mut last) = (Duration::ZERO, began);
    let mut tick = tokio::time::interval(TICK);
    while !*stopped.borrow() && settings.duration.is_none_or(|duration| began.elapsed() < duration) {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopped.changed() => break,
        }
        let passed = last.elapsed();
        last += passed;
        if figures.borrow().waiting() < MOST_WAITING + settings.rate * MOST_BEHIND.as_secs() {
            clock += passed.min(LONGEST_STEP);
        }
        let records = workload.make(clock, SystemTime::now());
        put(stream, records, random, figures).await?;
        figures.borrow_mut().workload = workload.counts;
    }
    put(stream, workload.rest(), random, figures).await
}

/// Puts records into the stream, and counts them.
async fn put(
    stream: &Stream,
    records: Vec<String>,
    random: &mut Random,
    figures: &RefCell<Figures>,
) -> Result<(), Failure> {
    let count = records.len() as u64;
    stream.put(records, random).await?;
    figures.borrow_mut().put.add(count);
    Ok(())
}

/// Reads a shard until all records of the stream have been read. No more records come once `is_complete` is set.
async fn read_shard(
    stream: &Stream,
    shard: &str,
    records: mpsc::Sender<KinesisRecord>,
    figures: &RefCell<Figures>,
    is_complete: &Cell<bool>,
) -> Result<(), Failure> {
    let mut shard = stream.shard(shard).await?;
    loop {
        for record in shard.page().await?.records {
            figures.borrow_mut().read += 1;
            records.send(record).await?;
        }
        let is_read = |figures: &Figures| figures.read == figures.put.total();
        if is_complete.get() && is_read(&figures.borrow()) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until nothing has been done for a long time, once no more changes are made.
async fn standstill(figures: &RefCell<Figures>, is_complete: &Cell<bool>) {
    let mut last = ((0, 0), Instant::now());
    while !is_complete.get() || last.1.elapsed() < LONGEST_STANDSTILL {
        let now = {
            let figures = figures.borrow();
            (figures.done.total(), figures.on_failure)
        };
        if now != last.0 || !is_complete.get() {
            last = (now, Instant::now());
        }
        tokio::time::sleep(TICK).await;
    }
}

fn stood_still(figures: &Figures) -> String {
    let failure = figures.last_failure.as_deref().unwrap_or("none");
    format!(
        "nothing was done for {} s; {} records wait, and {} messages of the on-failure queue; the function's last error: {failure}",
        LONGEST_STANDSTILL.as_secs(),
        figures.waiting(),
        figures.on_failure,
    )
}

/// The message of a service that refuses a request.
fn told(error: impl Error) -> String {
    format!("the local AWS: {}", DisplayErrorContext(error))
}
