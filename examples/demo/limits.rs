//! Changes beyond the limits of DynamoDB and Kinesis, and records that cannot be applied: the part of the demo with a
//! bucket.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::dynamodb::{self, LocalDynamoDb};
use dsql_view_support::kinesis::{self, KinesisRecord};
use dsql_view_support::model::Model;
use dsql_view_support::objects::{LocalS3, resolved};
use dsql_view_support::runtime_api::{Function, Outcome};
use dsql_view_support::table;
use serde_json::{Value as Json, json};

use crate::{headline, wrapped};

/// The number of its steps.
pub const STEPS: usize = 3;

const VIEW: &str = "demo-large";
const BUCKET: &str = "demo-objects";
const TABLES: &str = "public.users(id)";
const COMMIT: u64 = 1_773_843_920_076_494_565;
const TIMEOUT: Duration = Duration::from_secs(30);

struct Limits {
    db: LocalDynamoDb,
    s3: LocalS3,
    function: Function,
    invocations: usize,
    place: u64,
}

/// Shows this part, in its own view and bucket; `steps` is the number of steps of the whole demo.
pub async fn run(binaries: &Path, steps: usize) -> Result<(), Box<dyn Error>> {
    let (db, s3) = (LocalDynamoDb::start(), LocalS3::start());
    db.create_view(VIEW).await;
    s3.create_bucket(BUCKET);
    let function = start(binaries, "dsql-view", &db, &s3, &[])?;
    let mut limits = Limits { db, s3, function, invocations: 0, place: 0 };
    println!("\nFrom here on the function has a bucket, OBJECTS_BUCKET={BUCKET}, and a view of its own.");

    let mut history = vec![limits.large_row(steps - 2, steps).await?];
    history.push(limits.split_change(steps - 1, steps).await?);
    history.push(limits.poison(binaries, steps, steps).await?);

    let view = resolved(limits.db.items(VIEW).await, &limits.s3, BUCKET)?;
    let differences = Model::of(&history).differences(&view);
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n").into()) }
}

