//! The key of an item: one that names a row of a table, and no other row.
//!
//! Without a template, the key is one string. It reads `<schema>.<table>#<key 1>#<key 2>…`. Two characters would be read as structure, and are written as in
//! URLs: `%` as `%25` and `#` as `%23`. In the names of the schema and the table, `.` is written as `%2E` too.
//!
//! Invariant: two different rows never share a key. Within a table the columns and their types are fixed, so `#` alone
//! separates the columns in a key's text.

use std::fmt;

use crate::definitions::source_tables::push_escaped;

/// DynamoDB's limit for a partition key, in bytes of UTF-8.
pub const LONGEST_KEY: usize = 2048;

/// DynamoDB's limit for a sort key, in bytes of UTF-8.
pub const LONGEST_SORT_KEY: usize = 1024;

/// The key of an item, in one of the view's tables. Two keys are equal only if they are of one row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemKey {
    /// The place of the view table among those of the function.
    pub view: usize,
    /// The text of the partition key; digits if that has the type N.
    pub partition: String,
    /// The text of the sort key, if the table has one.
    pub sort: Option<String>,
}

impl ItemKey {
    /// Its bytes, without the names of the attributes.
    pub fn len(&self) -> usize {
        self.partition.len() + self.sort.as_ref().map_or(0, String::len)
    }

    /// Whether it has no bytes. No key of the view is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<String> for ItemKey {
    /// The key with this partition key, in the function's first view table, which has no sort key.
    fn from(partition: String) -> Self {
        Self { view: 0, partition, sort: None }
    }
}

impl From<&str> for ItemKey {
    fn from(partition: &str) -> Self {
        partition.to_owned().into()
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.partition)?;
        self.sort.iter().try_for_each(|sort| write!(f, " / {sort}"))
    }
}

/// Appends the next key column, whose value has the text `value` before it is escaped.
pub(crate) fn push_value(key: &mut String, value: &str) {
    key.push('#');
    push_escaped(key, value, &['%', '#']);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::definitions::source_tables::prefix;

    fn compose(schema: &str, table: &str, values: &[&str]) -> String {
        let mut key = prefix(schema, table);
        for value in values {
            push_value(&mut key, value);
        }
        key
    }

    #[test]
    fn keys_are_written_as_documented() {
        for (schema, table, values, key) in [
            ("public", "users", &["42"][..], "public.users#42"),
            ("public", "order_items", &["1001", "42"][..], "public.order_items#1001#42"),
            ("Sales", "Order Lines", &["a#b", "50%"][..], "Sales.Order Lines#a%23b#50%25"),
            ("a.b", "c#d%", &["x.y"][..], "a%2Eb.c%23d%25#x.y"),
            ("public", "t", &["", ""][..], "public.t##"),
            ("public", "t", &["grün#", "%2E"][..], "public.t#grün%23#%252E"),
        ] {
            assert_eq!(compose(schema, table, values), key);
        }
    }

    /// A row: its schema, its table and the values of its key. They use few characters, so that two rows often look
    /// alike.
    fn row() -> impl Strategy<Value = (String, String, Vec<String>)> {
        ("[%#.2a]{1,3}", "[%#.5a]{1,3}", proptest::collection::vec("[%#.235Ea]{0,4}", 1..3))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn two_rows_share_a_key_only_if_they_are_the_same(a in row(), b in row()) {
            let key = |(schema, table, values): &(String, String, Vec<String>)| {
                compose(schema, table, &values.iter().map(String::as_str).collect::<Vec<_>>())
            };
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }

        #[test]
        fn a_key_tells_its_row(row in row()) {
            let (schema, table, values) = &row;
            let key = compose(schema, table, &values.iter().map(String::as_str).collect::<Vec<_>>());
            let plain = |text: &str| text.replace("%2E", ".").replace("%23", "#").replace("%25", "%");
            let mut parts = key.split('#');
            let (found_schema, found_table) = parts.next().and_then(|name| name.split_once('.')).unwrap();
            let found = (plain(found_schema), plain(found_table), parts.map(plain).collect::<Vec<_>>());
            prop_assert_eq!(found, row);
        }
    }
}
