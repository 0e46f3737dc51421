//! The columns of a table, as far as its definition names them.
//!
//! Invariants: each column stands once; those of the primary key come first, in key order; in a table that lists its
//! columns, every other name is a fault.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::definitions::file::column_types::{Defaults, Kind, read_as, read_type};
use crate::definitions::file::faults::{Faults, listed};
use crate::definitions::file::reading::{KEYS, Value, Written, kind_of, members, start, text, unknown_key};
use crate::definitions::types::{ColumnType, Stands};

/// A column that a definition names.
#[derive(Debug)]
pub(super) struct Named<'a> {
    pub name: &'a str,
    /// Where the file names it first.
    pub at: usize,
    pub kind: Option<Kind<'a>>,
    pub stands: Stands,
    pub hashed: bool,
}

/// The columns that a definition names.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    /// Whether the table lists its columns.
    pub listed: bool,
    /// How many columns the primary key has.
    pub key: usize,
    pub all: Vec<Named<'a>>,
    places: BTreeMap<&'a str, usize>,
}

impl<'a> Columns<'a> {
    /// The columns of a primary key, in key order.
    pub(super) fn of_key(primary_key: &[Written<'a>]) -> Self {
        let mut columns = Self { listed: false, key: primary_key.len(), all: Vec::new(), places: BTreeMap::new() };
        for name in primary_key {
            columns.add(*name, None, Stands::AsInRecord);
        }
        columns
    }

    /// Reads the list of columns.
    pub(super) fn read(&mut self, table: &'a DeTable<'a>, defaults: &Defaults, faults: &mut Faults<'a>) {
        self.listed = true;
        let mut in_list = vec![false; self.key];
        for (name, value) in members(table) {
            let (kind, stands) = typed(name, value, defaults, faults);
            match self.places.get(name.text) {
                Some(place) => {
                    in_list[*place] = true;
                    let column = &mut self.all[*place];
                    (column.at, column.kind, column.stands) = (name.at, kind, stands);
                }
                None => self.add(name, kind, stands),
            }
        }
        for (place, _) in in_list.iter().enumerate().filter(|(_, listed)| !**listed) {
            let Named { name, at, .. } = self.all[place];
            let others = self.all[self.key..].iter().map(|column| column.name);
            let instead = match faults.nearest(name, others) {
                Some(near) => format!("write \"{near}\", or add {name} to columns with its type"),
                None => "add it to columns with its type".to_owned(),
            };
            faults.add(at, format!("primary_key names {name}, which columns does not list: {instead}"));
        }
    }

    fn add(&mut self, name: Written<'a>, kind: Option<Kind<'a>>, stands: Stands) {
        self.places.insert(name.text, self.all.len());
        self.all.push(Named { name: name.text, at: name.at, kind, stands, hashed: false });
    }

    /// The place of a column that `what` names.
    pub(super) fn place(&mut self, name: Written<'a>, what: &str, faults: &mut Faults<'a>) -> Option<usize> {
        let place = self.places.get(name.text).copied();
        if place.is_some() {
            return place;
        }
        if name.text.is_empty() {
            faults.add(name.at, format!("{what} names a column without a name: write its name"));
            return None;
        }
        if self.listed {
            let instead = match faults.nearest(name.text, self.all.iter().map(|column| column.name)) {
                Some(near) => format!("write \"{near}\", or add the column to columns with its type"),
                None => "add it to columns with its type, or remove it here".to_owned(),
            };
            let message = format!("{what} names {}, which columns does not list: {instead}", name.quoted());
            faults.add(name.at, message);
            return None;
        }
        self.add(name, None, Stands::AsInRecord);
        Some(self.all.len() - 1)
    }

    /// The place of a column, if the definition has named it so far.
    pub(super) fn known(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// The names of the primary key, in a sentence.
    pub(super) fn key_names(&self) -> String {
        listed(self.all[..self.key].iter().map(|column| column.name), "and")
    }

    /// A column's type, if the definition tells.
    pub(super) fn column_type(&self, place: usize) -> Option<ColumnType> {
        self.all[place].kind.map(|kind| kind.column_type)
    }
}

/// Reads the type of a column, and how it stands.
fn typed<'a>(
    name: Written<'a>,
    value: &'a Value<'a>,
    defaults: &Defaults,
    faults: &mut Faults<'a>,
) -> (Option<Kind<'a>>, Stands) {
    let (of_type, of_as) = match value.get_ref() {
        DeValue::String(_) => (Some(value), None),
        DeValue::Table(table) => {
            for (key, _) in members(table) {
                if !["type", "as"].contains(&key.text) {
                    unknown_key(faults, key, "a column", &["type", "as"]);
                }
            }
            if !table.contains_key("type") {
                let message =
                    format!("the column {} has no type: write {{ type = \"timestamptz\", … }}", name.quoted());
                faults.add(start(value), message);
            }
            (table.get("type"), table.get("as"))
        }
        _ => {
            let hint =
                if KEYS.contains(&name.text) { "; a key of the table must stand above [table.columns]" } else { "" };
            let kind = kind_of(value);
            let name = name.text;
            faults.add(
                start(value),
                format!("the column {name} is {kind}: write its type, as in {name} = \"text\"{hint}"),
            );
            (None, None)
        }
    };
    let example = format!("{} = \"text\"", name.text);
    let of_type = of_type.and_then(|value| text(faults, "the type", value, &example));
    let kind = of_type.and_then(|written| read_type(written, faults));
    let stands = of_as.and_then(|value| {
        let written = text(faults, "as", value, "{ type = \"timestamptz\", as = \"iso8601\" }")?;
        kind.and_then(|kind| read_as(written, kind, faults))
    });
    let stands = stands.or_else(|| kind.map(|kind| defaults.of(kind))).unwrap_or_default();
    (kind, stands)
}
