//! From a change to the item that the view must hold: its key, its attributes, and DynamoDB's limits for them.
//!
//! Invariants: pure, the time of writing is an argument; an item that leaves this module keeps to DynamoDB's documented
//! limits, if necessary with its largest columns moved to objects; an error names columns, never values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::value::RawValue;

use crate::definitions::marks::Marks;
use crate::definitions::shape::Shape;
use crate::definitions::source_tables::SourceTable;
use crate::item::filter::{Shown, Undecided};
use crate::item::key::{self, ItemKey, LONGEST_KEY, LONGEST_SORT_KEY};
use crate::item::large_rows::{self, MovedColumn};
use crate::item::notes::Notes;
use crate::item::schema::TableSchema;
use crate::item::shaped::ShapedRow;
use crate::item::templates::KeyFault;
use crate::item::typed::{self, HashKey};
use crate::item::values::{self, Column, LARGEST_ITEM, LONGEST_NAME};
use crate::record::change::{ChangeEvent, RowImage};
use crate::record::json;
use crate::record::order::CommitTimestamp;

/// The longest time between the making of an item and its write, with some room for clocks that are a little apart.
const TIME_TO_WRITE: Duration = Duration::from_hours(1);

/// A row or a tombstone, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewItem {
    /// Its key.
    pub key: ItemKey,
    /// The folder of the objects that hold moved columns of its table.
    pub objects_folder: Arc<str>,
    /// The commit that the item shows.
    pub committed: CommitTimestamp,
    /// Whether the record says that the change created the row, see [`ChangeEvent::creates`].
    pub creates: bool,
    /// Whether it is a tombstone.
    pub tombstone: bool,
    /// All attributes but those of the key.
    pub attributes: HashMap<String, AttributeValue>,
    /// The columns that the item only names, because it had no room for them.
    pub moved: Vec<MovedColumn>,
    /// The size of the item, as DynamoDB counts it.
    pub bytes: usize,
    /// Restricts the write to an existing item. Without a guard, the view may hold any older item, or no item.
    pub guard: Option<Guard>,
    /// Facts about the item that are counted and logged.
    pub notes: Notes,
}

impl ViewItem {
    /// An item without any attributes but its key, of a row that this commit left.
    pub fn without_attributes(key: impl Into<ItemKey>, committed: CommitTimestamp) -> Self {
        Self {
            key: key.into(),
            objects_folder: Arc::default(),
            committed,
            creates: false,
            tombstone: false,
            attributes: HashMap::new(),
            moved: Vec::new(),
            bytes: 0,
            guard: None,
            notes: Notes::default(),
        }
    }
}

/// The item may only replace an existing item: the row may have been deleted since, and nothing would show it.
///
/// A tombstone that was written late does not count as an existing item. It may itself have come from the quarantine,
/// after the tombstone of a newer deletion had expired. Then it says nothing about the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// A tombstone in the view that expires at this time or later was written late. In seconds since the epoch.
    pub late_expiry: u64,
}

/// The inputs of a projection besides the change.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'c> {
    /// The time of writing.
    pub written_at: SystemTime,
    /// Where the change comes from.
    pub origin: Origin,
    /// The tables of the view; `None` for one that DynamoDB has not described yet.
    pub tables: &'c [Option<Arc<TableSchema>>],
}

/// Where a change comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the stream.
    Stream,
    /// From the quarantine, where it may have waited for longer than a tombstone is kept.
    Quarantine,
    /// From the quarantine, by force: somebody knows that the row is still in the database.
    Forced,
}

/// Why a change cannot become an item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ProjectionError {
    #[error("{image} is no row: expected an object with the columns, found {found}")]
    NotARow { image: &'static str, found: &'static str },
    #[error("{image} is no row: it holds text that is no JSON string, such as half a surrogate pair")]
    MalformedRow { image: &'static str },
    #[error(
        "the key column {column} is missing in {image}: expected the columns of the primary key that SOURCE_TABLES or the definitions name for {table}"
    )]
    KeyColumnMissing { column: String, image: &'static str, table: String },
    #[error(
        "the key column {column} is {found} in {image}: expected a string, a boolean, or a number that fits into a key"
    )]
    KeyColumnUnusable { column: String, image: &'static str, found: &'static str },
    #[error("the key has {bytes} bytes (each # and % of a value counts three): DynamoDB takes at most {most}")]
    KeyTooLong { bytes: usize, most: usize },
    #[error("the column {column} has the name of an attribute that the view keeps for itself: rename the column")]
    ReservedColumn { column: String },
    #[error(
        "the column {column} has the name of the view table's partition key: rename the column, or give the view table a partition \
         key that no column is named after"
    )]
    ColumnNamedAsKey { column: String },
    #[error(
        "the column {column} has the name of an attribute that the definition makes: rename one of the two in views.toml"
    )]
    ColumnNamedAsMade { column: String },
    #[error("{fault} in {image}")]
    Key { fault: KeyFault, image: &'static str },
    #[error(transparent)]
    Undecided(Undecided),
    #[error("the name of a column has {bytes} bytes: DynamoDB takes 1 to {LONGEST_NAME}")]
    UnusableName { bytes: usize },
    #[error("the item has {bytes} bytes: DynamoDB takes at most {LARGEST_ITEM}")]
    ItemTooLarge { bytes: usize },
}

