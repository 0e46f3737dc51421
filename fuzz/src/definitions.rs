//! The definitions file, and the items that its tables' rows become.
//!
//! An input is the text of a file. Behind a 0x1E follow four bytes for the settings (see [`Settings::of`]) and the rows,
//! each behind another 0x1E: a byte for the kind of the change (see [`Row::of`]), a digit for its table (they count from
//! `0` in the order of their names, and wrap), and the JSON of its image. The bytes for long texts are those of
//! [`super::record`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, GlobalSecondaryIndexDescription, KeySchemaElement, KeyType,
    ScalarAttributeType, TableDescription,
};
use dsql_view::batch::disposition::{Disposition, Failure};
use dsql_view::batch::plan::{Plan, Planner};
use dsql_view::definitions::collisions::collisions;
use dsql_view::definitions::file::{Definitions, DefinitionsError, read};
use dsql_view::definitions::marks::Marks;
use dsql_view::definitions::source_tables::SourceTable;
use dsql_view::definitions::types::ColumnType;
use dsql_view::item::projection::{Circumstances, Origin, Projector, ViewItem};
use dsql_view::item::schema::TableSchema;
use dsql_view::item::typed::HashKey;
use dsql_view::record::order::TimestampPlace;

use super::json::{Document, Is, Value};
use super::record::{SEPARATOR, assert_rows_are_in_order, delivered, expanded, message, redact};
use super::storage::{assert_storable, plain, size};

const FILE: &str = "views.toml";
const MOST_ROWS: usize = 32;
const COMMIT: u64 = 1_773_843_841_076_494_565;
const WRITTEN_AT: Duration = Duration::from_secs(1_800_000_000);
const TOMBSTONE_TTL: Duration = Duration::from_secs(3600);
/// Messages quote nothing shorter that is worth a check: the words of messages are as long.
const SHORTEST_SECRET: usize = 8;

/// Checks the result of an input; returns the items of the rows, each with the schema of its table.
pub fn check(data: &[u8]) -> Vec<(Arc<TableSchema>, ViewItem)> {
    let mut parts = data.split(|byte| *byte == SEPARATOR);
    let file = parts.next().unwrap_or_default();
    let settings = Settings::of(parts.next().unwrap_or_default());
    let Definitions { mut tables, marks, warnings } = match read(FILE, file) {
        Ok(definitions) => definitions,
        Err(error) => {
            assert_places(&error, file);
            return Vec::new();
        }
    };
    let twice = read(FILE, file).expect("a file is read as it was before");
    assert_eq!((twice.tables.differences(&tables), twice.warnings), (Vec::new(), warnings));
    assert!(tables.iter().count() > 0, "definitions have tables");

    let views: BTreeSet<Option<String>> = tables.iter().map(|table| table.view().map(str::to_owned)).collect();
    let views: Vec<Option<String>> = views.into_iter().collect();
    tables.place_views(|view| views.iter().position(|known| known.as_deref() == view).expect("a view of a table"));
    let schemas: Vec<Arc<TableSchema>> =
        (0..views.len()).map(|place| Arc::new(settings.schema(&tables.of_view(place).collect::<Vec<_>>()))).collect();
    let overflow = settings.bucket.then_some(&*marks.overflow);
    let fits = |(place, schema): (usize, &Arc<TableSchema>)| {
        schema.takes_all(tables.of_view(place), overflow).is_ok() && schema.indexes.impossible(&marks).is_empty()
    };
    if !collisions(&tables).is_empty() || !schemas.iter().enumerate().all(fits) {
        return Vec::new();
    }

    let tables = Arc::new(tables);
    let mut in_order: Vec<&SourceTable> = tables.iter().collect();
    in_order.sort_by_key(ToString::to_string);
    let rows: Vec<Row> = parts.take(MOST_ROWS).filter_map(|row| Row::of(row, &in_order)).collect();
    let planner = Planner {
        source_tables: Arc::clone(&tables),
        commit_timestamp: TimestampPlace::Auto,
        source_cluster: None,
        projector: Projector {
            marks: Arc::new(marks),
            tombstone_ttl: TOMBSTONE_TTL,
            overflow_bucket: settings.bucket.then(|| "bucket".to_owned()),
            hash_key: Some(Arc::new(HashKey::new(b"a secret"))),
        },
    };
    let views: Vec<Option<Arc<TableSchema>>> = schemas.iter().cloned().map(Some).collect();
    let written_at = SystemTime::UNIX_EPOCH + WRITTEN_AT;
    let now = Circumstances { written_at, origin: Origin::Stream, tables: &views };
    let batch = delivered(rows.iter().map(|row| row.record(&row.image)));
    let plan = planner.plan(&batch, now);
    assert_rows_are_in_order(&plan);
    assert_same(&plan, &planner.plan(&batch, now));
    let redacted = delivered(rows.iter().map(|row| row.record(&redacted(&row.image))));
    assert_nothing_is_told(&rows, &plan, &planner.plan(&redacted, now));
    assert_ends(&rows, &plan);
    for changes in &plan.rows {
        let keys = changes.iter().map(|change| (rows[change.id.0].table.to_string(), rows[change.id.0].key_texts()));
        let keys: BTreeSet<_> = keys.collect();
        assert!(keys.len() == 1, "different rows have one key: {keys:?}");
    }
    let items: Vec<ViewItem> = plan.rows.into_iter().flatten().map(|candidate| candidate.item).collect();
    for item in &items {
        assert_item(item, &schemas[item.key.view], &planner.projector.marks, settings);
    }
    items.into_iter().map(|item| (Arc::clone(&schemas[item.key.view]), item)).collect()
}

