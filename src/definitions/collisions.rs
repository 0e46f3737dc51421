//! Keys of two tables that could meet in one view table.
//!
//! Two tables are apart if neither's text before its first placeholder begins with the other's. This must hold in the
//! partition key or in the sort key.
//!
//! Invariants: pure; if two tables of a view table are not apart, a sentence names the later one; pairs of tables are not
//! compared one by one, so thousands of tables take milliseconds.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use crate::definitions::source_tables::{SourceTable, SourceTables};

/// The text with which the keys of a table's items begin.
struct Prefix<'a> {
    table: &'a SourceTable,
    partition: Cow<'a, str>,
    sort: Cow<'a, str>,
}

impl<'a> Prefix<'a> {
    fn of(table: &'a SourceTable) -> Self {
        let (partition, sort) = table.key_prefixes();
        Self { table, partition, sort }
    }
}

/// One sentence for each table whose keys could meet those of another one in the same view table. Each table must have
/// its [`SourceTable::view_place`].
pub fn collisions(tables: &SourceTables) -> Vec<String> {
    // Keys without templates never meet one another: a template takes part in each meeting.
    let has_template = |table: &&SourceTable| table.shape().is_some_and(|shape| shape.key.is_some());
    let with_templates: HashSet<usize> = tables.iter().filter(has_template).map(SourceTable::view_place).collect();
    let tables = tables.iter().filter(|table| with_templates.contains(&table.view_place()));
    let mut prefixes: Vec<Prefix<'_>> = tables.map(Prefix::of).collect();
    prefixes.sort_by(|a, b| {
        let place = a.table.view_place().cmp(&b.table.view_place());
        let key = place.then_with(|| a.partition.cmp(&b.partition)).then_with(|| a.sort.cmp(&b.sort));
        key.then_with(|| a.table.key_prefix().cmp(b.table.key_prefix()))
    });
    let mut sentences = Vec::new();
    for of_view in prefixes.chunk_by(|a, b| a.table.view_place() == b.table.view_place()) {
        sentences.extend(meetings(of_view).into_iter().map(|(a, b)| sentence(&of_view[a], &of_view[b])));
    }
    sentences
}

/// Each table that meets an earlier one, after one that it meets. The tables are sorted by their prefixes.
fn meetings(prefixes: &[Prefix<'_>]) -> Vec<(usize, usize)> {
    let mut meetings = Vec::new();
    // The tables before this one with whose partition key that of this one begins, the shortest first.
    let mut enclosing: Vec<usize> = Vec::new();
    // The same tables by their sort keys.
    let mut by_sort: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, prefix) in prefixes.iter().enumerate() {
        while let Some(last) = enclosing.pop_if(|last| !prefix.partition.starts_with(&*prefixes[*last].partition)) {
            if let Some(of_sort) = by_sort.get_mut(&*prefixes[last].sort) {
                of_sort.pop();
                if of_sort.is_empty() {
                    by_sort.remove(&*prefixes[last].sort);
                }
            }
        }
        if let Some(other) = comparable(&by_sort, &prefix.sort) {
            meetings.push((other, place));
        }
        enclosing.push(place);
        by_sort.entry(&prefix.sort).or_default().push(place);
    }
    meetings
}