/// Makes items for a view.
#[derive(Debug, Clone)]
pub struct Projector {
    /// The names of the view's own attributes.
    pub marks: Arc<Marks>,
    /// How long a tombstone stays after it was written.
    pub tombstone_ttl: Duration,
    /// The bucket for columns that an item has no room for. Without it, a row over [`LARGEST_ITEM`] cannot become an
    /// item.
    pub overflow_bucket: Option<String>,
    /// Hashes the columns for readers who may compare and not see. It is there if any column is hashed.
    pub hash_key: Option<Arc<HashKey>>,
}

/// A change's item, before the view's own attributes and DynamoDB's limits.
struct Drawn<'a> {
    key: ItemKey,
    /// The columns and index attributes of a row; `None` for a tombstone.
    attributes: Option<HashMap<String, AttributeValue>>,
    /// When the row may go, if it tells.
    expires_at: Option<u64>,
    /// The row's values, if its table has a shape.
    shaped: Option<ShapedRow<'a, 'a>>,
}

impl Projector {
    /// The item that the view must hold after `change`: the row, or a tombstone that may expire
    /// [`Projector::tombstone_ttl`] after it is written. A row that its table's conditions hide is a tombstone too.
    /// `None` if the view never has the row, by its key.
    ///
    /// # Errors
    /// The row's key is not complete, a column has a reserved name, or DynamoDB could not store the item.
    pub fn project(
        &self,
        change: &ChangeEvent<'_>,
        schema: &TableSchema,
        now: Circumstances<'_>,
    ) -> Result<Option<ViewItem>, ProjectionError> {
        let mut notes = Notes { clock_behind: change.clock_behind, ..Notes::default() };
        let Some(drawn) = self.drawn(change, schema, &mut notes)? else { return Ok(None) };
        let Drawn { key, attributes, expires_at, shaped } = drawn;
        let tombstone = attributes.is_none();
        let mut attributes = attributes.unwrap_or_default();
        check_key(&key)?;
        let marks = &*self.marks;
        attributes.insert(marks.ts_ns.clone(), AttributeValue::N(change.committed.to_string()));
        if let Some(transaction) = &change.transaction {
            attributes.insert(marks.tx_id.clone(), AttributeValue::S(transaction.clone().into_owned()));
        }
        if tombstone {
            attributes.insert(marks.deleted.clone(), AttributeValue::Bool(true));
        }
        // A row's item is also the guard against older changes, so it stays for as long as a tombstone would.
        let guarded = self.expiry(now.written_at);
        let expiry = if tombstone { Some(guarded) } else { expires_at.map(|time| time.max(guarded)) };
        if let Some(expiry) = expiry {
            attributes.insert(marks.expires_at.clone(), AttributeValue::N(expiry.to_string()));
        }
        let texts = [Some(&key.partition), key.sort.as_ref()].into_iter().flatten().map(String::as_str);
        let named: Vec<(&str, &str)> = schema.key_names().zip(texts).collect();
        notes.left_out.extend(schema.indexes.leave_out(marks, &named, &mut attributes));
        let bytes_of_key = named.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>();
        let mut bytes = bytes_of_key + values::item_size(&attributes);
        let moved = match (&self.overflow_bucket, change.image) {
            (Some(bucket), RowImage::Upsert(row)) if !tombstone && bytes > large_rows::largest_whole_item(marks) => {
                let movable = match &shaped {
                    Some(row) => row.movable(schema, &attributes),
                    None => movable_columns(change.table, row, &attributes),
                };
                let folder = large_rows::folder(change.table.objects_folder(), &key);
                large_rows::move_columns(bucket, &folder, marks, change.committed, movable, &mut attributes, bytes)
                    .map_err(|bytes| ProjectionError::ItemTooLarge { bytes })?
            }
            _ if bytes > LARGEST_ITEM => return Err(ProjectionError::ItemTooLarge { bytes }),
            _ => Vec::new(),
        };
        if !moved.is_empty() {
            bytes = bytes_of_key + values::item_size(&attributes);
        }
        let guard = if tombstone { None } else { self.guard(change, now) };
        Ok(Some(ViewItem {
            key,
            objects_folder: Arc::clone(change.table.objects_folder()),
            committed: change.committed,
            creates: change.creates,
            tombstone,
            attributes,
            moved,
            bytes,
            guard,
            notes,
        }))
    }

