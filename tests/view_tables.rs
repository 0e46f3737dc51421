//! A function with view definitions: the start with one or several view tables, the file, and the secret.

use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{AttributeValue, KeyType, ScalarAttributeType};
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::{KEY, LocalDynamoDb, environment};
use dsql_view_support::kinesis::{event_of, reported};
use dsql_view_support::proxy::{Fault, FaultProxy};
use dsql_view_support::runtime_api::Function;
use dsql_view_support::secrets::LocalSecrets;

const COMMIT: u64 = 1_773_843_841_076_494_565;
const LONG: Duration = Duration::from_secs(60);

/// Three source tables in three view tables, one of them with a sort key, one with a key of type N.
const DEFINITIONS: &str = r#"
version = 1

[[table]]
name = "users"
primary_key = ["id"]

[[table]]
name = "orders"
primary_key = ["customer", "id"]
view = "orders"
key = { pk = "CUSTOMER#{customer}", sk = "ORDER#{id}" }

[[table]]
name = "events"
primary_key = ["id"]
view = "events"
key = { pk = "{id}" }
"#;

/// A file of a test's own.
fn file(name: &str, text: impl AsRef<[u8]>) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn start(endpoint: &str, settings: &[(&'static str, &str)]) -> Function {
    let mut variables = environment(endpoint);
    variables.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
    Function::start(Path::new(env!("CARGO_BIN_EXE_dsql-view")), variables).unwrap()
}

async fn refusal(endpoint: &str, settings: &[(&'static str, &str)]) -> String {
    let mut function = start(endpoint, settings);
    let status = tokio::time::timeout(LONG, function.ended()).await.expect("the function ends").unwrap();
    assert!(!status.success(), "{status}");
    function.init_error().expect("Lambda was told of the error")["errorMessage"].as_str().unwrap().to_owned()
}

/// Waits until the function has logged a line with this text.
async fn logged(function: &Function, text: &str) {
    let started = Instant::now();
    while !function.lines().iter().any(|line| line.contains(text)) {
        assert!(started.elapsed() < LONG, "no line has {text:?}: {:#?}", function.lines());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn deliver(function: &mut Function, records: impl IntoIterator<Item = String>) -> Vec<u64> {
    reported(&function.invoke(event_of(records).to_string(), LONG).await.response())
}

fn order(committed: u64) -> Change {
    let key = vec![("customer".to_owned(), Value::text("C#7")), ("id".to_owned(), Value::number(3))];
    Change { key, ..Change::upsert("orders", Value::number(3), committed, vec![("total", Value::number(9))]) }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_stops_the_function_with_every_fault() {
    let db = LocalDynamoDb::start();
    let one = "version = 1\n[[table]]\nname = \"users\"\nprimary_key = [\"id\"]\n";
    for (name, text, source_tables, expected) in [
        ("empty", "", "", &["empty.toml", "begin with version = 1"][..]),
        ("latin", "version = 1 # \u{e9}", "", &["names no table"]),
        (
            "faults",
            "version = 2\n[[table]]\nname = \"users\"\nprimary_key = [\"id\"]\ncolour = 1\nkey = { pk = \"U#{name}\" }\n",
            "",
            &["faults.toml", "version", "colour", "name", "line 1", "line 5", "line 6"],
        ),
        ("disagrees", one, "users(id, name), orders(id)", &["disagree", "public.users", "public.orders"]),
        (
            "hash",
            &format!("{one}columns = {{ id = \"bigint\", email = \"text\" }}\nhash = [\"email\"]\n"),
            "",
            &["VIEW_HASH_SECRET is not set"],
        ),
    ] {
        let path = file(name, text);
        let settings = [("VIEW_TABLE", "view"), ("VIEW_DEFINITIONS", &path), ("SOURCE_TABLES", source_tables)];
        let message = refusal(&db.endpoint(), &settings).await;
        for expected in expected {
            assert!(message.contains(expected), "{name}: {expected:?} is not in {message}");
        }
    }
    let not_utf8 = file("not_utf8", b"version = 1\n# \xe9\n");
    let there = ["/nowhere/views.toml", "cannot be read"];
    for (path, expected) in [(not_utf8.as_str(), ["line 2", "UTF-8"]), ("/nowhere/views.toml", there)] {
        let message = refusal(&db.endpoint(), &[("VIEW_TABLE", "view"), ("VIEW_DEFINITIONS", path)]).await;
        assert!(expected.iter().all(|expected| message.contains(expected)), "{message}");
    }
}

#[tokio::test]
async fn each_row_goes_to_its_view_table_in_its_own_key() {
    use KeyType::{Hash, Range};
    use ScalarAttributeType::{N, S};
    let db = LocalDynamoDb::start();
    db.create_view("view").await;
    db.create_table("orders-1", &[("pk", Hash, S), ("sk", Range, S)]).await;
    db.create_table("events", &[("number", Hash, N)]).await;
    let path = file("three_views", DEFINITIONS);
    let settings = [
        ("VIEW_TABLE", "view"),
        ("VIEW_DEFINITIONS", &path),
        ("VIEW_TABLES", "orders = orders-1"),
        ("SOURCE_TABLES", "users(id), orders(customer, id), events(id)"),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
    ];
    let mut function = start(&db.endpoint(), &settings);
    let user = Change::upsert("users", Value::number(1), COMMIT, vec![("name", Value::text("Ada"))]);
    let event = Change::upsert("events", Value::Number("1.50".to_owned()), COMMIT, vec![("kind", Value::text("x"))]);
    let batch = [user.record(), order(COMMIT).record(), event.record()];
    assert_eq!(deliver(&mut function, batch.clone()).await, [0; 0]);
    assert_eq!(deliver(&mut function, batch).await, [0; 0]);
    logged(&function, &format!("\"definitions\":\"{path}\"")).await;
    logged(&function, "\"digest\":\"").await;
    logged(&function, r#""Applied":1,"WriteUnits":1,"ViewTable":"orders-1""#).await;
    assert!(db.items("view").await.contains_key("public.users#1"));
    let read = async |table: &str, key: [(&str, AttributeValue); 2]| {
        let request = db.client().get_item().table_name(table).consistent_read(true);
        let keys = key.into_iter().filter(|(name, _)| !name.is_empty());
        let keys = keys.map(|(name, value)| (name.to_owned(), value)).collect();
        request.set_key(Some(keys)).send().await.unwrap().item.expect("an item")
    };
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let of_order = read("orders-1", [("pk", s("CUSTOMER#C%237")), ("sk", s("ORDER#3"))]).await;
    assert_eq!(of_order["total"], AttributeValue::N("9".to_owned()));
    let of_event = read("events", [("number", AttributeValue::N("1.5".to_owned())), ("", s(""))]).await;
    assert_eq!(of_event["kind"], s("x"));

    let deleted = Change { row: None, ..order(COMMIT + 1) };
    assert_eq!(deliver(&mut function, [deleted.record(), order(COMMIT).record()]).await, [0; 0]);
    let of_order = read("orders-1", [("pk", s("CUSTOMER#C%237")), ("sk", s("ORDER#3"))]).await;
    assert_eq!(of_order["_deleted"], AttributeValue::Bool(true));
}

#[tokio::test]
async fn every_view_table_that_does_not_fit_is_named_in_one_message() {
    use KeyType::{Hash, Range};
    use ScalarAttributeType::{N, S};
    let db = LocalDynamoDb::start();
    db.create_table("view", &[("pk", Hash, N)]).await;
    db.create_table("orders", &[("pk", Hash, S)]).await;
    db.create_table("events", &[("pk", Hash, S), ("sk", Range, S)]).await;
    let path = file("misfits", DEFINITIONS);
    let message = refusal(&db.endpoint(), &[("VIEW_TABLE", "view"), ("VIEW_DEFINITIONS", &path)]).await;
    for expected in [
        "VIEW_TABLE: the table view does not fit: expected a partition key of type S and no sort key",
        "VIEW_TABLES: the table orders does not fit: public.orders has a template for a sort key",
        "VIEW_TABLES: the table events does not fit: public.events has no template for the sort key sk of type S",
    ] {
        assert!(message.contains(expected), "{expected:?} is not in {message}");
    }
    let db = LocalDynamoDb::start();
    let message = refusal(&db.endpoint(), &[("VIEW_TABLE", "view"), ("VIEW_DEFINITIONS", &path)]).await;
    for table in ["view", "orders", "events"] {
        assert!(message.contains(&format!("there is no table {table} in this account")), "{message}");
    }
    // One is missing, one denied, and one does not fit.
    db.create_table("view", &[("pk", Hash, N)]).await;
    let proxy = FaultProxy::before_everything(&db.endpoint(), |call| {
        let is_denied = call.body.windows(6).any(|window| window == b"orders");
        if is_denied { Fault::Error { status: 400, code: "AccessDeniedException" } } else { Fault::None }
    });
    let message = refusal(&proxy.endpoint(), &[("VIEW_TABLE", "view"), ("VIEW_DEFINITIONS", &path)]).await;
    for expected in ["table view does not fit", "table orders may not be described", "there is no table events"] {
        assert!(message.contains(expected), "{expected:?} is not in {message}");
    }
}

#[tokio::test]
async fn both_functions_read_the_file_beside_their_binary_and_log_its_digest() {
    let db = LocalDynamoDb::start();
    db.create_view("view").await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("task-root");
    std::fs::create_dir_all(&folder).unwrap();
    let text = "version = 1\n[[table]]\nname = \"users\"\nprimary_key = [\"id\"]\ncolumns = { id = \"bigint\" }\n";
    for file in ["views.toml", "other.toml"] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let mut digests = Vec::new();
    for (binary, file) in [
        (env!("CARGO_BIN_EXE_dsql-view"), None),
        (env!("CARGO_BIN_EXE_dsql-view"), Some("other.toml")),
        (env!("CARGO_BIN_EXE_redrive"), None),
    ] {
        let mut variables = environment(&db.endpoint());
        variables.extend([
            ("VIEW_TABLE", "view".to_owned()),
            ("LAMBDA_TASK_ROOT", folder.to_str().unwrap().to_owned()),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ]);
        variables.extend(file.map(|file| ("VIEW_DEFINITIONS", file.to_owned())));
        let mut function = Function::start(Path::new(binary), variables).unwrap();
        logged(&function, "\"digest\":\"").await;
        let lines = function.lines();
        let line = lines.iter().find(|line| line.contains("\"digest\":\"")).unwrap();
        let (_, digest) = line.split_once("\"digest\":\"").unwrap();
        digests.push(digest[..64].to_owned());
        if binary == env!("CARGO_BIN_EXE_dsql-view") {
            // Two rows with a column that is not listed, which is told once and counted twice.
            let row = |id: i64| Change::upsert("users", Value::number(id), COMMIT, vec![("new", Value::text("x"))]);
            assert_eq!(deliver(&mut function, [row(1).record(), row(2).record()]).await, [0; 0]);
            logged(&function, "the column new, which the definitions do not list").await;
            let told = function.lines().iter().filter(|line| line.contains("the column new")).count();
            assert_eq!(told, 1);
        }
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[tokio::test]
async fn a_view_table_that_is_missing_at_the_start_is_told_and_does_not_stop_the_others() {
    use KeyType::{Hash, Range};
    use ScalarAttributeType::S;
    let db = LocalDynamoDb::start();
    db.create_view("view").await;
    db.create_table("orders", &[("pk", Hash, S), ("sk", Range, S)]).await;
    let path = file("missing_view", DEFINITIONS);
    let mut function = start(&db.endpoint(), &[("VIEW_TABLE", "view"), ("VIEW_DEFINITIONS", &path)]);
    let event = Change::upsert("events", Value::number(5), COMMIT, Vec::new());
    assert_eq!(deliver(&mut function, [event.record(), order(COMMIT).record()]).await, [0]);
    logged(&function, "there is no table events").await;
    logged(&function, "the view table events is missing").await;
}

#[tokio::test]
async fn a_view_table_that_other_marks_have_filled_is_told() {
    let db = LocalDynamoDb::start();
    db.create_view("view").await;
    let old = [(KEY, "public.users#1"), ("_ts_ns", "7")].map(|(name, text)| {
        let value = if name == KEY { AttributeValue::S(text.to_owned()) } else { AttributeValue::N(text.to_owned()) };
        (name.to_owned(), value)
    });
    db.client().put_item().table_name("view").set_item(Some(old.into())).send().await.unwrap();
    let text = "version = 1\n[marks]\nprefix = \"__\"\n[[table]]\nname = \"users\"\nprimary_key = [\"id\"]\n";
    let path = file("other_marks", text);
    let mut function = start(&db.endpoint(), &[("VIEW_TABLE", "view"), ("VIEW_DEFINITIONS", &path)]);
    let user = Change::upsert("users", Value::number(2), COMMIT, vec![("_deleted", Value::Bool(false))]);
    assert_eq!(deliver(&mut function, [user.record()]).await, [0; 0]);
    logged(&function, "an item without __ts_ns").await;
    let keyed = text.replace("[marks]\nprefix = \"__\"\n", "") + "key = { pk = \"USER#{id}\" }\n";
    let other_key = file("other_key", keyed);
    let other = start(&db.endpoint(), &[("VIEW_TABLE", "view"), ("VIEW_DEFINITIONS", &other_key)]);
    logged(&other, "an item with a key that no definition makes").await;
    let item = &db.items("view").await["public.users#2"];
    assert_eq!(item["_deleted"], AttributeValue::Bool(false));
    assert_eq!(item["__ts_ns"], AttributeValue::N(COMMIT.to_string()));
}

#[tokio::test]
async fn hashed_columns_take_their_key_from_secrets_manager() {
    let db = LocalDynamoDb::start();
    db.create_view("view").await;
    let secrets = LocalSecrets::start("key");
    let text = "version = 1\n[[table]]\nname = \"users\"\nprimary_key = [\"id\"]\nhash = [\"email\"]\n\
                columns = { id = \"bigint\", email = \"text\" }\n";
    let (path, at) = (file("hashed", text), secrets.endpoint());
    let settings = [
        ("VIEW_TABLE", "view"),
        ("VIEW_DEFINITIONS", &path),
        ("VIEW_HASH_SECRET", "hash-key"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &at),
    ];
    let mut function = start(&db.endpoint(), &settings);
    let text = "The quick brown fox jumps over the lazy dog";
    // The renamed column is not listed, so it must not show what the hash hides.
    let row = vec![("email", Value::text(text)), ("email_address", Value::text(text))];
    let user = Change::upsert("users", Value::number(1), COMMIT, row);
    assert_eq!(deliver(&mut function, [user.record()]).await, [0; 0]);
    let item = &db.items("view").await["public.users#1"];
    let hash = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";
    assert_eq!(item["email"], AttributeValue::S(hash.to_owned()));
    assert!(!item.contains_key("email_address"), "{item:?}");

    drop((function, secrets));
    let message = refusal(&db.endpoint(), &settings).await;
    assert!(message.contains("VIEW_HASH_SECRET: Secrets Manager did not give the secret"), "{message}");
}
