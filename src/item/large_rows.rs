//! Rows over DynamoDB's 400 KB: which columns move to objects, and where these objects are.
//!
//! `overflow/<schema>.<table>/<hash of the key>/<ts_ns>/<attribute>` holds a column's JSON text. The item's mark
//! [`Marks::overflow`] names each moved attribute with its `s3://` address. The objects of a table with a view table of
//! its own are in `overflow/<schema>.<table>/<view>/`. A change has the same objects however often it is delivered.
//!
//! Invariants: pure; key columns never move; an item that leaves this module fits, even with the mark of [`mark`].

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use crate::bucket::segment;
use crate::definitions::marks::Marks;
use crate::hash::hash;
use crate::item::key::ItemKey;
use crate::item::values::{self, LARGEST_ITEM};
use crate::record::order::CommitTimestamp;
use aws_sdk_dynamodb::types::AttributeValue;

/// The bytes that [`mark`] adds to an item: the attribute's name, and an empty map.
fn size_of_mark(marks: &Marks) -> usize {
    marks.overflow.len() + 3
}

/// The largest item that is written as it is, with room for the mark.
pub fn largest_whole_item(marks: &Marks) -> usize {
    LARGEST_ITEM - size_of_mark(marks)
}

/// A column that is in an object instead of the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedColumn {
    /// The object's key.
    pub object: String,
    /// The column's value, as the JSON text that the record has.
    pub json: String,
}

/// The folder of all objects of the row with this key, whatever their commit. `of_table` is the table's folder.
pub fn folder(of_table: &str, key: &ItemKey) -> String {
    let hash = match &key.sort {
        None => hash(key.partition.as_bytes()),
        // The length tells where the one ends and the other begins.
        Some(sort) => hash(format!("{} {}{sort}", key.partition.len(), key.partition).as_bytes()),
    };
    format!("{of_table}{hash}/")
}

/// The object of a column, as a commit left it.
fn object(folder: &str, committed: CommitTimestamp, column: &str) -> String {
    format!("{folder}{committed}/{}", segment(column))
}

/// The commit that an object in a row's folder belongs to.
pub fn commit_of(folder: &str, object: &str) -> Option<CommitTimestamp> {
    let (commit, _) = object.strip_prefix(folder)?.split_once('/')?;
    commit.parse().ok().and_then(CommitTimestamp::from_nanoseconds)
}