    /// The key and the attributes of a change's item. `None` if the row is not in the view by its key.
    fn drawn<'a>(
        &self,
        change: &ChangeEvent<'a>,
        schema: &TableSchema,
        notes: &mut Notes,
    ) -> Result<Option<Drawn<'a>>, ProjectionError> {
        let table = change.table;
        if let Some(shape) = table.shape() {
            return self.shaped(change, shape, schema, notes);
        }
        let (partition, attributes) = match change.image {
            RowImage::Upsert(row) => {
                let (key, columns) = self.row(table, schema, row, notes)?;
                (key, Some(columns))
            }
            RowImage::Delete(primary_key) => (deleted_key(table, primary_key)?, None),
        };
        let key = ItemKey { view: table.view_place(), partition, sort: None };
        Ok(Some(Drawn { key, attributes, expires_at: None, shaped: None }))
    }

    fn shaped<'a>(
        &self,
        change: &ChangeEvent<'a>,
        shape: &'a Shape,
        schema: &TableSchema,
        notes: &mut Notes,
    ) -> Result<Option<Drawn<'a>>, ProjectionError> {
        let (table, deleted) = (change.table, matches!(change.image, RowImage::Delete(_)));
        let (RowImage::Upsert(image) | RowImage::Delete(image)) = change.image;
        let name = if deleted { "before" } else { "after" };
        let row = ShapedRow::read(shape, image).ok_or_else(|| not_a_row(image, name))?;
        let shown = row.shown(change.nulls_are_there, deleted).map_err(ProjectionError::Undecided)?;
        if shown == Shown::FilteredByKey {
            return Ok(None);
        }
        let key = if let Some(key) = row.key(table.view_place(), schema) {
            key.map_err(|fault| ProjectionError::Key { fault, image: name })?
        } else {
            let values = row.key_values(table.primary_key().len());
            let partition = KeyColumns { table, values }.compose(name)?;
            ItemKey { view: table.view_place(), partition, sort: None }
        };
        notes.hidden = shown == Shown::Outside;
        let attributes = if deleted || notes.hidden {
            None
        } else {
            let check_name = |column: &str| {
                self.check_name(column, schema)?;
                let is_made = shape.made.contains(column);
                let error = || ProjectionError::ColumnNamedAsMade { column: column.to_owned() };
                if is_made { Err(error()) } else { Ok(()) }
            };
            Some(row.attributes(schema, self.hash_key.as_deref(), notes, check_name)?)
        };
        Ok(Some(Drawn { key, attributes, expires_at: row.expires_at(), shaped: Some(row) }))
    }

    /// The guard of an upsert from the quarantine, if the tombstone of a later deletion may have expired already.
    ///
    /// A tombstone is written after the commit of its deletion. So while the change is younger than the time that
    /// tombstones are kept, no later tombstone has expired. A tombstone in the view shows that the row was not deleted
    /// since, but only if it was written before any later one can have expired.
    fn guard(&self, change: &ChangeEvent<'_>, now: Circumstances<'_>) -> Option<Guard> {
        let kept = self.tombstone_ttl.saturating_sub(TIME_TO_WRITE);
        // Force says that the database has the row. It does not say that the view shows it, nor that this is its newest
        // state: the item of a newer one may have expired.
        let may_lack_rows = change.table.shape().is_some_and(Shape::may_lack_rows);
        let may_be_late = now.origin == Origin::Quarantine || (now.origin == Origin::Forced && may_lack_rows);
        let is_old = may_be_late && change.committed.age(now.written_at) >= kept;
        let late = change.committed.since_epoch().saturating_add(kept).saturating_add(self.tombstone_ttl);
        is_old.then_some(Guard { late_expiry: late.as_secs() })
    }

    fn row(
        &self,
        table: &SourceTable,
        schema: &TableSchema,
        row: &RawValue,
        notes: &mut Notes,
    ) -> Result<(String, HashMap<String, AttributeValue>), ProjectionError> {
        const IMAGE: &str = "after";
        // Room for the columns of a usual row and the view's own attributes. Room for one more would double the memory,
        // for each row of a batch.
        let mut columns = HashMap::with_capacity(14);
        let mut key = KeyColumns::of(table);
        json::for_each_member(row, |column, value| {
            key.take(&column, value);
            self.check_name(&column, schema)?;
            let Column { value, as_text } = values::column(value);
            notes.as_text += usize::from(as_text);
            match value {
                Some(value) => columns.insert(column.into_owned(), value),
                // If a name stands there twice, its last value counts, as in most JSON parsers.
                None => columns.remove(&*column),
            };
            Ok(())
        })
        .map_err(|error| error.unwrap_or_else(|| not_a_row(row, IMAGE)))?;
        Ok((key.compose(IMAGE)?, columns))
    }

    fn check_name(&self, column: &str, schema: &TableSchema) -> Result<(), ProjectionError> {
        if column.is_empty() || column.len() > LONGEST_NAME {
            return Err(ProjectionError::UnusableName { bytes: column.len() });
        }
        if schema.key_names().any(|name| name == column) {
            return Err(ProjectionError::ColumnNamedAsKey { column: column.to_owned() });
        }
        let marks = &*self.marks;
        if marks.reserved().contains(&column) || (column == marks.overflow && self.overflow_bucket.is_some()) {
            return Err(ProjectionError::ReservedColumn { column: column.to_owned() });
        }
        Ok(())
    }

    /// When a tombstone expires, in the epoch seconds of DynamoDB's TTL.
    fn expiry(&self, written_at: SystemTime) -> u64 {
        let now = written_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.as_secs() + self.tombstone_ttl.as_secs()
    }
}

/// The columns of a row that may move, with their JSON text: all columns of the item but those of the key.
fn movable_columns<'a>(
    table: &SourceTable,
    row: &'a RawValue,
    attributes: &HashMap<String, AttributeValue>,
) -> Vec<(String, Cow<'a, str>)> {
    let mut columns: HashMap<String, Cow<'_, str>> = HashMap::new();
    let read = json::for_each_member(row, |column, json| {
        if attributes.contains_key(&*column) && !table.primary_key().iter().any(|key_column| *key_column == column) {
            columns.insert(column.into_owned(), Cow::Borrowed(json.get()));
        }
        Ok::<_, ()>(())
    });
    // The row was read once already, so it can be read again.
    if read.is_ok() { columns.into_iter().collect() } else { Vec::new() }
}

