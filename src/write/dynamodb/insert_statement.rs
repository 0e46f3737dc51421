//! The PartiQL statement that creates an item if nothing stands at its key.
//!
//! Invariants: pure; values are parameters, never text.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::item::values;

/// DynamoDB's limit for the text of a statement, in characters.
const LONGEST_STATEMENT: usize = 8192;

/// The largest item that is created along with others. A full request of such items is no larger than a request with
/// one item of the largest size.
const LARGEST_CREATE: usize = values::LARGEST_ITEM / crate::write::creates::MOST_TOGETHER;

/// Whether a statement can create the item along with others.
pub fn is_possible<'n>(
    table: &str,
    key_attributes: impl Iterator<Item = &'n str>,
    attributes: &'n HashMap<String, AttributeValue>,
) -> bool {
    let key_attributes: Vec<&str> = key_attributes.collect();
    let names = || attributes.keys().map(String::as_str).chain(key_attributes.iter().copied());
    longest(table, names()) <= LONGEST_STATEMENT
        && names().all(is_plain)
        && values::item_size(attributes) <= LARGEST_CREATE
}

/// The most bytes that a statement with these names can have. It never has more characters than bytes.
fn longest<'n>(table: &str, names: impl Iterator<Item = &'n str>) -> usize {
    const AROUND: usize = "INSERT INTO \"\" VALUE {}".len();
    const AROUND_NAME: usize = "'': ?, ".len();
    // The worst case: each character is a quotation mark, which is written twice.
    AROUND + 2 * table.len() + names.map(|name| AROUND_NAME + 2 * name.len()).sum::<usize>()
}

/// Whether PartiQL certainly takes the name as it stands. No documentation says whether DynamoDB knows escapes.
fn is_plain(name: &str) -> bool {
    !name.contains(|next: char| next == '\\' || next.is_control())
}

/// The statement that creates an item if nothing stands at its key, and its parameters.
pub fn insert<'n>(
    table: &str,
    key: impl Iterator<Item = (&'n str, AttributeValue)>,
    attributes: HashMap<String, AttributeValue>,
) -> (String, Vec<AttributeValue>) {
    let mut text = String::with_capacity(64 + 24 * attributes.len());
    text.push_str("INSERT INTO ");
    quote(&mut text, '"', table);
    text.push_str(" VALUE {");
    let mut parameters = Vec::with_capacity(attributes.len() + 2);
    let key = key.map(|(name, value)| (Cow::Borrowed(name), value));
    for (name, value) in key.chain(attributes.into_iter().map(|(name, value)| (Cow::Owned(name), value))) {
        if !parameters.is_empty() {
            text.push_str(", ");
        }
        quote(&mut text, '\'', &name);
        text.push_str(": ?");
        parameters.push(value);
    }
    text.push('}');
    (text, parameters)
}

fn quote(text: &mut String, mark: char, name: &str) {
    text.push(mark);
    for next in name.chars() {
        text.push(next);
        if next == mark {
            text.push(mark);
        }
    }
    text.push(mark);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> HashMap<String, AttributeValue> {
        names.iter().map(|name| ((*name).to_owned(), AttributeValue::Bool(true))).collect()
    }

    #[test]
    fn names_are_quoted_and_values_are_parameters() {
        for (table, key, column, expected) in [
            ("view", "pk", "name", r#"INSERT INTO "view" VALUE {'pk': ?, 'name': ?}"#),
            ("my.view-2_b", "_key", "it's", r#"INSERT INTO "my.view-2_b" VALUE {'_key': ?, 'it''s': ?}"#),
            (r#"a"b"#, "'", r#"a""b"#, r#"INSERT INTO "a""b" VALUE {'''': ?, 'a""b': ?}"#),
            ("view", "pk", "?', 'é😀 {}", r#"INSERT INTO "view" VALUE {'pk': ?, '?'', ''é😀 {}': ?}"#),
        ] {
            let value = AttributeValue::S("'?\"".to_owned());
            let attributes = HashMap::from([(column.to_owned(), value.clone())]);
            assert!(is_possible(table, [key].into_iter(), &attributes), "{column}");
            let (text, parameters) =
                insert(table, [(key, AttributeValue::S("k'1".to_owned()))].into_iter(), attributes);
            assert_eq!(text, expected);
            assert_eq!(parameters, [AttributeValue::S("k'1".to_owned()), value]);
        }
    }

    #[test]
    fn each_parameter_stands_where_its_name_does() {
        let columns: Vec<String> = (0..40).map(|column| format!("c{column}")).collect();
        let attributes = columns.iter().map(|column| (column.clone(), AttributeValue::S(column.clone()))).collect();
        let (text, parameters) = insert("view", [("pk", AttributeValue::S("pk".to_owned()))].into_iter(), attributes);
        let named = text.split('\'').skip(1).step_by(2).map(|name| AttributeValue::S(name.to_owned()));
        assert_eq!(named.collect::<Vec<_>>(), parameters);
        assert_eq!(parameters.len(), 41);
    }

    #[test]
    fn no_statement_is_longer_than_dynamodb_takes() {
        // The frame has 23 bytes, the marks around each name 7, and each byte of a name counts twice.
        assert_eq!(longest("view", ["pk", "it's"].into_iter()), 23 + 8 + 7 + 4 + 7 + 8);
        let most = (LONGEST_STATEMENT - longest("view", ["pk", ""].into_iter())) / 2;
        for mark in ["'", "x", "\""] {
            assert!(is_possible("view", ["pk"].into_iter(), &names(&[&mark.repeat(most)])));
            assert!(!is_possible("view", ["pk"].into_iter(), &names(&[&mark.repeat(most + 1)])));
            let (text, _) =
                insert("view", [("pk", AttributeValue::S(String::new()))].into_iter(), names(&[&mark.repeat(most)]));
            assert!(text.len() <= LONGEST_STATEMENT, "{}", text.len());
        }
        assert!(!is_possible(&"t".repeat(LONGEST_STATEMENT), ["pk"].into_iter(), &names(&["a"])));
    }

    #[test]
    fn a_large_item_and_a_name_that_escapes_may_hide_in_are_put_by_themselves() {
        let text = |bytes: usize| HashMap::from([("a".to_owned(), AttributeValue::S("x".repeat(bytes)))]);
        // 16 KiB, including the column's name.
        assert!(is_possible("view", ["pk"].into_iter(), &text(16_383)));
        assert!(!is_possible("view", ["pk"].into_iter(), &text(16_384)));
        for name in ["a\\", "\\u0041", "a\nb", "\u{0}", "\u{85}"] {
            assert!(!is_possible("view", ["pk"].into_iter(), &names(&[name])), "{name:?}");
        }
    }
}
