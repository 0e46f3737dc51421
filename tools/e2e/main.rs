//! Proves the view against a real database. It runs random transactions on a PostgreSQL. In the end it compares every
//! row of every table with the view, value by value.
//!
//! | step | file |
//! |---|---|
//! | random transactions while a table's columns change | `workload.rs`, `statements.rs`, `tables.rs`, `literals.rs` |
//! | the committed changes, by logical decoding | `capture.rs`, `decoding.rs` |
//! | one change a row and transaction, like Aurora DSQL's records | `changes.rs`, `records.rs`, `values.rs` |
//! | through a Kinesis, in another order, some twice | `stream.rs` |
//! | by the event source mapping to the real binaries | `functions.rs` |
//! | the items that the view must hold, as PostgreSQL says | `expectation.rs` |
//! | the differences | `comparison.rs` |
//!
//! PostgreSQL stands in for Aurora DSQL, which does not run elsewhere. `make e2e` starts what is needed and this
//! program. The exit code tells whether the view is right. `SEED` repeats a run, as far as concurrent sessions can be
//! repeated. `SEED=random` takes a seed that nobody has chosen. `CHANGES` says roughly how many rows the workload
//! changes. With a few hundred, the foreign keys may have nothing to do, and then the run fails.

mod capture;
mod changes;
mod comparison;
mod decoding;
mod expectation;
mod functions;
mod literals;
mod records;
mod report;
mod statements;
mod stream;
mod tables;
mod values;
mod workload;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dsql_view_support::dynamodb::{Items, LocalDynamoDb, environment};
use dsql_view_support::objects::{LocalS3, left_behind, resolved};
use dsql_view_support::queues::LocalQueues;
use dsql_view_support::random::Random;
use dsql_view_tools::Failure;
use dsql_view_tools::given::{binary, exit_code, variable};
use futures_util::future::try_join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_postgres::{Client, NoTls};

use crate::functions::Functions;
use crate::report::{Report, show_progress};
use crate::stream::Stream;
use crate::workload::{Progress, Workload};

const VIEW: &str = "view";
const BUCKET: &str = "objects";

/// How many sessions of random transactions run at a time.
const SESSIONS: usize = 6;

/// How many rows the workload changes if nobody says a number.
const CHANGES: u64 = 8_000;

/// The most differences that are shown.
const SHOWN: usize = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut terminated = signal(SignalKind::terminate()).expect("a signal that can be caught");
    // What ends here is dropped, and the functions' processes with it.
    let ended = tokio::select! {
        ended = run() => ended,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminated.recv() => Err("terminated".into()),
    };
    exit_code(ended.map(|()| true), "The end-to-end run failed")
}

