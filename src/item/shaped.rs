//! A row in the shape that its table's definition gives it.
//!
//! The definition names columns by their places, so a row is read once into these places. Keys, conditions, columns and
//! index attributes are then made from them.
//!
//! Invariants: pure; a column that the definition leaves out or hashes stands nowhere else in the item.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::value::RawValue;

use crate::definitions::shape::{Column, Placement, Shape, Unlisted};
use crate::definitions::types::Stands;
use crate::item::filter::{self, Shown, Undecided};
use crate::item::key::ItemKey;
use crate::item::notes::Notes;
use crate::item::schema::TableSchema;
use crate::item::templates::{self, AttributeText, KeyFault};
use crate::item::typed::{self, HashKey, Typed};
use crate::item::values;
use crate::record::json;

/// The values of a row, or those of a deleted row's key.
pub(crate) struct ShapedRow<'s, 'a> {
    shape: &'s Shape,
    /// The value of each of the shape's columns, as far as the row has it.
    values: Vec<Option<&'a RawValue>>,
    /// The other columns, in the order of the record.
    unlisted: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'s, 'a> ShapedRow<'s, 'a> {
    /// Reads a row, or `None` if the JSON is no object.
    pub(crate) fn read(shape: &'s Shape, row: &'a RawValue) -> Option<Self> {
        let mut values = vec![None; shape.columns.len()];
        let mut unlisted = Vec::new();
        let read = json::for_each_member(row, |column, value| {
            match shape.places.get(&*column) {
                // If a name stands there twice, its last value counts, as in most JSON parsers.
                Some(place) => values[*place] = Some(value),
                None => unlisted.push((column, value)),
            }
            Ok::<_, ()>(())
        });
        read.is_ok().then_some(Self { shape, values, unlisted })
    }

    /// Whether the view shows the row. See [`filter::decide`].
    pub(crate) fn shown(&self, nulls_are_there: bool, deleted: bool) -> Result<Shown, Undecided> {
        if self.shape.rows.is_empty() {
            return Ok(Shown::Inside);
        }
        filter::decide(self.shape, &self.values, nulls_are_there, deleted)
    }

    /// The values of the primary key's columns, in key order.
    pub(crate) fn key_values(&self, columns: usize) -> Vec<Option<&'a RawValue>> {
        let mut key = vec![None; columns];
        for (column, value) in self.shape.columns.iter().zip(&self.values) {
            if let Some(place) = column.in_key.and_then(|place| key.get_mut(place)) {
                *place = *value;
            }
        }
        key
    }

    /// The key by the definition's templates, if it has any.
    pub(crate) fn key(&self, view: usize, schema: &TableSchema) -> Option<Result<ItemKey, KeyFault>> {
        let templates = self.shape.key.as_ref()?;
        let text = |template, is_number| templates::key_attribute(template, self.shape, &self.values, is_number);
        let sort_is_number = schema.sort.as_ref().is_some_and(|sort| sort.is_number);
        let key = text(&templates.partition, schema.partition.is_number).and_then(|partition| {
            let sort = templates.sort.as_ref().map(|sort| text(sort, sort_is_number)).transpose()?;
            Ok(ItemKey { view, partition, sort })
        });
        Some(key)
    }

    /// The attributes of the row's item, without the view's own. `check_name` checks the name of a column that the
    /// definition does not name.
    ///
    /// # Errors
    /// The first error of `check_name`.
    pub(crate) fn attributes<E>(
        &self,
        schema: &TableSchema,
        hash_key: Option<&HashKey>,
        notes: &mut Notes,
        check_name: impl Fn(&str) -> Result<(), E>,
    ) -> Result<HashMap<String, AttributeValue>, E> {
        // Room for the columns of a usual row, index attributes and the view's own attributes.
        let mut attributes = HashMap::with_capacity(self.shape.columns.len().max(14));
        let mut groups: Vec<HashMap<String, AttributeValue>> = vec![HashMap::new(); self.shape.groups.len()];
        for (column, json) in self.shape.columns.iter().zip(&self.values) {
            let Some(json) = json else { continue };
            let (level, name, to) = match &column.placement {
                Placement::LeftOut => continue,
                // The key has it already.
                Placement::Attribute(name) if schema.key_names().any(|key| key == name) => continue,
                Placement::Attribute(name) => (1, name, &mut attributes),
                Placement::Group(place, name) => (2, name, &mut groups[*place]),
            };
            if let Some(value) = value(column, json, level, hash_key, notes) {
                to.insert(name.clone(), value);
            }
        }
        let groups = self.shape.groups.iter().zip(groups).filter(|(_, members)| !members.is_empty());
        attributes.extend(groups.map(|(name, members)| (name.clone(), AttributeValue::M(members))));
        self.add_unlisted(&mut attributes, notes, check_name)?;
        for (name, template) in &self.shape.attributes {
            match templates::attribute(template, self.shape, &self.values, schema.indexes.wanted(name)) {
                AttributeText::Value(value) => drop(attributes.insert(name.clone(), value)),
                AttributeText::Absent => {}
                AttributeText::Unusable => notes.left_out.push(name.clone()),
            }
        }
        Ok(attributes)
    }

