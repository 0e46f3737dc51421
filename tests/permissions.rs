//! The roles of `template.yaml` allow the calls that the functions make, and nothing else.
//!
//! Both binaries run behind a proxy that records each call to AWS, and take every way that a record can go. Their calls
//! must be exactly what their roles allow, apart from what Lambda does with the same roles before and after them.

mod stack;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dsql_view_support::cdc::{Change, Layout, Value};
use dsql_view_support::dynamodb::environment;
use dsql_view_support::kinesis::{KinesisRecord, STREAM, event_of, on_failure};
use dsql_view_support::proxy::{Call, Fault, FaultProxy, Service};
use dsql_view_support::queues;
use dsql_view_support::runtime_api::Function;
use dsql_view_support::services::LocalServices;
use dsql_view_support::shards::{LocalShards, Trimmed};
use serde_json::{Value as Json, json};
use stack::evaluated::{ACCOUNT, REGION, Rights, Stack};

const COMMIT: u64 = 1_773_843_841_076_494_565;
const LONG: Duration = Duration::from_secs(120);
const BUCKET: &str = "objects";

const VIEW: &str = "ViewTable.Arn";
/// The table behind the name that the view definitions give.
const ORDERS: &str = "arn:aws:dynamodb:us-east-1:123456789012:table/orders-table";
/// The secret for hashed columns.
const SECRET: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hash-key-AbCdEf";
const OBJECTS: &str = "ObjectsBucket.Arn";
const ON_FAILURE: &str = "OnFailureQueue.Arn";
const DEAD_LETTER: &str = "DeadLetterQueue.Arn";

/// The calls that Lambda makes with the view function's role: the logs, and the mapping of its stream.
const OF_VIEW_S_LAMBDA: &[(&str, &str)] = &[
    ("kinesis:DescribeStream", STREAM),
    ("kinesis:DescribeStreamSummary", STREAM),
    ("kinesis:GetRecords", STREAM),
    ("kinesis:GetShardIterator", STREAM),
    ("kinesis:ListShards", STREAM),
    ("logs:CreateLogStream", "FunctionLogs.Arn"),
    ("logs:PutLogEvents", "FunctionLogs.Arn"),
    ("sqs:SendMessage", ON_FAILURE),
];

/// The calls that Lambda makes with the redrive function's role: the logs, and the mapping of its queue.
const OF_REDRIVE_S_LAMBDA: &[(&str, &str)] = &[
    ("logs:CreateLogStream", "RedriveLogs.Arn"),
    ("logs:PutLogEvents", "RedriveLogs.Arn"),
    ("sqs:DeleteMessage", ON_FAILURE),
    ("sqs:GetQueueAttributes", ON_FAILURE),
    ("sqs:ReceiveMessage", ON_FAILURE),
];

/// The calls that a function makes at its start if it has view definitions.
const OF_DEFINITIONS: [&str; 3] = ["dynamodb:DescribeTimeToLive", "dynamodb:Scan", "secretsmanager:GetSecretValue"];

const DEFINITIONS: &str = r#"
version = 1
[[table]]
name = "users"
primary_key = ["id"]
[[table]]
name = "orders"
primary_key = ["id"]
view = "orders"
columns = { id = "text", email = "text" }
hash = ["email"]
"#;

fn rights(pairs: &[(&str, &str)]) -> Rights {
    pairs.iter().map(|(action, on)| ((*action).to_owned(), (*on).to_owned())).collect()
}

/// The recorded calls: the rights that they need, and the operations by the names of the SDK's client methods.
#[derive(Debug, Default)]
struct Called {
    rights: Rights,
    operations: BTreeSet<String>,
}

