//! The straightforward handler in Rust: one record after the other, with a client that has the SDK's defaults.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_lambda_events::event::kinesis::KinesisEvent;
use aws_lambda_events::event::streams::KinesisEventResponse;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Map, Value};

const TABLE: &str = "public.order_items";
const PRIMARY_KEY: &str = "id";
const TOMBSTONE_TTL: Duration = Duration::from_hours(14 * 24);

type Item = HashMap<String, AttributeValue>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let client = Client::new(&aws_config::load_defaults(BehaviorVersion::latest()).await);
    let table = std::env::var("VIEW_TABLE")?;
    run(service_fn(|event| handle(&client, &table, event))).await
}

async fn handle(client: &Client, table: &str, event: LambdaEvent<KinesisEvent>) -> Result<KinesisEventResponse, Error> {
    let mut response = KinesisEventResponse::default();
    for record in event.payload.records {
        if let Err(error) = apply(client, table, &record.kinesis.data).await {
            tracing::error!(%error, "a record failed");
            response.add_failure(record.kinesis.sequence_number);
        }
    }
    Ok(response)
}

/// Puts the row of a record, if it is newer than the item in the view.
async fn apply(client: &Client, table: &str, data: &[u8]) -> Result<(), Error> {
    let record: Value = serde_json::from_slice(data)?;
    let Some((committed, item)) = item_of(&record)? else { return Ok(()) };
    let put = client
        .put_item()
        .table_name(table)
        .set_item(Some(item))
        .condition_expression("attribute_not_exists(#ts) OR #ts < :ts")
        .expression_attribute_names("#ts", "_ts_ns")
        .expression_attribute_values(":ts", AttributeValue::N(committed.to_string()));
    match put.send().await {
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception) => {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// The commit of a record and the item that the view must have; `None` if the view does not have the record's table.
fn item_of(record: &Value) -> Result<Option<(u64, Item)>, Error> {
    let source = &record["source"];
    let table = format!("{}.{}", source["schema"].as_str().unwrap_or(""), source["table"].as_str().unwrap_or(""));
    if table != TABLE {
        return Ok(None);
    }
    let deleted = record["op"] == "d";
    let row: &Map<String, Value> = record[if deleted { "before" } else { "after" }].as_object().ok_or("no row")?;
    let key = match &row.get(PRIMARY_KEY).ok_or("no key")? {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let timestamps = (source["ts_ns"].as_u64().ok_or("no timestamp")?, record["ts_ns"].as_u64().ok_or("no timestamp")?);
    let committed = timestamps.0.min(timestamps.1);
    let mut item = HashMap::from([
        ("pk".to_owned(), AttributeValue::S(format!("{table}#{key}"))),
        ("_ts_ns".to_owned(), AttributeValue::N(committed.to_string())),
        ("_tx_id".to_owned(), AttributeValue::S(source["txId"].as_str().unwrap_or("").to_owned())),
    ]);
    if deleted {
        let expires_at = (SystemTime::now() + TOMBSTONE_TTL).duration_since(SystemTime::UNIX_EPOCH)?;
        item.insert("_deleted".to_owned(), AttributeValue::Bool(true));
        item.insert("_expires_at".to_owned(), AttributeValue::N(expires_at.as_secs().to_string()));
    } else {
        let columns = row.iter().filter(|(_, value)| !value.is_null());
        item.extend(columns.map(|(name, value)| (name.clone(), attribute(value))));
    }
    Ok(Some((committed, item)))
}

fn attribute(value: &Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(value) => AttributeValue::Bool(*value),
        Value::Number(number) => AttributeValue::N(number.to_string()),
        Value::String(text) => AttributeValue::S(text.clone()),
        Value::Array(elements) => AttributeValue::L(elements.iter().map(attribute).collect()),
        Value::Object(members) => {
            AttributeValue::M(members.iter().map(|(name, value)| (name.clone(), attribute(value))).collect())
        }
    }
}
