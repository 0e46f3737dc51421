//! What fuzzing has found once never comes back. Each file of `fuzz/corpus/` goes through the checks of its fuzz
//! target, without a fuzzer, and DynamoDB can store each item that the checks accept.

mod harness;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::Path;

use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view_support::dynamodb::{KEY, LocalDynamoDb};
use dsql_view_support::model::same_value;
use harness::VIEW;

/// The inputs of a target's corpus. A failing test shows the name of its input.
fn inputs(target: &str) -> impl Iterator<Item = Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 20, "{} holds {} files", folder.display(), files.len());
    files.sort();
    files.into_iter().map(|file| {
        eprintln!("{}", file.display());
        fs::read(file).unwrap()
    })
}

#[test]
fn records_become_what_the_contract_says() {
    let accepted: usize = inputs("record").map(|input| fuzz::record::check(&input).len()).sum();
    assert!(accepted >= 100, "{accepted} items of the whole corpus are accepted");
}

#[test]
fn definitions_are_read_or_refused_and_draw_items_that_can_be_stored() {
    let accepted: usize = inputs("definitions").map(|input| fuzz::definitions::check(&input).len()).sum();
    assert!(accepted >= 40, "{accepted} items of the whole corpus are accepted");
}

#[test]
fn source_tables_are_read_as_sql_reads_names() {
    inputs("source_tables").for_each(|input| fuzz::source_tables::check(&input));
}

#[test]
fn split_changes_become_what_they_were_or_nothing() {
    inputs("fragments").for_each(|input| fuzz::fragments::check(&input));
}

#[test]
fn what_the_redrive_function_is_given_is_what_it_reads() {
    inputs("on_failure").for_each(|input| fuzz::on_failure::check(&input));
}

#[tokio::test]
async fn what_is_accepted_is_stored_and_read_back() {
    assert_eq!(KEY, fuzz::contract::KEY_ATTRIBUTE);
    let db = harness::dynamodb().await;
    for input in inputs("record") {
        for item in fuzz::record::check(&input) {
            let mut expected = item.attributes;
            expected.insert(KEY.to_owned(), AttributeValue::S(item.key.partition));
            assert_is_stored(&db, expected).await;
        }
    }
    for input in inputs("definitions") {
        for (schema, item) in fuzz::definitions::check(&input) {
            // The table here has a partition key of type S alone, so what else belongs to a key is a column here.
            let mut expected = item.attributes;
            expected.extend(schema.key_values(item.key.clone()).map(|(name, value)| (name.to_owned(), value)));
            expected.insert(KEY.to_owned(), AttributeValue::S(item.key.partition));
            assert_is_stored(&db, expected).await;
        }
    }
}

async fn assert_is_stored(db: &LocalDynamoDb, expected: Attributes) {
    let found = stored(db, expected.clone()).await;
    let (expected, found) = (AttributeValue::M(expected), AttributeValue::M(found));
    assert!(same_value(&expected, &found), "expected {expected:?}, found {found:?}");
}

type Attributes = std::collections::HashMap<String, AttributeValue>;

/// An item as it is read back.
async fn stored(db: &LocalDynamoDb, item: Attributes) -> Attributes {
    let key = item[KEY].clone();
    let put = db.client().put_item().table_name(VIEW).set_item(Some(item)).send().await;
    put.unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
    let read = db.client().get_item().table_name(VIEW).key(KEY, key).consistent_read(true).send().await;
    read.unwrap().item.expect("the item that was put")
}
