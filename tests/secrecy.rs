//! Whatever fails, and however much detail the log level asks for, no value of a row reaches the functions' output.
//!
//! The binaries are those of the dev profile: release binaries have no messages below INFO.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::environment;
use dsql_view_support::kinesis::{KinesisRecord, event_of, on_failure, reported};
use dsql_view_support::proxy::{Call, Fault, FaultProxy, Service};
use dsql_view_support::queues;
use dsql_view_support::runtime_api::Function;
use dsql_view_support::services::LocalServices;
use dsql_view_support::shards::{LocalShards, Trimmed};
use serde_json::{Value as Json, json};

const COMMIT: u64 = 1_773_843_841_076_494_565;
const LONG: Duration = Duration::from_secs(120);
const BUCKET: &str = "objects";

/// This mark is in keys, in columns, and wherever a record has a value.
const MARK: &str = "Zq7XsecretX9vK";

/// All services that the functions call.
async fn services() -> LocalServices {
    let queues = [("failed", Some("dead")), ("dead", None)];
    LocalServices::start("view", BUCKET, LocalShards::start(100, Trimmed::Oldest), &queues).await
}

fn start(binary: &str, endpoint: &FaultProxy, settings: &[(&'static str, &str)]) -> Function {
    let endpoint = endpoint.endpoint();
    let mut variables = environment(&endpoint);
    for (name, value) in [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("VIEW_TABLE", "view"),
        ("SOURCE_TABLES", "users(id)"),
        ("AWS_LAMBDA_LOG_LEVEL", "TRACE"),
        ("RUST_LOG", "trace"),
    ] {
        variables.push((name, value.to_owned()));
    }
    variables.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
    Function::start(Path::new(binary), variables).unwrap()
}

/// The fault of each row, by its name: most are errors that quote the request.
fn by_row(call: &Call) -> Fault {
    let rows = [
        ("refused", Fault::Quote { status: 400, code: "ValidationException" }),
        ("throttled", Fault::Quote { status: 400, code: "ThrottlingException" }),
        ("broken", Fault::Quote { status: 500, code: "InternalServerError" }),
        ("unknown", Fault::Quote { status: 400, code: "NewInAnotherYear" }),
        ("cut", Fault::Cut),
    ];
    let fault = rows.into_iter().find(|(row, _)| call.is_write() && call.writes(&key(row)));
    fault.map_or(Fault::None, |(_, fault)| fault)
}

fn key(row: &str) -> String {
    format!("public.users#{MARK}{row}")
}

fn user(row: &str) -> Change {
    let columns = vec![("card", Value::text(MARK)), ("note", Value::text(format!("\"{MARK}\"\n")))];
    Change::upsert("users", Value::text(format!("{MARK}{row}")), COMMIT, columns)
}

/// Records that can never be applied, each with the mark at the place that breaks it.
fn poison() -> Vec<Vec<u8>> {
    let good = user("poison").record();
    let deep = format!("{}\"{MARK}\"{}", "[".repeat(40), "]".repeat(40));
    let mut tampered = user("in pieces").split("tampered", 2);
    tampered[1] = tampered[1].replacen(MARK, &MARK.to_uppercase(), 1);
    let mut records = vec![
        good[..good.len() - 40].to_owned(),
        good.replace(r#""op":"u""#, r#""op":"d""#),
        good.replace(r#""op":"u""#, &format!(r#""op":"{MARK}""#)),
        good.replacen('{', &format!(r#"{{"type":"{MARK}","#), 1),
        good.replace(r#""id""#, r#""_ts_ns""#),
        good.replace(r#""card""#, r#""_key""#),
        good.replace(r#""ts_ns":"#, &format!(r#""ts_ns":"{MARK}","x":"#)),
        good.replace(&format!(r#""card":"{MARK}""#), &format!(r#""card":{deep}"#)),
        good.replace(&format!("{MARK}poison"), &MARK.repeat(200)),
        good.replace(&format!(r#""id":"{MARK}poison""#), &format!(r#""id":["{MARK}"]"#)),
        MARK.to_owned(),
        format!(r#"{{"type":"fragment","chunk_id":7,"index":"{MARK}","data":"{MARK}"}}"#),
    ];
    records.append(&mut tampered);
    let mut records: Vec<Vec<u8>> = records.into_iter().map(String::into_bytes).collect();
    records.push([MARK.as_bytes(), b"\xff\x00"].concat());
    records
}

fn large(row: &str) -> Change {
    let columns = vec![("card", Value::text(MARK.repeat(40_000))), ("note", Value::text(MARK))];
    Change::upsert("users", Value::text(format!("{MARK}{row}")), COMMIT, columns)
}

/// The mark in every form in which somebody might write it.
fn forms() -> Vec<String> {
    let mut forms = vec![MARK.to_owned(), MARK.to_uppercase(), MARK.to_lowercase()];
    // In Base64, at each of its three possible offsets: the characters that do not depend on the neighbours.
    for before in 0..3 {
        let text = BASE64_STANDARD.encode([&vec![b'x'; before][..], MARK.as_bytes()].concat());
        forms.push(text[4 * usize::from(before > 0)..text.len() - 4].to_owned());
    }
    let bytes: Vec<String> = MARK.bytes().map(|byte| byte.to_string()).collect();
    forms.extend([bytes.join(", "), bytes.join(",")]);
    let hex: Vec<String> = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    forms.push(hex.concat());
    forms
}

/// All output of a function, once it has written a line with `last`. Fails if the output has a form of the mark.
async fn written(function: &Function, last: &str) -> String {
    let started = Instant::now();
    while !function.lines().iter().any(|line| line.contains(last)) {
        assert!(started.elapsed() < LONG, "no line with {last}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lines = function.lines();
    for line in &lines {
        let shown = forms().into_iter().find(|form| line.contains(form));
        assert_eq!(shown, None, "a value of the row is written: {line}");
    }
    lines.join("\n")
}

fn assert_tells(log: &str, expected: &[&str]) {
    for expected in expected {
        assert!(log.contains(expected), "nothing is told of {expected}:\n{log}");
    }
}

#[tokio::test]
async fn the_view_s_function_writes_no_value_whatever_fails() {
    for format in ["JSON", "Text"] {
        let world = services().await;
        let endpoint = world.proxy(by_row);
        let settings = [("OBJECTS_BUCKET", BUCKET), ("AWS_LAMBDA_LOG_FORMAT", format)];
        let mut function = start(env!("CARGO_BIN_EXE_dsql-view"), &endpoint, &settings);
        let failing = ["throttled", "broken", "unknown", "cut"].map(|row| user(row).record().into_bytes());
        let mut batch = failing.to_vec();
        batch.extend(["applied", "refused"].map(|row| user(row).record().into_bytes()));
        batch.push(Change::delete("users", Value::text(format!("{MARK}gone")), COMMIT).record().into_bytes());
        batch.push(large("large").record().into_bytes());
        batch.extend(user("whole").split("whole", 3).into_iter().map(String::into_bytes));
        batch.extend(poison());
        let answer = function.invoke(event_of(&batch).to_string(), LONG).await.response();
        assert_eq!(reported(&answer), [0, 1, 2, 3]);

        // Invalid events, one of them with invalid Base64.
        let broken = event_of([MARK]).to_string().replace(&BASE64_STANDARD.encode(MARK), &format!("{MARK}!"));
        for event in [broken, format!(r#"{{"Records":[{{"kinesis":"{MARK}"}}]}}"#), format!("\"{MARK}\"")] {
            function.invoke(event, LONG).await;
        }
        let log = written(&function, "no batch").await;
        assert_tells(&log, &["ValidationException", "ThrottlingException", "InternalServerError", "NewInAnotherYear"]);
        assert_tells(&log, &["cut off", "decode", "assemble", "project", "quarantined", r#""Overflowed":1"#]);
        assert!(world.s3.objects(BUCKET).keys().filter(|key| key.starts_with("quarantine/")).count() > 12);
    }
}

#[tokio::test]
async fn the_view_s_function_writes_no_value_where_nothing_can_be_written() {
    let world = services().await;
    for (plan, expected) in [
        // The bucket quotes the request that it refuses.
        (
            (|call| match (call.service, call.method.as_str()) {
                (Service::S3, "PUT") => Fault::Quote { status: 403, code: "AccessDenied" },
                _ => Fault::None,
            }) as fn(&Call) -> Fault,
            &["AccessDenied", "the quarantine does not take them", "moved"][..2],
        ),
        (
            |call| {
                let refused = Fault::Quote { status: 400, code: "UnrecognizedClientException" };
                if call.is_write() { refused } else { Fault::None }
            },
            &["UnrecognizedClientException", "not tried"],
        ),
        (
            |call| {
                let refused = Fault::Quote { status: 400, code: "ValidationException" };
                if call.is_write() { refused } else { Fault::None }
            },
            &["ValidationException", "left out"],
        ),
        (
            |call| match call.operation.as_str() {
                "BatchExecuteStatement" => Fault::Statements { code: "ValidationError" },
                _ => Fault::None,
            },
            &["ValidationError"],
        ),
        (
            |call| match call.operation.as_str() {
                "BatchExecuteStatement" => Fault::Quote { status: 400, code: "ValidationException" },
                _ => Fault::None,
            },
            &["ValidationException"],
        ),
    ] {
        let endpoint = world.proxy(plan);
        let settings = [
            ("OBJECTS_BUCKET", BUCKET),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            ("BATCHED_CREATES", "true"),
            ("WRITE_CONCURRENCY", "1"),
        ];
        let mut function = start(env!("CARGO_BIN_EXE_dsql-view"), &endpoint, &settings);
        let create = |row: &str| user(row).record().replace(r#""op":"u""#, r#""op":"c""#);
        let mut batch = vec![MARK.to_owned(), large("large").record()];
        batch.extend(["a", "b", "c"].map(create));
        function.invoke(event_of(&batch).to_string(), LONG).await.response();
        function.invoke(format!("\"{MARK}\""), LONG).await;
        assert_tells(&written(&function, "no batch").await, expected);
    }
}

#[tokio::test]
async fn the_redrive_function_writes_no_value_whatever_fails() {
    let world = services().await;
    let mut records: Vec<Vec<u8>> =
        ["expired", "throttled", "refused", "applied"].map(|row| user(row).record().into_bytes()).to_vec();
    records.push(large("large").record().into_bytes());
    records.extend(poison());
    let last = records.len() as u64 - 1;
    world.shards.put((0..).zip(records).map(|(place, record)| KinesisRecord::at(place, record)));
    world.shards.expire(0, 1);
    world.s3.put(BUCKET, "quarantine/public.users/no-record.json", MARK, SystemTime::now());

    let endpoint = world.proxy(by_row);
    let settings = [("OBJECTS_BUCKET", BUCKET), ("AWS_LAMBDA_LOG_FORMAT", "JSON")];
    let mut redrive = start(env!("CARGO_BIN_EXE_redrive"), &endpoint, &settings);
    let message = |body: &Json| queues::event("failed", "m1", &body.to_string(), 1).to_string();
    for event in [
        // A range with a throttled row, and ranges without it.
        message(&on_failure(0, 0, last)),
        message(&on_failure(0, 2, last)),
        message(&on_failure(0, 0, 0)),
        message(&json!({ "KinesisBatchInfo": MARK })),
        json!({ "replay": "quarantine/" }).to_string(),
        json!({ "check": "quarantine" }).to_string(),
        json!({ "check": "fragments" }).to_string(),
        json!({ "check": MARK }).to_string(),
    ] {
        redrive.invoke(event, LONG).await;
    }
    let log = written(&redrive, "found something else").await;
    assert_tells(&log, &["ThrottlingException", "ValidationException", "not redriven yet", "\"redriven\""]);
    assert_tells(&log, &["records are lost", "no message of an on-failure queue", "is not replayed", "quarantined"]);
}
