//! Change records as Aurora DSQL writes them, each with the attribute values that the contract says they become.

use std::fmt::Write;

use aws_sdk_dynamodb::types::AttributeValue;

/// The cluster of the records; it does not exist.
pub const CLUSTER: &str = "kmabugltfmjdaj2siqr2qbxgju";

/// A column's value, as a change record's JSON has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    /// The number's JSON text.
    Number(String),
    Bool(bool),
    Null,
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn number(number: impl Into<i128>) -> Self {
        Self::Number(number.into().to_string())
    }

    /// The attribute value that a column's JSON text becomes.
    pub fn attribute_of_json(json: &[u8]) -> Option<AttributeValue> {
        Self::of(&serde_json::from_slice(json).ok()?).attribute()
    }

    /// The value of a parsed JSON text; floating-point numbers keep the precision of a double.
    pub fn of(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => Self::Number(number.to_string()),
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Array(elements) => Self::List(elements.iter().map(Self::of).collect()),
            serde_json::Value::Object(members) => {
                Self::Map(members.iter().map(|(name, value)| (name.clone(), Self::of(value))).collect())
            }
        }
    }

    /// Its JSON text.
    pub fn json(&self) -> String {
        match self {
            Self::Text(text) => json_string(text),
            Self::Number(number) => number.clone(),
            Self::Bool(value) => value.to_string(),
            Self::Null => "null".to_owned(),
            Self::List(values) => format!("[{}]", values.iter().map(Self::json).collect::<Vec<_>>().join(",")),
            Self::Map(members) => object(members),
        }
    }

    /// The attribute value of a row's column with this value; `None` for a null column.
    pub fn attribute(&self) -> Option<AttributeValue> {
        (*self != Self::Null).then(|| self.nested_attribute())
    }

    fn nested_attribute(&self) -> AttributeValue {
        match self {
            Self::Text(text) => AttributeValue::S(text.clone()),
            Self::Number(number) if Decimal::of(number).fits_dynamodb() => AttributeValue::N(number.clone()),
            Self::Number(number) => AttributeValue::S(number.clone()),
            Self::Bool(value) => AttributeValue::Bool(*value),
            Self::Null => AttributeValue::Null(true),
            Self::List(values) => AttributeValue::L(values.iter().map(Self::nested_attribute).collect()),
            Self::Map(members) => AttributeValue::M(
                members.iter().map(|(name, value)| (name.clone(), value.nested_attribute())).collect(),
            ),
        }
    }

    fn key_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => Decimal::of(number).plain(),
            other => other.json(),
        }
    }
}

/// A decimal number's value: its significant digits without zeros at the ends, times ten to a power.
#[derive(Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    digits: String,
    power: i64,
}

impl Decimal {
    /// The value of a number as JSON or DynamoDB writes it.
    pub fn of(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) =
            mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa.trim_start_matches('-'), ""));
        let all = format!("{whole}{fraction}");
        let kept = all.trim_end_matches('0');
        let dropped = i64::try_from(all.len() - kept.len()).expect("a short text");
        let fraction = i64::try_from(fraction.len()).expect("a short text");
        let digits = kept.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Self { negative: false, digits, power: 0 };
        }
        let exponent: i64 = exponent.parse().expect("an exponent");
        Self { negative: text.starts_with('-'), digits, power: exponent - fraction + dropped }
    }

    /// DynamoDB's N holds 38 digits, from 1E-130 on. Its readers take 38 digits in plain notation, down to 1E-165.
    fn fits_dynamodb(&self) -> bool {
        let count = i64::try_from(self.digits.len()).expect("a short text");
        let first = self.power + count - 1;
        self.digits.is_empty() || (count <= 38 && (-130..=37).contains(&first) && self.power >= -165)
    }

    /// Its text in plain notation.
    fn plain(&self) -> String {
        if self.digits.is_empty() {
            return "0".to_owned();
        }
        let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
        let whole = format!("{}{}", self.digits, zeros(self.power));
        let places = usize::try_from(-self.power).unwrap_or_default();
        let padded = format!("{}{whole}", "0".repeat((places + 1).saturating_sub(whole.len())));
        let (before, after) = padded.split_at(padded.len() - places);
        let point = if after.is_empty() { "" } else { "." };
        format!("{}{before}{point}{after}", if self.negative { "-" } else { "" })
    }
}

/// Which of the two timestamps of a record is the commit's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As in the documentation: `source.ts_ns`; with `type`, and `u` for updates.
    Documented,
    /// As preview streams send it: the root's `ts_ns`; without `type`, and with `c` for updates.
    Preview,
}

/// A committed change of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub schema: String,
    pub table: String,
    /// The primary key, in key order.
    pub key: Vec<(String, Value)>,
    /// The other columns; `None` for a deletion.
    pub row: Option<Vec<(String, Value)>>,
    /// Nanoseconds since the epoch.
    pub committed: u64,
    /// The transaction's id.
    pub transaction: String,
    /// How many nanoseconds after the commit the record was made. Negative if the change stream's clock is behind,
    /// which a preview record cannot show.
    pub lag: i64,
    pub layout: Layout,
}

