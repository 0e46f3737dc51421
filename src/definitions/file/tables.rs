//! One `[[table]]` of a definitions file.
//!
//! Invariant: a table that has a name, a primary key and a view alone has no shape.

use std::collections::{HashMap, HashSet};

use toml::de::{DeTable, DeValue};

use crate::definitions::file::column_types::Defaults;
use crate::definitions::file::columns::Columns;
use crate::definitions::file::faults::Faults;
use crate::definitions::file::names::{self, Owner};
use crate::definitions::file::reading::{
    KEYS, Value, Written, members, start, table, text, texts, unknown_key, wrong_type,
};
use crate::definitions::file::rows::rows;
use crate::definitions::file::templates;
use crate::definitions::marks::Marks;
use crate::definitions::shape::{Column, Placement, Shape, Unlisted};
use crate::definitions::source_tables::{SourceTable, table_name};
use crate::definitions::template::Template;
use crate::definitions::types::ColumnType;

/// What holds of all tables of a file.
pub(super) struct Common {
    pub defaults: Defaults,
    pub marks: Marks,
}

/// A table, and where the file names it.
pub(super) struct Read {
    pub table: SourceTable,
    pub at: usize,
}

/// Reads a table. If it has faults, what it returns is of no use. `None` if nobody knows its name.
pub(super) fn read<'a>(entry: &'a Value<'a>, common: &Common, faults: &mut Faults<'a>) -> Option<Read> {
    let entry_table = table(faults, "an entry of table", entry, "each table as [[table]]")?;
    let name = entry_table.get("name");
    faults.begin_table(name.and_then(|name| name.get_ref().as_str()));
    let named = name.and_then(|value| read_name(value, faults));
    if name.is_none() {
        faults.add(start(entry), "the table has no name: write name = \"public.orders\"");
    }
    for key in entry_table.keys().filter(|key| !KEYS.contains(&key.get_ref().as_ref())) {
        let key = Written::of_key(key);
        if ["version", "types", "marks"].contains(&key.text) {
            let message = format!("{} belongs to the whole file: write it above the first [[table]]", key.text);
            faults.add(key.at, message);
        } else {
            unknown_key(faults, key, "a table", &KEYS);
        }
    }
    let primary_key = entry_table.get("primary_key");
    if primary_key.is_none() {
        let message = "the table has no primary_key: write its columns in key order, as in primary_key = [\"id\"]";
        faults.add(start(entry), message);
    }
    let primary_key = primary_key.and_then(|value| read_primary_key(value, faults));
    let view = entry_table.get("view").and_then(|value| read_view(value, faults));
    let shape = if entry_table.keys().any(|key| !["name", "primary_key", "view"].contains(&key.get_ref().as_ref())) {
        Some(shape(entry_table, primary_key.as_deref(), common, faults))
    } else {
        for column in primary_key.iter().flatten() {
            names::reserved(column.text, Owner::Column, column.at, &common.marks, faults);
        }
        None
    };
    faults.end_table();
    let (schema, name_in_schema) = named?;
    let primary_key = primary_key.unwrap_or_default().iter().map(|column| column.text.to_owned()).collect();
    let table = SourceTable::new(schema, name_in_schema, primary_key).with_definition(view, shape);
    Some(Read { table, at: name.map_or_else(|| start(entry), start) })
}

/// Whether an entry is a table of the same name.
pub(super) fn is_named(entry: &Value<'_>, table: &SourceTable) -> bool {
    let name = entry.get_ref().get("name").and_then(|name| name.get_ref().as_str());
    let name = name.and_then(|name| table_name(name).ok());
    name.is_some_and(|(schema, name)| schema == table.schema() && name == table.name())
}

fn read_name<'a>(value: &'a Value<'a>, faults: &mut Faults<'a>) -> Option<(String, String)> {
    let written = text(faults, "name", value, "name = \"public.orders\"")?;
    match table_name(written.text) {
        Ok(name) => Some(name),
        Err(fault) => {
            faults.add(written.at, format!("the name cannot be read: {fault}"));
            None
        }
    }
}

