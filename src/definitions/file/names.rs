//! The names of an item's attributes.
//!
//! Invariant: no two attributes of an item have one name, and none has that of an attribute that the view keeps.

use crate::definitions::file::faults::{Faults, quoted};
use crate::definitions::marks::Marks;

/// What an attribute is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner<'a> {
    /// A column under its own name.
    Column,
    /// A column under another name.
    Renamed(&'a str),
    /// A group.
    Group,
    /// An index attribute.
    Attribute,
}

impl Owner<'_> {
    fn shown(self, name: &str) -> String {
        match self {
            Self::Column => format!("the column {name}"),
            Self::Renamed(column) => format!("the renamed column {column}"),
            Self::Group => format!("the group {name}"),
            Self::Attribute => format!("the index attribute {name}"),
        }
    }
}

/// An attribute of an item, or a member of a group: its name, what it is, and its place in the file.
pub(super) type Name<'a> = (&'a str, Owner<'a>, usize);

/// Checks the names of an item's attributes. The later of two with one name is the fault.
pub(super) fn attributes<'a>(attributes: impl Iterator<Item = Name<'a>>, marks: &Marks, faults: &mut Faults<'_>) {
    let attributes: Vec<Name<'a>> = attributes.collect();
    for (name, owner, at) in &attributes {
        reserved(name, *owner, *at, marks, faults);
    }
    for (name, owner, other, at) in twice(attributes) {
        let way_out = match other {
            Owner::Column => format!("choose another name, or leave the column {name} out of the item by except"),
            _ => "choose another name for one of them".to_owned(),
        };
        let (this, other) = (owner.shown(name), other.shown(name));
        faults.add(at, format!("{this} and {other} would be one attribute, {}: {way_out}", quoted(name)));
    }
}

/// Checks the names of a group's members.
pub(super) fn members<'a>(members: impl Iterator<Item = Name<'a>>, group: &str, faults: &mut Faults<'_>) {
    for (name, owner, other, at) in twice(members.collect()) {
        let (this, other) = (owner.shown(name), other.shown(name));
        let message = format!(
            "{this} and {other} would be one member of the group {group}, {}: choose another name for one of them",
            quoted(name)
        );
        faults.add(at, message);
    }
}

/// The names that are there twice, each with both owners and the place of the later one.
fn twice(mut names: Vec<Name<'_>>) -> Vec<(&str, Owner<'_>, Owner<'_>, usize)> {
    // The order of equal names stays.
    names.sort_by_key(|(name, ..)| *name);
    let pairs = names.windows(2).filter_map(|pair| match pair {
        // An empty name is a fault already.
        [(a, other, _), (b, owner, at)] if a == b && !a.is_empty() => Some((*b, *owner, *other, *at)),
        _ => None,
    });
    pairs.collect()
}

/// Checks that an attribute has no name that the view keeps.
pub(super) fn reserved(name: &str, owner: Owner<'_>, at: usize, marks: &Marks, faults: &mut Faults<'_>) {
    let Marks { ts_ns, tx_id, deleted, expires_at, overflow } = marks;
    if ![ts_ns, tx_id, deleted, expires_at, overflow].iter().any(|mark| *mark == name) {
        return;
    }
    let prefix = if ts_ns.starts_with("__") { "view_" } else { "__" };
    let way_out = match owner {
        Owner::Column => "rename it, leave it out by except",
        _ => "choose another name",
    };
    let shown = owner.shown(name);
    let message = format!(
        "{shown} would be the attribute {name}, which the view keeps for itself: {way_out}, or give the view's attributes another prefix: [marks] prefix = \"{prefix}\""
    );
    faults.add(at, message);
}