/// The key of a deleted row. The other columns of its image do not matter.
fn deleted_key(table: &SourceTable, primary_key: &RawValue) -> Result<String, ProjectionError> {
    const IMAGE: &str = "before";
    let mut key = KeyColumns::of(table);
    json::for_each_member(primary_key, |column, value| {
        key.take(&column, value);
        Ok(())
    })
    .map_err(|error: Option<ProjectionError>| error.unwrap_or_else(|| not_a_row(primary_key, IMAGE)))?;
    key.compose(IMAGE)
}

/// Checks the lengths of a key.
fn check_key(key: &ItemKey) -> Result<(), ProjectionError> {
    let too_long = |bytes: usize, most: usize| (bytes > most).then_some(ProjectionError::KeyTooLong { bytes, most });
    let partition = too_long(key.partition.len(), LONGEST_KEY);
    let sort = key.sort.as_ref().and_then(|sort| too_long(sort.len(), LONGEST_SORT_KEY));
    partition.or(sort).map_or(Ok(()), Err)
}

fn not_a_row(image: &RawValue, name: &'static str) -> ProjectionError {
    if image.get().starts_with('{') {
        ProjectionError::MalformedRow { image: name }
    } else {
        ProjectionError::NotARow { image: name, found: json::kind(image) }
    }
}

/// The values of a table's key columns, gathered while an image is read.
struct KeyColumns<'t, 'a> {
    table: &'t SourceTable,
    values: Vec<Option<&'a RawValue>>,
}

impl<'t, 'a> KeyColumns<'t, 'a> {
    fn of(table: &'t SourceTable) -> Self {
        Self { table, values: vec![None; table.primary_key().len()] }
    }

    fn take(&mut self, column: &str, value: &'a RawValue) {
        if let Some(place) = self.table.primary_key().iter().position(|key_column| key_column == column) {
            self.values[place] = Some(value);
        }
    }