/// Moves the largest of the `movable` columns out of a row's `attributes`, until the item fits. `movable` gives each
/// column with its JSON text, and `bytes` is the size of the item.
///
/// # Errors
/// The item is still too large, and moving another column would not make it smaller. The error is the bytes that are
/// left.
pub fn move_columns(
    bucket: &str,
    folder: &str,
    marks: &Marks,
    committed: CommitTimestamp,
    mut movable: Vec<(String, Cow<'_, str>)>,
    attributes: &mut HashMap<String, AttributeValue>,
    mut bytes: usize,
) -> Result<Vec<MovedColumn>, usize> {
    let stored = |attributes: &HashMap<_, _>, column: &str| attributes.get(column).map_or(0, values::size);
    // Columns of one size move in the order of their names, so that a change has the same objects at each delivery.
    movable.sort_by_cached_key(|(column, _)| (Reverse(stored(attributes, column) + column.len()), column.clone()));

    let mut moved = Vec::new();
    let mut addresses = HashMap::new();
    bytes += size_of_mark(marks);
    for (column, json) in movable {
        if bytes <= LARGEST_ITEM {
            break;
        }
        let object = object(folder, committed, &column);
        let address = format!("s3://{bucket}/{object}");
        let (saved, added) = (column.len() + stored(attributes, &column), 1 + column.len() + address.len());
        // If a name needs many escapes, its address can be longer than the column. The next column may still save
        // bytes.
        if saved <= added {
            continue;
        }
        bytes = bytes + added - saved;
        attributes.remove(&column);
        moved.push(MovedColumn { object, json: json.into_owned() });
        addresses.insert(column, AttributeValue::S(address));
    }
    if bytes > LARGEST_ITEM {
        return Err(bytes);
    }
    attributes.insert(marks.overflow.clone(), AttributeValue::M(addresses));
    Ok(moved)
}

/// Marks an item that replaces one with moved columns: the objects of those columns must still be retired.
pub fn mark(marks: &Marks, attributes: &mut HashMap<String, AttributeValue>) {
    attributes.insert(marks.overflow.clone(), AttributeValue::M(HashMap::new()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(nanoseconds: u64) -> CommitTimestamp {
        CommitTimestamp::from_nanoseconds(nanoseconds).unwrap()
    }

    #[test]
    fn an_object_s_key_tells_its_row_and_its_commit() {
        let of_table = |key: &str| folder("overflow/public.users/", &key.to_owned().into());
        let row = of_table("public.users#7");
        assert!(row.starts_with("overflow/public.users/") && row.ends_with('/'), "{row}");
        assert_eq!(row.len(), "overflow/public.users/".len() + 64 + 1);
        assert_ne!(row, of_table("public.users#8"));
        let sorted = |partition: &str, sort: &str| {
            let key = ItemKey { view: 0, partition: partition.to_owned(), sort: Some(sort.to_owned()) };
            folder("overflow/public.users/", &key)
        };
        let all = [sorted("a", "bc"), sorted("ab", "c"), sorted("abc", ""), of_table("abc")];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());

        let key = object(&row, commit(12), "a/../b");
        assert_eq!(key, format!("{row}12/a%2F%2E%2E%2Fb"));
        assert_eq!(commit_of(&row, &key), Some(commit(12)));
        for other in ["overflow/x/12/a".to_owned(), format!("{row}12"), format!("{row}a/b"), format!("{row}0/b")] {
            assert_eq!(commit_of(&row, &other), None, "{other}");
        }
    }

    fn folder_of_a_row() -> String {
        folder("overflow/public.t/", &"public.t#1".to_owned().into())
    }

    /// The names of the columns that move out of a row with text columns of these lengths, or the bytes that are left.
    fn moved(columns: &[(&str, usize)]) -> Result<Vec<String>, usize> {
        let text = |bytes: usize| "x".repeat(bytes);
        let mut attributes: HashMap<String, AttributeValue> =
            columns.iter().map(|(name, bytes)| ((*name).to_owned(), AttributeValue::S(text(*bytes)))).collect();
        let bytes = values::item_size(&attributes);
        let movable = columns.iter().map(|(name, bytes)| ((*name).to_owned(), text(*bytes).into())).collect();
        let moved =
            move_columns("b", &folder_of_a_row(), &Marks::default(), commit(1), movable, &mut attributes, bytes)?;
        assert!(values::item_size(&attributes) <= LARGEST_ITEM);
        let AttributeValue::M(addresses) = &attributes["_overflow"] else { panic!("no map") };
        for column in &moved {
            let name = column.object.rsplit_once('/').unwrap().1;
            assert_eq!(addresses[name], AttributeValue::S(format!("s3://b/{}", column.object)));
            assert!(!attributes.contains_key(name));
        }
        assert_eq!(addresses.len(), moved.len());
        Ok(moved.into_iter().map(|column| column.object.rsplit_once('/').unwrap().1.to_owned()).collect())
    }

    #[test]
    fn the_largest_columns_move_and_no_more_than_necessary() {
        assert_eq!(moved(&[("a", 300_000), ("b", 200_000)]), Ok(vec!["a".to_owned()]));
        assert_eq!(moved(&[("a", 500_000), ("b", 450_000), ("c", 9)]), Ok(vec!["a".to_owned(), "b".to_owned()]));
        let small: Vec<(String, usize)> = (0..9_000).map(|place| (format!("column_{place:04}"), 60)).collect();
        let small: Vec<(&str, usize)> = small.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        assert!(matches!(moved(&small), Err(bytes) if bytes > LARGEST_ITEM));
    }

    #[test]
    fn regression_columns_of_one_size_move_by_their_names() {
        let row = [("c", 150_000), ("a", 150_000), ("b", 150_000)];
        for columns in [[0, 1, 2], [2, 1, 0], [1, 2, 0]].map(|order| order.map(|place| row[place])) {
            assert_eq!(moved(&columns), Ok(vec!["a".to_owned()]), "{columns:?}");
        }
    }

    #[test]
    fn regression_a_column_whose_address_is_too_long_does_not_keep_the_others_from_moving() {
        // Each letter of the first name takes six characters in an address. The other columns are as large, but moving
        // one saves some bytes.
        let escaped = "é".repeat(25);
        let plain: Vec<String> = (0..2_000).map(|place| format!("{place:0>50}")).collect();
        let mut columns = vec![(escaped.as_str(), 160)];
        columns.extend(plain.iter().map(|name| (name.as_str(), 160)));
        let moved = moved(&columns).unwrap();
        assert!(!moved.is_empty() && moved.iter().all(|column| plain.contains(column)), "{moved:?}");
    }

    #[test]
    fn a_column_s_name_counts_with_its_value() {
        let small: Vec<String> = (0..(LARGEST_ITEM - 1_700) / 71).map(|place| format!("column_{place:04}")).collect();
        let named = "n".repeat(150);
        for (bytes, first) in [(1_100, named.as_str()), (1_300, "b")] {
            let mut columns: Vec<(&str, usize)> = small.iter().map(|name| (name.as_str(), 60)).collect();
            columns.extend([("b", bytes), (named.as_str(), 1_000)]);
            assert_eq!(moved(&columns), Ok(vec![first.to_owned()]));
        }
    }

    #[test]
    fn columns_move_until_the_item_fits_to_the_byte() {
        let address = format!("s3://b/{}", object(&folder_of_a_row(), commit(1), "a"));
        let beside_b = size_of_mark(&Marks::default()) + 1 + "a".len() + address.len() + "b".len();
        let fits = LARGEST_ITEM - beside_b;
        assert_eq!(moved(&[("a", 500_000), ("b", fits)]), Ok(vec!["a".to_owned()]));
        assert_eq!(moved(&[("a", 500_000), ("b", fits + 1)]), Ok(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn the_mark_takes_the_room_that_is_left_for_it() {
        let mut attributes = HashMap::new();
        let marks = Marks::default();
        mark(&marks, &mut attributes);
        assert_eq!(largest_whole_item(&marks) + values::item_size(&attributes), LARGEST_ITEM);
    }

    #[test]
    fn an_item_that_is_just_too_large_for_its_mark_gives_up_one_column() {
        assert_eq!(moved(&[("a", LARGEST_ITEM - 1)]), Ok(vec!["a".to_owned()]));
    }
}
