//! The items that the view must hold, as PostgreSQL itself says. `SELECT` gives the rows, with the documented mapping
//! in SQL. Triggers write a history, which tells the transaction that changed a row last.
//!
//! This shares nothing with the records' way: not the decoding, nor the mapping of values, nor the keys.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view_support::cdc::Value;
use serde_json::value::RawValue;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::comparison::{Cascades, Expectation, Expected};
use crate::tables::{EVERY_TYPE, Table, quoted};
use crate::{Failure, told};

/// A value's JSON type by the documented mapping.
#[derive(Debug, Clone, Copy)]
enum JsonType {
    Number,
    /// A number, except for the texts `NaN`, `Infinity` and `-Infinity`.
    NumberOrText,
    Text,
    Boolean,
    EmptyList,
    /// A whole number for a value that does not fit, and any other text.
    TextOrNumber,
    /// The document that the text holds.
    Document,
    /// Bytes, in hexadecimal digits.
    Bytes,
}

/// A column as the catalogue has it.
#[derive(Debug)]
struct Column {
    name: String,
    type_name: String,
}

impl Column {
    /// The SQL for the JSON of this column of the row `of`, without quotation marks, and its JSON type.
    fn mapping(&self, of: &str) -> Result<(String, JsonType), String> {
        let c = format!("{of}.{}", quoted(&self.name));
        Ok(match self.type_name.as_str() {
            "int2" | "int4" | "int8" | "oid" => (format!("{c}::text"), JsonType::Number),
            "float4" | "float8" => (format!("{c}::text"), JsonType::NumberOrText),
            "bool" => (format!("{c}::text"), JsonType::Boolean),
            // The cast of a char takes its padding away.
            "numeric" | "text" | "varchar" | "bpchar" | "name" | "uuid" | "json" | "jsonb" => {
                (format!("{c}::text"), JsonType::Text)
            }
            "bytea" => (format!("replace(encode({c}, 'base64'), E'\\n', '')"), JsonType::Text),
            "date" => (format!("({c} - date '1970-01-01')::text"), JsonType::Number),
            "time" => (clock(&c), JsonType::Number),
            "timetz" => (clock(&format!("({c} AT TIME ZONE 'UTC')::time")), JsonType::Number),
            "timestamp" => (instant(&c), JsonType::Number),
            "timestamptz" => (instant(&format!("({c} AT TIME ZONE 'UTC')")), JsonType::Number),
            "interval" => (interval(&c), JsonType::Number),
            "oidvector" => (format!("CASE WHEN {c} IS NOT NULL THEN '[]' END"), JsonType::EmptyList),
            other => return Err(format!("the type {other} is not in the documented mapping")),
        })
    }
}

impl Column {
    /// Like [`Column::mapping`], by the types of the definitions.
    fn typed(&self, of: &str) -> Result<(String, JsonType), String> {
        let c = format!("{of}.{}", quoted(&self.name));
        let four_digits = format!("isfinite({c}) AND extract(year FROM {c}) BETWEEN 1 AND 9999");
        let (plain, json_type) = self.mapping(of)?;
        Ok(match self.type_name.as_str() {
            "numeric" => (plain, JsonType::NumberOrText),
            "date" => (
                format!("CASE WHEN {four_digits} THEN to_char({c}, 'YYYY-MM-DD') ELSE {plain} END"),
                JsonType::TextOrNumber,
            ),
            "timestamp" => (
                format!("CASE WHEN {four_digits} THEN to_char({c}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US') ELSE {plain} END"),
                JsonType::TextOrNumber,
            ),
            "timestamptz" => (
                format!("CASE WHEN isfinite({c}) THEN (({plain})::numeric * 0.001)::text ELSE {plain} END"),
                JsonType::Number,
            ),
            "time" => (format!("to_char({c}, 'HH24:MI:SS.US')"), JsonType::Text),
            "timetz" => (format!("to_char(({c} AT TIME ZONE 'UTC')::time, 'HH24:MI:SS.US') || 'Z'"), JsonType::Text),
            "json" | "jsonb" => (plain, JsonType::Document),
            "bytea" => (format!("encode({c}, 'hex')"), JsonType::Bytes),
            _ => (plain, json_type),
        })
    }
}

