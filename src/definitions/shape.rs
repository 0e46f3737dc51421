//! The shape of a source table's items, read from a definitions file and checked.

use std::collections::{HashMap, HashSet};

use crate::definitions::conditions::Condition;
use crate::definitions::template::Template;
use crate::definitions::types::{ColumnType, Stands};

/// The shape of a table's items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    /// The columns that the definition names, wherever it names them. Templates and conditions name a column by its
    /// place here.
    pub columns: Vec<Column>,
    /// The place of each column in `columns`, by its name in the source table.
    pub places: HashMap<String, usize>,
    /// What becomes of a column that the definition does not name.
    pub unlisted: Unlisted,
    /// The templates of the item's key; the contract's key if there are none.
    pub key: Option<KeyTemplates>,
    /// The conditions on which the view shows a row; all must hold.
    pub rows: Vec<Condition>,
    /// The index attributes, with their templates.
    pub attributes: Vec<(String, Template)>,
    /// The names of the groups.
    pub groups: Vec<String>,
    /// The column that says when a row may go.
    pub expires_at: Option<usize>,
    /// The names of attributes that no unlisted column may have: those of index attributes, groups and renamed columns.
    pub made: HashSet<String>,
}

impl Shape {
    /// Whether the view may lack a row that the database has: conditions hide it, or it has expired.
    pub fn may_lack_rows(&self) -> bool {
        let hides = self.rows.iter().any(|condition| self.columns[condition.column].in_key.is_none());
        hides || self.expires_at.is_some()
    }
}

/// The templates of an item's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplates {
    /// Of the partition key.
    pub partition: Template,
    /// Of the sort key.
    pub sort: Option<Template>,
}

/// A column of a source table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name in the source table.
    pub name: String,
    /// Its type, if the definition tells.
    pub kind: Option<ColumnType>,
    /// How its values stand.
    pub stands: Stands,
    /// Whether the item has a hash of its value instead.
    pub hashed: bool,
    /// Where the item has it.
    pub placement: Placement,
    /// Its place in the primary key, if it belongs to that.
    pub in_key: Option<usize>,
}

/// Where an item has a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Nowhere.
    LeftOut,
    /// In an attribute of this name.
    Attribute(String),
    /// In a group, given by its place in [`Shape::groups`], under this name.
    Group(usize, String),
}

/// What becomes of a column that the definition does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unlisted {
    /// It stands as in the record.
    #[default]
    Stands,
    /// It stands as in the record, and is counted: the definition lists the table's columns.
    StandsCounted,
    /// It is left out: the definition names the columns that the item has.
    LeftOut,
    /// It is left out, and counted.
    LeftOutCounted,
}
