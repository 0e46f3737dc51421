//! The straightforward handler in Rust: one record after the other, with a client that has the SDK's defaults.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_lambda_events::event::kinesis::KinesisEvent;
use aws_lambda_events::event::streams::KinesisEventResponse;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, SecondsFormat};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Map, Value};

const TABLE: &str = "public.order_items";
const PRIMARY_KEY: &str = "id";
const TOMBSTONE_TTL: Duration = Duration::from_hours(14 * 24);

/// The columns that a shaped item has under another name, and those that it lacks.
const RENAMED: [(&str, &str); 2] = [("order_id", "orderId"), ("created_at", "createdAt")];
const LEFT_OUT: [&str; 2] = ["gift", "note"];

type Item = HashMap<String, AttributeValue>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let client = Client::new(&aws_config::load_defaults(BehaviorVersion::latest()).await);
    let view = View {
        client,
        table: std::env::var("VIEW_TABLE")?,
        shaped: std::env::var("SHAPED").is_ok_and(|shaped| shaped == "true"),
    };
    run(service_fn(|event| handle(&view, event))).await
}

struct View {
    client: Client,
    table: String,
    /// Whether the items have the shape of benches/views.toml.
    shaped: bool,
}

async fn handle(view: &View, event: LambdaEvent<KinesisEvent>) -> Result<KinesisEventResponse, Error> {
    let mut response = KinesisEventResponse::default();
    for record in event.payload.records {
        if let Err(error) = apply(view, &record.kinesis.data).await {
            tracing::error!(%error, "a record failed");
            response.add_failure(record.kinesis.sequence_number);
        }
    }
    Ok(response)
}

/// Puts the row of a record, if it is newer than the item in the view.
async fn apply(view: &View, data: &[u8]) -> Result<(), Error> {
    let record: Value = serde_json::from_slice(data)?;
    let Some((committed, item)) = item_of(&record, view.shaped)? else { return Ok(()) };
    let put = view
        .client
        .put_item()
        .table_name(&view.table)
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
fn item_of(record: &Value, shaped: bool) -> Result<Option<(u64, Item)>, Error> {
    let source = &record["source"];
    let table = format!("{}.{}", source["schema"].as_str().unwrap_or(""), source["table"].as_str().unwrap_or(""));
    if table != TABLE {
        return Ok(None);
    }
    let deleted = record["op"] == "d";
    let row: &Map<String, Value> = record[if deleted { "before" } else { "after" }].as_object().ok_or("no row")?;
    let id = text(row.get(PRIMARY_KEY).ok_or("no key")?);
    let key = if shaped { format!("ITEM#{id}") } else { format!("{table}#{id}") };
    let deleted = deleted || (shaped && !is_shown(row));
    let timestamps = (source["ts_ns"].as_u64().ok_or("no timestamp")?, record["ts_ns"].as_u64().ok_or("no timestamp")?);
    let committed = timestamps.0.min(timestamps.1);
    let mut item = HashMap::from([
        ("pk".to_owned(), AttributeValue::S(key)),
        ("_ts_ns".to_owned(), AttributeValue::N(committed.to_string())),
        ("_tx_id".to_owned(), AttributeValue::S(source["txId"].as_str().unwrap_or("").to_owned())),
    ]);
    if deleted {
        let expires_at = (SystemTime::now() + TOMBSTONE_TTL).duration_since(SystemTime::UNIX_EPOCH)?;
        item.insert("_deleted".to_owned(), AttributeValue::Bool(true));
        item.insert("_expires_at".to_owned(), AttributeValue::N(expires_at.as_secs().to_string()));
    } else if shaped {
        item.extend(attributes(row)?);
    } else {
        let columns = row.iter().filter(|(_, value)| !value.is_null());
        item.extend(columns.map(|(name, value)| (name.clone(), attribute(value))));
    }
    Ok(Some((committed, item)))
}

fn is_shown(row: &Map<String, Value>) -> bool {
    row.get("quantity").and_then(Value::as_i64).is_some_and(|quantity| quantity >= 1)
}

/// The attributes of a row, by the definition.
fn attributes(row: &Map<String, Value>) -> Result<Item, Error> {
    let mut attributes = Item::new();
    for (column, value) in row.iter().filter(|(_, value)| !value.is_null()) {
        if LEFT_OUT.contains(&column.as_str()) {
            continue;
        }
        let name = RENAMED.iter().find(|(from, _)| from == column).map_or(column.as_str(), |(_, to)| to);
        let value = match column.as_str() {
            "price" => AttributeValue::N(text(value)),
            "created_at" => AttributeValue::S(iso8601(value)?),
            _ => attribute(value),
        };
        attributes.insert(name.to_owned(), value);
    }
    if let Some(order) = row.get("order_id").filter(|order| !order.is_null()) {
        attributes.insert("GSI1PK".to_owned(), AttributeValue::S(format!("ORDER#{}", text(order))));
    }
    if let Some(created_at) = row.get("created_at").filter(|created_at| !created_at.is_null()) {
        let sorted = format!("{}#{}", iso8601(created_at)?, text(&row[PRIMARY_KEY]));
        attributes.insert("GSI1SK".to_owned(), AttributeValue::S(sorted));
    }
    Ok(attributes)
}

fn iso8601(microseconds: &Value) -> Result<String, Error> {
    let time = microseconds.as_i64().and_then(DateTime::from_timestamp_micros).ok_or("no timestamp")?;
    Ok(time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
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