    /// Whether the item has the columns that the definition does not name.
    fn unlisted_stand(&self) -> bool {
        matches!(self.shape.unlisted, Unlisted::Stands | Unlisted::StandsCounted)
    }

    fn add_unlisted<E>(
        &self,
        attributes: &mut HashMap<String, AttributeValue>,
        notes: &mut Notes,
        check_name: impl Fn(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        for (column, json) in &self.unlisted {
            if matches!(self.shape.unlisted, Unlisted::StandsCounted | Unlisted::LeftOutCounted) {
                notes.unlisted.push(column.clone().into_owned());
            }
            if !self.unlisted_stand() {
                continue;
            }
            check_name(column)?;
            let values::Column { value, as_text } = values::column(json);
            notes.as_text += usize::from(as_text);
            match value {
                Some(value) => attributes.insert(column.clone().into_owned(), value),
                None => attributes.remove(&**column),
            };
        }
        Ok(())
    }

    /// When the row may go, in seconds since the epoch, if its column tells a time.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        typed::expiry_seconds(self.values[self.shape.expires_at?]?)
    }

    /// The attributes that may move to objects, with their JSON text: all but those of the key's columns, hashes, and the
    /// keys of indexes.
    pub(crate) fn movable(
        &self,
        schema: &TableSchema,
        attributes: &HashMap<String, AttributeValue>,
    ) -> Vec<(String, Cow<'a, str>)> {
        let mut movable: HashMap<&str, Cow<'a, str>> = HashMap::new();
        for (column, json) in self.shape.columns.iter().zip(&self.values) {
            if let (Placement::Attribute(name), None, false, Some(json)) =
                (&column.placement, column.in_key, column.hashed, json)
            {
                movable.insert(name, json_text(column, json, 1));
            }
        }
        for (place, name) in self.shape.groups.iter().enumerate() {
            if let Some(json) = self.group_json(place, attributes.get(name)) {
                movable.insert(name, json.into());
            }
        }
        if self.unlisted_stand() {
            movable.extend(self.unlisted.iter().map(|(column, json)| (&**column, Cow::Borrowed(json.get()))));
        }
        for (name, _) in &self.shape.attributes {
            if let Some(AttributeValue::S(text)) = attributes.get(name) {
                movable.insert(name, serde_json::Value::from(text.as_str()).to_string().into());
            }
        }
        movable.retain(|name, _| attributes.contains_key(*name) && schema.indexes.wanted(name).is_none());
        movable.into_iter().map(|(name, json)| (name.to_owned(), json)).collect()
    }

    /// The JSON text of a group, with the members that the item has. `None` if it has a member of the key, or a hash.
    fn group_json(&self, group: usize, attribute: Option<&AttributeValue>) -> Option<String> {
        let Some(AttributeValue::M(there)) = attribute else { return None };
        let mut members = Vec::with_capacity(there.len());
        for (column, json) in self.shape.columns.iter().zip(&self.values) {
            if let (Placement::Group(place, name), Some(json)) = (&column.placement, json)
                && *place == group
                && there.contains_key(name)
            {
                if column.in_key.is_some() || column.hashed {
                    return None;
                }
                members.push(format!("{}:{}", serde_json::Value::from(name.as_str()), json_text(column, json, 2)));
            }
        }
        Some(format!("{{{}}}", members.join(",")))
    }
}

/// The attribute value of a column; `None` for null.
fn value(
    column: &Column,
    json: &RawValue,
    level: usize,
    hash_key: Option<&HashKey>,
    notes: &mut Notes,
) -> Option<AttributeValue> {
    if column.hashed {
        return hash_key?.hex(json, column.kind).map(AttributeValue::S);
    }
    let Typed { value, as_text, unfit } = typed::column(json, column.kind, column.stands, level);
    notes.as_text += usize::from(as_text);
    if unfit {
        notes.unfit.push(column.name.clone());
    }
    value
}

/// The JSON text of a column that moves, from this level of nesting: that of the record, or that of the document in it.
fn json_text<'a>(column: &Column, json: &'a RawValue, level: usize) -> Cow<'a, str> {
    if column.stands == Stands::Document
        && json.get().starts_with('"')
        && !typed::column(json, column.kind, column.stands, level).unfit
        && let Ok(text) = json::unquoted(json)
    {
        return text;
    }
    Cow::Borrowed(json.get())
}