impl Called {
    fn add(&mut self, call: &Call) {
        let body: Json = serde_json::from_slice(&call.body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let name = call.operation.as_str();
        let (operation, rights): (String, Vec<(String, String)>) = match call.service {
            Service::DynamoDb if name == "BatchExecuteStatement" => {
                let statements = body["Statements"].as_array().unwrap();
                let right = |statement: &Json| {
                    let text = statement["Statement"].as_str().unwrap();
                    let (table, _) =
                        text.strip_prefix("INSERT INTO \"").and_then(|text| text.split_once("\" VALUE ")).expect(text);
                    ("dynamodb:PartiQLInsert".to_owned(), table_of(table))
                };
                (snake(name), statements.iter().map(right).collect())
            }
            Service::DynamoDb => (snake(name), vec![(format!("dynamodb:{name}"), table_of(&text("TableName")))]),
            Service::Kinesis => (snake(name), vec![(format!("kinesis:{name}"), text("StreamARN"))]),
            Service::SecretsManager => (snake(name), vec![(format!("secretsmanager:{name}"), text("SecretId"))]),
            Service::Sqs => {
                let url = text("QueueUrl") + &text("QueueName");
                let queue = match url.rsplit('/').next() {
                    Some("failed") => ON_FAILURE,
                    Some("dead") => DEAD_LETTER,
                    other => panic!("another queue is called: {other:?}"),
                };
                (snake(name), vec![(format!("sqs:{name}"), queue.to_owned())])
            }
            Service::S3 => {
                let (operation, actions) = of_s3(call);
                (operation.to_owned(), actions)
            }
        };
        self.operations.insert(operation);
        self.rights.extend(rights);
    }
}

/// A view table as the roles name it.
fn table_of(name: &str) -> String {
    match name {
        "view" => VIEW.to_owned(),
        "orders-table" => ORDERS.to_owned(),
        other => panic!("another table is called: {other}"),
    }
}

/// `GetRecords` as `get_records`.
fn snake(operation: &str) -> String {
    let letter = |(place, letter): (usize, char)| {
        let separator = if place > 0 && letter.is_uppercase() { "_" } else { "" };
        format!("{separator}{}", letter.to_lowercase())
    };
    operation.chars().enumerate().map(letter).collect()
}

/// The operation of a call to S3 and the rights that it needs. The call names no operation: its method, path and
/// headers identify it.
fn of_s3(call: &Call) -> (&'static str, Vec<(String, String)>) {
    let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
    let in_bucket = path.strip_prefix(&format!("/{BUCKET}")).unwrap_or_else(|| panic!("another bucket: {path}"));
    let (prefix, _) = in_bucket.trim_start_matches('/').split_once('/').unwrap_or_default();
    let has = |parameter: &str| query.split('&').any(|given| given.split('=').next() == Some(parameter));
    let header = |name: &str| call.headers.get(name).map(|value| value.to_str().unwrap());
    let on = |action: &str| (format!("s3:{action}"), format!("{OBJECTS}/{prefix}/*"));
    match call.method.as_str() {
        "GET" if has("list-type") => ("list_objects_v2", vec![("s3:ListBucket".to_owned(), OBJECTS.to_owned())]),
        "GET" if has("tagging") => ("get_object_tagging", vec![on("GetObjectTagging")]),
        "GET" => ("get_object", vec![on("GetObject")]),
        "DELETE" => ("delete_object", vec![on("DeleteObject")]),
        "PUT" if let Some(source) = header("x-amz-copy-source") => {
            // The object is copied onto itself. S3 wants the right to read the tags only if the tags are copied too.
            assert!(source.starts_with(&format!("{BUCKET}/{prefix}%2F")), "{source}");
            assert_eq!((header("x-amz-tagging-directive"), header("x-amz-tagging").is_some()), (Some("REPLACE"), true));
            ("copy_object", vec![on("GetObject"), on("PutObject"), on("PutObjectTagging")])
        }
        "PUT" if !has("tagging") && header("x-amz-tagging").is_none() && header("x-amz-acl").is_none() => {
            ("put_object", vec![on("PutObject")])
        }
        _ => panic!("a call that is not known here: {} {}", call.method, call.path),
    }
}

/// The settings that decide which calls there are.
#[derive(Debug, Clone, Copy)]
struct Case {
    creates_together: bool,
    has_bucket: bool,
    defines: bool,
}

/// A function, and all services that it calls.
struct World {
    services: LocalServices,
    called: Arc<Mutex<Called>>,
    proxy: FaultProxy,
    function: Function,
    redrives: bool,
    place: u64,
}

impl World {
    async fn new(redrives: bool, Case { creates_together, has_bucket, defines }: Case) -> Self {
        let queues = [("failed", Some("dead")), ("dead", None)];
        let shards = LocalShards::start(100, Trimmed::Oldest);
        let services = LocalServices::start("view", BUCKET, shards, &queues).await;
        let called = Arc::new(Mutex::new(Called::default()));
        let recorded = Arc::clone(&called);
        let proxy = services.proxy(move |call| {
            recorded.lock().unwrap().add(call);
            // The functions postpone a row that DynamoDB does not take for now.
            if call.writes("public.users#denied") {
                return Fault::Error { status: 400, code: "NewInAnotherYear" };
            }
            Fault::None
        });
        let endpoint = proxy.endpoint();
        let mut variables = environment(&endpoint);
        let creates_together = creates_together.to_string();
        for (name, value) in [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("VIEW_TABLE", "view"),
            ("BATCHED_CREATES", creates_together.as_str()),
        ] {
            variables.push((name, value.to_owned()));
        }
        if defines {
            services.db.create_view("orders-table").await;
            let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/permissions.toml");
            std::fs::write(file, DEFINITIONS).unwrap();
            variables.push(("VIEW_DEFINITIONS", file.to_owned()));
            variables.push(("VIEW_TABLES", "orders=orders-table".to_owned()));
            variables.push(("VIEW_HASH_SECRET", SECRET.to_owned()));
        } else {
            variables.push(("SOURCE_TABLES", "users(id)".to_owned()));
        }
        if has_bucket {
            variables.push(("OBJECTS_BUCKET", BUCKET.to_owned()));
        }
        let binary = if redrives { env!("CARGO_BIN_EXE_redrive") } else { env!("CARGO_BIN_EXE_dsql-view") };
        let function = Function::start(Path::new(binary), variables).unwrap();
        Self { services, called, proxy, function, redrives, place: 0 }
    }