fn read_primary_key<'a>(value: &'a Value<'a>, faults: &mut Faults<'a>) -> Option<Vec<Written<'a>>> {
    let DeValue::Array(values) = value.get_ref() else {
        wrong_type(faults, "primary_key", value, "primary_key = [\"id\"]");
        return None;
    };
    let columns = texts(faults, "primary_key", value, "primary_key = [\"id\"]")?;
    if values.is_empty() {
        faults.add(start(value), "primary_key is empty: write its columns in key order, as in primary_key = [\"id\"]");
        return None;
    }
    let mut seen = HashSet::new();
    for column in &columns {
        if column.text.is_empty() {
            faults.add(column.at, "primary_key names a column without a name: write its name");
        } else if !seen.insert(column.text) {
            faults.add(column.at, format!("primary_key names {} twice: remove one of the two", column.text));
        }
    }
    (seen.len() == values.len()).then_some(columns)
}

fn read_view<'a>(value: &'a Value<'a>, faults: &mut Faults<'a>) -> Option<String> {
    const LONGEST: usize = 255;
    let written = text(faults, "view", value, "view = \"orders\"")?;
    let fits = |next: char| next.is_ascii_alphanumeric() || "_-.".contains(next);
    if written.text.is_empty() || written.text.len() > LONGEST || !written.text.chars().all(fits) {
        let message = format!(
            "view is {}: write a name of letters, digits, _, - and . alone, as in view = \"orders\"",
            written.quoted()
        );
        faults.add(written.at, message);
        return None;
    }
    Some(written.text.to_owned())
}

/// The columns that an item keeps.
struct Kept {
    /// Whether `places` are the kept ones, or those that are left out.
    only: bool,
    places: HashSet<usize>,
}

impl Kept {
    fn read<'a>(entry: &'a DeTable<'a>, columns: &mut Columns<'a>, faults: &mut Faults<'a>) -> Self {
        let only = entry.contains_key("only");
        if let (true, Some(except)) = (only, entry.get("except")) {
            faults.add(start(except), "the table has only and except: remove one of the two");
        }
        let mut places = HashSet::new();
        for what in ["only", "except"] {
            if let Some(value) = entry.get(what) {
                let of_list = list(value, what, columns, faults);
                // Of two lists, which is a fault, the first counts.
                if only == (what == "only") {
                    places = of_list.into_iter().map(|(_, place)| place).collect();
                }
            }
        }
        Self { only, places }
    }

    fn has(&self, place: usize) -> bool {
        self.places.contains(&place) == self.only
    }

    /// Adds a fault if the item does not keep a column that `what` needs there.
    fn check(&self, name: Written<'_>, place: usize, what: &str, faults: &mut Faults<'_>) {
        if !self.has(place) {
            let reason = if self.only { "only does not name" } else { "except leaves out" };
            faults.add(
                name.at,
                format!("{what} names {}, which {reason}: remove it from {what}, or keep it in the item", name.text),
            );
        }
    }
}

/// A list of columns, each once.
fn list<'a>(
    value: &'a Value<'a>,
    what: &str,
    columns: &mut Columns<'a>,
    faults: &mut Faults<'a>,
) -> Vec<(Written<'a>, usize)> {
    let short = what.rsplit_once('.').map_or(what, |(_, name)| name);
    let names = texts(faults, what, value, &format!("{short} = [\"street\", \"city\"]")).unwrap_or_default();
    let mut seen = HashSet::new();
    let mut places = Vec::with_capacity(names.len());
    for name in names {
        if !seen.insert(name.text) {
            faults.add(name.at, format!("{what} names {} twice: remove one of the two", name.text));
        } else if let Some(place) = columns.place(name, what, faults) {
            places.push((name, place));
        }
    }
    places
}

fn hash<'a>(value: &'a Value<'a>, kept: &Kept, columns: &mut Columns<'a>, faults: &mut Faults<'a>) {
    if !columns.listed {
        let message = "hash needs the list of the table's columns, or a renamed column would show its values: add columns = { email = \"text\", … }";
        faults.add(start(value), message);
    }
    for (name, place) in list(value, "hash", columns, faults) {
        kept.check(name, place, "hash", faults);
        if place < columns.key {
            let message = format!(
                "hash names {}, which belongs to the primary key, and the item's key shows its value: remove it from hash",
                name.text
            );
            faults.add(name.at, message);
        }
        columns.all[place].hashed = true;
    }
}

/// The groups, and the group of each grouped column.
#[derive(Default)]
struct Groups<'a> {
    names: Vec<Written<'a>>,
    of_columns: HashMap<usize, usize>,
}

