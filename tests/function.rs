//! The function's real binary behind a Lambda Runtime API: its start, its settings, its end and its logs.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType};
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::{LocalDynamoDb, environment};
use dsql_view_support::kinesis::{event_of, reported};
use dsql_view_support::model::Model;
use dsql_view_support::objects::{LocalS3, resolved};
use dsql_view_support::proxy::{Call, Fault, FaultProxy};
use dsql_view_support::runtime_api::{Function, Outcome};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const COMMIT: u64 = 1_773_843_841_076_494_565;
const VIEW: &str = "view";
const LONG: Duration = Duration::from_secs(60);

fn start(endpoint: &str, settings: &[(&'static str, &str)]) -> Function {
    let mut variables = environment(endpoint);
    variables.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
    Function::start(Path::new(env!("CARGO_BIN_EXE_dsql-view")), variables).unwrap()
}

const REQUIRED: [(&str, &str); 2] = [("VIEW_TABLE", VIEW), ("SOURCE_TABLES", "users(id)")];

/// The message with which the function refuses to start. Lambda, the log and the exit code must all report it.
async fn refusal(endpoint: &str, settings: &[(&'static str, &str)]) -> String {
    let mut function = start(endpoint, settings);
    let status = tokio::time::timeout(LONG, function.ended()).await.expect("the function ends").unwrap();
    assert!(!status.success(), "{status}");
    let told = function.init_error().expect("Lambda was told of the error");
    assert_eq!(told["errorType"], "Runtime.InitError");
    let message = told["errorMessage"].as_str().unwrap().to_owned();
    let started = Instant::now();
    while !function.lines().iter().any(|line| line.contains(&message)) {
        assert!(started.elapsed() < LONG, "the log does not say {message:?}: {:?}", function.lines());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    message
}

#[tokio::test]
async fn wrong_settings_stop_the_function_with_one_message_that_names_them_all() {
    let db = LocalDynamoDb::start();
    let message = refusal(&db.endpoint(), &[("TOMBSTONE_TTL", "soon"), ("WRITE_CONCURRENCY", "0")]).await;
    for expected in [
        "4 settings are missing or wrong",
        "VIEW_TABLE is not set",
        "SOURCE_TABLES is not set",
        r#"TOMBSTONE_TTL is "soon": expected a length of time"#,
        r#"WRITE_CONCURRENCY is "0": expected a whole number from 1 to 1024"#,
    ] {
        assert!(message.contains(expected), "{message}");
    }
    for (source_tables, expected) in [
        ("users(id), users(id)", "public.users is named twice"),
        ("users", "has no key columns"),
        (r#""users(id)"#, "the quotation mark is never closed"),
    ] {
        let message = refusal(&db.endpoint(), &[REQUIRED[0], ("SOURCE_TABLES", source_tables)]).await;
        assert!(message.contains("SOURCE_TABLES") && message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn credentials_and_region_may_come_from_a_profile() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let [credentials, config] =
        ["profile-credentials", "profile-config"].map(|name| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    std::fs::write(&credentials, "[mine]\naws_access_key_id = local\naws_secret_access_key = local\n").unwrap();
    std::fs::write(&config, "[profile mine]\nregion = us-east-1\n").unwrap();
    let given = |name: &str| ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(&name);
    let variables = environment(&db.endpoint()).into_iter().filter(|(name, _)| !given(name));
    let variables = variables.chain(REQUIRED.map(|(name, value)| (name, value.to_owned()))).chain([
        ("AWS_PROFILE", "mine".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap().to_owned()),
        ("AWS_CONFIG_FILE", config.to_str().unwrap().to_owned()),
    ]);
    let mut function = Function::start(Path::new(env!("CARGO_BIN_EXE_dsql-view")), variables).unwrap();
    let change = Change::upsert("users", Value::number(7), COMMIT, vec![("name", Value::text("Ada"))]);
    let answer = function.invoke(event_of([change.record()]).to_string(), LONG).await.response();
    assert!(reported(&answer).is_empty(), "{answer}");
}

#[tokio::test]
async fn a_view_table_that_is_missing_or_does_not_fit_stops_the_function() {
    use KeyType::{Hash, Range};
    use ScalarAttributeType::{N, S};
    let db = LocalDynamoDb::start();
    let message = refusal(&db.endpoint(), &REQUIRED).await;
    assert!(message.contains("there is no table view in this account and region: create it"), "{message}");

    db.create_table("numbers", &[("id", Hash, N)]).await;
    db.create_table("sorted", &[("pk", Hash, S), ("sk", Range, S)]).await;
    db.create_table("named_as_a_key", &[("id", Hash, S)]).await;
    for (table, expected) in [
        ("numbers", "expected a partition key of type S and no sort key, found the partition key id of type N"),
        ("sorted", "found the partition key pk of type S and the sort key sk of type S"),
        ("named_as_a_key", "the key column id of public.users has the name of the view table's partition key"),
    ] {
        let message = refusal(&db.endpoint(), &[("VIEW_TABLE", table), REQUIRED[1]]).await;
        assert!(message.contains("VIEW_TABLE") && message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_at_start_is_named_with_what_to_check() {
    let db = LocalDynamoDb::start();
    let endpoint = db.endpoint();
    drop(db);
    let message = refusal(&endpoint, &REQUIRED).await;
    for expected in ["no answer on the table view", "AWS_ENDPOINT_URL_DYNAMODB", "onnection refused"] {
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn a_dynamodb_that_refuses_at_start_is_told_apart() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    for (status, code, expected) in [
        (
            400,
            "AccessDeniedException",
            "may not be described: made by the fault proxy; allow the function dynamodb:DescribeTable",
        ),
        (
            400,
            "UnrecognizedClientException",
            "UnrecognizedClientException (HTTP 400); check AWS_REGION and the credentials",
        ),
        (400, "ThrottlingException", "ThrottlingException (HTTP 400)"),
        (500, "InternalServerError", "InternalServerError (HTTP 500)"),
    ] {
        let proxy = FaultProxy::before_everything(&db.endpoint(), move |_| Fault::Error { status, code });
        let message = refusal(&proxy.endpoint(), &REQUIRED).await;
        assert!(message.contains(expected), "{code}: {message}");
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_named_before_lambda_loses_patience() {
    // The kernel accepts the connection, but nobody reads from it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let message = refusal(&format!("http://{}", silent.local_addr().unwrap()), &REQUIRED).await;
    assert!(message.contains("no answer on the table view"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(10), "after {:?}", started.elapsed());
}

#[tokio::test]
async fn without_lambda_the_binary_says_what_it_is() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_dsql-view")).env_clear().output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("a function for AWS Lambda") && message.contains("make demo"), "{message}");
}

#[tokio::test]
async fn any_name_of_the_partition_key_will_do() {
    let db = LocalDynamoDb::start();
    db.create_table(VIEW, &[("row", KeyType::Hash, ScalarAttributeType::S)]).await;
    let mut function = start(&db.endpoint(), &REQUIRED);
    let change =
        Change::upsert("users", Value::number(7), COMMIT, vec![("_key", Value::text("a column like any other"))]);
    let answer = function.invoke(event_of([change.record()]).to_string(), LONG).await.response();
    assert_eq!(answer, json!({ "batchItemFailures": [] }));
    let found = db.client().scan().table_name(VIEW).send().await.unwrap().items.unwrap();
    assert_eq!(found[0]["row"].as_s().unwrap(), "public.users#7");
}

#[tokio::test]
async fn the_counts_in_the_log_add_up_to_the_records_and_to_the_answer() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    // Every put of one row fails, until the function gives it up.
    let proxy = FaultProxy::start(&db.endpoint(), |call| {
        if call.writes("public.users#3") { Fault::ERROR_BEFORE_THE_WRITE } else { Fault::None }
    });
    let mut function = start(&proxy.endpoint(), &[REQUIRED[0], REQUIRED[1], ("AWS_LAMBDA_LOG_FORMAT", "JSON")]);
    let user = |id: i64, commit: u64| Change::upsert("users", Value::number(id), COMMIT + commit, vec![]).record();
    let batch = [
        user(1, 0),
        user(2, 1),
        user(2, 0),
        user(2, 1),
        user(3, 1),
        user(3, 0),
        user(4, 0).replace(r#""users""#, r#""orders""#),
        "broken".to_owned(),
        user(5, 0),
    ];
    let answer = function.invoke(event_of(&batch).to_string(), LONG).await.response();
    assert_eq!(reported(&answer), [4, 5, 7]);
    let log = function.log_line("batch", 1).await.expect("a line a batch");
    for (name, count) in [("received", 9), ("applied", 3), ("superseded", 2), ("filtered", 1), ("reported", 3)] {
        assert_eq!(log[name], count, "{name} of {log}");
    }
    assert_eq!(log["shard"], "shardId-000000000000");
    let mut seen = Vec::new();
    for number in 1..=3 {
        let failure = function.log_line("reported", number).await.expect("a line for each way of failing");
        seen.push((failure["stage"].as_str().unwrap().to_owned(), failure["poison"].clone(), failure["table"].clone()));
    }
    let class = |stage: &str, poison: bool, table: serde_json::Value| (stage.to_owned(), json!(poison), table);
    let users = || json!("public.users");
    assert_eq!(seen[0], class("decode", true, json!(null)));
    assert_eq!(seen[1..], [class("apply", false, users()), class("apply", false, users())]);
}

/// The metrics lines with a metric of this name; waits until there are at least this many.
async fn metrics(function: &Function, name: &str, lines: usize) -> Vec<serde_json::Value> {
    let started = Instant::now();
    loop {
        let written = function.lines().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
        let found: Vec<serde_json::Value> =
            written.filter(|line: &serde_json::Value| line.get("_aws").is_some() && line.get(name).is_some()).collect();
        if found.len() >= lines {
            return found;
        }
        assert!(started.elapsed() < LONG, "{} lines with {name}", found.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The non-zero counts of a line of metrics.
fn counts(line: &serde_json::Value) -> Vec<(&str, u64)> {
    let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap().iter();
    let names = metrics.filter(|metric| metric["Unit"] == "Count").filter_map(|metric| metric["Name"].as_str());
    names.map(|name| (name, line[name].as_u64().unwrap())).filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn the_metrics_of_a_mixed_batch_add_up_in_all_and_by_table() {
    let (db, s3) = (LocalDynamoDb::start(), LocalS3::start());
    db.create_view(VIEW).await;
    s3.create_bucket("objects");
    // Every put of one row is throttled, until the function gives it up.
    let throttle = |call: &Call| if call.writes("public.users#3") { Fault::THROTTLED } else { Fault::None };
    let proxy = FaultProxy::start(&db.endpoint(), throttle);
    let mut function = start(
        &proxy.endpoint(),
        &[
            REQUIRED[0],
            ("SOURCE_TABLES", "users(id), notes(id)"),
            ("OBJECTS_BUCKET", "objects"),
            ("AWS_ENDPOINT_URL_S3", &s3.endpoint()),
        ],
    );
    let change = |table: &str, id: i64, commit: u64, text: &str| {
        Change::upsert(table, Value::number(id), COMMIT + commit, vec![("text", Value::text(text))]).record()
    };
    let odd = vec![("text", Value::text("x".repeat(2900))), ("huge", Value::Number("1e38".to_owned()))];
    let odd = Change::upsert("notes", Value::number(2), COMMIT, odd);
    let batch = [
        change("users", 1, 1, "a row"),
        change("users", 1, 0, "older"),
        change("users", 1, 1, "a row"),
        Change::delete("users", Value::number(2), COMMIT).record(),
        change("users", 3, 0, "throttled"),
        change("notes", 1, 0, &"large".repeat(100_000)),
        Change { lag: -1, ..odd }.record(),
        change("orders", 1, 0, "not configured"),
        Change::upsert("notes", Value::number(4), COMMIT, vec![("text", Value::text("in pieces"))])
            .split("chunk", 2)
            .remove(0),
        "broken".to_owned(),
    ];
    let event = event_of(&batch).to_string();
    assert_eq!(reported(&function.invoke(event.clone(), LONG).await.response()), [4]);
    let found = metrics(&function, "Received", 3).await;
    let throttled = found[0]["Throttled"].as_u64().unwrap();
    assert!(throttled > 1);
    let expected = [
        ("Received", 10),
        ("Applied", 4),
        ("Superseded", 2),
        ("Filtered", 1),
        ("Kept", 1),
        ("Quarantined", 1),
        ("Failed", 1),
        ("Duplicates", 1),
        ("Coalesced", 2),
        ("ClockBehind", 1),
        ("StoredAsText", 1),
        ("Tombstones", 1),
        ("Overflowed", 1),
        ("WriteUnits", 6),
        ("UnconfiguredTables", 1),
        ("FailedBatches", 1),
        ("Throttled", throttled),
    ];
    assert_eq!(counts(&found[0]), expected);
    assert_eq!((&found[0]["FunctionName"], found[0].get("Table")), (&json!("dsql-view"), None));
    let counted = |name: &str| -> u64 {
        found[0][name]["Counts"].as_array().unwrap().iter().filter_map(serde_json::Value::as_u64).sum()
    };
    // Four rows are written; the throttled attempts come on top.
    assert_eq!((counted("Freshness"), counted("DynamoDbTime")), (4, 4 + throttled));

    let of = |table: &str| found[1..].iter().find(|line| line["Table"] == table).expect("a line a table");
    let users = [
        ("Received", 5),
        ("Applied", 2),
        ("Superseded", 2),
        ("Failed", 1),
        ("Duplicates", 1),
        ("Coalesced", 2),
        ("Tombstones", 1),
        ("WriteUnits", 2),
    ];
    assert_eq!(counts(of("public.users")), users);
    let notes = [
        ("Received", 3),
        ("Applied", 2),
        ("Kept", 1),
        ("ClockBehind", 1),
        ("StoredAsText", 1),
        ("Overflowed", 1),
        ("WriteUnits", 4),
    ];
    assert_eq!(counts(of("public.notes")), notes);

    // The same batch again: the function knows what it applied.
    function.invoke(event, LONG).await.response();
    let again = metrics(&function, "Received", 6).await.remove(3);
    assert_eq!(counts(&again)[..3], [("Received", 10), ("Superseded", 6), ("Filtered", 1)]);
    // The function does not skip a large row from memory.
    assert_eq!((&again["Known"], &again["Duplicates"]), (&json!(5), &json!(1)), "{again}");
}

#[tokio::test]
async fn without_metrics_by_table_there_are_those_of_all_records_alone() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let mut function = start(&db.endpoint(), &[REQUIRED[0], REQUIRED[1], ("TABLE_METRICS", "false")]);
    let user = Change::upsert("users", Value::number(1), COMMIT, vec![]).record();
    for _ in 0..2 {
        function.invoke(event_of([&user]).to_string(), LONG).await.response();
    }
    // A table's line would follow its batch's line.
    let found = metrics(&function, "Received", 2).await;
    assert!(found.iter().all(|line| line.get("Table").is_none() && line["Received"] == 1), "{found:?}");
}

#[tokio::test]
async fn an_event_that_is_no_kinesis_event_fails_and_the_next_one_is_served() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let mut function = start(&db.endpoint(), &REQUIRED);
    for event in [r#"{"hello":"world"}"#, r#"{"Records":[{"body":"a queue's message"}]}"#, "[]"] {
        let outcome = function.invoke(event, LONG).await;
        assert!(matches!(outcome, Outcome::Error(_)), "{event}: {outcome:?}");
    }
    let change = Change::upsert("users", Value::number(7), COMMIT, vec![]);
    let answer = function.invoke(event_of([change.record()]).to_string(), LONG).await.response();
    assert!(reported(&answer).is_empty());
}

#[tokio::test]
async fn an_invocation_that_runs_out_of_time_answers_with_what_is_left() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let proxy = FaultProxy::start(&db.endpoint(), |_| Fault::Delay(Duration::from_millis(300)));
    let mut function = start(&proxy.endpoint(), &[REQUIRED[0], REQUIRED[1], ("WRITE_CONCURRENCY", "2")]);
    let history: Vec<Change> = (0..60)
        .map(|id| Change::upsert("users", Value::number(id), COMMIT, vec![("name", Value::text("Ada"))]))
        .collect();
    let event = event_of(history.iter().map(Change::record)).to_string();

    // Lambda ends the function after three seconds. The answer comes before that, and the view has all that it calls
    // done.
    let answer = function.invoke(event.clone(), Duration::from_secs(3)).await.response();
    let left = reported(&answer).len();
    assert!(left > 0, "nothing was left after three seconds");
    let shown = db.items(VIEW).await.len();
    assert!(shown >= history.len() - left, "{shown} shown, {left} reported");
    drop(function);
    let mut in_time = start(&db.endpoint(), &REQUIRED);
    assert!(reported(&in_time.invoke(event, LONG).await.response()).is_empty());
    Model::of(&history).assert_equals(&db.items(VIEW).await);
}

#[tokio::test]
async fn no_row_s_value_reaches_the_logs_at_the_most_detailed_level() {
    const SECRET: &str = "4111-1111-1111-1111";
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let proxy =
        FaultProxy::start(
            &db.endpoint(),
            |call| {
                if call.number % 2 == 0 { Fault::ErrorAfterTheWrite } else { Fault::None }
            },
        );
    let settings = [REQUIRED[0], REQUIRED[1], ("AWS_LAMBDA_LOG_LEVEL", "TRACE"), ("RUST_LOG", "trace")];
    for format in ["JSON", "Text"] {
        let mut all = settings.to_vec();
        all.push(("AWS_LAMBDA_LOG_FORMAT", format));
        let mut function = start(&proxy.endpoint(), &all);
        let good = Change::upsert("users", Value::text(SECRET), COMMIT, vec![("card", Value::text(SECRET))]).record();
        let batch = [
            good.clone(),
            good.replace(r#""op":"u""#, r#""op":"d""#),
            good[..good.len() - 40].to_owned(),
            good.replace(r#""id""#, r#""_ts_ns""#),
            good.replace(r#""card""#, r#""_key""#),
            good.replace(r#""ts_ns":"#, &format!(r#""ts_ns":"{SECRET}","x":"#)),
            SECRET.to_owned(),
        ];
        let answer = function.invoke(event_of(&batch).to_string(), LONG).await.response();
        assert_eq!(reported(&answer), [1, 2, 3, 4, 5, 6]);
        function.invoke(format!(r#"{{"Records":[{{"kinesis":"{SECRET}"}}]}}"#), LONG).await;
        let secret_in_base64 = "NDExMS0xMTExLTExMTEtMTExM";
        // Lines come through their own pipe, later than the answer.
        let last = async {
            while !function.lines().iter().any(|line| line.contains("no batch")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, last).await.expect("a line on the event that is none");
        for line in &function.lines() {
            let shown = line.contains(SECRET) || line.contains(secret_in_base64);
            assert!(!shown, "a value of the row is in the log: {line}");
        }
    }
}

#[tokio::test]
async fn a_write_that_is_done_and_answered_with_an_error_is_found_and_counted_as_a_duplicate() {
    let (db, s3) = (LocalDynamoDb::start(), LocalS3::start());
    db.create_view(VIEW).await;
    s3.create_bucket("objects");
    let proxy =
        FaultProxy::start(
            &db.endpoint(),
            |call| {
                if call.number == 0 { Fault::ErrorAfterTheWrite } else { Fault::None }
            },
        );
    let bucket = [("OBJECTS_BUCKET", "objects"), ("AWS_ENDPOINT_URL_S3", &s3.endpoint())];
    let mut function = start(&proxy.endpoint(), &[&REQUIRED[..], &bucket[..]].concat());
    let history: Vec<Change> =
        (0..3).map(|id| Change::upsert("users", Value::number(id), COMMIT, vec![("a", Value::text("b"))])).collect();
    let event = event_of(history.iter().map(Change::record)).to_string();
    for (line, expected) in [(0, [2, 1, 1, 0, 2]), (1, [0, 3, 0, 3, 0])] {
        assert!(reported(&function.invoke(event.clone(), LONG).await.response()).is_empty());
        // One line for the batch, and one for its only table.
        let told = &metrics(&function, "Received", 2 * line + 1).await[2 * line];
        let names = ["Applied", "Superseded", "Duplicates", "Known", "WriteUnits"];
        assert_eq!(names.map(|name| told[name].as_u64().unwrap()), expected, "{told}");
        assert_eq!((&told["Received"], &told["Failed"], &told["FailedBatches"]), (&json!(3), &json!(0), &json!(0)));
        // Three rows and one retry, which DynamoDB did not apply; the second delivery writes nothing.
        assert_eq!(proxy.writes(), 4);
        Model::of(&history).assert_equals(&db.items(VIEW).await);
    }
}

#[tokio::test]
async fn two_tables_whose_names_read_alike_share_no_key_no_folder_and_no_metric() {
    let (db, s3) = (LocalDynamoDb::start(), LocalS3::start());
    db.create_view(VIEW).await;
    s3.create_bucket("objects");
    let tables = ("SOURCE_TABLES", r#""a.b".c(id), a."b.c"(id)"#);
    let bucket = [("OBJECTS_BUCKET", "objects"), ("AWS_ENDPOINT_URL_S3", &s3.endpoint())];
    let mut function = start(&db.endpoint(), &[&[REQUIRED[0], tables], &bucket[..]].concat());
    let change = |schema: &str, table: &str, id: i64, text: &str| Change {
        schema: schema.to_owned(),
        ..Change::upsert(table, Value::number(id), COMMIT, vec![("text", Value::text(text))])
    };
    let large = "x".repeat(500_000);
    let names = [("a.b", "c"), ("a", "b.c")];
    let rows = names.map(|(schema, table)| [change(schema, table, 1, schema), change(schema, table, 2, &large)]);
    let poison = names.map(|(schema, table)| change(schema, table, 3, "").record().replace(":3,", ":null,"));
    let batch = rows.iter().flatten().map(Change::record).chain(poison);
    assert!(reported(&function.invoke(event_of(batch).to_string(), LONG).await.response()).is_empty());

    let view = resolved(db.items(VIEW).await, &s3, "objects").unwrap();
    Model::of(rows.iter().flatten()).assert_equals(&view);
    assert_eq!(view.len(), 4);
    let objects = s3.objects("objects");
    let folders: Vec<&str> = objects.keys().map(|key| key.split('/').nth(1).unwrap()).collect();
    assert_eq!(folders, ["a%2Eb.c", "a.b%2Ec", "a%2Eb.c", "a.b%2Ec"], "two of overflow/, two of quarantine/");
    let told = metrics(&function, "Received", 3).await;
    let mut tables: Vec<&str> = told[1..].iter().map(|line| line["Table"].as_str().unwrap()).collect();
    tables.sort_unstable();
    assert_eq!(tables, ["a%2Eb.c", "a.b%2Ec"]);
    assert!(told[1..].iter().all(|line| line["Received"] == 3), "{told:?}");
}

/// Sends a signal to a process.
fn signal(process: u32, name: &str) {
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status();
    assert!(sent.unwrap().success(), "SIG{name}");
}

/// Lambda freezes a function between two invocations, for minutes or hours, while servers close idle connections.
#[tokio::test]
async fn a_function_that_was_frozen_while_its_connections_were_closed_applies_the_next_batch() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let relay = Relay::start(&db.endpoint()).await;
    // Fewer connections than a write has attempts, so that no write meets a closed connection at every attempt.
    let mut function = start(&relay.endpoint, &[REQUIRED[0], REQUIRED[1], ("WRITE_CONCURRENCY", "4")]);
    let process = function.id().unwrap();
    let mut history = Vec::new();
    for (batch, (frozen, end)) in (0..).zip([
        (false, None),
        (false, Some(End::Close)),
        (true, Some(End::Close)),
        (false, Some(End::Forget)),
        (true, Some(End::Forget)),
    ]) {
        let row = vec![("batch", Value::number(batch))];
        let rows: Vec<Change> =
            (0..100).map(|id| Change::upsert("users", Value::number(id), COMMIT + batch, row.clone())).collect();
        let event = event_of(rows.iter().map(Change::record)).to_string();
        history.extend(rows);
        if frozen {
            signal(process, "STOP");
        }
        if let Some(end) = end {
            assert!(relay.end(end).await > 0, "there was no connection left");
        }
        // The event is there before the function thaws, as in Lambda.
        let thaw = async {
            if frozen {
                signal(process, "CONT");
            }
        };
        let (outcome, ()) = tokio::join!(function.invoke(event, LONG), thaw);
        assert!(reported(&outcome.response()).is_empty(), "batch {batch}");
        Model::of(&history).assert_equals(&db.items(VIEW).await);
    }
}

/// A relay in front of a server that ends connections, as servers do.
struct Relay {
    endpoint: String,
    open: Arc<Mutex<Vec<Connection>>>,
}

type Connection = (watch::Sender<Option<End>>, JoinHandle<()>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// Closes the connection at once.
    Close,
    /// Ends the connection at the next request, which is lost.
    Forget,
}

impl Relay {
    async fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let open = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(&upstream).await.unwrap();
                let (end, mut ends) = watch::channel(None);
                let relayed = async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                        _ = ends.wait_for(Option::is_some) => {}
                    }
                    if *ends.borrow() == Some(End::Forget) {
                        drop(server);
                        let _ = client.readable().await;
                    }
                };
                connections.lock().unwrap().push((end, tokio::spawn(relayed)));
            }
        });
        Self { endpoint, open }
    }

    /// Ends all connections; returns how many were open.
    async fn end(&self, how: End) -> usize {
        let mut open = std::mem::take(&mut *self.open.lock().unwrap());
        open.retain(|(_, connection)| !connection.is_finished());
        let count = open.len();
        for (end, connection) in open {
            let _ = end.send(Some(how));
            if how == End::Close {
                let _ = connection.await;
            }
        }
        count
    }
}

#[tokio::test]
async fn warnings_about_the_sources_of_records_are_logged_once() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let settings = [REQUIRED[0], ("SOURCE_TABLES", "users(id), orders(id)"), ("AWS_LAMBDA_LOG_FORMAT", "JSON")];
    let mut function = start(&db.endpoint(), &settings);
    let record = |table: &str, cluster: &str| {
        let change = Change::upsert(table, Value::number(1), COMMIT, vec![("name", Value::text("secret"))]);
        change.record().replace("kmabugltfmjdaj2siqr2qbxgju", cluster)
    };
    let batch = [record("user", "c1"), record("logs", "c1"), record("orders", "c1"), record("orders", "c2")];
    for _ in 0..2 {
        function.invoke(event_of(&batch).to_string(), LONG).await.response();
    }
    let counted = metrics(&function, "UnconfiguredTables", 2).await;
    assert_eq!(counted.iter().filter_map(|line| line["UnconfiguredTables"].as_u64()).collect::<Vec<_>>(), [2, 2]);
    function.log_line("batch", 2).await.expect("a line a batch");
    let told: Vec<String> = function.lines().into_iter().filter(|line| line.contains("\"WARN\"")).collect();
    for (number, expected) in [
        "records of public.user are filtered: neither SOURCE_TABLES nor the definitions name the table. They name public.users, which has had no",
        "records of public.logs are filtered: neither SOURCE_TABLES nor the definitions name the table",
        "records of two clusters arrive, c1 and c2",
    ]
    .into_iter()
    .enumerate()
    {
        let lines: Vec<&String> = told.iter().filter(|line| line.contains(expected)).collect();
        assert_eq!(lines.len(), 1, "{number}: {told:?}");
        assert!(!lines[0].contains("secret"));
    }
}

#[tokio::test]
async fn a_batch_is_applied_whatever_its_records_have_beside_data_and_number() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let mut function = start(&db.endpoint(), &REQUIRED);
    let changes = [1, 2, 3].map(|id| Change::upsert("users", Value::number(id), COMMIT, vec![]));
    let mut event = event_of(changes.iter().map(Change::record));
    let records = event["Records"].as_array_mut().unwrap();
    records[0]["kinesis"].as_object_mut().unwrap().remove("approximateArrivalTimestamp");
    records[1]["kinesis"]["approximateArrivalTimestamp"] = json!("2026-05-28T20:26:40Z");
    records[2]["kinesis"]["approximateArrivalTimestamp"] = json!(1_780_000_000_500_u64);
    for record in records {
        record["kinesis"]["partitionKey"] = json!(7);
        record["eventID"] = json!({});
        record["eventSourceARN"] = json!(null);
    }
    assert_eq!(reported(&function.invoke(event.to_string(), LONG).await.response()), [0; 0]);
    Model::of(&changes).assert_equals(&db.items(VIEW).await);
}

/// By the documentation, the first change is newer; the change stream's clock was two milliseconds behind when it made
/// the record.
#[tokio::test]
async fn source_ts_ns_is_the_order_of_commits_whatever_the_change_stream_s_clock_says() {
    let newer = Change {
        lag: -2_000_000,
        ..Change::upsert("users", Value::number(1), COMMIT + 1_000_000, vec![("name", Value::text("newer"))])
    };
    let older = Change {
        lag: 3_001,
        ..Change::upsert("users", Value::number(1), COMMIT + 999_999, vec![("name", Value::text("older"))])
    };
    for batches in [vec![vec![&newer, &older]], vec![vec![&newer], vec![&older]], vec![vec![&older], vec![&newer]]] {
        let db = LocalDynamoDb::start();
        db.create_view(VIEW).await;
        let mut function = start(&db.endpoint(), &REQUIRED);
        for batch in &batches {
            let event = event_of(batch.iter().map(|change| change.record())).to_string();
            assert_eq!(reported(&function.invoke(event, LONG).await.response()), [0; 0]);
        }
        Model::of([&newer]).assert_equals(&db.items(VIEW).await);
        let counted: u64 = metrics(&function, "ClockBehind", batches.len())
            .await
            .iter()
            .filter(|line| line.get("Table").is_none())
            .filter_map(|line| line["ClockBehind"].as_u64())
            .sum();
        assert_eq!(counted, 1);
    }
}