    /// Gives records to the function in its own way: in an event, or as a range of a shard.
    async fn deliver(&mut self, records: Vec<String>) {
        if !self.redrives {
            self.invoke(&event_of(&records)).await;
            return;
        }
        let first = self.place;
        self.place += records.len() as u64;
        self.services.shards.put((first..).zip(records).map(|(place, record)| KinesisRecord::at(place, record)));
        self.redrive(first, self.place - 1).await;
    }

    async fn redrive(&mut self, first: u64, last: u64) {
        let body = on_failure(0, first, last).to_string();
        self.invoke(&queues::event("failed", "m1", &body, 1)).await;
    }

    async fn invoke(&mut self, event: &Json) -> Json {
        self.function.invoke(event.to_string(), LONG).await.response()
    }

    /// Sends records on every way that a record can go.
    async fn drive(&mut self, has_bucket: bool) {
        let new = |id: &str| Change { layout: Layout::Preview, ..user(id, 0, 10) };
        self.deliver((0..30).map(|id| new(&format!("new{id}")).record()).collect()).await;
        // Of a table with another view table, if there are definitions.
        let order = |id: &str| Change { table: "orders".to_owned(), ..new(id) };
        self.deliver((0..30).map(|id| order(&format!("new{id}")).record()).collect()).await;
        self.deliver(vec![order("single").record(), order("new1").record()]).await;
        // Poison, a row that DynamoDB refuses, and a deletion.
        let deleted = Change::delete("users", Value::text("new1"), COMMIT + 9);
        self.deliver(vec!["poison".to_owned(), user("denied", 0, 10).record(), deleted.record()]).await;
        // A large row, a small one that replaces it, and another large one that comes too late.
        for (commit, length) in [(1, 900_000), (3, 10), (2, 900_000)] {
            self.deliver(vec![user("large", commit, length).record()]).await;
        }
        // A chunked change, its last fragment by itself.
        let mut pieces = user("split", 0, 1000).split("chunk", 3);
        let last = pieces.pop().unwrap();
        self.deliver(pieces).await;
        self.deliver(vec![last]).await;
        if !self.redrives {
            return;
        }
        // Records that have expired.
        self.deliver(vec![user("lost", 0, 10).record(), user("kept", 0, 10).record()]).await;
        self.services.shards.expire(0, usize::try_from(self.place - 1).unwrap());
        self.redrive(self.place - 2, self.place - 1).await;
        assert_eq!(self.services.queues.queue("dead").sent.len(), 1);
        if has_bucket {
            let quarantined = json!({
                "streamArn": STREAM,
                "shardId": "shardId-000000000000",
                "sequenceNumber": "4959",
                "partitionKey": "p",
                "approximateArrivalTimestamp": 1_773_843_841.125,
                "data": BASE64_STANDARD.encode(user("replayed", 0, 10).record()),
            });
            self.services.s3.put(BUCKET, "quarantine/public.users/1.json", quarantined.to_string(), SystemTime::now());
            for event in [
                json!({"replay": "quarantine/", "force": true}),
                json!({"check": "fragments"}),
                json!({"check": "quarantine"}),
            ] {
                self.invoke(&event).await;
            }
        }
    }

