//! Runs the function's real binary on the sample events, against a DynamoDB of its own, and shows what happens.
//!
//! `make demo` builds both and starts this. The demo ends by itself; its exit code says whether the view is right in
//! the end.

mod limits;
mod shapes;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use dsql_view::definitions::source_tables::SourceTables;
use dsql_view_support::cdc::Change;
use dsql_view_support::dynamodb::{self, LocalDynamoDb};
use dsql_view_support::events::{self, Expected, Sample};
use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::model::Model;
use dsql_view_support::runtime_api::{Function, Outcome};
use dsql_view_support::table;
use serde_json::Value;
use serde_json::value::RawValue;

const VIEW: &str = "demo-view";
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let source_tables = events::source_tables()?;
    let tables: SourceTables = source_tables.parse()?;
    let samples = events::samples()?;

    println!(
        "A DynamoDB of its own, and the function's binary behind a Lambda Runtime API, both on this machine alone."
    );
    println!("SOURCE_TABLES: {}", source_tables.trim());
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let binaries = binaries()?;
    let mut function = start_function(&binaries, &db, &source_tables)?;
    let steps = samples.len() + limits::STEPS;

    let mut model = Model::default();
    for (number, sample) in samples.iter().enumerate() {
        let records = sample.kinesis_records();
        introduce(number + 1, steps, sample, &records);
        let answer = invoke(&mut function, sample, number + 1).await?;
        println!("  answer  {}\n          {}", answer.json, counts(&answer.found));
        println!("  view\n{}", table::render(&db.items(VIEW).await));
        if answer.found != sample.expect {
            return Err(format!("{}: expected {:?}, found {:?}", sample.name, sample.expect, answer.found).into());
        }
        for change in sample.records.iter().filter_map(|record| change(&record.data(), &tables)) {
            model.commit(&change);
        }
    }

    limits::run(&binaries, steps).await?;

    let differences = model.differences(&db.items(VIEW).await);
    if !differences.is_empty() {
        return Err(format!("the view is not the newest commit of every row:\n{}", differences.join("\n")).into());
    }
    let (rows, tombstones) = model.rows_and_tombstones();
    let count = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    println!(
        "\nBoth views hold exactly the newest commit of every row: {} and {}.",
        count(rows + limits::STEPS, "row"),
        count(tombstones, "tombstone")
    );
    shapes::run(&binaries).await
}

fn start_function(binaries: &Path, db: &LocalDynamoDb, source_tables: &str) -> Result<Function, Box<dyn Error>> {
    let binary = binaries.join(format!("dsql-view{}", std::env::consts::EXE_SUFFIX));
    let mut environment = dynamodb::environment(&db.endpoint());
    environment.push(("VIEW_TABLE", VIEW.to_owned()));
    environment.push(("SOURCE_TABLES", source_tables.to_owned()));
    environment.push(("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()));
    Function::start(&binary, environment).map_err(|error| format!("{}: {error}", binary.display()).into())
}

/// The folder of the functions' binaries: cargo puts them one folder above this example.
fn binaries() -> Result<PathBuf, Box<dyn Error>> {
    let example = std::env::current_exe()?;
    let folder = example.parent().and_then(|folder| folder.parent()).ok_or("this example has no folder")?;
    Ok(folder.to_owned())
}

/// Prints the line that begins a step.
fn headline(number: usize, of: usize, title: &str) {
    println!("\n━━ {number} of {of}: {title} ━━");
}

fn introduce(number: usize, of: usize, sample: &Sample, records: &[KinesisRecord]) {
    headline(number, of, &sample.title);
    println!("{}\n", wrapped(&sample.about));
    println!("  event   events/{}.json", sample.name);
    for record in records {
        let number = &record.sequence_number;
        let tail = &number[number.len().saturating_sub(12)..];
        println!("  record  shardId-{:012} …{tail}  {}", record.shard, summary(&record.data));
        if let Some(image) = image(&record.data) {
            println!("          {image}");
        }
    }
}

/// Text in lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full = lines.last().is_some_and(|line| line.chars().count() + word.chars().count() >= 100);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// The text of the row's image in a record.
fn image(data: &[u8]) -> Option<String> {
    let record: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(data).ok()?;
    let image = |name: &str| {
        let image = record.get(name)?;
        (image.get() != "null").then(|| format!("{name} {image}"))
    };
    image("after").or_else(|| image("before"))
}

/// A record in one line.
fn summary(data: &[u8]) -> String {
    let Ok(record) = serde_json::from_slice::<Value>(data) else {
        return format!("{} bytes that are no JSON", data.len());
    };
    let verb = match record["op"].as_str() {
        Some("c") => "create",
        Some("u") => "update",
        Some("d") => "delete",
        _ => "change",
    };
    let source = &record["source"];
    let name = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let committed = source["ts_ns"].as_u64().min(record["ts_ns"].as_u64()).unwrap_or_default();
    format!("{verb} {}.{}, committed {committed}", name(&source["schema"]), name(&source["table"]))
}

struct Answer {
    json: String,
    found: Expected,
}

/// Invokes the function; returns its answer, and its log line on the batch.
async fn invoke(function: &mut Function, sample: &Sample, invocation: usize) -> Result<Answer, Box<dyn Error>> {
    let answer = match function.invoke(sample.event_file(), TIMEOUT).await {
        Outcome::Response(answer) => answer,
        other => {
            return Err(format!("the function did not answer: {other:?}\n{}", function.lines().join("\n")).into());
        }
    };
    let log = function.log_line("batch", invocation).await.ok_or("the function logged no line for the batch")?;
    Ok(Answer { json: answer.to_string(), found: Expected::found(sample, &answer, &log) })
}

fn counts(found: &Expected) -> String {
    let reported = found.reported.len();
    let received = found.applied + found.superseded + found.filtered + reported;
    let ends = [
        ("applied", found.applied),
        ("superseded", found.superseded),
        ("filtered", found.filtered),
        ("reported", reported),
    ];
    let ends = ends.iter().filter(|(_, count)| *count > 0).map(|(end, count)| format!("{count} {end}"));
    format!("{received} received: {}", ends.collect::<Vec<_>>().join(", "))
}

fn change(record: &str, tables: &SourceTables) -> Option<Change> {
    Change::of_record(record, |schema, table| Some(tables.get(schema, table)?.primary_key().to_vec()))
}
