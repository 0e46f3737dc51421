//! The sample events: each is made from its source, and goes through the function's real binary with the result that it
//! promises.

use std::path::Path;
use std::time::Duration;

use dsql_view::definitions::source_tables::SourceTables;
use dsql_view_support::cdc::Change;
use dsql_view_support::dynamodb::{LocalDynamoDb, environment};
use dsql_view_support::events::{Expected, folder, samples, source_tables};
use dsql_view_support::model::Model;
use dsql_view_support::runtime_api::Function;

const VIEW: &str = "view";

#[test]
fn the_events_are_what_their_sources_say() {
    let mut expected: Vec<String> = Vec::new();
    for sample in samples().unwrap() {
        let name = format!("{}.json", sample.name);
        let found = std::fs::read_to_string(folder().join(&name)).unwrap_or_default();
        assert!(found == sample.event_file(), "events/{name} is stale: run `make events` and commit what it writes");
        expected.push(name);
    }
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let events = files.filter(|file| file.extension().is_some_and(|extension| extension == "json"));
    let mut found: Vec<String> = events.map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    found.sort();
    assert_eq!(found, expected, "an event without a source");
}

#[tokio::test]
async fn every_event_through_the_real_binary_ends_as_it_promises() {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let source_tables = source_tables().unwrap();
    let tables: SourceTables = source_tables.parse().unwrap();
    let mut settings = environment(&db.endpoint());
    settings.extend([("VIEW_TABLE", VIEW.to_owned()), ("SOURCE_TABLES", source_tables)]);
    settings.push(("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()));
    let mut function = Function::start(Path::new(env!("CARGO_BIN_EXE_dsql-view")), settings).unwrap();

    let mut model = Model::default();
    for (number, sample) in (1..).zip(samples().unwrap()) {
        let event = std::fs::read(folder().join(format!("{}.json", sample.name))).unwrap();
        let answer = function.invoke(event, Duration::from_secs(30)).await.response();
        let log = function.log_line("batch", number).await.expect("a line a batch");
        assert_eq!(Expected::found(&sample, &answer, &log), sample.expect, "{}", sample.name);

        for record in &sample.records {
            let primary_key = |schema: &str, table: &str| Some(tables.get(schema, table)?.primary_key().to_vec());
            if let Some(change) = Change::of_record(&record.data(), primary_key) {
                model.commit(&change);
            }
        }
        let differences = model.differences(&db.items(VIEW).await);
        assert!(differences.is_empty(), "after {}:\n{}", sample.name, differences.join("\n"));
    }
}
