//! What DynamoDB tells of a table of the view: the attributes of its key, and its indexes.

use std::collections::HashMap;
use std::fmt;

use aws_sdk_dynamodb::types::{AttributeValue, KeyType, ScalarAttributeType, TableDescription};

use crate::definitions::shape::{Column, Placement, Shape};
use crate::definitions::source_tables::SourceTable;
use crate::definitions::types::ColumnType;
use crate::item::indexes::Indexes;
use crate::item::key::ItemKey;

/// The most problems in one message. One mistake can concern thousands of source tables.
const MOST_PROBLEMS: usize = 20;

/// A table of the view, as DynamoDB described it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// The attribute of the partition key.
    pub partition: KeyAttribute,
    /// The attribute of the sort key, if there is one.
    pub sort: Option<KeyAttribute>,
    /// The indexes.
    pub indexes: Indexes,
}

/// An attribute of a table's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttribute {
    /// Its name.
    pub name: String,
    /// Whether it has the type N; if not, it has the type S.
    pub is_number: bool,
}

impl KeyAttribute {
    /// A key attribute of type S.
    pub fn text(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_number: false }
    }

    /// The attribute's value, from its text.
    pub fn value(&self, text: String) -> AttributeValue {
        if self.is_number { AttributeValue::N(text) } else { AttributeValue::S(text) }
    }
}

impl fmt::Display for KeyAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of type {}", self.name, if self.is_number { "N" } else { "S" })
    }
}

impl TableSchema {
    /// A table with a partition key of type S, without a sort key and without indexes.
    pub fn with_partition_key(name: impl Into<String>) -> Self {
        Self { partition: KeyAttribute::text(name), sort: None, indexes: Indexes::default() }
    }

    /// The schema in DynamoDB's description of a table.
    ///
    /// # Errors
    /// A key attribute has a type that no key of the view has. The error describes the key that was found.
    pub fn of(table: &TableDescription) -> Result<Self, String> {
        let defined = table.attribute_definitions().iter();
        let types: HashMap<_, _> = defined.map(|known| (known.attribute_name(), known.attribute_type())).collect();
        let (mut partition, mut sort, mut found, mut fits) = (None, None, Vec::new(), true);
        for key in table.key_schema() {
            let name = key.attribute_name();
            let kind = types.get(name).copied();
            let (role, place) = match key.key_type() {
                KeyType::Hash => ("partition key", &mut partition),
                _ => ("sort key", &mut sort),
            };
            found.push(format!("the {role} {name} of type {}", kind.map_or("unknown", ScalarAttributeType::as_str)));
            fits &= matches!(kind, Some(ScalarAttributeType::S | ScalarAttributeType::N));
            *place = Some(KeyAttribute { name: name.to_owned(), is_number: kind == Some(&ScalarAttributeType::N) });
        }
        match partition {
            Some(partition) if fits => Ok(Self { partition, sort, indexes: Indexes::of(table) }),
            _ if found.is_empty() => Err("no key".to_owned()),
            _ => Err(found.join(" and ")),
        }
    }

    /// The key in words, for messages.
    pub fn key_in_words(&self) -> String {
        let sort = self.sort.as_ref().map_or_else(String::new, |sort| format!(" and the sort key {sort}"));
        format!("the partition key {}{sort}", self.partition)
    }

