//! The result that each record must have. This is the contract of the pages, written down a second time, from their
//! words and without the library.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view::record::order::TimestampPlace;

use super::json::{Document, Is, Value};
use super::storage::{NAME_BYTES, fits_n, item_size, plain};

/// The setting of the tables below.
pub const SOURCE_TABLES: &str = r#"
    users(id), Order_Items(order_id, ITEM_ID) "Sales"."Order Lines"("Order Id")
    "a.b".c(id) a."b.c"(id) "x#%"."y/.."("k.1", "k#2", "k3")"#;

/// The same tables: schema, name, key columns.
const TABLES: [(&str, &str, &[&str]); 6] = [
    ("public", "users", &["id"]),
    ("public", "order_items", &["order_id", "item_id"]),
    ("Sales", "Order Lines", &["Order Id"]),
    ("a.b", "c", &["id"]),
    ("a", "b.c", &["id"]),
    ("x#%", "y/..", &["k.1", "k#2", "k3"]),
];

/// The name of the view table's partition key.
pub const KEY_ATTRIBUTE: &str = "_key";

/// The only cluster whose records are accepted, if `SOURCE_CLUSTER` is set.
pub const CLUSTER: &str = "c";

const RESERVED: [&str; 5] = [KEY_ATTRIBUTE, "_ts_ns", "_tx_id", "_deleted", "_expires_at"];
const LONGEST_KEY: usize = 2048;
const MOST_LEVELS: usize = 32;
const MOST_FRAGMENTS: u64 = 1000;

/// The settings that affect the result of a record.
#[derive(Debug, Clone, Copy)]
pub struct Contract {
    /// `COMMIT_TIMESTAMP`.
    pub place: TimestampPlace,
    /// Whether `SOURCE_CLUSTER` is [`CLUSTER`].
    pub cluster: bool,
    /// Whether `OBJECTS_BUCKET` is set.
    pub bucket: bool,
}

/// The result that a record must have.
pub enum Expected {
    /// It can never be applied.
    Poison,
    /// Its table is not configured.
    Filtered,
    /// It is a member of a set of a chunked change.
    Part,
    /// It becomes an item or a tombstone, or is poison if that is too large.
    Row(Box<Row>),
}

/// A row after its change.
pub struct Row {
    /// Its schema, its table, and the texts of its key's values.
    pub name: Vec<String>,
    /// Nanoseconds.
    pub committed: u64,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// All attributes but the key and `_expires_at`.
    pub attributes: HashMap<String, AttributeValue>,
    /// The JSON text of each column outside the key.
    pub movable: HashMap<String, String>,
}

struct Poison;

impl Contract {
    /// The result that the record with these bytes must have.
    pub fn expects(self, record: &[u8]) -> Expected {
        let document = std::str::from_utf8(record).ok().and_then(Document::read);
        let read = document.as_ref().ok_or(Poison).and_then(|document| self.record(document.root()));
        read.unwrap_or(Expected::Poison)
    }

    fn record(self, record: Value<'_>) -> Result<Expected, Poison> {
        let known = ["type", "op", "before", "after", "source", "ts_ns", "chunked", "chunk_id", "index", "data"];
        fields(record, &known)?;
        let chunked = match record.member("type").map(text).transpose()? {
            None | Some("full") => false,
            Some("chunked") => true,
            Some("fragment") => return fragment(record),
            Some(_) => return Err(Poison),
        };
        let source = record.member("source").ok_or(Poison)?;
        fields(source, &["schema", "table", "txId", "ts_ns", "cluster", "version"])?;
        let schema = text(source.member("schema").ok_or(Poison)?)?;
        let table = text(source.member("table").ok_or(Poison)?)?;
        let configured = TABLES.iter().find(|(of, name, _)| (*of, *name) == (schema, table));
        let Some((_, _, key)) = configured else { return Ok(Expected::Filtered) };

        let deleted = text(record.member("op").ok_or(Poison)?)? == "d";
        let needed = if deleted { "before" } else { "after" };
        let is_part = chunked && is_elsewhere(record.member("chunked").ok_or(Poison)?, needed)?;
        // Its set is checked when it is whole, so that all of it is quarantined.
        if is_part {
            return Ok(Expected::Part);
        }
        let version = source.member("version").and_then(as_it_comes);
        if version.is_some_and(|version| version != "1" && !version.starts_with("1.")) {
            return Err(Poison);
        }
        let cluster = source.member("cluster").and_then(as_it_comes);
        if self.cluster && cluster.is_some_and(|cluster| cluster != CLUSTER) {
            return Err(Poison);
        }
        let transaction = source.member("txId").and_then(as_it_comes);
        let typed = record.member("type").is_some();
        let committed = self.committed(typed, source.member("ts_ns"), record.member("ts_ns"))?;
        let image = record.member(needed).ok_or(Poison)?;
        let mut row = self.row(image, key, deleted)?;
        row.name.splice(0..0, [schema.to_owned(), table.to_owned()]);
        if row.key().len() > LONGEST_KEY {
            return Err(Poison);
        }
        row.committed = committed;
        row.attributes.insert("_ts_ns".to_owned(), AttributeValue::N(committed.to_string()));
        if let Some(transaction) = transaction {
            row.attributes.insert("_tx_id".to_owned(), AttributeValue::S(transaction.to_owned()));
        }
        if deleted {
            row.attributes.insert("_deleted".to_owned(), AttributeValue::Bool(true));
        }
        Ok(Expected::Row(Box::new(row)))
    }