/// A table whose sort key begins with this text, or with whose sort key this text begins.
fn comparable(by_sort: &BTreeMap<&str, Vec<usize>>, sort: &str) -> Option<usize> {
    let first = |(_, places): (&&str, &Vec<usize>)| places.first().copied();
    let longer = by_sort.range::<str, _>((Bound::Included(sort), Bound::Unbounded)).next();
    if let Some(longer) = longer.filter(|(longer, _)| longer.starts_with(sort)) {
        return first(longer);
    }
    // A text with which this one begins comes before it, and all between the two begin with it.
    let mut bound = sort;
    loop {
        let before = by_sort.range::<str, _>((Bound::Unbounded, Bound::Included(bound))).next_back()?;
        if sort.starts_with(before.0) {
            return first(before);
        }
        let common = before.0.chars().zip(bound.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        bound = &bound[..common];
    }
}

fn sentence(a: &Prefix<'_>, b: &Prefix<'_>) -> String {
    let (table, other) = (b.table.in_sql(), a.table.in_sql());
    let view = match b.table.view() {
        Some(view) => format!("in the view table {view}"),
        None => "in the view table".to_owned(),
    };
    if a.partition.is_empty() && a.sort.is_empty() {
        return format!(
            "the keys of {other} and of {table} could meet {view}: that of {other} begins with a column, so that it can be any text; begin it with a text of its own, such as pk = \"{}{{…}}\"",
            example(a, b)
        );
    }
    let role = |role, a: &str, b: &str| format!("with {} and {} in {role}", quoted(a), quoted(b));
    let mut begin = role("pk", &a.partition, &b.partition);
    if !a.sort.is_empty() || !b.sort.is_empty() {
        begin = format!("{begin}, and {}", role("sk", &a.sort, &b.sort));
    }
    format!(
        "the keys of {other} and of {table} could meet {view}: they begin {begin}; in pk or in sk, begin with texts of which neither begins with the other, such as {} and {}",
        quoted(&example(a, b)),
        quoted(&example(b, a))
    )
}

/// A text with which a table's key can begin, and that of another table cannot.
fn example(of: &Prefix<'_>, other: &Prefix<'_>) -> String {
    let (schema, name) = (of.table.schema(), of.table.name());
    let own = if name == other.table.name() { format!("{schema}.{name}#") } else { format!("{name}#") };
    own.to_uppercase()
}

/// A text in quotation marks, cut if it is long.
fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::definitions::shape::{KeyTemplates, Shape};
    use crate::definitions::template::{Part, Placeholder, Template};

    /// The texts before the first placeholders of pk and sk.
    type Texts<'a> = (&'a str, Option<&'a str>);

    /// Tables with keys that begin with these texts; `None` for the contract's key.
    fn tables(prefixes: &[(&str, Option<Texts<'_>>)]) -> SourceTables {
        let template = |text: &str| Template {
            parts: vec![
                Part::Literal(text.to_owned()),
                Part::Column(Placeholder { column: 0, pad: None, lower: false }),
            ],
        };
        let mut tables = SourceTables::default();
        for (name, key) in prefixes {
            let key =
                key.map(|(partition, sort)| KeyTemplates { partition: template(partition), sort: sort.map(template) });
            let shape = key.map(|key| Shape { key: Some(key), ..Shape::default() });
            let (schema, name) = name.split_once('.').unwrap_or(("public", name));
            let table = SourceTable::new(schema.to_owned(), name.to_owned(), vec!["id".to_owned()]);
            tables.insert(table.with_definition(None, shape)).unwrap();
        }
        tables
    }

    #[test]
    fn keys_that_could_meet_are_named_with_what_to_write() {
        let pk = |text| Some((text, None));
        let both = |partition, sort| Some((partition, Some(sort)));
        for (prefixes, expected) in [
            (&[("a", pk("A#")), ("b", pk("B#")), ("c", None), ("public.d", None)][..], &[][..]),
            (&[("a", both("A#", "X#")), ("b", both("A#", "Y#")), ("c", both("A#", "Z"))], &[]),
            (
                &[("orders", pk("ORDER")), ("order_items", pk("ORDER_ITEM#"))],
                &[
                    "the keys of public.orders and of public.order_items could meet in the view table: they begin with \"ORDER\" and \
                   \"ORDER_ITEM#\" in pk; in pk or in sk, begin with texts of which neither begins with the other, such as \"ORDERS#\" and \
                   \"ORDER_ITEMS#\"",
                ],
            ),
            (
                &[("x.a", both("A", "S")), ("y.a", both("A", "S#"))],
                &[
                    "the keys of x.a and of y.a could meet in the view table: they begin with \"A\" and \"A\" in pk, and with \"S\" and \"S#\" in sk; \
                   in pk or in sk, begin with texts of which neither begins with the other, such as \"X.A#\" and \"Y.A#\"",
                ],
            ),
            (
                &[("a", both("A", "")), ("b", both("A", "S#"))],
                &[
                    "the keys of public.a and of public.b could meet in the view table: they begin with \"A\" and \"A\" in pk, \
                   and with \"\" and \"S#\" in sk;",
                ],
            ),
            (
                &[("a", pk("")), ("b", pk("B#"))],
                &[
                    "the keys of public.a and of public.b could meet in the view table: that of public.a begins with a column, so that it \
                   can be any text; begin it with a text of its own, such as pk = \"A#{…}\"",
                ],
            ),
            (&[("a", pk("public.b#x")), ("b", None)], &["the keys of public.b and of public.a could meet"]),
            (
                &[("a", pk("A#")), ("b", pk("A#")), ("c", pk("A#"))],
                &["the keys of public.a and of public.b", "the keys of public.a and of public.c"],
            ),
        ] {
            let found = collisions(&tables(prefixes));
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{found}\nexpected: {expected}");
            }
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let text = |letters: usize| "é".repeat(letters);
        assert_eq!(quoted(&text(60)), format!("\"{}\"", text(60)));
        assert_eq!(quoted(&text(61)), format!("\"{}…\"", text(60)));
    }

    #[test]
    fn tables_of_different_view_tables_never_meet() {
        let mut tables = tables(&[]);
        for (name, view) in [("a", "one"), ("b", "two"), ("c", "two")] {
            let key = KeyTemplates { partition: Template { parts: vec![Part::Literal("X".to_owned())] }, sort: None };
            let shape = Shape { key: Some(key), ..Shape::default() };
            let table = SourceTable::new("public".to_owned(), name.to_owned(), vec!["id".to_owned()]);
            tables.insert(table.with_definition(Some(view.to_owned()), Some(shape))).unwrap();
        }
        tables.place_views(|view| usize::from(view == Some("two")));
        let found = collisions(&tables);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("the keys of public.b and of public.c could meet in the view table two: "),
            "{found:?}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_table_is_named_if_it_meets_an_earlier_one(
            mut keys in proptest::collection::vec(("[aü]{0,3}", "[abü]{0,3}"), 0..8)
        ) {
            keys.sort();
            let names: Vec<String> = (0..keys.len()).map(|place| format!("t{place}")).collect();
            let all: Vec<_> = names.iter().zip(&keys).map(|(name, (partition, sort))| (name.as_str(), Some((partition.as_str(), Some(sort.as_str()))))).collect();
            let tables = tables(&all);
            let apart = |a: &str, b: &str| !a.starts_with(b) && !b.starts_with(a);
            let meet = |a: &(String, String), b: &(String, String)| !apart(&a.0, &b.0) && !apart(&a.1, &b.1);
            let mut prefixes: Vec<_> = tables.iter().map(Prefix::of).collect();
            prefixes.sort_by_key(|prefix| prefix.table.name()[1..].parse::<usize>().unwrap());
            let found = meetings(&prefixes);
            for (a, b) in &found {
                prop_assert!(a < b && meet(&keys[*a], &keys[*b]));
            }
            let found: Vec<usize> = found.into_iter().map(|(_, later)| later).collect();
            let expected: Vec<usize> = (0..keys.len()).filter(|b| keys[..*b].iter().any(|a| meet(a, &keys[*b]))).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