fn groups<'a>(value: &'a Value<'a>, kept: &Kept, columns: &mut Columns<'a>, faults: &mut Faults<'a>) -> Groups<'a> {
    let mut groups = Groups::default();
    let Some(table) = table(faults, "group", value, "group = { address = [\"street\", \"city\"] }") else {
        return groups;
    };
    for (name, value) in members(table) {
        if name.text.is_empty() {
            faults.add(name.at, "a group has no name: write one, as in group = { address = [\"street\", \"city\"] }");
        }
        let what = format!("group.{}", name.text);
        let of_group = list(value, &what, columns, faults);
        if value.get_ref().as_array().is_some_and(|columns| columns.is_empty()) {
            faults.add(start(value), format!("{what} is empty: write its columns, or remove the group"));
        }
        for (column, place) in of_group {
            kept.check(column, place, &what, faults);
            if let Some(other) = groups.of_columns.insert(place, groups.names.len()) {
                let other = groups.names[other].text;
                faults.add(
                    column.at,
                    format!("{what} names {}, which is in the group {other} too: remove one of the two", column.text),
                );
            }
        }
        groups.names.push(name);
    }
    groups
}

fn renames<'a>(
    value: &'a Value<'a>,
    kept: &Kept,
    columns: &mut Columns<'a>,
    faults: &mut Faults<'a>,
) -> HashMap<usize, Written<'a>> {
    let mut renames = HashMap::new();
    let Some(table) = table(faults, "rename", value, "rename = { placed_at = \"placedAt\" }") else { return renames };
    for (column, value) in members(table) {
        let example = format!("{} = \"newName\"", column.text);
        let to = text(faults, &format!("rename.{}", column.text), value, &example);
        let Some(place) = columns.place(column, "rename", faults) else { continue };
        kept.check(column, place, "rename", faults);
        let Some(to) = to else { continue };
        if to.text.is_empty() {
            faults.add(to.at, format!("the new name of {} is empty: write {example}", column.text));
        }
        renames.insert(place, to);
    }
    renames
}

fn attributes<'a>(
    value: &'a Value<'a>,
    columns: &mut Columns<'a>,
    faults: &mut Faults<'a>,
) -> Vec<(Written<'a>, Template)> {
    let example = "attributes = { GSI1PK = \"CUSTOMER#{customer_id}\" }";
    let Some(table) = table(faults, "attributes", value, example) else { return Vec::new() };
    let mut attributes = Vec::with_capacity(table.len());
    for (name, value) in members(table) {
        if name.text.is_empty() {
            faults.add(name.at, format!("an index attribute has no name: write one, as in {example}"));
        }
        if let Some(template) = templates::attribute(name, value, columns, faults) {
            attributes.push((name, template));
        }
    }
    attributes
}

fn expiry<'a>(value: &'a Value<'a>, columns: &mut Columns<'a>, faults: &mut Faults<'a>) -> Option<usize> {
    let name = text(
        faults,
        "expires_at",
        value,
        "the name of a column of type timestamptz, as in expires_at = \"valid_until\"",
    )?;
    let place = columns.place(name, "expires_at", faults)?;
    let column = &columns.all[place];
    if let Some(kind) = column.kind
        && !matches!(kind.column_type, ColumnType::Timestamp | ColumnType::TimestampTz)
    {
        let message = format!(
            "expires_at names {}, which is {}: name a column of type timestamp or timestamptz",
            name.text, kind.written
        );
        faults.add(name.at, message);
    }
    if column.hashed {
        let message = format!(
            "expires_at names {}, which is hashed, and the expiry would show its value: remove it from hash, or name another column",
            name.text
        );
        faults.add(name.at, message);
    }
    Some(place)
}