    fn committed(self, typed: bool, source: Option<Value<'_>>, root: Option<Value<'_>>) -> Result<u64, Poison> {
        let nanoseconds = |value: Option<Value<'_>>| value.and_then(whole_number).filter(|ns| *ns > 0).ok_or(Poison);
        match self.place {
            TimestampPlace::Auto if typed => nanoseconds(source),
            TimestampPlace::Auto | TimestampPlace::Earliest => Ok(nanoseconds(source)?.min(nanoseconds(root)?)),
            TimestampPlace::Source => nanoseconds(source),
            TimestampPlace::Root => nanoseconds(root),
        }
    }

    fn row(self, image: Value<'_>, key: &[&str], deleted: bool) -> Result<Row, Poison> {
        let Is::Object(members) = image.is() else { return Err(Poison) };
        let mut row =
            Row { name: Vec::new(), committed: 0, deleted, attributes: HashMap::new(), movable: HashMap::new() };
        for (name, value) in members {
            let name = name.as_deref().ok_or(Poison)?;
            if deleted {
                continue;
            }
            if !NAME_BYTES.contains(&name.len()) {
                return Err(Poison);
            }
            if RESERVED.contains(&name) || (self.bucket && name == "_overflow") {
                return Err(Poison);
            }
            let attribute = attribute(value, 1).unwrap_or_else(|NotHeld| AttributeValue::S(value.json().to_owned()));
            row.movable.remove(name);
            if attribute == AttributeValue::Null(true) {
                row.attributes.remove(name);
            } else {
                row.attributes.insert(name.to_owned(), attribute);
                if !key.contains(&name) {
                    row.movable.insert(name.to_owned(), value.json().to_owned());
                }
            }
        }
        for column in key {
            let value = image.member(column).ok_or(Poison)?;
            row.name.push(match value.is() {
                Is::Text(text) => text.clone().ok_or(Poison)?,
                Is::Number(json) => plain(json).ok_or(Poison)?,
                Is::Bool(_) => value.json().to_owned(),
                Is::Null | Is::Array(_) | Is::Object(_) => return Err(Poison),
            });
        }
        Ok(row)
    }
}

impl Row {
    /// Its key in the view.
    pub fn key(&self) -> String {
        let value = |text: &String| text.replace('%', "%25").replace('#', "%23");
        let name = |text: &String| value(text).replace('.', "%2E");
        let mut key = format!("{}.{}", name(&self.name[0]), name(&self.name[1]));
        for text in &self.name[2..] {
            key = key + "#" + &value(text);
        }
        key
    }

    /// The size of its item in bytes: the least and the most that it can be.
    pub fn size(&self) -> (usize, usize) {
        let (least, most) = item_size(&self.attributes);
        let own = KEY_ATTRIBUTE.len() + self.key().len() + if self.deleted { "_expires_at".len() + 6 } else { 0 };
        (least + own, most + own + 8)
    }
}

