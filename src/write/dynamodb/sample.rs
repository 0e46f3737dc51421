//! A look into a table of the view at the start: whether it was filled under other marks or keys, and whether its TTL
//! looks at the attribute that the view writes.
//!
//! An item with other marks looks as if nothing stood there, so older changes could come back. Nothing is concluded from
//! a look that fails.
//!
//! Invariants: the judgement is pure; a warning names attributes and tables, never a value.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{AttributeValue, TimeToLiveDescription, TimeToLiveStatus};

use super::{DynamoDbView, Rows};
use crate::definitions::marks::Marks;
use crate::definitions::source_tables::SourceTable;
use crate::item::schema::{KeyAttribute, TableSchema};
use crate::write::view::View;

/// How many items are looked at.
const ITEMS: i32 = 10;

/// Warns of everything that a look into the table shows.
pub async fn look(view: &DynamoDbView) {
    let Rows { tables, place, .. } = &view.rows;
    let Some(schema) = view.schema() else { return };
    let (client, table) = (&view.client, &view.table);
    let (scanned, ttl) = tokio::join!(
        client.scan().table_name(table).limit(ITEMS).send(),
        client.describe_time_to_live().table_name(table).send(),
    );
    let mut warnings = Vec::new();
    match scanned {
        Ok(page) => {
            let of_view = || tables.of_view(*place);
            warnings.extend(page.items().iter().find_map(|item| other_shape(item, &schema, &view.marks, of_view)));
        }
        Err(error) => warnings.push(not_seen("whether other marks or keys have filled it (dynamodb:Scan)", &error)),
    }
    match ttl {
        Ok(answer) => {
            let expires = tables.of_view(*place).filter_map(SourceTable::shape).any(|shape| shape.expires_at.is_some());
            warnings.extend(other_expiry(answer.time_to_live_description(), &view.marks, expires));
        }
        Err(error) => warnings.push(not_seen("which attribute its TTL looks at (dynamodb:DescribeTimeToLive)", &error)),
    }
    for warning in warnings {
        tracing::warn!(table, "{warning}");
    }
}

fn not_seen<E: ProvideErrorMetadata>(what: &str, error: &SdkError<E>) -> String {
    let code = error.code().unwrap_or("no answer that can be read");
    format!("the view's table does not tell {what}: {code}")
}

/// A warning if the item is none that the definitions of these tables make.
fn other_shape<'t, T: Iterator<Item = &'t SourceTable>>(
    item: &HashMap<String, AttributeValue>,
    schema: &TableSchema,
    marks: &Marks,
    tables: impl Fn() -> T,
) -> Option<String> {
    if !item.contains_key(&marks.ts_ns) {
        return Some(format!(
            "the view's table has an item without {}: it was filled under other marks, or by something else. Such an item looks as if \
             nothing stood there, so an older change could replace it. Other marks take a new view table",
            marks.ts_ns
        ));
    }
    let begins = |attribute: Option<&KeyAttribute>, prefix: &str| {
        let text = attribute.and_then(|attribute| item.get(&attribute.name)?.as_s().ok());
        prefix.is_empty() || text.is_some_and(|text| text.starts_with(prefix))
    };
    let is_made = |table: &SourceTable| {
        let (partition, sort) = table.key_prefixes();
        begins(Some(&schema.partition), &partition) && begins(schema.sort.as_ref(), &sort)
    };
    (!tables().any(is_made)).then(|| {
        "the view's table has an item with a key that no definition makes: it was filled under another key, or from a table that is not \
         defined any more. Another key takes a new view table"
            .to_owned()
    })
}

/// A warning if TTL does not remove items at the time that the view gives them.
fn other_expiry(ttl: Option<&TimeToLiveDescription>, marks: &Marks, expires: bool) -> Option<String> {
    let is_on = |ttl: &&TimeToLiveDescription| {
        matches!(ttl.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
    };
    let wanted = &marks.expires_at;
    match ttl.filter(is_on).and_then(TimeToLiveDescription::attribute_name) {
        Some(found) if found == wanted => None,
        Some(found) => Some(format!(
            "TTL of the view's table looks at {found}, and the view writes {wanted}: expired items stay, and an item may go before its \
             time. Set TTL to {wanted}"
        )),
        None if expires => Some(format!(
            "TTL of the view's table is off, so rows with expires_at stay: turn it on for the attribute {wanted}"
        )),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::source_tables::SourceTables;

    #[test]
    fn an_item_that_no_definition_makes_is_told() {
        let tables: SourceTables = "users(id)".parse().unwrap();
        let (schema, marks) = (TableSchema::with_partition_key("pk"), Marks::default());
        for (key, mark, expected) in [
            ("public.users#1", "_ts_ns", None),
            ("public.users#1", "__ts_ns", Some("without _ts_ns")),
            ("public.users", "_ts_ns", Some("a key that no definition makes")),
            ("USER#1", "_ts_ns", Some("a key that no definition makes")),
        ] {
            let item = HashMap::from([
                ("pk".to_owned(), AttributeValue::S(key.to_owned())),
                (mark.to_owned(), AttributeValue::N("1".to_owned())),
            ]);
            let found = other_shape(&item, &schema, &marks, || tables.of_view(0));
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }

    #[test]
    fn a_ttl_that_does_not_remove_what_the_view_lets_go_is_told() {
        let of = |attribute: &str, status: TimeToLiveStatus| {
            TimeToLiveDescription::builder().attribute_name(attribute).time_to_live_status(status).build()
        };
        for (ttl, expires, expected) in [
            (Some(of("_expires_at", TimeToLiveStatus::Enabled)), true, None),
            (Some(of("_expires_at", TimeToLiveStatus::Enabling)), true, None),
            (Some(of("ttl", TimeToLiveStatus::Enabled)), false, Some("looks at ttl")),
            (Some(of("_expires_at", TimeToLiveStatus::Disabled)), true, Some("is off")),
            (Some(of("_expires_at", TimeToLiveStatus::Disabled)), false, None),
            (None, true, Some("is off")),
            (None, false, None),
        ] {
            let found = other_expiry(ttl.as_ref(), &Marks::default(), expires);
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }
}