    fn compose(&self, image: &'static str) -> Result<String, ProjectionError> {
        let mut key = self.table.key_prefix().to_owned();
        for (column, value) in self.table.primary_key().iter().zip(&self.values) {
            let value = value.ok_or_else(|| ProjectionError::KeyColumnMissing {
                column: column.clone(),
                image,
                table: self.table.to_string(),
            })?;
            let text = typed::key_text(value, None).map_err(|found| ProjectionError::KeyColumnUnusable {
                column: column.clone(),
                image,
                found,
            })?;
            key::push_value(&mut key, &text);
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, GlobalSecondaryIndexDescription, KeySchemaElement, KeyType, ScalarAttributeType,
        TableDescription,
    };

    use std::borrow::Cow;

    use super::*;
    use crate::definitions::file;
    use crate::definitions::source_tables::SourceTables;
    use crate::item::indexes::Indexes;
    use crate::item::schema::KeyAttribute;

    const WRITTEN_AT: u64 = 1_800_000_000;

    fn project(tables: &str, image: &str, delete: bool) -> Result<ViewItem, ProjectionError> {
        project_with(None, tables, image, delete)
    }

    fn project_with(
        bucket: Option<&str>,
        tables: &str,
        image: &str,
        delete: bool,
    ) -> Result<ViewItem, ProjectionError> {
        let tables: SourceTables = tables.parse().unwrap();
        let raw: &RawValue = serde_json::from_str(image).unwrap();
        let change = ChangeEvent {
            table: tables.iter().next().unwrap(),
            committed: CommitTimestamp::from_nanoseconds(1_773_843_841_076_494_565).unwrap(),
            transaction: Some(Cow::Borrowed("tx1")),
            creates: false,
            clock_behind: false,
            nulls_are_there: true,
            image: if delete { RowImage::Delete(raw) } else { RowImage::Upsert(raw) },
        };
        let projector = Projector {
            marks: Arc::default(),
            tombstone_ttl: Duration::from_secs(3600),
            overflow_bucket: bucket.map(str::to_owned),
            hash_key: None,
        };
        let written_at = SystemTime::UNIX_EPOCH + Duration::from_secs(WRITTEN_AT);
        let schema = TableSchema::with_partition_key("pk");
        projector
            .project(&change, &schema, Circumstances { written_at, origin: Origin::Stream, tables: &[] })
            .map(Option::unwrap)
    }

    fn s(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn n(digits: &str) -> AttributeValue {
        AttributeValue::N(digits.to_owned())
    }

    #[test]
    fn a_row_becomes_its_columns_and_the_view_s_own_attributes() {
        let item = project("users(id)", r#"{"id":7,"name":"Ada","note":null,"age":36.50}"#, false).unwrap();
        assert_eq!(item.key.partition, "public.users#7");
        let expected = [
            ("id", n("7")),
            ("name", s("Ada")),
            ("age", n("36.50")),
            ("_ts_ns", n("1773843841076494565")),
            ("_tx_id", s("tx1")),
        ];
        assert_eq!(item.attributes, HashMap::from(expected.map(|(name, value)| (name.to_owned(), value))));
    }

    #[test]
    fn a_tombstone_has_no_columns_and_expires_after_its_ttl() {
        let item = project("users(id)", r#"{"id":7,"name":"Ada"}"#, true).unwrap();
        assert_eq!(item.key.partition, "public.users#7");
        let expected = [
            ("_deleted", AttributeValue::Bool(true)),
            ("_expires_at", n("1800003600")),
            ("_ts_ns", n("1773843841076494565")),
            ("_tx_id", s("tx1")),
        ];
        assert_eq!(item.attributes, HashMap::from(expected.map(|(name, value)| (name.to_owned(), value))));
    }

    #[test]
    fn a_row_and_its_deletion_share_a_key_whatever_the_order_of_the_columns() {
        let tables = "order_items(order_id, item_id)";
        let row = project(tables, r#"{"item_id":"a#b","quantity":1,"order_id":1001}"#, false).unwrap();
        let deleted = project(tables, r#"{"order_id":1001,"item_id":"a\u0023b"}"#, true).unwrap();
        assert_eq!(row.key.partition, "public.order_items#1001#a%23b");
        assert_eq!(row.key, deleted.key);
    }

    #[test]
    fn a_number_has_one_text_in_the_key_and_a_boolean_stands_as_in_the_json() {
        let key = |value: &str| project("t(k)", &format!(r#"{{"k":{value}}}"#), false).unwrap().key.partition;
        for (value, text) in [
            ("9223372036854775807", "9223372036854775807"),
            ("-1", "-1"),
            ("1.50", "1.5"),
            ("1e2", "100"),
            ("100", "100"),
            ("-0", "0"),
            ("0e9", "0"),
            // Text is text: nothing says that the column is numeric.
            ("\"1.50\"", "1.50"),
            ("true", "true"),
            ("false", "false"),
            ("\"\"", ""),
        ] {
            assert_eq!(key(value), format!("public.t#{text}"));
        }
    }

    #[test]
    fn the_last_value_of_a_repeated_column_counts() {
        let item = project("t(k)", r#"{"k":1,"k":2,"a":1,"a":null}"#, false).unwrap();
        assert_eq!((item.key.partition.as_str(), item.attributes.get("a")), ("public.t#2", None));
    }

    #[test]
    fn a_row_that_cannot_be_an_item_is_refused_with_the_column_s_name_and_no_value() {
        for (image, delete, expected) in [
            (r#""secret""#, false, "after is no row: expected an object with the columns, found a string"),
            ("[]", true, "before is no row: expected an object with the columns, found an array"),
            (
                r#"{"name":"secret"}"#,
                false,
                "the key column id is missing in after: expected the columns of the primary key",
            ),
            (r#"{"name":"secret"}"#, true, "the key column id is missing in before"),
            (r#"{"id":null}"#, false, "the key column id is null in after: expected a string, a boolean, or a number"),
            (r#"{"id":null}"#, true, "the key column id is null in before"),
            (r#"{"id":["secret"]}"#, false, "the key column id is an array in after"),
            (
                r#"{"id":1,"_ts_ns":"secret"}"#,
                false,
                "the column _ts_ns has the name of an attribute that the view keeps",
            ),
            (r#"{"id":1,"_expires_at":null}"#, false, "the column _expires_at has the name of an attribute"),
            (r#"{"id":1,"pk":"secret"}"#, false, "the column pk has the name of the view table's partition key"),
            (r#"{"id":1e9999}"#, false, "the key column id is a number of more than 2,048 characters"),
            (r#"{"id":1,"\ud800":"secret"}"#, false, "after is no row: it holds text that is no JSON string"),
            (r#"{"id":"\ud800"}"#, true, "the key column id is text that is no JSON string in before"),
        ] {
            let message = project("users(id)", image, delete).expect_err(image).to_string();
            assert!(message.contains(expected), "{image} gave: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn a_value_that_dynamodb_cannot_hold_becomes_its_json_text_and_the_row_stays() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        for json in [r#"{"":1,"a":2}"#, r#""half \ud800""#, "3.4028235e38", &deep] {
            let item = project("users(id)", &format!(r#"{{"id":1,"a":{json},"b":"x"}}"#), false).unwrap();
            assert_eq!((&item.attributes["a"], &item.attributes["b"]), (&s(json), &s("x")), "{json}");
            assert_eq!(item.notes.as_text, 1, "{json}");
        }
    }

    /// The guard of a change that was committed at 1,773,843,841 s, if tombstones are kept for `hours`. The item is
    /// written `written_at` seconds after the commit.
    fn guard(origin: Origin, delete: bool, hours: u64, written_at: u64) -> Option<Guard> {
        let tables: SourceTables = "users(id)".parse().unwrap();
        let raw: &RawValue = serde_json::from_str(r#"{"id":1}"#).unwrap();
        let change = ChangeEvent {
            table: tables.iter().next().unwrap(),
            committed: CommitTimestamp::from_nanoseconds(1_773_843_841_000_000_000).unwrap(),
            transaction: None,
            creates: false,
            clock_behind: false,
            nulls_are_there: true,
            image: if delete { RowImage::Delete(raw) } else { RowImage::Upsert(raw) },
        };
        let projector = Projector {
            marks: Arc::default(),
            tombstone_ttl: Duration::from_hours(hours),
            overflow_bucket: None,
            hash_key: None,
        };
        let written_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_773_843_841 + written_at);
        let schema = TableSchema::with_partition_key("pk");
        projector.project(&change, &schema, Circumstances { written_at, origin, tables: &[] }).unwrap().unwrap().guard
    }

    #[test]
    fn an_old_upsert_from_the_quarantine_may_only_replace() {
        const HOUR: u64 = 3600;
        for (origin, delete, written_at, guarded) in [
            (Origin::Quarantine, false, 47 * HOUR - 1, false),
            (Origin::Quarantine, false, 47 * HOUR, true),
            (Origin::Quarantine, true, 1_000 * HOUR, false),
            (Origin::Stream, false, 1_000 * HOUR, false),
        ] {
            let found = guard(origin, delete, 48, written_at);
            let expected = guarded.then_some(Guard { late_expiry: 1_773_843_841 + 95 * HOUR });
            assert_eq!(found, expected, "{origin:?} {delete} {written_at}");
        }
        // If tombstones are kept for no longer than a write may take, no change is young enough.
        assert!(guard(Origin::Quarantine, false, 1, 0).is_some());
    }

    #[test]
    fn regression_only_column_names_that_dynamodb_takes_are_accepted() {
        let image = |length: usize| format!(r#"{{"id":1,"{}":1}}"#, "n".repeat(length));
        for length in [1, 65_535] {
            assert!(project("users(id)", &image(length), false).is_ok(), "{length}");
        }
        for length in [0, 65_536] {
            let error = project("users(id)", &image(length), false).unwrap_err();
            assert_eq!(error, ProjectionError::UnusableName { bytes: length });
        }
    }

    #[test]
    fn a_key_may_have_2048_bytes_and_no_more() {
        let image = |length: usize| format!(r#"{{"id":"{}"}}"#, "k".repeat(length - "public.users#".len()));
        for delete in [false, true] {
            assert!(project("users(id)", &image(2048), delete).is_ok());
            let error = project("users(id)", &image(2049), delete).unwrap_err();
            assert_eq!(error, ProjectionError::KeyTooLong { bytes: 2049, most: 2048 });
        }
    }

    #[test]
    fn an_item_may_have_400_kilobytes_with_its_key_and_names_and_no_more() {
        let image = |length: usize| format!(r#"{{"id":1,"text":"{}"}}"#, "x".repeat(length));
        let bytes = |length: usize| match project("users(id)", &image(length), false) {
            Err(ProjectionError::ItemTooLarge { bytes }) => Some(bytes),
            Err(other) => panic!("{other}"),
            Ok(_) => None,
        };
        // pk and public.users#1, id and 1, text, _ts_ns and its 19 digits, _tx_id and tx1.
        let overhead = 2 + 14 + 2 + 2 + 4 + 6 + 11 + 6 + 3;
        assert_eq!(bytes(LARGEST_ITEM), Some(LARGEST_ITEM + overhead));
        assert_eq!(bytes(LARGEST_ITEM - overhead), None);
        assert_eq!(bytes(LARGEST_ITEM - overhead + 1), Some(LARGEST_ITEM + 1));
    }

    #[test]
    fn with_a_bucket_a_row_over_400_kilobytes_keeps_its_key_and_the_columns_that_fit() {
        let long = "x".repeat(600_000);
        let image = format!(r#"{{"id":"7","a":1,"text":"short","text":"{long}","list":["{}"]}}"#, &long[..100_000]);
        let item = project_with(Some("bucket"), "t(id)", &image, false).unwrap();
        let [column] = item.moved.as_slice() else { panic!("{} columns moved", item.moved.len()) };
        assert_eq!(column.json, format!("\"{long}\""));
        let address = AttributeValue::S(format!("s3://bucket/{}", column.object));
        assert_eq!(item.attributes["_overflow"], AttributeValue::M(HashMap::from([("text".to_owned(), address)])));
        let mut names: Vec<&str> = item.attributes.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["_overflow", "_ts_ns", "_tx_id", "a", "id", "list"]);
        assert!(matches!(project("t(id)", &image, false), Err(ProjectionError::ItemTooLarge { .. })));
    }

    #[test]
    fn a_key_column_never_moves_even_if_the_row_would_fit_without_it() {
        let key = "k".repeat(1_900);
        // Each column is too short to be worth an address. Together they have a thousand bytes more than there is room
        // for beside the key, which is in the item twice.
        let columns = (LARGEST_ITEM - 2 * key.len() + 1_000) / "c0000".repeat(13).len();
        let columns: Vec<String> = (0..columns).map(|place| format!(r#""c{place:04}":"{}""#, "x".repeat(60))).collect();
        let image = format!(r#"{{"id":"{key}",{}}}"#, columns.join(","));
        let error = project_with(Some("bucket"), "users(id)", &image, false).unwrap_err();
        assert!(matches!(error, ProjectionError::ItemTooLarge { bytes } if bytes < LARGEST_ITEM + 1_500), "{error}");
    }

    #[test]
    fn with_a_bucket_a_row_that_fits_with_its_mark_stays_whole() {
        let overhead = 50;
        let largest = large_rows::largest_whole_item(&Marks::default());
        for (bytes, moves) in [(9_000, false), (largest, false), (largest + 1, true)] {
            let image = format!(r#"{{"id":1,"text":"{}"}}"#, "x".repeat(bytes - overhead));
            let item = project_with(Some("bucket"), "users(id)", &image, false).unwrap();
            let found = (item.moved.len(), item.attributes.contains_key("_overflow"));
            assert_eq!(found, (usize::from(moves), moves), "{bytes}");
        }
    }

    #[test]
    fn the_name_of_the_moved_columns_is_reserved_if_columns_can_move() {
        let image = r#"{"id":1,"_overflow":"secret"}"#;
        assert!(project("users(id)", image, false).is_ok());
        let error = project_with(Some("bucket"), "users(id)", image, false).unwrap_err();
        assert_eq!(error, ProjectionError::ReservedColumn { column: "_overflow".to_owned() });
    }

    /// The item of a row of `t`, whose definition has these lines, in a view with a bucket.
    fn defined(lines: &str, image: &str) -> ViewItem {
        let file = format!("version = 1\n[[table]]\nname = \"t\"\nprimary_key = [\"id\"]\n{lines}");
        let tables = file::read("views.toml", file.as_bytes()).unwrap_or_else(|faults| panic!("{faults}")).tables;
        let change = upsert(tables.iter().next().unwrap(), image);
        let now = Circumstances { written_at: SystemTime::UNIX_EPOCH, origin: Origin::Stream, tables: &[] };
        projector().project(&change, &TableSchema::with_partition_key("pk"), now).unwrap().unwrap()
    }

    #[test]
    fn regression_a_column_that_is_left_out_does_not_move_in_the_place_of_one_that_is_kept() {
        let long = "x".repeat(500_000);
        let columns = r#"columns = { id = "bigint", body = "text", mail = "text" }"#;
        for (lines, name, expected) in [
            ("only = [\"id\", \"body\"]\nrename = { body = \"note\" }", "note", format!("\"{long}\"")),
            (&format!("{columns}\nhash = [\"mail\"]\nrename = {{ body = \"note\" }}"), "note", format!("\"{long}\"")),
            (
                &format!("{columns}\nonly = [\"body\"]\ngroup = {{ note = [\"body\"] }}"),
                "note",
                format!(r#"{{"body":"{long}"}}"#),
            ),
            (
                &format!("{columns}\nonly = [\"id\"]\nattributes = {{ note = \"{{body}}\" }}"),
                "note",
                format!("\"{long}\""),
            ),
        ] {
            let image = format!(r#"{{"id":1,"body":"{long}","note":"secret","mail":"secret"}}"#);
            let item = defined(lines, &image);
            let [moved] = item.moved.as_slice() else { panic!("{lines}: {} moved", item.moved.len()) };
            assert_eq!(moved.object.rsplit_once('/').unwrap().1, name, "{lines}");
            assert!(moved.json == expected, "{lines}: {}…", &moved.json[..20]);
            assert!(!format!("{:?}", item.attributes).contains("secret"), "{lines}");
        }
    }

    #[test]
    fn an_unlisted_column_with_the_name_of_a_made_attribute_is_poison_where_it_would_stand() {
        let project = |lines: &str| {
            let file = format!("version = 1\n[[table]]\nname = \"t\"\nprimary_key = [\"id\"]\n{lines}");
            let tables = file::read("views.toml", file.as_bytes()).unwrap_or_else(|faults| panic!("{faults}")).tables;
            let image = r#"{"id":1,"body":"x","made":"secret"}"#;
            let change = upsert(tables.iter().next().unwrap(), image);
            let now = Circumstances { written_at: SystemTime::UNIX_EPOCH, origin: Origin::Stream, tables: &[] };
            projector().project(&change, &TableSchema::with_partition_key("pk"), now)
        };
        for made in
            ["rename = { body = \"made\" }", "group = { made = [\"body\"] }", "attributes = { made = \"{body}\" }"]
        {
            let error = project(made).unwrap_err();
            assert_eq!(error, ProjectionError::ColumnNamedAsMade { column: "made".to_owned() }, "{made}");
            let item = project(&format!("only = [\"id\", \"body\"]\n{made}")).unwrap().unwrap();
            assert!(!format!("{:?}", item.attributes).contains("secret"), "{made}");
        }
    }

    #[test]
    fn an_attribute_that_an_index_names_does_not_move() {
        let file = "version = 1\n[[table]]\nname = \"t\"\nprimary_key = [\"id\"]\nattributes = { label = \"{name}\" }";
        let tables = file::read("views.toml", file.as_bytes()).unwrap().tables;
        // Each of many columns is shorter than the label, so the label would be the first to move.
        let columns: Vec<String> = (0..1_000).map(|place| format!(r#""c{place}":"{}""#, "x".repeat(420))).collect();
        let image = format!(r#"{{"id":1,"name":"{}",{}}}"#, "n".repeat(1_500), columns.join(","));
        let change = upsert(tables.iter().next().unwrap(), &image);
        let now = Circumstances { written_at: SystemTime::UNIX_EPOCH, origin: Origin::Stream, tables: &[] };
        let key = KeySchemaElement::builder().attribute_name("label").key_type(KeyType::Hash).build().unwrap();
        let index = GlobalSecondaryIndexDescription::builder().key_schema(key).build();
        let defined = AttributeDefinition::builder().attribute_name("label").attribute_type(ScalarAttributeType::S);
        let table = TableDescription::builder().global_secondary_indexes(index);
        let indexes = Indexes::of(&table.attribute_definitions(defined.build().unwrap()).build());
        for (indexes, stays) in [(Indexes::default(), false), (indexes, true)] {
            let schema = TableSchema { indexes, ..TableSchema::with_partition_key("pk") };
            let item = projector().project(&change, &schema, now).unwrap().unwrap();
            assert_eq!(item.attributes.contains_key("label"), stays);
            assert!(!item.moved.is_empty());
        }
    }

    #[test]
    fn a_shaped_row_has_its_key_once() {
        let image = r#"{"id":1,"body":"x"}"#;
        let item = defined("only = [\"id\", \"body\"]", image);
        assert_eq!((item.key.partition.as_str(), item.attributes.len()), ("public.t#1", 3));
        let file = "version = 1\n[[table]]\nname = \"t\"\nprimary_key = [\"id\"]\nkey = { pk = \"{id}\" }";
        let tables = file::read("views.toml", file.as_bytes()).unwrap().tables;
        let now = Circumstances { written_at: SystemTime::UNIX_EPOCH, origin: Origin::Stream, tables: &[] };
        let change = upsert(tables.iter().next().unwrap(), image);
        // The column is the key attribute itself.
        let item = projector().project(&change, &TableSchema::with_partition_key("id"), now).unwrap().unwrap();
        assert_eq!(item.key.partition, "1");
        assert!(!item.attributes.contains_key("id") && item.attributes.contains_key("body"), "{:?}", item.attributes);
    }

    #[test]
    fn a_sort_key_may_have_1024_bytes_and_no_more() {
        let file = "version = 1\n[[table]]\nname = \"t\"\nprimary_key = [\"a\", \"id\"]\nkey = { pk = \"{a}\", sk = \"{id}\" }";
        let tables = file::read("views.toml", file.as_bytes()).unwrap().tables;
        let schema = TableSchema { sort: Some(KeyAttribute::text("sk")), ..TableSchema::with_partition_key("pk") };
        for (bytes, expected) in [(1024, None), (1025, Some(ProjectionError::KeyTooLong { bytes: 1025, most: 1024 }))] {
            let image = format!(r#"{{"a":1,"id":"{}"}}"#, "k".repeat(bytes));
            let change = upsert(tables.iter().next().unwrap(), &image);
            let now = Circumstances { written_at: SystemTime::UNIX_EPOCH, origin: Origin::Stream, tables: &[] };
            assert_eq!(projector().project(&change, &schema, now).err(), expected);
        }
    }

    fn upsert<'a>(table: &'a SourceTable, image: &'a str) -> ChangeEvent<'a> {
        ChangeEvent {
            table,
            committed: CommitTimestamp::from_nanoseconds(1).unwrap(),
            transaction: None,
            creates: false,
            clock_behind: false,
            nulls_are_there: true,
            image: RowImage::Upsert(serde_json::from_str(image).unwrap()),
        }
    }

    fn projector() -> Projector {
        Projector {
            marks: Arc::default(),
            tombstone_ttl: Duration::from_hours(48),
            overflow_bucket: Some("bucket".to_owned()),
            hash_key: Some(Arc::new(HashKey::new(b"key"))),
        }
    }

    #[test]
    fn a_document_moves_as_itself_and_one_that_does_not_fit_as_the_record_has_it() {
        let long = "x".repeat(500_000);
        let lines = "columns = { id = \"bigint\", doc = { type = \"jsonb\", as = \"document\" } }";
        let deep = format!("{}\\\"{long}\\\"{}", "[".repeat(40), "]".repeat(40));
        let fits = format!("[\\\"{long}\\\"]");
        for (text, expected) in [(&fits, format!("[\"{long}\"]")), (&deep, format!("\"{deep}\""))] {
            let item = defined(lines, &format!(r#"{{"id":1,"doc":"{text}"}}"#));
            assert!(item.moved[0].json == expected, "{}…", &item.moved[0].json[..60]);
        }
    }

    #[test]
    fn force_does_not_show_a_row_that_the_conditions_may_hide() {
        let guarded = |lines: &str, origin: Origin| {
            let file = format!("version = 1\n[[table]]\nname = \"t\"\nprimary_key = [\"id\"]\n{lines}");
            let tables = file::read("views.toml", file.as_bytes()).unwrap().tables;
            let change = upsert(tables.iter().next().unwrap(), r#"{"id":1,"gone":null}"#);
            let written_at = SystemTime::UNIX_EPOCH + Duration::from_hours(1_000);
            let now = Circumstances { written_at, origin, tables: &[] };
            let item = projector().project(&change, &TableSchema::with_partition_key("pk"), now).unwrap().unwrap();
            item.guard.is_some()
        };
        let hides = "rows = [{ column = \"gone\", is_null = true }]";
        for (lines, origin, expected) in [
            ("", Origin::Forced, false),
            (hides, Origin::Forced, true),
            (hides, Origin::Quarantine, true),
            (hides, Origin::Stream, false),
            ("expires_at = \"gone\"", Origin::Forced, true),
            ("rows = [{ column = \"id\", equals = 1 }]", Origin::Forced, false),
        ] {
            assert_eq!(guarded(lines, origin), expected, "{lines} {origin:?}");
        }
    }
}