    /// The names of the key's attributes.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        [Some(&self.partition), self.sort.as_ref()].into_iter().flatten().map(|key| key.name.as_str())
    }

    /// The attributes of a key, with their values.
    pub fn key_values(&self, key: ItemKey) -> impl Iterator<Item = (&str, AttributeValue)> {
        let sort = self.sort.as_ref().zip(key.sort).map(|(sort, text)| (sort.name.as_str(), sort.value(text)));
        [(self.partition.name.as_str(), self.partition.value(key.partition))].into_iter().chain(sort)
    }

    /// Checks that the rows of these source tables fit into the table. `overflow` is the name of the mark for moved
    /// columns, if columns can move.
    ///
    /// # Errors
    /// Everything that does not fit, in one text.
    pub fn takes_all<'t>(
        &self,
        tables: impl Iterator<Item = &'t SourceTable>,
        overflow: Option<&str>,
    ) -> Result<(), String> {
        let mut problems: Vec<String> = tables.flat_map(|table| self.misfits(table, overflow)).collect();
        problems.sort();
        // Tables with one problem have the same text.
        problems.dedup();
        let more = problems.len().saturating_sub(MOST_PROBLEMS);
        problems.truncate(MOST_PROBLEMS);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    fn misfits(&self, table: &SourceTable, overflow: Option<&str>) -> Vec<String> {
        let mut problems = Vec::new();
        let templates = table.shape().and_then(|shape| Some((shape, shape.key.as_ref()?)));
        let Some((shape, key)) = templates else {
            if self.sort.is_some() || self.partition.is_number {
                problems.push(format!(
                    "expected a partition key of type S and no sort key, found {}; create a table with such a key, or give its source \
                     tables a key in views.toml",
                    self.key_in_words()
                ));
            }
            if let Some(shape) = table.shape() {
                problems.extend(named_as_key(table, shape, &self.partition, None));
                return problems;
            }
            if let Some(column) = table.primary_key().iter().find(|column| **column == self.partition.name) {
                problems.push(format!(
                    "the key column {column} of {table} has the name of the view table's partition key, so that no row of it could be \
                     stored; use a view table whose partition key has a name that no column has"
                ));
            }
            if let Some(overflow) = overflow.filter(|name| table.primary_key().iter().any(|column| column == name)) {
                problems.push(format!(
                    "the key column {overflow} of {table} has the name that the view keeps for itself where OBJECTS_BUCKET is set; rename \
                     the column"
                ));
            }
            return problems;
        };
        match (&self.sort, &key.sort) {
            (None, Some(_)) => problems.push(format!(
                "{table} has a template for a sort key, and the table has {} alone; remove sk from its key, or create a table with a sort \
                 key",
                self.key_in_words()
            )),
            (Some(sort), None) => problems.push(format!(
                "{table} has no template for the sort key {sort}; add sk to its key, or create a table without a sort key"
            )),
            _ => {}
        }
        let roles = [(Some(&self.partition), Some(&key.partition)), (self.sort.as_ref(), key.sort.as_ref())];
        for (attribute, template) in roles.into_iter().filter_map(|(attribute, template)| attribute.zip(template)) {
            let lone = template.lone();
            let is_number = lone.is_some_and(|lone| {
                lone.pad.is_none() && shape.columns[lone.column].kind.is_none_or(ColumnType::can_be_number)
            });
            if attribute.is_number && !is_number {
                problems.push(format!(
                    "the key attribute {attribute} takes the template of one column with numbers alone, such as {{id}}, and {table} has \
                     another one"
                ));
            }
            problems.extend(named_as_key(table, shape, attribute, lone.map(|lone| lone.column)));
        }
        problems
    }
}