fn start(
    binaries: &Path,
    name: &str,
    db: &LocalDynamoDb,
    s3: &LocalS3,
    settings: &[(&'static str, &str)],
) -> Result<Function, Box<dyn Error>> {
    let mut environment = dynamodb::environment(&db.endpoint());
    for (name, value) in [
        ("AWS_ENDPOINT_URL_S3", s3.endpoint().as_str()),
        ("VIEW_TABLE", VIEW),
        ("SOURCE_TABLES", TABLES),
        ("OBJECTS_BUCKET", BUCKET),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
    ]
    .iter()
    .chain(settings)
    {
        environment.push((name, (*value).to_owned()));
    }
    let binary = binaries.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    Function::start(&binary, environment).map_err(|error| format!("{}: {error}", binary.display()).into())
}

fn user(id: i64, commit: u64, columns: Vec<(&str, Value)>) -> Change {
    Change::upsert("users", Value::number(id), COMMIT + commit, columns)
}

impl Limits {
    async fn large_row(&mut self, step: usize, steps: usize) -> Result<Change, Box<dyn Error>> {
        headline(step, steps, "A row of 1 MiB is inserted");
        println!(
            "{}\n",
            wrapped(
                "DynamoDB takes 400 KB. The largest columns move to the bucket until the rest fits; the item names each with its \
                 address. Objects come first, then the item, so that no reader follows an address to nothing."
            )
        );
        let text = |letter: &str, bytes: usize| Value::text(letter.repeat(bytes));
        let row = vec![("name", Value::text("Dora")), ("cv", text("c", 700 * 1024)), ("photo", text("p", 324 * 1024))];
        let change = user(1, 0, row);
        println!(
            "  record  {} bytes: create public.users, id 1, name, cv (700 KiB), photo (324 KiB)",
            change.record().len()
        );
        self.deliver(&[(1, change.record())]).await?;
        self.show().await;
        Ok(change)
    }

    async fn split_change(&mut self, step: usize, steps: usize) -> Result<Change, Box<dyn Error>> {
        headline(step, steps, "A change comes in pieces, the last one first, on two shards");
        println!(
            "{}\n",
            wrapped(
                "A change whose JSON is over 9 MiB comes as a main record and fragments (small ones here), in no order. Each waits in \
                 the bucket; whichever comes last puts the change together, checks its CRC32C and applies it."
            )
        );
        let change = user(2, 1, vec![("name", Value::text("Edgar")), ("email", Value::text("edgar@example.com"))]);
        let parts = change.split("c7a1-demo", 3);
        let names = ["the main record, of 3 pieces", "piece 0", "piece 1", "piece 2"];
        for (shard, part) in [(4, 3), (9, 1), (4, 0), (9, 2)] {
            println!("  record  {}  {}", kinesis::shard_id(shard), names[part]);
            self.deliver(&[(shard, parts[part].clone())]).await?;
        }
        self.show().await;
        Ok(change)
    }

    async fn poison(&mut self, binaries: &Path, step: usize, steps: usize) -> Result<Change, Box<dyn Error>> {
        headline(step, steps, "A poison record is quarantined, and replayed once its reason is gone");
        println!(
            "{}\n",
            wrapped(
                "This record of a preview stream carries one timestamp only: the setting must say that it is the commit's. Until then \
                 no repetition can apply it, so it goes whole into the quarantine and holds nothing up. A replay writes it over the \
                 older row. Were there none, the row might have been deleted meanwhile, and a record as old as this would stay."
            )
        );
        let row = vec![("name", Value::text("Edgar")), ("email", Value::text("edgar@example.org"))];
        let change = Change { layout: Layout::Preview, lag: 1, ..user(2, 2, row) };
        let record = change.record().replacen(&format!(r#""ts_ns":{},"#, change.committed + 1), "", 1);
        println!("  record  {}  update public.users, id 2, without source.ts_ns", kinesis::shard_id(2));
        self.deliver(&[(2, record)]).await?;
        self.show_objects("quarantine/");
        for object in self.s3.objects(BUCKET).into_iter().filter(|(key, _)| key.starts_with("quarantine/")) {
            let body: Json = serde_json::from_slice(&object.1.body)?;
            println!("          stage   {}", body["stage"].as_str().unwrap_or_default());
            println!("          reason  {}", body["reason"].as_str().unwrap_or_default());
        }
        println!("\n  COMMIT_TIMESTAMP=root is set, and the redrive function is asked:");
        let mut redrive = start(binaries, "redrive", &self.db, &self.s3, &[("COMMIT_TIMESTAMP", "root")])?;
        let asked = json!({ "replay": "quarantine/public.users/" });
        let answer = answered(&mut redrive, asked.to_string()).await?;
        println!("  event   {asked}\n  answer  {answer}");
        if answer["applied"] != 1 || answer["replayed"] != 1 {
            return Err(format!("the replay was to apply one record: {answer}").into());
        }
        self.show().await;
        Ok(change)
    }

    /// Delivers records to the function as one batch, each with its shard. None may be reported.
    async fn deliver(&mut self, records: &[(u32, String)]) -> Result<(), Box<dyn Error>> {
        let batch: Vec<KinesisRecord> = (self.place..)
            .zip(records)
            .map(|(place, (shard, record))| KinesisRecord {
                shard: *shard,
                ..KinesisRecord::at(place, record.as_str())
            })
            .collect();
        self.place += batch.len() as u64;
        self.invocations += 1;
        let answer = answered(&mut self.function, kinesis::event(&batch).to_string()).await?;
        let log = self.function.log_line("batch", self.invocations).await.ok_or("the function logged no line")?;
        let ends = ["applied", "superseded", "kept", "quarantined", "reported"];
        let ends = ends.iter().filter(|end| log[**end] != 0).map(|end| format!("{} {end}", log[*end]));
        println!("  answer  {answer}  {} received: {}", log["received"], ends.collect::<Vec<_>>().join(", "));
        if kinesis::reported(&answer).is_empty() { Ok(()) } else { Err("no record was to be reported".into()) }
    }

    async fn show(&self) {
        self.show_objects("");
        println!("  view\n{}", table::render(&self.db.items(VIEW).await));
    }

    fn show_objects(&self, prefix: &str) {
        println!("  bucket");
        for (key, object) in self.s3.objects(BUCKET).into_iter().filter(|(key, _)| key.starts_with(prefix)) {
            println!("          {:>9} bytes  {key}", object.body.len());
        }
    }
}

async fn answered(function: &mut Function, event: String) -> Result<Json, Box<dyn Error>> {
    match function.invoke(event, TIMEOUT).await {
        Outcome::Response(answer) => Ok(answer),
        other => Err(format!("the function did not answer: {other:?}\n{}", function.lines().join("\n")).into()),
    }
}