    async fn assert_drove_all(&self, has_bucket: bool) {
        let items = self.services.db.items("view").await;
        assert!(items["public.users#new1"].contains_key("_deleted"));
        assert_eq!(items.contains_key("public.users#replayed"), self.redrives && has_bucket);
        assert_eq!(items.contains_key("public.users#split"), has_bucket);
        assert!(!items.contains_key("public.users#denied"));
        assert!(self.proxy.writes() > 0);
    }
}

fn user(id: &str, commit: u64, length: usize) -> Change {
    Change::upsert("users", Value::text(id), COMMIT + commit, vec![("bio", Value::text("x".repeat(length)))])
}

/// The rights of the template's roles, without those that only Lambda itself needs.
fn allowed(Case { creates_together, has_bucket, defines }: Case) -> [Rights; 2] {
    let together = creates_together.to_string();
    let own = if defines { "orders=orders-table" } else { "" };
    let stack = Stack::with(&[
        ("StreamArn", STREAM),
        ("BatchedCreates", &together),
        ("ViewTables", own),
        ("HashSecretArn", SECRET),
    ]);
    let of = |role: &str, lambda: &[(&str, &str)]| {
        let (all, lambda) = (stack.rights(role), rights(lambda));
        assert!(lambda.is_subset(&all), "{role}: Lambda lacks {:?}", lambda.difference(&all));
        // Both the function and Lambda need the queue's attributes, which name the dead-letter queue.
        let own = |right: &&(String, String)| !lambda.contains(*right) || right.0 == "sqs:GetQueueAttributes";
        let in_bucket = |right: &&(String, String)| right.1.starts_with(OBJECTS);
        let of_definitions = |right: &&(String, String)| OF_DEFINITIONS.contains(&right.0.as_str());
        let used = |right: &&(String, String)| (has_bucket || !in_bucket(right)) && (defines || !of_definitions(right));
        all.iter().filter(own).filter(used).cloned().collect()
    };
    [of("FunctionRole", OF_VIEW_S_LAMBDA), of("RedriveRole", OF_REDRIVE_S_LAMBDA)]
}

#[tokio::test]
async fn the_functions_call_what_their_roles_allow_and_nothing_else() {
    let mut operations = BTreeSet::new();
    let all = [false, true].into_iter().flat_map(|defines| {
        let of = move |(creates_together, has_bucket)| Case { creates_together, has_bucket, defines };
        [(false, true), (true, true), (false, false), (true, false)].map(of)
    });
    for case in all {
        let allowed = allowed(case);
        for (redrives, allowed) in [false, true].into_iter().zip(allowed) {
            let mut world = World::new(redrives, case).await;
            world.drive(case.has_bucket).await;
            world.assert_drove_all(case.has_bucket).await;
            let called = world.called.lock().unwrap();
            let name = if redrives { "redrive" } else { "dsql-view" };
            let with = format!("{name} with {case:?}");
            let denied: Vec<_> = called.rights.difference(&allowed).collect();
            assert!(denied.is_empty(), "{with}: its role does not allow {denied:?}");
            let unused: Vec<_> = allowed.difference(&called.rights).collect();
            assert!(unused.is_empty(), "{with}: it does not use {unused:?}");
            operations.extend(called.operations.iter().cloned());
        }
    }
    // The test drove every operation that the code names.
    assert_eq!(operations, operations_of_the_code());
}

/// The operations of the SDK's clients that the code calls: `client.get_records()` and the like.
fn operations_of_the_code() -> BTreeSet<String> {
    let mut operations = BTreeSet::new();
    for file in files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        let code = std::fs::read_to_string(&file).unwrap();
        if !code.contains("aws_sdk_") {
            continue;
        }
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        let code: String = code.split_whitespace().collect();
        for client in ["client.", "client()."] {
            for called in code.split(client).skip(1) {
                let name: String = called
                    .chars()
                    .take_while(|next| next.is_ascii_lowercase() || "_0123456789".contains(*next))
                    .collect();
                if called[name.len()..].starts_with("().") {
                    operations.insert(name);
                }
            }
        }
    }
    operations
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_setting_adds_the_rights_that_it_needs_and_no_other() {
    const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555";
    let decrypt: &[(&str, &str)] = &[("kms:Decrypt", KEY)];
    let both: &[(&str, &str)] = &[("kms:Decrypt", KEY), ("kms:GenerateDataKey", KEY)];
    let nothing: &[(&str, &str)] = &[];
    let secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hash-AbCdEf";
    for (parameter, value, adds, service) in [
        ("BatchedCreates", "true", &[("dynamodb:PartiQLInsert", VIEW)][..], None),
        ("HashSecretArn", secret, &[("secretsmanager:GetSecretValue", secret)], None),
        ("HashSecretKeyArn", KEY, decrypt, Some("secretsmanager")),
        ("StreamKeyArn", KEY, decrypt, None),
        ("ViewKeyArn", KEY, decrypt, Some("dynamodb")),
        ("ObjectsKeyArn", KEY, both, Some("s3")),
        ("QueuesKeyArn", KEY, both, Some("sqs")),
        ("LogsKeyArn", KEY, nothing, None),
        ("AlarmEmail", "somebody@example.com", nothing, None),
        ("ClusterId", "2ntttwpyh6nbmi5h54h2e4p4ja", nothing, None),
    ] {
        // Its key alone allows nothing, because there is nothing to decrypt.
        let other = if parameter == "HashSecretKeyArn" { ("HashSecretArn", secret) } else { ("MemorySize", "512") };
        let plain = Stack::with(&[("StreamArn", STREAM), other]);
        let stack = Stack::with(&[("StreamArn", STREAM), other, (parameter, value)]);
        for role in ["FunctionRole", "RedriveRole"] {
            let (before, with) = (plain.rights(role), stack.rights(role));
            assert!(before.is_subset(&with), "{role} with {parameter}");
            assert_eq!(with.difference(&before).cloned().collect::<Rights>(), rights(adds), "{role} with {parameter}");
            // The role may use the key only through that service.
            let statements = stack.statements(role);
            let of_key = statements.iter().filter(|statement| statement["Resource"] == KEY);
            let via = |statement: &Json| statement["Condition"]["StringEquals"]["kms:ViaService"].clone();
            let expected = service.map(|service| json!(format!("{service}.{REGION}.amazonaws.com")));
            assert!(of_key.map(via).all(|via| via == expected.clone().unwrap_or_default()), "{role} with {parameter}");
        }
    }
}

#[test]
fn the_functions_may_not_use_a_bucket_of_the_same_name_in_another_account() {
    let stack = Stack::with(&[("StreamArn", STREAM)]);
    for role in ["FunctionRole", "RedriveRole"] {
        let statements = stack.statements(role);
        let actions = |statement: &Json| statement["Action"].to_string();
        let of_bucket: Vec<&Json> = statements.iter().filter(|statement| actions(statement).contains("s3:")).collect();
        assert!(of_bucket.len() >= 4, "{role}");
        for statement in of_bucket {
            assert_eq!(statement["Condition"]["StringEquals"]["aws:ResourceAccount"], ACCOUNT, "{role}");
        }
    }
}

#[test]
fn sam_attaches_no_managed_policy() {
    let stack = Stack::with(&[("StreamArn", STREAM)]);
    for (function, role) in [("ViewFunction", "FunctionRole.Arn"), ("RedriveFunction", "RedriveRole.Arn")] {
        let function = stack.properties(function);
        assert_eq!((&function["Role"], &function["Policies"]), (&json!(role), &Json::Null));
    }
}