/// The view's tables, and the bucket.
#[derive(Debug, Clone, Copy)]
struct Settings {
    /// Whether a partition key has the type N where every source table's template allows it.
    partition_is_number: bool,
    sort_is_number: bool,
    /// The type of the index attributes' keys, if there are indexes.
    indexed: Option<&'static str>,
    bucket: bool,
}

impl Settings {
    /// `N` or anything else for the partition key, the same for the sort key, `N` or `S` for indexes, `b` for a bucket.
    fn of(bytes: &[u8]) -> Self {
        let at = |place: usize| bytes.get(place).copied().unwrap_or_default();
        let indexed = match at(2) {
            b'N' => Some("N"),
            b'S' => Some("S"),
            _ => None,
        };
        Self { partition_is_number: at(0) == b'N', sort_is_number: at(1) == b'N', indexed, bucket: at(3) == b'b' }
    }

    /// A view table for these source tables, with an index of each index attribute.
    fn schema(self, tables: &[&SourceTable]) -> TableSchema {
        let sorted = tables.iter().any(|table| {
            table.shape().and_then(|shape| shape.key.as_ref()).is_some_and(|templates| templates.sort.is_some())
        });
        let kind = |is_number| if is_number { ScalarAttributeType::N } else { ScalarAttributeType::S };
        let key = |name: &str, of: KeyType| KeySchemaElement::builder().attribute_name(name).key_type(of).build();
        let mut attributes = vec![("pk".to_owned(), kind(self.partition_is_number))];
        let mut description = TableDescription::builder().key_schema(key("pk", KeyType::Hash).expect("a key"));
        if sorted {
            attributes.push(("sk".to_owned(), kind(self.sort_is_number)));
            description = description.key_schema(key("sk", KeyType::Range).expect("a key"));
        }
        let shapes = tables.iter().filter_map(|table| table.shape());
        let made: BTreeSet<&String> = shapes.flat_map(|shape| shape.attributes.iter().map(|(name, _)| name)).collect();
        for name in made.into_iter().filter(|name| !["pk", "sk"].contains(&name.as_str())) {
            let Some(wanted) = self.indexed else { break };
            attributes.push((name.clone(), ScalarAttributeType::from(wanted)));
            let index = GlobalSecondaryIndexDescription::builder().index_name(name);
            description = description
                .global_secondary_indexes(index.key_schema(key(name, KeyType::Hash).expect("a key")).build());
        }
        for (name, kind) in attributes {
            let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build();
            description = description.attribute_definitions(attribute.expect("an attribute"));
        }
        TableSchema::of(&description.build()).expect("a key of our own")
    }
}

/// A change of a row.
struct Row<'t> {
    table: &'t SourceTable,
    deleted: bool,
    /// Whether the record has the layout without a type.
    preview: bool,
    image: Vec<u8>,
}

