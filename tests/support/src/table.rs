//! Shows a view as a table for people.

use std::time::SystemTime;

use aws_sdk_dynamodb::types::AttributeValue;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table};

use crate::dynamodb::{Item, Items, KEY};

const WIDTH: u16 = 116;

/// In characters; of a longer text, the table shows the beginning.
const LONGEST_TEXT: usize = 1000;

/// The items of a view, one row each.
pub fn render(items: &Items) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header([KEY, "_ts_ns", "row"]);
    for narrow in [0, 1] {
        table.column_mut(narrow).expect("a column of the header").set_constraint(ColumnConstraint::ContentWidth);
    }
    for (key, item) in items {
        let committed = item.get("_ts_ns").map(text).unwrap_or_default();
        table.add_row([key.clone(), committed, row(item)]);
    }
    if items.is_empty() {
        return "(empty)".to_owned();
    }
    table.to_string()
}

/// Named counts, one a row. A name that begins with two spaces is a part of the count above it.
pub fn figures(rows: &[(&str, u64)]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    for (name, count) in rows {
        table.add_row([Cell::new(name), Cell::new(grouped(*count)).set_alignment(CellAlignment::Right)]);
    }
    table.to_string()
}

/// A number with a comma after every three digits.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

fn row(item: &Item) -> String {
    if item.contains_key("_deleted") {
        return format!("(tombstone, expires in {})", time_left(item));
    }
    let columns = item.iter().filter(|(name, _)| !name.starts_with('_') && *name != KEY);
    let columns = columns.map(|(name, value)| format!("{name}: {}", text(value)));
    let moved = item.get("_overflow").and_then(|moved| moved.as_m().ok()).into_iter().flatten();
    let moved = moved.map(|(name, address)| format!("{name}: {}", address.as_s().map_or("no address", String::as_str)));
    columns.chain(moved).collect::<Vec<_>>().join("\n")
}

/// How long a tombstone stays, in days, rounded.
fn time_left(item: &Item) -> String {
    const DAY: i64 = 24 * 60 * 60;
    let expiry = item.get("_expires_at").and_then(|expiry| expiry.as_n().ok()).and_then(|seconds| seconds.parse().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    match (expiry, i64::try_from(now)) {
        (Some::<i64>(expiry), Ok(now)) => format!("{} days", (expiry - now + DAY / 2) / DAY),
        _ => "no known time".to_owned(),
    }
}

/// A value as people read it: text in quotation marks, numbers without.
fn text(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) if text.chars().count() > LONGEST_TEXT => {
            let beginning: String = text.chars().take(20).collect();
            format!("{beginning:?}… ({} bytes)", text.len())
        }
        AttributeValue::S(text) => format!("{text:?}"),
        AttributeValue::N(number) => number.clone(),
        AttributeValue::Bool(value) => value.to_string(),
        AttributeValue::L(elements) => format!("[{}]", elements.iter().map(text).collect::<Vec<_>>().join(", ")),
        AttributeValue::M(members) => {
            let mut members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect();
            members.sort();
            format!("{{{}}}", members.join(", "))
        }
        _ => "null".to_owned(),
    }
}
