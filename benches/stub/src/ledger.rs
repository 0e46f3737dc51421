//! The parts of a table that the condition and the bill need: the newest commit of each key, and the size of its item.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{NotUnderstood, item};

/// The bytes of a write unit; each started kilobyte counts as one.
const WRITE_UNIT: usize = 1024;

/// The items.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: HashMap<String, Row>,
}

#[derive(Debug)]
struct Row {
    committed: u64,
    write_units: u64,
}

/// The result of a put.
#[derive(Debug, PartialEq, Eq)]
pub struct Put {
    pub is_done: bool,
    /// The write units that it is billed, whether it was done or not.
    pub write_units: u64,
    /// The size of its item.
    pub item_bytes: u64,
}

/// The parts of a PutItem that matter here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    item: Map<String, Value>,
    condition_expression: String,
    expression_attribute_values: Values,
}

#[derive(Deserialize)]
struct Values {
    #[serde(rename = ":ts")]
    committed: Number,
}

#[derive(Deserialize)]
struct Number {
    #[serde(rename = "N")]
    number: String,
}

impl Ledger {
    /// Puts the item of a request, if it is newer than the item that exists. The bill is for the larger of the old and
    /// the new item; if the condition is not met, it is for the existing item.
    pub fn put(&mut self, body: &[u8]) -> Result<Put, NotUnderstood> {
        let request: Request = serde_json::from_slice(body).map_err(|error| NotUnderstood(error.to_string()))?;
        let expected = "attribute_not_exists(#ts) OR #ts < :ts";
        if request.condition_expression != expected {
            let found = request.condition_expression;
            return Err(NotUnderstood(format!("expected the condition {expected}, found {found}")));
        }
        let key = request.item.get("pk").and_then(|key| key["S"].as_str());
        let key = key.ok_or_else(|| NotUnderstood("the item has no key pk of type S".to_owned()))?.to_owned();
        let committed = request.expression_attribute_values.committed.number.parse();
        let committed = committed.map_err(|_| NotUnderstood("expected nanoseconds in :ts".to_owned()))?;
        let item_bytes = item::size(&request.item);
        let (write_units, item_bytes) = (item_bytes.div_ceil(WRITE_UNIT).max(1) as u64, item_bytes as u64);
        Ok(match self.rows.get(&key) {
            Some(row) if row.committed >= committed => Put { is_done: false, write_units: row.write_units, item_bytes },
            before => {
                let billed = before.map_or(write_units, |row| row.write_units.max(write_units));
                self.rows.insert(key, Row { committed, write_units });
                Put { is_done: true, write_units: billed, item_bytes }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(ledger: &mut Ledger, key: &str, committed: u64, bytes: usize) -> (bool, u64) {
        let body = serde_json::json!({
            "TableName": "view",
            "Item": { "pk": { "S": key }, "text": { "S": "x".repeat(bytes) }, "_ts_ns": { "N": committed.to_string() } },
            "ConditionExpression": "attribute_not_exists(#ts) OR #ts < :ts",
            "ExpressionAttributeNames": { "#ts": "_ts_ns" },
            "ExpressionAttributeValues": { ":ts": { "N": committed.to_string() } },
        });
        let put = ledger.put(body.to_string().as_bytes()).unwrap();
        (put.is_done, put.write_units)
    }

    #[test]
    fn only_a_newer_commit_is_put_and_all_are_billed() {
        let mut ledger = Ledger::default();
        assert_eq!(put(&mut ledger, "a", 2, 100), (true, 1));
        assert_eq!(put(&mut ledger, "a", 2, 100), (false, 1));
        assert_eq!(put(&mut ledger, "a", 1, 5_000), (false, 1));
        assert_eq!(put(&mut ledger, "b", 1, 3_000), (true, 3));
        assert_eq!(put(&mut ledger, "b", 2, 100), (true, 3));
        assert_eq!(put(&mut ledger, "b", 1, 100), (false, 1));
    }

    #[test]
    fn what_is_no_conditional_put_is_not_understood() {
        let mut ledger = Ledger::default();
        for body in ["", "{}", r#"{"Item":{},"ConditionExpression":"x","ExpressionAttributeValues":{":ts":{"N":"1"}}}"#]
        {
            assert!(ledger.put(body.as_bytes()).is_err(), "{body}");
        }
    }
}