impl Change {
    /// An upsert of a row of `public.<table>` with one key column, `id`.
    pub fn upsert(table: &str, id: Value, committed: u64, row: Vec<(&str, Value)>) -> Self {
        Self {
            schema: "public".to_owned(),
            table: table.to_owned(),
            key: vec![("id".to_owned(), id)],
            row: Some(row.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            committed,
            transaction: format!("tx{committed}"),
            lag: 98_700_000,
            layout: Layout::Documented,
        }
    }

    /// The deletion of such a row.
    pub fn delete(table: &str, id: Value, committed: u64) -> Self {
        Self { row: None, ..Self::upsert(table, id, committed, Vec::new()) }
    }

    /// An upsert of a row as applications have them, some 460 bytes as a record. The benches measure with it.
    pub fn order_item(id: u64, committed: u64) -> Self {
        let columns = vec![
            ("order_id", Value::number(1_000 + id / 3)),
            ("product", Value::text(format!("A product with a name, number {id}"))),
            ("price", Value::text("29.99")),
            ("quantity", Value::number(5)),
            ("gift", Value::Bool(false)),
            ("note", Value::Null),
            ("created_at", Value::number(1_773_843_841_048_727_i64)),
        ];
        Self::upsert("order_items", Value::number(id), committed, columns)
    }

    /// The change that a record holds, if it is valid; `primary_key` returns the key columns of the configured tables.
    ///
    /// With a `type`, `source.ts_ns` is the commit's timestamp; without, the earlier of the two timestamps is.
    pub fn of_record(record: &str, primary_key: impl Fn(&str, &str) -> Option<Vec<String>>) -> Option<Self> {
        let record: serde_json::Value = serde_json::from_str(record).ok()?;
        let source = &record["source"];
        let (schema, table) = (source["schema"].as_str()?, source["table"].as_str()?);
        let key_columns = primary_key(schema, table)?;
        let deleted = record["op"] == "d";
        let image = record[if deleted { "before" } else { "after" }].as_object()?;
        let column = |name: &String| (name.clone(), Value::of(&image[name]));
        let others = image.keys().filter(|name| !key_columns.contains(name));
        let (at_source, at_root) = (source["ts_ns"].as_u64()?, record["ts_ns"].as_u64()?);
        let is_documented = !record["type"].is_null() || at_source <= at_root;
        let (committed, made) = if is_documented { (at_source, at_root) } else { (at_root, at_source) };
        Some(Self {
            schema: schema.to_owned(),
            table: table.to_owned(),
            key: key_columns.iter().map(column).collect(),
            row: (!deleted).then(|| others.map(column).collect()),
            committed,
            transaction: source["txId"].as_str()?.to_owned(),
            lag: made.checked_signed_diff(committed)?,
            layout: if is_documented { Layout::Documented } else { Layout::Preview },
        })
    }

    /// Its record's bytes.
    pub fn record(&self) -> String {
        let (kind, update) = match self.layout {
            Layout::Documented => (r#""type":"full","#, "u"),
            Layout::Preview => ("", "c"),
        };
        let (op, before, after) = match &self.row {
            Some(row) => (update, "null".to_owned(), object(self.key.iter().chain(row))),
            None => ("d", object(&self.key), "null".to_owned()),
        };
        let processed = self.committed.saturating_add_signed(self.lag);
        let (source_ts, root_ts) = match self.layout {
            Layout::Documented => (self.committed, processed),
            Layout::Preview => (processed, self.committed),
        };
        format!(
            concat!(
                r#"{{{}"op":"{}","before":{},"after":{},"source":{{"version":"1.0","ts_ms":{},"ts_ns":{},"txId":{},"#,
                r#""schema":{},"table":{},"db":"postgres","cluster":"{}"}},"ts_ms":{},"ts_ns":{}}}"#
            ),
            kind,
            op,
            before,
            after,
            source_ts / 1_000_000,
            source_ts,
            json_string(&self.transaction),
            json_string(&self.schema),
            json_string(&self.table),
            CLUSTER,
            root_ts / 1_000_000,
            root_ts,
        )
    }

    /// The records of the change if its image is split into this number of fragments: the main record, then the
    /// fragments in order. They have a type, so they have the documentation's layout.
    pub fn split(&self, chunk_id: &str, pieces: usize) -> Vec<String> {
        let whole = Self { layout: Layout::Documented, ..self.clone() }.record();
        let (place, image) = match &self.row {
            Some(row) => ("after", object(self.key.iter().chain(row))),
            None => ("before", object(&self.key)),
        };
        let chunked = serde_json::json!({ place: {
            "chunk_id": chunk_id,
            "total_fragments": pieces,
            "crc32c": crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, image.as_bytes()).to_string(),
        } });
        let kind = format!(r#"{{"type":"chunked","chunked":{chunked},"#);
        let main = whole.replacen(r#"{"type":"full","#, &kind, 1);
        let main = main.replacen(&format!(r#""{place}":{image}"#), &format!(r#""{place}":null"#), 1);

        let each = image.chars().count().div_ceil(pieces);
        let mut rest = image.as_str();
        let fragments = (0..pieces).map(|index| {
            let mut behind = rest.chars();
            behind.nth(each - 1);
            let (data, left) = rest.split_at(rest.len() - behind.as_str().len());
            rest = left;
            fragment(chunk_id, index, data)
        });
        std::iter::once(main).chain(fragments).collect()
    }

    /// The key of its row in the view.
    pub fn view_key(&self) -> String {
        let name = |text: &str| value_in_key(text).replace('.', "%2E");
        let mut key = format!("{}.{}", name(&self.schema), name(&self.table));
        for (_, value) in &self.key {
            write!(key, "#{}", value_in_key(&value.key_text())).expect("writing to a string");
        }
        key
    }
}

/// A fragment's record.
pub fn fragment(chunk_id: &str, index: usize, data: &str) -> String {
    serde_json::json!({ "type": "fragment", "chunk_id": chunk_id, "index": index, "data": data }).to_string()
}

fn value_in_key(text: &str) -> String {
    text.replace('%', "%25").replace('#', "%23")
}

fn object<'a>(members: impl IntoIterator<Item = &'a (String, Value)>) -> String {
    let members = members.into_iter().map(|(name, value)| format!("{}:{}", json_string(name), value.json()));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
