//! The values that the indexes of the view's table take. A value that an index refuses must not cost the row.
//!
//! DynamoDB refuses a whole item if an index's key attribute has another type than the index, is empty, or is too long.
//! Without that attribute, DynamoDB takes the item and leaves it out of that index alone.
//!
//! Invariants: pure; the attributes that order and guard an item are never left out.

use std::collections::{HashMap, HashSet};

use aws_sdk_dynamodb::types::{
    AttributeValue, GlobalSecondaryIndexDescription, KeySchemaElement, KeyType, LocalSecondaryIndexDescription,
    ScalarAttributeType, TableDescription,
};

use crate::definitions::marks::Marks;
use crate::item::values;

/// DynamoDB's limits for the key of an index, in bytes. All attributes of a partition key share one limit, and so do
/// those of a sort key.
const LONGEST_PARTITION_KEY: usize = 2048;
const LONGEST_SORT_KEY: usize = 1024;

/// The attributes that an item never loses. Without them it would have no order, or would look like a row that it is
/// not.
fn needed(marks: &Marks) -> [&str; 4] {
    [&marks.ts_ns, &marks.deleted, &marks.expires_at, &marks.overflow]
}

/// The key attributes of a table's indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes {
    types: HashMap<String, ScalarAttributeType>,
    keys: HashSet<IndexKey>,
}

/// The key of an index: the attributes of its partition key, and those of its sort key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct IndexKey {
    partition: Vec<String>,
    sort: Vec<String>,
}

impl Indexes {
    /// The indexes of the table, including those that are being made or removed.
    pub fn of(table: &TableDescription) -> Self {
        let schemas = table.global_secondary_indexes().iter().map(GlobalSecondaryIndexDescription::key_schema);
        let schemas =
            schemas.chain(table.local_secondary_indexes().iter().map(LocalSecondaryIndexDescription::key_schema));
        let keys: HashSet<IndexKey> = schemas.map(IndexKey::of).collect();
        let named = |name: &str| keys.iter().flat_map(IndexKey::attributes).any(|attribute| attribute == name);
        let types = table.attribute_definitions().iter().filter(|definition| named(definition.attribute_name()));
        let types = types
            .map(|definition| (definition.attribute_name().to_owned(), definition.attribute_type().clone()))
            .collect();
        Self { types, keys }
    }

    /// Removes each value that an index would refuse from an item's `attributes`, and returns their names. `key` has
    /// the names and the texts of the item's key in the table, which stays.
    pub fn leave_out(
        &self,
        marks: &Marks,
        key: &[(&str, &str)],
        attributes: &mut HashMap<String, AttributeValue>,
    ) -> Vec<String> {
        if self.types.is_empty() {
            return Vec::new();
        }
        let of_key = |name: &str| key.iter().find(|(known, _)| *known == name);
        let needed = needed(marks);
        let may_go = |name: &str| of_key(name).is_none() && !needed.contains(&name);
        let mut left_out = Vec::new();
        for (name, wanted) in self.types.iter().filter(|(name, _)| may_go(name)) {
            if attributes.get(name).is_some_and(|value| !has_type(value, wanted)) {
                attributes.remove(name);
                left_out.push(name.clone());
            }
        }
        for index in &self.keys {
            for (names, most_bytes) in [(&index.partition, LONGEST_PARTITION_KEY), (&index.sort, LONGEST_SORT_KEY)] {
                let size = |name: &str, attributes: &HashMap<String, AttributeValue>| {
                    of_key(name).map_or_else(|| attributes.get(name).map_or(0, values::size), |(_, text)| text.len())
                };
                while names.iter().map(|name| size(name, attributes)).sum::<usize>() > most_bytes {
                    let removable = |name: &&String| may_go(name) && attributes.contains_key(*name);
                    let longest = names.iter().filter(removable).max_by_key(|name| size(name, attributes));
                    // If the table's key alone is too long, the removal of any other key attribute takes the item out
                    // of the index. That is needed only while the item has all of them.
                    let is_there = |name: &String| of_key(name).is_some() || attributes.contains_key(name);
                    let other = || index.attributes().find(removable).filter(|_| index.attributes().all(is_there));
                    let Some(name) = longest.or_else(other).cloned() else { break };
                    attributes.remove(&name);
                    left_out.push(name);
                }
            }
        }
        left_out
    }

