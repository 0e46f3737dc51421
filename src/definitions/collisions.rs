//! Keys of two tables that could meet in one view table.
//!
//! Invariants: pure; two tables are apart if, in the partition key or in the sort key, neither's text before its first
//! placeholder begins with the other's; if any two tables of a view table are not apart, some sentence says so, and each
//! table but the first of those that meet is named. The time grows with the number of tables times the logarithm, not
//! with that of their pairs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::definitions::source_tables::{SourceTable, SourceTables};

/// The text with which the keys of a table's items begin.
struct Prefix<'a> {
    table: &'a SourceTable,
    partition: Cow<'a, str>,
    sort: &'a str,
}

impl<'a> Prefix<'a> {
    fn of(table: &'a SourceTable) -> Self {
        let Some(key) = table.shape().and_then(|shape| shape.key.as_ref()) else {
            return Self { table, partition: Cow::Owned(format!("{}#", table.key_prefix())), sort: "" };
        };
        let sort = key.sort.as_ref().map(|sort| sort.prefix()).unwrap_or_default();
        Self { table, partition: Cow::Borrowed(key.partition.prefix()), sort }
    }
}

/// One sentence for each table whose keys could meet those of another one in the same view table. Each table must have
/// its [`SourceTable::view_place`].
pub fn collisions(tables: &SourceTables) -> Vec<String> {
    let mut prefixes: Vec<Prefix<'_>> = tables.iter().map(Prefix::of).collect();
    prefixes.sort_by(|a, b| {
        let place = a.table.view_place().cmp(&b.table.view_place());
        let key = place.then_with(|| a.partition.cmp(&b.partition)).then_with(|| a.sort.cmp(b.sort));
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
            if let Some(of_sort) = by_sort.get_mut(prefixes[last].sort) {
                of_sort.pop();
                if of_sort.is_empty() {
                    by_sort.remove(prefixes[last].sort);
                }
            }
        }
        if let Some(other) = comparable(&by_sort, prefix.sort) {
            meetings.push((other, place));
        }
        enclosing.push(place);
        by_sort.entry(prefix.sort).or_default().push(place);
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
            example(a)
        );
    }
    let role = |role, a: &str, b: &str| format!("{role} with {} and {}", quoted(a), quoted(b));
    let mut begin = role("pk", &a.partition, &b.partition);
    if !a.sort.is_empty() || !b.sort.is_empty() {
        begin = format!("{begin}, {}", role("sk", a.sort, b.sort));
    }
    format!(
        "the keys of {other} and of {table} could meet {view}: they begin {begin}; begin pk or sk with texts of which neither begins with the other, such as {} and {}",
        quoted(&example(a)),
        quoted(&example(b))
    )
}

/// A text with which a table's key can begin.
fn example(prefix: &Prefix<'_>) -> String {
    format!("{}#", prefix.table.name().to_uppercase())
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
