//! Whatever Lambda, Kinesis, DynamoDB and S3 do on the way, the view ends right and every record is accounted for.
//!
//! Random histories go through the test kit's event source mapping to two functions at once, over services with faults.
//! Functions die at random moments, and what the mapping gives up goes through the redrive function. A seed repeats a
//! run, except for the timing of concurrent work.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use dsql_view::config::Config;
use dsql_view::deadline::Deadline;
use dsql_view::handler::DynamoDbHandler;
use dsql_view::redrive::{Answer, Invocation, Redrive};
use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::dynamodb::sdk_config;
use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::mapping::{
    AfterSplit, Delivery, Mapping, Outcome, PartialWithBisect, Settings, TooOld, UnknownNumber,
};
use dsql_view_support::model::Model;
use dsql_view_support::objects::{left_behind, resolved};
use dsql_view_support::proxy::{Call, Fault, FaultProxy, Service};
use dsql_view_support::queues;
use dsql_view_support::random::Random;
use dsql_view_support::services::LocalServices;
use dsql_view_support::shards::{LocalShards, Trimmed};
use serde_json::{Value as Json, json};

const COMMIT: u64 = 1_773_843_841_076_494_565;
const VIEW: &str = "view";
const BUCKET: &str = "objects";
const LONG: Duration = Duration::from_secs(120);

/// The changes and records of a run.
struct History {
    changes: Vec<Change>,
    records: Vec<String>,
    poison: usize,
}

impl History {
    fn random(random: &mut Random) -> Self {
        let mut history = Self { changes: Vec::new(), records: Vec::new(), poison: 0 };
        for number in 0..60 {
            let id = Value::number(i64::try_from(random.below(8)).unwrap());
            let commit = COMMIT + number;
            let layout = if random.percent(50) { Layout::Preview } else { Layout::Documented };
            let text = if random.percent(8) { "x".repeat(410_000) } else { format!("value {number}") };
            let change = if random.percent(25) {
                Change::delete("users", id, commit)
            } else {
                Change { layout, ..Change::upsert("users", id, commit, vec![("text", Value::text(text))]) }
            };
            if random.percent(5) {
                history.records.push(format!("poison {number}"));
                history.poison += 1;
            }
            if random.percent(5) {
                let elsewhere = Change { table: "elsewhere".to_owned(), ..change.clone() };
                history.records.push(elsewhere.record());
            }
            if random.percent(10) {
                history.records.extend(change.split(&format!("chunk {number}"), 2));
            } else {
                history.records.push(change.record());
            }
            history.changes.push(change);
        }
        history
    }
}

struct World {
    services: LocalServices,
}

impl World {
    async fn new() -> Self {
        let queues = [("failed", Some("dead")), ("dead", None)];
        let shards = LocalShards::start(5, Trimmed::Oldest);
        Self { services: LocalServices::start(VIEW, BUCKET, shards, &queues).await }
    }

    /// One endpoint for all services, where this percentage of the calls goes wrong.
    fn endpoint(&self, seed: u64, faults: u64) -> FaultProxy {
        let random = Mutex::new(Random::new(seed));
        self.services.proxy(move |call: &Call| {
            let mut random = random.lock().unwrap();
            if call.operation == "DescribeTable" || !random.percent(faults) {
                return Fault::None;
            }
            let slow = Duration::from_millis(random.number() % 40);
            let faults = [
                if call.service == Service::DynamoDb {
                    Fault::THROTTLED
                } else {
                    Fault::Error { status: 503, code: "SlowDown" }
                },
                Fault::ERROR_BEFORE_THE_WRITE,
                Fault::ErrorAfterTheWrite,
                Fault::Cut,
                Fault::CutAfterTheWrite,
                Fault::Delay(slow),
                Fault::DelayAfterTheWrite(slow),
            ];
            faults[random.below(faults.len())].clone()
        })
    }
}