async fn run() -> Result<(), Failure> {
    let started = Instant::now();
    let seed = match std::env::var("SEED").as_deref() {
        Ok("random") => u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()),
        _ => variable("SEED", "a number or \"random\"")?.unwrap_or(1),
    };
    let changes = variable("CHANGES", "a number")?.unwrap_or(CHANGES);
    let mut random = Random::new(seed);
    let mut source = || Random::new(random.number());

    let tables = tables::all();
    let client = connect().await?;
    let version = prepare(&client, &tables).await?;
    println!("PostgreSQL {version}, SEED={seed}, CHANGES={changes}");

    let (db, s3) = (LocalDynamoDb::start(), LocalS3::start());
    db.create_view(VIEW).await;
    s3.create_bucket(BUCKET);
    let queues = LocalQueues::start(&[("failed", Some("dead")), ("dead", None)]);
    let kinesis = required("AWS_ENDPOINT_URL_KINESIS")?;
    let stream = Stream::create(&kinesis, "changes").await?;
    let definitions = File(std::env::temp_dir().join(format!("e2e-{}.toml", std::process::id())));
    std::fs::write(&definitions.0, tables::definitions(&tables))?;
    let mut settings = environment(&db.endpoint());
    settings.extend([
        ("AWS_ENDPOINT_URL_S3", s3.endpoint()),
        ("AWS_ENDPOINT_URL_SQS", queues.endpoint()),
        ("AWS_ENDPOINT_URL_KINESIS", kinesis),
        ("VIEW_TABLE", VIEW.to_owned()),
        // The definitions may stand beside the short form that names the same tables.
        ("SOURCE_TABLES", tables::source_tables(&tables)),
        ("VIEW_DEFINITIONS", definitions.0.display().to_string()),
        ("OBJECTS_BUCKET", BUCKET.to_owned()),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
    ]);
    let (function, redrive) = (binary("FUNCTION", "debug", "dsql-view")?, binary("REDRIVE", "debug", "redrive")?);
    let functions = Functions::new(function, redrive, &settings, stream.arn(), source());
    let (capturing, putting) = (source(), source());

    let workload = Workload { tables, progress: Progress::default(), changes };
    let is_over = AtomicBool::new(false);
    let (made, to_put) = mpsc::channel(1_000);
    let (read, to_deliver) = mpsc::channel(1_000);
    let (counts, watched) = watch::channel(functions::Counts::default());
    let transactions = async {
        let (evolution, large_rows) = (connect().await?, connect().await?);
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            sessions.push(workload.session(connect().await?, source()));
        }
        let ddl = workload.evolution(evolution, source());
        tokio::try_join!(try_join_all(sessions), ddl, workload.large_rows(large_rows))?;
        is_over.store(true, Ordering::Release);
        Ok::<(), Failure>(())
    };
    let capture = capture::run(&client, &workload.tables, &is_over, made, capturing);
    let put = stream.put_all(to_put, putting);
    let shards = try_join_all(stream.shards().iter().map(|shard| stream.read_shard(shard, read.clone())));
    drop(read);
    let everything = async { tokio::try_join!(transactions, capture, put, shards, functions.run(to_deliver, counts)) };
    let ((), captured, ..) = tokio::select! {
        ended = everything => ended?,
        never = show_progress(&workload, &stream, &watched) => never,
    };

    let expectation = expectation::expectation(&client, &workload.tables).await?;
    let items = db.items(VIEW).await;
    let mut problems = problems(&items, &s3, &queues);
    let moved = items.values().filter(|item| item.contains_key("_overflow")).count();
    let view = resolved(items, &s3, BUCKET)?;
    let (differences, compared) = comparison::differences(&expectation, &captured.transactions, &view);
    let report = Report {
        workload: &workload,
        captured: &captured,
        stream: &stream.counts,
        functions: &watched.borrow(),
        expectation: &expectation,
        moved,
        compared,
        differences: differences.len(),
        took: started.elapsed(),
    };
    print!("{report}");
    let cascades = expectation.cascades;
    if cascades.tombstones == 0 || cascades.updated == 0 {
        problems.push(format!("no row stays deleted by a cascade, or none was updated by one: {cascades:?}"));
    }
    problems.extend(differences.iter().take(SHOWN).map(ToString::to_string));
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!("{} differences; SEED={seed}\n{}", differences.len(), problems.join("\n")).into())
}

/// A file of this run, which goes with it.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        // A file that stays behind does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Everything beside the view itself that must not be there after a run without poison.
fn problems(items: &Items, s3: &LocalS3, queues: &LocalQueues) -> Vec<String> {
    let mut problems = Vec::new();
    for object in left_behind(items, s3, BUCKET) {
        problems.push(format!("{object} is named by no item and not marked as unneeded"));
    }
    for object in s3.objects(BUCKET).into_keys().filter(|object| object.starts_with("quarantine/")) {
        problems.push(format!("a record of a row is in the quarantine: {object}"));
    }
    for message in queues.queue("dead").sent {
        problems.push(format!("a range is said to be lost: {message}"));
    }
    problems
}

fn required(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| format!("{name} is not set: run `make e2e`, which starts what is needed").into())
}

/// A session of the database that libpq's variables name.
async fn connect() -> Result<Client, Failure> {
    let mut config = tokio_postgres::Config::new();
    config.host(required("PGHOST")?).port(required("PGPORT")?.parse()?);
    config.user(required("PGUSER")?).dbname(required("PGDATABASE")?);
    let (client, connection) = config.connect(NoTls).await?;
    // The connection ends with the client, and the client tells of its errors.
    tokio::spawn(connection);
    Ok(client)
}

/// PostgreSQL's message about a statement that it refuses.
fn told(error: &tokio_postgres::Error, statement: &str) -> Failure {
    const LONGEST: usize = 2_000;
    let beginning: String = statement.chars().take(LONGEST).collect();
    let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    format!("PostgreSQL: {cause}\nto: {beginning}").into()
}

/// Creates the tables, the triggers that note their changes, and the slot. Returns the server's version.
async fn prepare(client: &Client, tables: &[tables::Table]) -> Result<String, Failure> {
    client.batch_execute("CREATE SCHEMA \"Sales\"").await?;
    for table in tables {
        client.batch_execute(&table.create()).await?;
    }
    expectation::note_changes(client, tables).await?;
    capture::start(client).await?;
    Ok(client.query_one("SHOW server_version", &[]).await?.get(0))
}