fn shape<'a>(
    entry: &'a DeTable<'a>,
    primary_key: Option<&[Written<'a>]>,
    common: &Common,
    faults: &mut Faults<'a>,
) -> Shape {
    let mut columns = Columns::of_key(primary_key.unwrap_or_default());
    if let Some(value) = entry.get("columns") {
        let list = table(faults, "columns", value, "columns = { id = \"uuid\", status = \"text\" }");
        if let Some(list) = list {
            columns.read(list, &common.defaults, faults);
        }
    }
    let kept = Kept::read(entry, &mut columns, faults);
    if let Some(value) = entry.get("hash") {
        hash(value, &kept, &mut columns, faults);
    }
    let groups = entry.get("group").map(|value| groups(value, &kept, &mut columns, faults)).unwrap_or_default();
    let renames = entry.get("rename").map(|value| renames(value, &kept, &mut columns, faults)).unwrap_or_default();
    // Without a primary key, nobody knows which columns a key can have.
    let key = entry.get("key").filter(|_| primary_key.is_some());
    let key = key.and_then(|value| templates::key(value, &mut columns, faults));
    let attributes = entry.get("attributes").map(|value| attributes(value, &mut columns, faults)).unwrap_or_default();
    let rows = entry.get("rows").map(|value| rows(value, &mut columns, faults)).unwrap_or_default();
    let expires_at = entry.get("expires_at").and_then(|value| expiry(value, &mut columns, faults));
    let draft = Draft { columns, kept, groups, renames, attributes };
    draft.check_names(&common.marks, faults);
    let counted = draft.columns.listed;
    let unlisted = match (draft.kept.only || entry.contains_key("hash"), counted) {
        (true, true) => Unlisted::LeftOutCounted,
        (true, false) => Unlisted::LeftOut,
        (false, true) => Unlisted::StandsCounted,
        (false, false) => Unlisted::Stands,
    };
    Shape { unlisted, key, rows, expires_at, ..draft.finish() }
}

/// A table's columns, groups and attributes with their places in the file.
struct Draft<'a> {
    columns: Columns<'a>,
    kept: Kept,
    groups: Groups<'a>,
    renames: HashMap<usize, Written<'a>>,
    attributes: Vec<(Written<'a>, Template)>,
}

impl<'a> Draft<'a> {
    /// The columns that the item keeps and that stand in this group, or in none, with their names there; those under
    /// their own names come first.
    fn names_in(&self, group: Option<usize>) -> impl Iterator<Item = (&'a str, Owner<'a>, usize)> {
        let kept = (0..self.columns.all.len())
            .filter(move |place| self.kept.has(*place) && self.groups.of_columns.get(place).copied() == group);
        let own = kept.clone().filter(|place| !self.renames.contains_key(place)).map(|place| {
            let column = &self.columns.all[place];
            (column.name, Owner::Column, column.at)
        });
        let renamed = kept.filter_map(|place| {
            let to = self.renames.get(&place)?;
            Some((to.text, Owner::Renamed(self.columns.all[place].name), to.at))
        });
        own.chain(renamed)
    }

    /// Checks that no two attributes of the item, and no two members of a group, have one name.
    fn check_names(&self, marks: &Marks, faults: &mut Faults<'_>) {
        let groups = self.groups.names.iter().map(|name| (name.text, Owner::Group, name.at));
        let attributes = self.attributes.iter().map(|(name, _)| (name.text, Owner::Attribute, name.at));
        names::attributes(self.names_in(None).chain(groups).chain(attributes), marks, faults);
        for (group, name) in self.groups.names.iter().enumerate() {
            names::members(self.names_in(Some(group)), name.text, faults);
        }
    }

    /// The shape, as far as columns, groups and attributes make it.
    fn finish(self) -> Shape {
        let Self { columns, kept, groups, renames, attributes } = self;
        let key = columns.key;
        let mut made: HashSet<String> = groups.names.iter().map(|name| name.text.to_owned()).collect();
        made.extend(attributes.iter().map(|(name, _)| name.text.to_owned()));
        let finish = |(place, column): (usize, &super::columns::Named<'_>)| {
            let name = renames.get(&place).map_or(column.name, |to| to.text).to_owned();
            let placement = match groups.of_columns.get(&place) {
                _ if !kept.has(place) => Placement::LeftOut,
                Some(group) => Placement::Group(*group, name),
                None => {
                    if renames.contains_key(&place) {
                        made.insert(name.clone());
                    }
                    Placement::Attribute(name)
                }
            };
            Column {
                name: column.name.to_owned(),
                kind: column.kind.map(|kind| kind.column_type),
                stands: column.stands,
                hashed: column.hashed,
                placement,
                in_key: (place < key).then_some(place),
            }
        };
        let columns: Vec<Column> = columns.all.iter().enumerate().map(finish).collect();
        Shape {
            places: columns.iter().enumerate().map(|(place, column)| (column.name.clone(), place)).collect(),
            columns,
            attributes: attributes.into_iter().map(|(name, template)| (name.text.to_owned(), template)).collect(),
            groups: groups.names.iter().map(|name| name.text.to_owned()).collect(),
            made,
            ..Shape::default()
        }
    }
}