fn config(creates_together: bool) -> Config {
    let variable = |name: &str| match name {
        "VIEW_TABLE" => Some(VIEW.to_owned()),
        "SOURCE_TABLES" => Some("users(id)".to_owned()),
        "OBJECTS_BUCKET" => Some(BUCKET.to_owned()),
        "BATCHED_CREATES" => Some(creates_together.to_string()),
        _ => None,
    };
    Config::from_variables(variable).unwrap()
}

/// The mishaps of an invocation, apart from faults of the services.
#[derive(Clone, Copy)]
struct Fate {
    /// The function dies after this time.
    dies_after: Option<Duration>,
    time: Duration,
    /// Lambda gets another answer than the function gave.
    answer_is: Option<Garbled>,
}

#[derive(Clone, Copy)]
enum Garbled {
    NoAnswer,
    WithoutNumber,
    WithForeignNumber,
}

impl Fate {
    fn random(random: &mut Random) -> Self {
        let garbled = [Garbled::NoAnswer, Garbled::WithoutNumber, Garbled::WithForeignNumber];
        Self {
            dies_after: random.percent(10).then(|| Duration::from_millis(random.number() % 60)),
            time: if random.percent(5) { Duration::from_millis(random.number() % 200) } else { LONG },
            answer_is: random.percent(5).then(|| garbled[random.below(garbled.len())]),
        }
    }

    fn answer(self, mut answer: Json) -> Json {
        let foreign = json!({ "itemIdentifier": "1" });
        match self.answer_is {
            None => {}
            Some(Garbled::NoAnswer) => answer = json!("Internal Server Error"),
            Some(Garbled::WithoutNumber) => answer = json!({ "batchItemFailures": [{ "itemIdentifier": "" }] }),
            Some(Garbled::WithForeignNumber) => {
                answer["batchItemFailures"].as_array_mut().unwrap().push(foreign);
            }
        }
        answer
    }
}

/// Invokes a function.
async fn invoke(function: &DynamoDbHandler, delivery: &Delivery, fate: Fate) -> Outcome {
    let event = serde_json::from_str(&delivery.event().to_string()).unwrap();
    let answer = function.handle(&event, Deadline::after(fate.time));
    match tokio::time::timeout(fate.dies_after.unwrap_or(LONG), answer).await {
        Ok(answer) => Outcome::Response(fate.answer(serde_json::to_value(answer).unwrap())),
        Err(_) => Outcome::Failed,
    }
}

/// Whether the redrive function is done with a message.
async fn redrive(function: &Redrive, body: &Json, dies_after: Option<Duration>) -> bool {
    let event = queues::event("failed", "m", &body.to_string(), 1);
    let invocation: Invocation = serde_json::from_value(event).unwrap();
    let answer = function.handle(invocation, Deadline::after(LONG));
    match tokio::time::timeout(dies_after.unwrap_or(LONG), answer).await {
        Ok(Ok(Answer::Sqs(answer))) => serde_json::to_value(answer).unwrap() == json!({ "batchItemFailures": [] }),
        Ok(other) => panic!("{other:?}"),
        Err(_) => false,
    }
}

