//! The definitions of a run that has them, and the same read a second time, by hand.
//!
//! The keys are those of a view without definitions, by which the rest of the run knows the rows.

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::Item;
use dsql_view_support::model::{Shown, without_definitions};

use crate::world::VIEW;

/// The tables of the view beside [`VIEW`].
pub const VIEWS: [&str; 2] = [PEOPLE, "lines"];

/// The table of users. The definitions give it another name.
const PEOPLE: &str = "people-of-the-torture";

/// `VIEW_TABLES`.
pub const VIEW_TABLES: &str = "people=people-of-the-torture";

/// The definitions file.
pub const DEFINITIONS: &str = r#"
version = 1

[[table]]
name = "users"
primary_key = ["id"]
view = "people"
except = ["nothing"]
rename = { name = "fullName" }
rows = [{ column = "id", not_in = [3, 4] }, { column = "flag", equals = true, absent = "outside" }]
attributes = { search = "{name:lower}#{id:08}", entity = "User" }
group = { figures = ["rate", "exact"] }

[[table]]
name = "order_items"
primary_key = ["order_id", "item_id"]
except = ["flag", "rate"]
rows = [{ column = "count", is_null = false, absent = "outside" }]

[[table]]
name = '"Sales"."Order Lines"'
primary_key = ["Order Id"]
view = "lines"
columns = { "Order Id" = "text", valid_until = "timestamptz", flag = "boolean", name = "text", "größe" = "text", count = "numeric", rate = "numeric", exact = "numeric", nothing = "text" }
expires_at = "valid_until"

[[table]]
name = "documents"
primary_key = ["id"]
rename = { appendix = "annex" }
"#;

/// What the view makes of a change; `None` if it never has the row, by its key.
pub fn reading(change: &Change) -> Option<Shown> {
    let shown = without_definitions(change)?;
    let there = |column: &str| change.row.iter().flatten().find(|(name, _)| name == column).map(|(_, value)| value);
    let (view, is_hidden) = match change.table.as_str() {
        "users" => {
            let id = change.key[0].1.json();
            if ["3", "4"].contains(&id.as_str()) {
                return None;
            }
            (PEOPLE, there("flag") != Some(&Value::Bool(true)))
        }
        "order_items" => (VIEW, there("count").is_none()),
        "Order Lines" => ("lines", false),
        _ => (VIEW, false),
    };
    let row = shown.row.filter(|_| !is_hidden).map(|row| shaped(change, row));
    let expires_at = match (change.table.as_str(), there("valid_until")) {
        ("Order Lines", Some(Value::Number(micros))) => micros.parse::<u64>().ok().map(|micros| micros / 1_000_000),
        _ => None,
    };
    Some(Shown { view, row, expires_at, ..shown })
}

fn shaped(change: &Change, mut row: Item) -> Item {
    let mut rename = |from: &str, to: &str| row.remove(from).map(|value| row.insert(to.to_owned(), value)).is_some();
    match change.table.as_str() {
        "users" => {
            rename("name", "fullName");
            let rest = ["rate", "exact"].into_iter().filter_map(|name| Some((name.to_owned(), row.remove(name)?)));
            let figures: std::collections::HashMap<_, _> = rest.collect();
            if !figures.is_empty() {
                row.insert("figures".to_owned(), AttributeValue::M(figures));
            }
            if let Some(AttributeValue::S(name)) = row.get("fullName") {
                let search = format!("{}#{:0>8}", name.to_lowercase(), change.key[0].1.json());
                row.insert("search".to_owned(), AttributeValue::S(search));
            }
            row.insert("entity".to_owned(), AttributeValue::S("User".to_owned()));
        }
        "order_items" => {
            row.retain(|name, _| !["flag", "rate"].contains(&name.as_str()));
        }
        "documents" => {
            rename("appendix", "annex");
        }
        _ => {}
    }
    row
}