/// The attributes of a table's items that have the name of this key attribute, other than the column of which the key's
/// template consists.
fn named_as_key(table: &SourceTable, shape: &Shape, attribute: &KeyAttribute, of_key: Option<usize>) -> Vec<String> {
    let name = &attribute.name;
    let is_named = |column: &Column| matches!(&column.placement, Placement::Attribute(placed) if placed == name);
    let columns = shape.columns.iter().enumerate();
    let columns = columns.filter(|(place, column)| Some(*place) != of_key && is_named(column));
    let made = shape.attributes.iter().map(|(made, _)| made).chain(&shape.groups).filter(|made| *made == name);
    let named = columns.map(|(_, column)| &column.name).chain(made);
    let message = |found| {
        format!(
            "{table} puts {found} into an attribute with the name of the key attribute {name}; rename it, or leave it out"
        )
    };
    named.map(message).collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{AttributeDefinition, KeySchemaElement};

    use super::*;
    use crate::definitions::file;

    /// The problem of a source table whose definition has these lines, in a view table with this key.
    fn problem(partition: (&str, bool), sort: Option<&str>, lines: &str) -> String {
        let file = format!(
            "version = 1\n[[table]]\nname = \"t\"\nprimary_key = [\"id\"]\n\
             columns = {{ id = \"bigint\", name = \"text\" }}\n{lines}"
        );
        let tables = file::read("views.toml", file.as_bytes()).unwrap_or_else(|faults| panic!("{faults}")).tables;
        let schema = TableSchema {
            partition: KeyAttribute { name: partition.0.to_owned(), is_number: partition.1 },
            sort: sort.map(KeyAttribute::text),
            indexes: Indexes::default(),
        };
        schema.takes_all(tables.iter(), Some("_overflow")).err().unwrap_or_default()
    }

    #[test]
    fn a_table_takes_the_keys_and_names_that_fit_and_no_others() {
        let (text, number) = (("pk", false), ("pk", true));
        let lone = "key = { pk = \"{id}\" }";
        let named = |lines: &str| format!("{lone}\n{lines}");
        for (partition, sort, lines, expected) in [
            (text, None, String::new(), ""),
            (text, None, lone.to_owned(), ""),
            (number, None, lone.to_owned(), ""),
            (("id", true), None, lone.to_owned(), ""),
            (("id", false), None, "except = [\"id\"]".to_owned(), ""),
            (("name", false), None, named("rename = { name = \"fullName\" }"), ""),
            (number, None, String::new(), "expected a partition key of type S and no sort key"),
            (text, Some("sk"), String::new(), "expected a partition key of type S and no sort key"),
            (
                number,
                None,
                "key = { pk = \"T#{id}\" }".to_owned(),
                "takes the template of one column with numbers alone",
            ),
            (
                number,
                None,
                "key = { pk = \"{id:04}\" }".to_owned(),
                "takes the template of one column with numbers alone",
            ),
            (text, None, "key = { pk = \"T\", sk = \"{id}\" }".to_owned(), "has a template for a sort key"),
            (text, Some("sk"), lone.to_owned(), "has no template for the sort key sk of type S"),
            (text, Some("sk"), "key = { pk = \"T\", sk = \"{id}\" }".to_owned(), ""),
            (("id", false), None, String::new(), "puts id into an attribute with the name of the key attribute id"),
            (("id", false), None, "key = { pk = \"T#{id}\" }".to_owned(), "puts id into an attribute"),
            (("name", false), None, named(""), "puts name into an attribute"),
            (("made", false), None, named("attributes = { made = \"{name}\" }"), "puts made into an attribute"),
            (("made", false), None, named("group = { made = [\"name\"] }"), "puts made into an attribute"),
        ] {
            let problem = problem(partition, sort, &lines);
            let is_expected = problem.contains(expected) && problem.is_empty() == expected.is_empty();
            assert!(is_expected, "{partition:?} {sort:?} {lines}: {problem:?}");
        }
    }

    #[test]
    fn a_key_has_attributes_of_type_s_or_n() {
        use KeyType::{Hash, Range};
        use ScalarAttributeType::{B, N, S};
        let sorted = "the partition key id of type N and the sort key sk of type S";
        for (keys, expected) in [
            (&[("pk", Hash, S)][..], Ok("the partition key pk of type S")),
            (&[("sk", Range, S), ("id", Hash, N)], Ok(sorted)),
            (&[("id", Hash, N), ("sk", Range, S)], Ok(sorted)),
            (&[("id", Hash, B)], Err("the partition key id of type B")),
            (
                &[("id", Hash, S), ("raw", Range, B)],
                Err("the partition key id of type S and the sort key raw of type B"),
            ),
            (
                &[("raw", Range, B), ("id", Hash, S)],
                Err("the sort key raw of type B and the partition key id of type S"),
            ),
            (&[], Err("no key")),
        ] {
            let mut table = TableDescription::builder();
            for (name, role, of_type) in keys {
                let element = KeySchemaElement::builder().attribute_name(*name).key_type(role.clone()).build();
                let defined = AttributeDefinition::builder().attribute_name(*name).attribute_type(of_type.clone());
                table = table.key_schema(element.unwrap()).attribute_definitions(defined.build().unwrap());
            }
            let found = TableSchema::of(&table.build()).map(|schema| schema.key_in_words());
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
        }
    }

    #[test]
    fn a_key_stands_in_its_attributes() {
        let number = KeyAttribute { name: "id".to_owned(), is_number: true };
        let mut schema = TableSchema { sort: Some(number), ..TableSchema::with_partition_key("pk") };
        let key = ItemKey { view: 0, partition: "T#1".to_owned(), sort: Some("7".to_owned()) };
        let (text, number) = (AttributeValue::S("T#1".to_owned()), AttributeValue::N("7".to_owned()));
        assert_eq!(schema.key_values(key.clone()).collect::<Vec<_>>(), [("pk", text.clone()), ("id", number)]);
        schema.sort = None;
        assert_eq!(schema.key_values("T#1".into()).collect::<Vec<_>>(), [("pk", text)]);
        assert_eq!((key.to_string(), key.len(), key.is_empty()), ("T#1 / 7".to_owned(), 4, false));
    }

    #[test]
    fn a_key_column_may_have_the_name_of_the_mark_for_moved_columns_only_if_none_can_move() {
        let schema = TableSchema::with_partition_key("pk");
        for (column, overflow, expected) in
            [("_overflow", Some("_overflow"), true), ("_overflow", None, false), ("id", Some("_overflow"), false)]
        {
            let table = SourceTable::new("public".to_owned(), "t".to_owned(), vec![column.to_owned()]);
            let problem = schema.takes_all([&table].into_iter(), overflow).err();
            assert_eq!(problem.is_some_and(|problem| problem.contains("rename the column")), expected, "{column}");
        }
    }

    #[test]
    fn of_many_problems_a_message_names_some() {
        let tables: Vec<SourceTable> = (0..30)
            .map(|number| SourceTable::new("public".to_owned(), format!("t{number}"), vec!["pk".to_owned()]))
            .collect();
        let problem = TableSchema::with_partition_key("pk").takes_all(tables.iter(), None).unwrap_err();
        assert_eq!(problem.matches("has the name of the view table's partition key").count(), 20);
        assert!(problem.ends_with("and 10 more"), "{problem}");
    }
}