/// The attribute value of a document, with every digit of its numbers.
fn document(json: &RawValue) -> Result<AttributeValue, String> {
    let failed = |error: serde_json::Error| format!("JSON of the database: {error}");
    Ok(match json.get().as_bytes() {
        [b'{', ..] => {
            let members: HashMap<String, &RawValue> = serde_json::from_str(json.get()).map_err(failed)?;
            let members = members.into_iter().map(|(name, json)| Ok((name, document(json)?)));
            AttributeValue::M(members.collect::<Result<_, String>>()?)
        }
        [b'[', ..] => {
            let elements: Vec<&RawValue> = serde_json::from_str(json.get()).map_err(failed)?;
            AttributeValue::L(elements.into_iter().map(document).collect::<Result<_, String>>()?)
        }
        [b'"', ..] => AttributeValue::S(serde_json::from_str(json.get()).map_err(failed)?),
        b"null" => AttributeValue::Null(true),
        b"true" | b"false" => AttributeValue::Bool(json.get() == "true"),
        // A number, as N or as text, like that of any other column.
        _ => Value::Number(json.get().to_owned()).attribute().ok_or("a number has a value")?,
    })
}

fn bytes(digits: &str) -> Result<AttributeValue, String> {
    let byte = |place: usize| u8::from_str_radix(&digits[place..place + 2], 16);
    let bytes: Result<Vec<u8>, _> = (0..digits.len()).step_by(2).map(byte).collect();
    Ok(AttributeValue::B(Blob::new(bytes.map_err(|error| format!("bytes of the database: {error}"))?)))
}

/// Microseconds since midnight.
fn clock(c: &str) -> String {
    format!("(extract(epoch FROM {c}) * 1000000)::bigint::text")
}

/// Microseconds since 1970. They are made of days and the time of the day, because older servers count seconds in
/// floating point.
fn instant(c: &str) -> String {
    format!(
        "(CASE {c} WHEN 'infinity' THEN 9223372036825200000 WHEN '-infinity' THEN -9223372036832400000 \
         ELSE ({c}::date - date '1970-01-01')::bigint * 86400000000 + (extract(epoch FROM {c}::time) * 1000000)::bigint END)::text"
    )
}

/// Microseconds. They are "approximate": a year is twelve months, and a month 30 days. (`extract(epoch …)` takes 365.25
/// days for a year.)
fn interval(c: &str) -> String {
    let field = |name: &str| format!("extract({name} FROM {c})::numeric");
    let days = format!("(({} * 12 + {}) * 30 + {})", field("year"), field("month"), field("day"));
    let minutes = format!("(({days} * 24 + {}) * 60 + {})", field("hour"), field("minute"));
    let micros = format!("({minutes} * 60000000 + {})", field("microseconds"));
    format!("CASE WHEN {micros} BETWEEN -9223372036854775808 AND 9223372036854775807 THEN {micros}::bigint::text END")
}

impl JsonType {
    fn attribute(self, text: &str) -> Result<Option<AttributeValue>, String> {
        match self {
            Self::Document => {
                let json: &RawValue = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
                document(json).map(Some)
            }
            Self::Bytes => bytes(text).map(Some),
            _ => self.value(text).map(|value| value.attribute()),
        }
    }

