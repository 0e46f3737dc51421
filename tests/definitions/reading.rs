//! The definitions of `views.toml` beside this file, read a second time, by hand: what the view makes of each change.
//! It shares no code with the function.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::Item;
use dsql_view_support::model::Shown;

pub const APP: &str = "app";
pub const COUNTERS: &str = "counters";

/// Numbers as `numeric` columns have them in records, in plain notation, and whether DynamoDB's N takes them.
pub const NUMERICS: [(&str, &str, bool); 7] = [
    ("29.90", "29.9", true),
    ("0.00", "0", true),
    ("-1.5", "-1.5", true),
    ("1E+3", "1000", true),
    ("12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678", true),
    ("123456789012345678901234567890123456789.5", "123456789012345678901234567890123456789.5", false),
    ("NaN", "NaN", false),
];

/// Timestamps as records have them, as ISO 8601, and in milliseconds; `None` for those that stand as in the record.
pub const INSTANTS: [(i64, Option<&str>, Option<&str>); 8] = [
    (1_773_843_841_048_727, Some("2026-03-18T14:24:01.048727"), Some("1773843841048.727")),
    (0, Some("1970-01-01T00:00:00.000000"), Some("0")),
    (-1, Some("1969-12-31T23:59:59.999999"), Some("-0.001")),
    (32_503_680_000_000_001, Some("3000-01-01T00:00:00.000001"), Some("32503680000000.001")),
    (253_402_300_799_999_999, Some("9999-12-31T23:59:59.999999"), Some("253402300799999.999")),
    // ISO 8601 has no such year, and milliseconds have.
    (253_402_300_800_000_000, None, Some("253402300800000")),
    (9_223_372_036_825_200_000, None, None),
    (-9_223_372_036_832_400_000, None, None),
];

/// Dates as records have them, and as ISO 8601.
pub const DAYS: [(i64, Option<&str>); 4] =
    [(20_530, Some("2026-03-18")), (-719_162, Some("0001-01-01")), (-719_163, None), (2_932_897, None)];

/// JSON in a `jsonb` column; the last does not parse.
pub const DOCUMENTS: [&str; 4] =
    [r#"{"a": 1.50, "b": [null, "x", {"c": true}]}"#, "12345678901234567890.5", r#""text""#, r#"{"a":"#];

/// Base64 in a `bytea` column, with its bytes; the last is none.
pub const BYTES: [(&str, Option<&[u8]>); 3] = [("++8A", Some(&[0xfb, 0xef, 0x00])), ("", Some(&[])), ("+", None)];

/// A column that the definitions do not list.
pub const UNLISTED: &str = "came_later";

/// What the view makes of a change.
pub fn reading(change: &Change) -> Option<Shown> {
    match change.table.as_str() {
        "users" => user(change),
        "Order Lines" => order_line(change),
        "counters" => counter(change),
        _ => None,
    }
}

fn user(change: &Change) -> Option<Shown> {
    let row = Row(change);
    let (tenant, id) = (row.text("tenant")?, row.text("id")?);
    if tenant == "internal" {
        return None;
    }
    let key = Item::from([s("pk", &format!("TENANT#{}", escaped(tenant))), s("sk", &format!("USER#{}", escaped(id)))]);
    let is_shown = change.row.is_some() && row.text("status").is_some_and(|status| status != "draft");
    let item = || {
        let mut item = Item::from([s("entity", "User"), s("tenant", tenant), n("id", id)]);
        let (status, joined) = (row.text("status"), row.number("joined"));
        item.extend(status.map(|status| s("status", status)));
        item.extend(status.map(|status| s("GSI1PK", &format!("STATUS#{}", escaped(status)))));
        if let Some(joined) = joined {
            let iso = iso8601(joined).map(|iso| format!("{iso}Z"));
            item.extend([match &iso {
                Some(iso) => s("joinedAt", iso),
                None => n("joinedAt", &joined.to_string()),
            }]);
            let text = iso.unwrap_or_else(|| joined.to_string());
            item.extend([s("GSI1SK", &format!("{text}#{}", escaped(id)))]);
        }
        item.extend(row.text("balance").map(|balance| numeric("balance", balance)));
        item.extend(row.number("born").map(|born| match DAYS.iter().find(|(days, _)| *days == born) {
            Some((_, Some(iso))) => s("born", iso),
            _ => n("born", &born.to_string()),
        }));
        item.extend(row.text("settings").map(|json| {
            let parsed = serde_json::from_str(json).ok().and_then(|parsed: serde_json::Value| match &parsed {
                // The test kit reads floating-point numbers, and this one has more digits.
                serde_json::Value::Number(_) => Some(AttributeValue::N(json.to_owned())),
                _ => Value::of(&parsed).attribute(),
            });
            ("settings".to_owned(), parsed.unwrap_or_else(|| AttributeValue::S(json.to_owned())))
        }));
        item.extend(row.text("photo").map(|photo| match BYTES.iter().find(|(base64, _)| *base64 == photo) {
            Some((_, Some(bytes))) => ("photo".to_owned(), AttributeValue::B(Blob::new(*bytes))),
            _ => s("photo", photo),
        }));
        let address = ["street", "city"].into_iter().filter_map(|name| Some(s(name, row.text(name)?)));
        let address: std::collections::HashMap<_, _> = address.collect();
        if !address.is_empty() {
            item.insert("address".to_owned(), AttributeValue::M(address));
        }
        item.extend(row.attribute("_deleted").map(|value| ("isDeleted".to_owned(), value)));
        item.extend(row.attribute(UNLISTED).map(|value| (UNLISTED.to_owned(), value)));
        item
    };
    let expires_at = row.number("until").and_then(seconds);
    Some(Shown { view: APP, key, row: is_shown.then(item), expires_at })
}

fn order_line(change: &Change) -> Option<Shown> {
    let row = Row(change);
    let (order, item_id) = (row.number("order_id")?, row.text("Item Id")?);
    if order >= 3 {
        return None;
    }
    let key = Item::from([s("pk", &format!("ORDER#{order:06}")), s("sk", &format!("LINE#{}", escaped(item_id)))]);
    let quantity = row.number("quantity").filter(|quantity| change.row.is_some() && *quantity >= 1);
    let item = |quantity: i64| {
        let mut item = Item::from([n("order_id", &order.to_string()), s("Item Id", item_id)]);
        item.extend(row.text("price").map(|price| numeric("price", price)));
        let plain = |price| NUMERICS.iter().find(|(text, ..)| *text == price).map(|(_, plain, _)| *plain);
        item.extend(row.text("price").and_then(plain).map(|plain| s("GSI1SK", plain)));
        item.extend(
            row.text("status").map(|status| s("GSI1PK", &format!("STATUS#{}", escaped(&status.to_lowercase())))),
        );
        item.extend(row.number("changed").map(|changed| n("changed", &millis(changed))));
        if quantity < 10_000 {
            item.extend([s("sortable", &format!("{quantity:04}"))]);
        }
        item
    };
    Some(Shown { view: APP, key, row: quantity.map(item), expires_at: None })
}

fn counter(change: &Change) -> Option<Shown> {
    let row = Row(change);
    let number = row.number("number")?;
    if number < 0 {
        return None;
    }
    let is_shown = change.row.is_some() && row.number("deleted_at").is_none();
    let item = || {
        let mut item = Item::new();
        if let Some(total) = row.text("total") {
            item.extend([numeric("total", total)]);
            if is_number(total) {
                item.extend([n("byTotal", total)]);
            }
        }
        item.extend(row.number("valid_until").map(|until| n("valid_until", &millis(until))));
        item.extend(row.attribute(UNLISTED).map(|value| (UNLISTED.to_owned(), value)));
        item
    };
    let expires_at = row.number("valid_until").and_then(seconds);
    let key = Item::from([n("number", &number.to_string())]);
    Some(Shown { view: COUNTERS, key, row: is_shown.then(item), expires_at })
}

/// The values of a change's columns; those that it lacks are null.
struct Row<'a>(&'a Change);