impl<'t> Row<'t> {
    /// `d` for a delete, `p` for an upsert of a preview record, anything else for an upsert.
    fn of(bytes: &[u8], tables: &[&'t SourceTable]) -> Option<Self> {
        let [kind, table, image @ ..] = bytes else { return None };
        let table = tables[usize::from(table.wrapping_sub(b'0')) % tables.len()];
        Some(Self { table, deleted: *kind == b'd', preview: *kind == b'p', image: expanded(image) })
    }

    /// Its record, with this image.
    fn record(&self, image: &[u8]) -> Vec<u8> {
        let name = self.table.to_string();
        let name: Vec<String> = name.split('.').map(unescaped).collect();
        let (schema, table) = (serde_json::json!(name[0]), serde_json::json!(name[1]));
        let kind = if self.preview { "" } else { r#""type":"full","# };
        let (op, of_image, other) = if self.deleted { ("d", "before", "after") } else { ("u", "after", "before") };
        let source = format!(r#"{{"schema":{schema},"table":{table},"txId":"t","ts_ns":{COMMIT}}}"#);
        let head = format!(r#"{{{kind}"op":"{op}","source":{source},"ts_ns":{COMMIT},"{other}":null,"{of_image}":"#);
        [head.as_bytes(), image, b"}"].concat()
    }

    /// The texts of its key's values, each as it is the same for equal values.
    fn key_texts(&self) -> Vec<String> {
        let text = std::str::from_utf8(&self.image).expect("a row that has a key is text");
        let document = Document::read(text).expect("a row that has a key is JSON");
        let columns = self.table.shape().map_or(&[][..], |shape| &shape.columns);
        let of_key = self.table.primary_key().iter().map(|column| {
            let kind = columns.iter().find(|known| known.name == *column).and_then(|known| known.kind);
            let is_number = matches!(kind, Some(ColumnType::Integer | ColumnType::Float | ColumnType::Numeric));
            match document.root().member(column).map(Value::is) {
                Some(Is::Text(Some(text))) if is_number && is_plain_number(text) => {
                    plain(text).expect("a number of a key")
                }
                Some(Is::Text(Some(text))) => text.clone(),
                Some(Is::Number(json)) => plain(json).expect("a number of a key"),
                Some(Is::Bool(value)) => value.to_string(),
                _ => panic!("a row without its key column {column} has a key"),
            }
        });
        of_key.collect()
    }
}

fn is_plain_number(text: &str) -> bool {
    matches!(Document::read(text).map(|document| matches!(document.root().is(), Is::Number(_))), Some(true))
}

fn unescaped(text: &str) -> String {
    text.replace("%2E", ".").replace("%23", "#").replace("%25", "%")
}

/// Each fault has a place in the text, and the faults stand in its order.
fn assert_places(error: &DefinitionsError, file: &[u8]) {
    assert!(!error.faults.is_empty(), "an error has a fault");
    let text = String::from_utf8_lossy(file);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines: Vec<&str> = text.split('\n').collect();
    let mut before = (1, 1);
    let shown = error.to_string();
    for fault in &error.faults {
        let place = (fault.line, fault.column);
        assert!(place >= before, "the faults stand in no order: {shown}");
        before = place;
        let line = fault.line.checked_sub(1).and_then(|line| lines.get(line));
        let line = line.unwrap_or_else(|| panic!("there is no line {}: {shown}", fault.line));
        assert!((1..=line.chars().count() + 1).contains(&fault.column), "there is no column {}: {shown}", fault.column);
        assert!(shown.contains(&format!("{FILE} line {}, column {}: ", fault.line, fault.column)), "{shown}");
        assert!(!fault.message.is_empty() && !fault.message.contains('\n'), "{shown}");
    }
}

fn assert_same(plan: &Plan<'_>, again: &Plan<'_>) {
    let ends = |plan: &Plan<'_>| plan.ledger.entries().iter().map(|entry| message(entry.end())).collect::<Vec<_>>();
    assert_eq!(ends(plan), ends(again), "two plans of one batch end differently");
    assert_eq!(plan.rows.len(), again.rows.len());
    for (a, b) in plan.rows.iter().flatten().zip(again.rows.iter().flatten()) {
        assert_eq!((a.id, &a.item), (b.id, &b.item), "two plans of one batch differ");
    }
}

/// The message of a record that is reported shows no value of its row: one that it does show is another where the
/// values are others. Where conditions and types depend on the values, so do the messages, and then they may differ.
fn assert_nothing_is_told(rows: &[Row<'_>], plan: &Plan<'_>, redacted: &Plan<'_>) {
    for ((entry, other), row) in plan.ledger.entries().iter().zip(&*redacted.ledger.entries()).zip(rows) {
        let (told, untold) = (message(entry.end()), message(other.end()));
        if told != untold {
            let secrets = secrets(&row.image);
            let shown =
                secrets.iter().find(|secret| told.contains(secret.as_str()) && !untold.contains(secret.as_str()));
            assert!(shown.is_none(), "a message tells of a value: {told}");
        }
    }
}

/// The texts and numbers of an image that are long enough to be known again.
fn secrets(image: &[u8]) -> Vec<String> {
    let mut secrets = Vec::new();
    each_value(image, |value| {
        let text = match value.is() {
            Is::Text(Some(text)) => text.as_str(),
            _ => value.json(),
        };
        if text.len() >= SHORTEST_SECRET {
            secrets.push(text.to_owned());
        }
    });
    secrets
}

/// The image with other values.
fn redacted(image: &[u8]) -> Vec<u8> {
    let mut redacted = image.to_vec();
    each_value(image, |value| redact(&mut redacted[value.place()]));
    redacted
}

/// Calls a function with each text and number of an image.
fn each_value(image: &[u8], mut of: impl FnMut(Value<'_>)) {
    let Some(document) = std::str::from_utf8(image).ok().and_then(Document::read) else { return };
    let mut values = vec![document.root()];
    while let Some(value) = values.pop() {
        match value.is() {
            Is::Text(_) | Is::Number(_) => of(value),
            Is::Array(elements) => values.extend(elements),
            Is::Object(members) => values.extend(members.into_iter().map(|(_, value)| value)),
            Is::Null | Is::Bool(_) => {}
        }
    }
}

/// Every record is a candidate of one row, is filtered, or is poison.
fn assert_ends(rows: &[Row<'_>], plan: &Plan<'_>) {
    let entries = plan.ledger.entries();
    assert_eq!(entries.len(), rows.len(), "every record ends");
    let mut items: HashMap<usize, &ViewItem> = HashMap::new();
    for candidate in plan.rows.iter().flatten() {
        assert!(items.insert(candidate.id.0, &candidate.item).is_none(), "a record is a candidate twice");
    }
    for (place, (entry, row)) in entries.iter().zip(rows).enumerate() {
        let conditions = row.table.shape().map_or(0, |shape| shape.rows.len());
        match (entry.end(), items.get(&place)) {
            (Disposition::Reported(Failure::OutOfTime), Some(item)) => {
                assert_eq!(item.tombstone, row.deleted || item.notes.hidden, "a hidden row is a tombstone");
                assert!(!item.notes.hidden || conditions > 0, "a row is hidden without a condition");
            }
            (Disposition::Filtered, None) => assert!(conditions > 0, "a row is filtered without a condition"),
            (Disposition::Reported(failure), None) => assert!(failure.is_poison(), "{failure:?}"),
            (found, item) => panic!("record {place} must not end as {found:?} with {item:?}"),
        }
    }
}

fn assert_item(item: &ViewItem, schema: &TableSchema, marks: &Marks, settings: Settings) {
    let key: Vec<(&str, AttributeValue)> = schema.key_values(item.key.clone()).collect();
    assert_eq!(key.len(), schema.key_names().count(), "a key attribute is missing");
    assert_storable(&key, &item.attributes);

    // What the view's own attributes say is what the item is, so no column stands in their place.
    let committed = AttributeValue::N(COMMIT.to_string());
    assert_eq!(item.attributes.get(&marks.ts_ns), Some(&committed), "{}", marks.ts_ns);
    assert_eq!(item.attributes.get(&marks.tx_id), Some(&AttributeValue::S("t".to_owned())), "{}", marks.tx_id);
    let deleted = item.tombstone.then_some(&AttributeValue::Bool(true));
    assert_eq!(item.attributes.get(&marks.deleted), deleted, "{}", marks.deleted);
    let expiry = item.attributes.get(&marks.expires_at);
    let seconds = expiry.map(|expiry| expiry.as_n().ok().and_then(|seconds| seconds.parse::<u64>().ok()));
    let guarded = (WRITTEN_AT + TOMBSTONE_TTL).as_secs();
    match seconds {
        None => assert!(!item.tombstone, "a tombstone never expires"),
        Some(seconds) if item.tombstone => assert_eq!(seconds, Some(guarded)),
        Some(seconds) => assert!(seconds.is_some_and(|seconds| seconds >= guarded), "{expiry:?} is too early"),
    }
    if item.tombstone {
        assert_eq!(item.attributes.len(), 4, "a tombstone shows a column: {:?}", item.attributes.keys());
    }
    let moved = item.attributes.get(&marks.overflow).filter(|_| settings.bucket);
    let addresses = moved.map_or(0, |moved| moved.as_m().map_or(usize::MAX, HashMap::len));
    assert_eq!(addresses, item.moved.len(), "addresses of what was not moved");

    for (name, value) in &item.attributes {
        let fits = match schema.indexes.wanted(name) {
            Some("N") => value.is_n(),
            Some(_) => value.as_s().is_ok_and(|text| !text.is_empty()) && size(value).0 <= 2048,
            None => true,
        };
        assert!(fits || *name == marks.tx_id, "the index of {name} does not take its value");
    }
}