/// The schema, the table and the key's values, read from a key of the view.
pub fn name_in_key(key: &str) -> Vec<String> {
    let plain = |text: &str| text.replace("%2E", ".").replace("%23", "#").replace("%25", "%");
    let (table, values) = key.split_once('#').expect("a key has values");
    let (schema, table) = table.split_once('.').expect("a table has a schema");
    [schema, table].into_iter().chain(values.split('#')).map(plain).collect()
}

fn text(value: Value<'_>) -> Result<&str, Poison> {
    value.text().ok_or(Poison)
}

/// The text of a value that the function can do without: a string's text, if it is valid, or another value's JSON.
fn as_it_comes(value: Value<'_>) -> Option<&str> {
    if let Is::Text(text) = value.is() { text.as_deref() } else { Some(value.json()) }
}

fn whole_number(value: Value<'_>) -> Option<u64> {
    let Is::Number(json) = value.is() else { return None };
    if json.bytes().all(|digit| digit.is_ascii_digit()) { json.parse().ok() } else { None }
}

/// Checks that the value is an object whose member names are texts, and that each known name occurs at most once.
fn fields(value: Value<'_>, known: &[&str]) -> Result<(), Poison> {
    let Is::Object(members) = value.is() else { return Err(Poison) };
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_deref().ok_or(Poison)).collect::<Result<_, _>>()?;
    let once = known.iter().all(|known| names.iter().filter(|name| *name == known).count() <= 1);
    once.then_some(()).ok_or(Poison)
}

fn fragment(record: Value<'_>) -> Result<Expected, Poison> {
    let is_text = matches!(record.member("data").ok_or(Poison)?.is(), Is::Text(_));
    let index = record.member("index").and_then(whole_number).ok_or(Poison)?;
    let id = text(record.member("chunk_id").ok_or(Poison)?)?;
    if is_text && index < MOST_FRAGMENTS && !id.is_empty() { Ok(Expected::Part) } else { Err(Poison) }
}

/// Whether `chunked` says that this image is in fragments; its entries must be consistent.
fn is_elsewhere(chunked: Value<'_>, image: &str) -> Result<bool, Poison> {
    fields(chunked, &["before", "after"])?;
    let entries = ["before", "after"].map(|entry| chunked.member(entry));
    for entry in entries.into_iter().flatten() {
        fields(entry, &["chunk_id", "total_fragments", "crc32c"])?;
        let total = entry.member("total_fragments").and_then(whole_number).ok_or(Poison)?;
        let checksum = entry.member("crc32c").ok_or(Poison)?;
        let digits = checksum.text().unwrap_or(checksum.json());
        let is_checksum = digits.bytes().all(|digit| digit.is_ascii_digit()) && digits.parse::<u32>().is_ok();
        let id = text(entry.member("chunk_id").ok_or(Poison)?)?;
        if id.is_empty() || !(1..=MOST_FRAGMENTS).contains(&total) || !is_checksum {
            return Err(Poison);
        }
    }
    if entries.iter().all(Option::is_none) { Err(Poison) } else { Ok(chunked.member(image).is_some()) }
}

/// A column that DynamoDB cannot hold as it is, so the item has its JSON text.
struct NotHeld;

fn attribute(value: Value<'_>, level: usize) -> Result<AttributeValue, NotHeld> {
    let nests = matches!(value.is(), Is::Array(_) | Is::Object(_));
    if nests && level == MOST_LEVELS {
        return Err(NotHeld);
    }
    Ok(match value.is() {
        Is::Null => AttributeValue::Null(true),
        Is::Bool(value) => AttributeValue::Bool(value),
        Is::Number(json) if fits_n(json) => AttributeValue::N(json.to_owned()),
        Is::Number(json) => AttributeValue::S(json.to_owned()),
        Is::Text(text) => AttributeValue::S(text.clone().ok_or(NotHeld)?),
        Is::Array(elements) => {
            let elements: Result<_, _> = elements.into_iter().map(|element| attribute(element, level + 1)).collect();
            AttributeValue::L(elements?)
        }
        Is::Object(members) => {
            let member = |(name, value): (&Option<String>, _)| {
                let name = name.clone().filter(|name| !name.is_empty()).ok_or(NotHeld)?;
                Ok((name, attribute(value, level + 1)?))
            };
            AttributeValue::M(members.into_iter().map(member).collect::<Result<_, _>>()?)
        }
    })
}