async fn run(seed: u64) {
    let mut random = Random::new(seed);
    let history = History::random(&mut random);
    let settings = Settings {
        batch_size: 1 + random.below(12),
        window: Duration::from_secs(random.number() % 3),
        parallelization: 1 + u32::try_from(random.below(10)).unwrap(),
        // Few, so that the redrive function gets work.
        maximum_retries: Some(u32::try_from(random.below(4)).unwrap()),
        maximum_age: random.percent(30).then_some(Duration::from_secs(10)),
        bisect: random.percent(50),
        // No source settles these questions: the seeds try each answer together with both answers to the other
        // questions.
        after_split: if seed.is_multiple_of(2) { AfterSplit::GoOn } else { AfterSplit::StartAnew },
        partial_with_bisect: if seed.is_multiple_of(3) {
            PartialWithBisect::UsesARetry
        } else {
            PartialWithBisect::UsesNone
        },
        too_old: if seed % 5 < 2 { TooOld::Batch } else { TooOld::Records },
        unknown_number: if seed % 4 < 2 { UnknownNumber::FailsAll } else { UnknownNumber::Ignored },
        ..Settings::default()
    };
    let world = World::new().await;
    let mut mapping = Mapping::new(settings, random.number());

    // In random order, on random shards, some of them twice.
    let mut order: Vec<usize> = (0..history.records.len()).collect();
    random.shuffle(&mut order);
    let again: Vec<usize> = order.iter().copied().filter(|_| random.percent(15)).collect();
    let mut poison = BTreeSet::new();
    for (place, number) in (0..).zip(order.into_iter().chain(again)) {
        let shard = u32::try_from(random.below(3)).unwrap();
        let record = KinesisRecord { shard, ..KinesisRecord::at(place, history.records[number].as_str()) };
        if history.records[number].starts_with("poison") {
            poison.insert(place);
        }
        mapping.put(record.clone());
        world.services.shards.put([record]);
    }
    assert!(poison.len() >= history.poison);

    let endpoint = world.endpoint(random.number(), 6);
    let sdk_config = sdk_config(&endpoint.endpoint());
    let mut config = || config(random.percent(50));
    let functions = [
        DynamoDbHandler::start(config(), &sdk_config).await.unwrap(),
        DynamoDbHandler::start(config(), &sdk_config).await.unwrap(),
    ];
    let redriver = Redrive::start(config(), &sdk_config).await.unwrap();
    let mut messages = Vec::new();
    loop {
        let mut at_once = Vec::new();
        while at_once.len() < 2 {
            let Some(delivery) = mapping.next_delivery() else { break };
            at_once.push(delivery);
        }
        messages.extend(mapping.on_failure());
        let outcomes: Vec<Outcome> = match at_once.as_slice() {
            [] if mapping.is_through() => break,
            [] => {
                mapping.pass(Duration::from_secs(1));
                continue;
            }
            [one] => vec![invoke(&functions[0], one, Fate::random(&mut random)).await],
            [one, two, ..] => {
                let (first, second) = (Fate::random(&mut random), Fate::random(&mut random));
                let (first, second) =
                    tokio::join!(invoke(&functions[0], one, first), invoke(&functions[1], two, second));
                vec![first, second]
            }
        };
        mapping.pass(Duration::from_millis(random.number() % 1000));
        for (delivery, outcome) in at_once.iter().zip(outcomes) {
            let throttled = random.percent(3);
            mapping.settle(delivery, if throttled { &Outcome::Throttled } else { &outcome });
        }
    }
    messages.extend(mapping.on_failure());
    // SQS delivers each message until it is done.
    for message in &messages {
        let mut tries = 0;
        while !redrive(&redriver, message, Fate::random(&mut random).dies_after).await {
            tries += 1;
            assert!(tries < 50, "seed {seed}: a message is never done: {message}");
        }
    }

    assert!(world.services.queues.queue("dead").sent.is_empty(), "seed {seed}: nothing has expired");
    let items = world.services.db.items(VIEW).await;
    let left = left_behind(&items, &world.services.s3, BUCKET);
    assert!(left.is_empty(), "seed {seed}: left behind: {left:?}");
    let view = resolved(items, &world.services.s3, BUCKET).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
    let differences = Model::of(&history.changes).differences(&view);
    assert!(differences.is_empty(), "seed {seed}:\n{}", differences.join("\n"));
    let quarantined =
        world.services.s3.objects(BUCKET).into_keys().filter(|key| key.starts_with("quarantine/")).count();
    assert_eq!(quarantined, poison.len(), "seed {seed}: each poison record is in the quarantine, once");
}

#[tokio::test]
async fn every_history_ends_in_the_newest_commits_and_nothing_is_unaccounted_for() {
    for seed in 0..12 {
        Box::pin(run(seed)).await;
    }
}

#[tokio::test]
async fn a_history_that_nobody_has_chosen_ends_right_too() {
    let seed = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    println!("seed {seed}");
    Box::pin(run(seed.into())).await;
}

#[test]
fn a_seed_repeats_its_history() {
    let history = |seed| History::random(&mut Random::new(seed)).records;
    assert_eq!(history(3), history(3));
    assert_ne!(history(3), history(4));
}