    /// The view's own attributes for which an index wants a type that they never have, each with that type. With such
    /// an index, DynamoDB would refuse each item.
    pub fn impossible<'m>(&self, marks: &'m Marks) -> Vec<(&'m str, &str)> {
        let wanted = |name: &'m str| Some((name, self.types.get(name)?));
        let is_number = |name: &str| name == marks.ts_ns || name == marks.expires_at;
        let never =
            |(name, wanted): &(&str, &ScalarAttributeType)| !is_number(name) || **wanted != ScalarAttributeType::N;
        needed(marks)
            .into_iter()
            .filter_map(wanted)
            .filter(never)
            .map(|(name, wanted)| (name, wanted.as_str()))
            .collect()
    }

    /// The type that an index wants for an attribute, if an index names it.
    pub fn wanted(&self, attribute: &str) -> Option<&str> {
        self.types.get(attribute).map(ScalarAttributeType::as_str)
    }
}

impl IndexKey {
    fn of(schema: &[KeySchemaElement]) -> Self {
        let of_kind = |kind: KeyType| {
            let attributes = schema.iter().filter(|element| *element.key_type() == kind);
            attributes.map(|element| element.attribute_name().to_owned()).collect()
        };
        Self { partition: of_kind(KeyType::Hash), sort: of_kind(KeyType::Range) }
    }

    fn attributes(&self) -> impl Iterator<Item = &String> {
        self.partition.iter().chain(&self.sort)
    }
}