    fn value(self, text: &str) -> Result<Value, String> {
        Ok(match self {
            Self::Document | Self::Bytes => return Err("it has no JSON type".to_owned()),
            Self::TextOrNumber if text.parse::<i64>().is_ok() => Value::Number(text.to_owned()),
            Self::NumberOrText if ["NaN", "Infinity", "-Infinity"].contains(&text) => Value::text(text),
            Self::Number | Self::NumberOrText => Value::Number(text.to_owned()),
            Self::Text | Self::TextOrNumber => Value::text(text),
            Self::Boolean => Value::Bool(text.parse().map_err(|_| format!("expected true or false, found {text}"))?),
            Self::EmptyList => Value::List(Vec::new()),
        })
    }
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>, Failure> {
    let messages = client.simple_query(sql).await.map_err(|error| told(&error, sql))?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

fn text(row: &SimpleQueryRow, place: usize) -> String {
    row.get(place).unwrap_or_default().to_owned()
}

async fn columns(client: &Client, table: &Table) -> Result<Vec<Column>, Failure> {
    let sql = format!(
        "SELECT attname, typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid \
         WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        table.sql().replace('\'', "''")
    );
    let column = |row: &SimpleQueryRow| Column { name: text(row, 0), type_name: text(row, 1) };
    Ok(rows(client, &sql).await?.iter().map(column).collect())
}

/// The SQL of the view's key, by the contract: `<schema>.<table>#<key 1>#<key 2>…` with its escapes.
async fn key(client: &Client, table: &Table, of: &str) -> Result<String, Failure> {
    let primary_key = format!(
        "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) \
         WHERE indrelid = '{}'::regclass AND indisprimary ORDER BY array_position(indkey::int2[], attnum)",
        table.sql().replace('\'', "''")
    );
    let columns = columns(client, table).await?;
    let escaped = |text: String| format!("replace(replace({text}, '%', '%25'), '#', '%23')");
    let name = |name: &str| format!("replace({}, '.', '%2E')", escaped(format!("'{name}'")));
    let mut sql = format!("{} || '.' || {}", name(table.schema), name(table.name));
    for row in rows(client, &primary_key).await? {
        let column =
            columns.iter().find(|column| Some(column.name.as_str()) == row.get(0)).ok_or("a key without a column")?;
        sql = format!("{sql} || '#' || {}", escaped(column.mapping(of)?.0));
    }
    Ok(sql)
}

/// Lets the database note which transaction changes which row of the table, whoever changes it and however.
///
/// The notes are not logged, so that the slot does not see them.
pub async fn note_changes(client: &Client, tables: &[Table]) -> Result<(), Failure> {
    client
        .batch_execute(
            "CREATE SCHEMA noted; CREATE UNLOGGED TABLE noted.history \
             (number bigserial, transaction xid8, view_key text, was_there boolean, is_there boolean); \
             CREATE UNLOGGED TABLE noted.cascades (transaction xid8, view_key text, operation text)",
        )
        .await?;
    for (number, table) in tables.iter().enumerate().filter(|(_, table)| table.in_view) {
        let (old, new) = (key(client, table, "OLD").await?, key(client, table, "NEW").await?);
        let note = |key: &str, was_there: bool, is_there: bool| {
            format!(
                "INSERT INTO noted.history (transaction, view_key, was_there, is_there) \
                 VALUES (pg_current_xact_id(), {key}, {was_there}, {is_there});"
            )
        };
        let sql = format!(
            "CREATE FUNCTION noted.note_{number}() RETURNS trigger LANGUAGE plpgsql AS $function$ BEGIN \
             IF TG_OP = 'UPDATE' AND {old} = {new} THEN {} ELSE \
             IF TG_OP <> 'INSERT' THEN {} END IF; IF TG_OP <> 'DELETE' THEN {} END IF; END IF; RETURN NULL; END $function$; \
             CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION noted.note_{number}()",
            note(&new, true, true),
            note(&old, true, false),
            note(&new, false, true),
            table.sql()
        );
        client.batch_execute(&sql).await.map_err(|error| told(&error, &sql))?;
        if table.foreign_key.is_some() {
            note_cascades(client, table, number, &old).await?;
        }
    }
    Ok(())
}

/// Lets the database note the effects of the table's foreign key on its rows when their parents change.
async fn note_cascades(client: &Client, table: &Table, number: usize, old_key: &str) -> Result<(), Failure> {
    // A trigger that runs before the change runs within the foreign key's own. A trigger that runs after it would not.
    let sql = format!(
        "CREATE FUNCTION noted.cascade_{number}() RETURNS trigger LANGUAGE plpgsql AS $function$ BEGIN \
         IF pg_trigger_depth() > 1 THEN INSERT INTO noted.cascades VALUES (pg_current_xact_id(), {old_key}, TG_OP); END IF; \
         RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $function$; \
         CREATE TRIGGER cascade BEFORE UPDATE OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION noted.cascade_{number}()",
        table.sql()
    );
    client.batch_execute(&sql).await.map_err(|error| told(&error, &sql))
}

/// The items that the view must hold now.
pub async fn expectation(client: &Client, tables: &[Table]) -> Result<Expectation, Failure> {
    // One snapshot. Timestamps and the like come in the form that the mapping takes.
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL timezone = 'Asia/Kathmandu'")
        .await?;
    // The effect of a transaction on a row. It has no effect if there was no row before it and none after it.
    let history = rows(
        client,
        "SELECT DISTINCT ON (view_key) view_key, transaction, is_there, \
                (extract(epoch FROM pg_xact_commit_timestamp(transaction::xid)) * 1000000)::bigint, \
                NOT is_there AND EXISTS (SELECT FROM noted.cascades AS cascade WHERE cascade.view_key = net.view_key \
                                         AND cascade.transaction = net.transaction AND operation = 'DELETE') \
         FROM (SELECT view_key, transaction, (array_agg(was_there ORDER BY number))[1] AS was_there, \
                      (array_agg(is_there ORDER BY number DESC))[1] AS is_there, max(number) AS number \
               FROM noted.history GROUP BY view_key, transaction) AS net \
         WHERE was_there OR is_there ORDER BY view_key, number DESC",
    )
    .await?;
    let mut expectation = Expectation::default();
    let cascades = client.query_one(
        "SELECT count(*) FILTER (WHERE operation = 'DELETE'), count(*) FILTER (WHERE operation = 'UPDATE') \
         FROM noted.cascades",
        &[],
    );
    let cascades = cascades.await?;
    expectation.cascades = Cascades {
        deleted: cascades.get(0),
        updated: cascades.get(1),
        tombstones: history.iter().filter(|row| row.get(4) == Some("t")).count(),
    };
    let mut last: BTreeMap<String, (u32, i64, bool)> = BTreeMap::new();
    for row in &history {
        last.insert(text(row, 0), (text(row, 1).parse()?, text(row, 3).parse()?, text(row, 2) == "t"));
    }
    for table in tables.iter().filter(|table| table.in_view) {
        let key = key(client, table, "r").await?;
        let columns = columns(client, table).await?;
        let mut select = vec![key];
        let mut json_types = Vec::new();
        for column in &columns {
            let (sql, json_type) = if table.name == EVERY_TYPE { column.typed("r")? } else { column.mapping("r")? };
            select.push(sql);
            json_types.push(json_type);
        }
        let sql = format!("SELECT {} FROM {} AS r", select.join(", "), table.sql());
        for row in rows(client, &sql).await? {
            let key = text(&row, 0);
            let (transaction, committed, exists) = last.remove(&key).ok_or_else(|| format!("no history of {key}"))?;
            if !exists {
                return Err(format!("the history says that {key} was deleted, and it is there").into());
            }
            let mut values = BTreeMap::new();
            for (place, (column, json_type)) in columns.iter().zip(&json_types).enumerate() {
                let Some(text) = row.get(place + 1) else { continue };
                *expectation.values_by_type.entry(column.type_name.clone()).or_default() += 1;
                if let Some(value) = json_type.attribute(text)? {
                    values.insert(column.name.clone(), value);
                }
            }
            expectation.items.insert(key, Expected { transaction, committed, columns: Some(values) });
        }
    }
    for (key, (transaction, committed, exists)) in last {
        if exists {
            return Err(format!("the history says that {key} is there, and it is not").into());
        }
        expectation.items.insert(key, Expected { transaction, committed, columns: None });
    }
    client.batch_execute("COMMIT").await?;
    Ok(expectation)
}