impl Row<'_> {
    fn value(&self, column: &str) -> &Value {
        let mut columns = self.0.key.iter().chain(self.0.row.iter().flatten());
        columns.find(|(name, _)| name == column).map_or(&Value::Null, |(_, value)| value)
    }

    fn attribute(&self, column: &str) -> Option<AttributeValue> {
        self.value(column).attribute()
    }

    fn text(&self, column: &str) -> Option<&str> {
        match self.value(column) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self, column: &str) -> Option<i64> {
        match self.value(column) {
            Value::Number(number) => number.parse().ok(),
            _ => None,
        }
    }
}

fn s(name: &str, text: &str) -> (String, AttributeValue) {
    (name.to_owned(), AttributeValue::S(text.to_owned()))
}

fn n(name: &str, number: &str) -> (String, AttributeValue) {
    (name.to_owned(), AttributeValue::N(number.to_owned()))
}

fn numeric(name: &str, text: &str) -> (String, AttributeValue) {
    if is_number(text) { n(name, text) } else { s(name, text) }
}

fn is_number(text: &str) -> bool {
    NUMERICS.iter().any(|(numeric, _, fits)| *numeric == text && *fits)
}

fn iso8601(micros: i64) -> Option<&'static str> {
    INSTANTS.iter().find(|(instant, ..)| *instant == micros)?.1
}

fn millis(micros: i64) -> String {
    let known = INSTANTS.iter().find(|(instant, ..)| *instant == micros);
    known.and_then(|(.., millis)| *millis).map_or_else(|| micros.to_string(), str::to_owned)
}

/// The seconds since the epoch of a time that is neither infinite nor beyond the year 9999; 0 for one before the epoch.
fn seconds(micros: i64) -> Option<u64> {
    let Ok(since) = u64::try_from(micros) else { return (micros != -9_223_372_036_832_400_000).then_some(0) };
    iso8601(micros).map(|_| since.div_ceil(1_000_000))
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('#', "%23")
}

/// The row that a key is of: its table, and the values of its primary key as text.
pub fn row_of(key: &Item) -> Option<(&'static str, Vec<String>)> {
    let plain = |text: &str| text.replace("%23", "#").replace("%25", "%");
    if let Some(AttributeValue::N(number)) = key.get("number") {
        return Some(("counters", vec![number.clone()]));
    }
    let text = |name: &str| key.get(name)?.as_s().ok().map(String::as_str);
    let (pk, sk) = (text("pk")?, text("sk")?);
    if let (Some(tenant), Some(id)) = (pk.strip_prefix("TENANT#"), sk.strip_prefix("USER#")) {
        return Some(("users", vec![plain(tenant), plain(id)]));
    }
    let (order, item) = (pk.strip_prefix("ORDER#")?, sk.strip_prefix("LINE#")?);
    Some(("Order Lines", vec![order.parse::<u64>().ok()?.to_string(), plain(item)]))
}