/// Whether an index that wants this type takes the value, unless it is too long.
fn has_type(value: &AttributeValue, wanted: &ScalarAttributeType) -> bool {
    match value {
        AttributeValue::S(text) => *wanted == ScalarAttributeType::S && !text.is_empty(),
        AttributeValue::N(_) => *wanted == ScalarAttributeType::N,
        AttributeValue::B(bytes) => *wanted == ScalarAttributeType::B && !bytes.as_ref().is_empty(),
        // No other type can be a key.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::primitives::Blob;
    use aws_sdk_dynamodb::types::AttributeDefinition;

    use super::*;

    fn indexes(definitions: &[(&str, ScalarAttributeType)], keys: &[&[(&str, KeyType)]]) -> Indexes {
        let definition = |(name, kind): &(&str, ScalarAttributeType)| {
            AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone()).build().unwrap()
        };
        let element = |(name, kind): &(&str, KeyType)| {
            KeySchemaElement::builder().attribute_name(*name).key_type(kind.clone()).build().unwrap()
        };
        let index = |key: &&[(&str, KeyType)]| {
            let schema = key.iter().map(element).collect();
            GlobalSecondaryIndexDescription::builder().set_key_schema(Some(schema)).build()
        };
        let table = TableDescription::builder()
            .set_attribute_definitions(Some(definitions.iter().map(definition).collect()))
            .set_global_secondary_indexes(Some(keys.iter().map(index).collect()));
        Indexes::of(&table.build())
    }

    fn s(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn b(bytes: &[u8]) -> AttributeValue {
        AttributeValue::B(Blob::new(bytes))
    }

    fn n(digits: &str) -> AttributeValue {
        AttributeValue::N(digits.to_owned())
    }

    #[test]
    fn a_value_that_an_index_refuses_is_left_out_and_no_other() {
        use KeyType::{Hash, Range};
        use ScalarAttributeType::{B, N, S};
        let indexes = indexes(
            &[("_key", S), ("name", S), ("age", N), ("raw", B), ("unused", N)],
            &[&[("name", Hash), ("age", Range)], &[("age", Hash), ("name", Range)], &[("raw", Hash)]],
        );
        for (name, value, left_out) in [
            ("name", s("Ada"), false),
            ("name", s(""), true),
            ("name", n("1"), true),
            ("name", AttributeValue::Bool(true), true),
            ("name", AttributeValue::L(Vec::new()), true),
            // It is a sort key in one of the indexes.
            ("name", s(&"x".repeat(1024)), false),
            ("name", s(&"x".repeat(1025)), true),
            ("age", n("36"), false),
            ("age", s("NaN"), true),
            ("raw", s("AA=="), true),
            ("raw", b(&[0]), false),
            ("raw", b(&[]), true),
            ("raw", b(&[0; 2048]), false),
            ("raw", b(&[0; 2049]), true),
            ("name", b(&[0]), true),
            ("age", b(&[0]), true),
            ("unused", s("of no index"), false),
            ("other", s(""), false),
        ] {
            let mut item = HashMap::from([(name.to_owned(), value.clone())]);
            let expected = if left_out { vec![name.to_owned()] } else { Vec::new() };
            assert_eq!(
                indexes.leave_out(&Marks::default(), &[("_key", "k")], &mut item),
                expected,
                "{name}: {value:?}"
            );
            assert_eq!(item.contains_key(name), !left_out, "{name}: {value:?}");
        }
    }

    #[test]
    fn the_attributes_of_one_key_share_its_limit() {
        use KeyType::Hash;
        use ScalarAttributeType::S;
        let indexes = indexes(&[("a", S), ("b", S)], &[&[("a", Hash), ("b", Hash)]]);
        for (a, b, expected) in [(1000, 1048, &[][..]), (1000, 1049, &["b"]), (2049, 2050, &["b", "a"])] {
            let text = |length: usize| s(&"x".repeat(length));
            let mut item = HashMap::from([("a".to_owned(), text(a)), ("b".to_owned(), text(b))]);
            assert_eq!(indexes.leave_out(&Marks::default(), &[("_key", "k")], &mut item), expected, "{a} and {b}");
        }
    }

    #[test]
    fn where_the_table_s_own_key_is_too_long_for_an_index_another_attribute_is_left_out() {
        use KeyType::{Hash, Range};
        use ScalarAttributeType::S;
        let by_status = [("status", Hash), ("_key", Range)];
        let indexes = indexes(&[("_key", S), ("status", S), ("other", S)], &[&by_status]);
        for (length, expected) in [(1024, &[][..]), (1025, &["status"])] {
            let key = "k".repeat(length);
            let mut item = HashMap::from(["status", "other"].map(|name| (name.to_owned(), s("new"))));
            assert_eq!(indexes.leave_out(&Marks::default(), &[("_key", &key)], &mut item), expected, "{length}");
            assert!(item.contains_key("other"));
            // An item without a status is not in the index, so nothing is left out.
            assert_eq!(indexes.leave_out(&Marks::default(), &[("_key", &key)], &mut HashMap::new()), [""; 0]);
        }
    }

    #[test]
    fn attributes_that_order_and_guard_an_item_are_never_left_out() {
        use KeyType::Hash;
        use ScalarAttributeType::{N, S};
        let right = indexes(&[("_ts_ns", N), ("_expires_at", N)], &[&[("_ts_ns", Hash)], &[("_expires_at", Hash)]]);
        assert_eq!(right.impossible(&Marks::default()), []);
        let wrong = indexes(&[("_ts_ns", S), ("_deleted", S)], &[&[("_ts_ns", Hash)], &[("_deleted", Hash)]]);
        assert_eq!(wrong.impossible(&Marks::default()), [("_ts_ns", "S"), ("_deleted", "S")]);
        let tombstone =
            HashMap::from([("_ts_ns".to_owned(), n("1")), ("_deleted".to_owned(), AttributeValue::Bool(true))]);
        assert_eq!(wrong.leave_out(&Marks::default(), &[("_key", "k")], &mut tombstone.clone()), [""; 0]);
    }
}
