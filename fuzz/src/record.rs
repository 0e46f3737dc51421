//! The bytes of records, up to the plan for them.
//!
//! The first byte of an input chooses the settings (see [`planner`]); the records follow, separated by 0x1E. Two bytes
//! that JSON text cannot contain stand for texts longer than a fuzzer would write: 0x1D for a thousand letters, 0x1F
//! for a hundred thousand.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view::batch::disposition::{Disposition, Failure};
use dsql_view::batch::plan::{Plan, Planner, Role};
use dsql_view::item::projection::{Circumstances, Origin, Projector, ViewItem};
use dsql_view::item::schema::TableSchema;
use dsql_view::record::delivery::{Data, Record};
use dsql_view::record::order::TimestampPlace;

use super::contract::{CLUSTER, Contract, Expected, KEY_ATTRIBUTE, Row, SOURCE_TABLES, name_in_key};
use super::json::{Document, Is, Value};
use super::storage::{LARGEST_ITEM, assert_storable, decimal};

/// Stands between records.
pub const SEPARATOR: u8 = 0x1e;
const RUNS: [(u8, usize); 2] = [(0x1d, 1_000), (0x1f, 100_000)];
const MOST_BYTES: usize = 2_000_000;
const MOST_RECORDS: usize = 64;

const WRITTEN_AT: Duration = Duration::from_secs(1_800_000_000);
const TOMBSTONE_TTL: Duration = Duration::from_secs(3600);
/// The bytes that `_overflow` takes, and the most that the address of a moved column takes.
const MARK: usize = 12;
const ADDRESS: usize = 600;

/// Checks the result of an input's records; returns the accepted items.
pub fn check(data: &[u8]) -> Vec<ViewItem> {
    let Some((settings, records)) = data.split_first() else { return Vec::new() };
    let contract = contract(*settings);
    let records = expanded(records);
    let records: Vec<&[u8]> = records.split(|byte| *byte == SEPARATOR).take(MOST_RECORDS).collect();

    let planner = planner(contract);
    let tables = tables();
    let written_at = SystemTime::UNIX_EPOCH + WRITTEN_AT;
    let now = Circumstances { written_at, origin: Origin::Stream, tables: &tables };
    let batch = delivered(records.iter().map(|record| record.to_vec()));
    let plan = planner.plan(&batch, now);
    assert_every_record_ends_once(&records, contract, &plan);
    assert_rows_are_in_order(&plan);
    let redacted = delivered(records.iter().map(|record| redacted(record)));
    let again = planner.plan(&redacted, now);
    for (entry, redacted) in plan.ledger.entries().iter().zip(&*again.ledger.entries()) {
        assert_eq!(message(entry.end()), message(redacted.end()), "a message tells of a value");
    }
    plan.rows.into_iter().flatten().map(|candidate| candidate.item).collect()
}

/// Records with these bytes.
pub fn delivered(records: impl Iterator<Item = Vec<u8>>) -> Vec<Record> {
    records.map(|data| Record { data: Data(data), ..Record::default() }).collect()
}

/// The settings that a byte stands for. Its two lowest bits are `COMMIT_TIMESTAMP`, the third is `OBJECTS_BUCKET`, the
/// fourth `SOURCE_CLUSTER`.
fn contract(settings: u8) -> Contract {
    let place = match settings & 3 {
        1 => TimestampPlace::Source,
        2 => TimestampPlace::Root,
        0 => TimestampPlace::Auto,
        _ => TimestampPlace::Earliest,
    };
    Contract { place, bucket: settings & 4 != 0, cluster: settings & 8 != 0 }
}

/// The function's planner with these settings.
pub fn planner(contract: Contract) -> Planner {
    Planner {
        source_tables: Arc::new(SOURCE_TABLES.parse().expect("tables of our own")),
        commit_timestamp: contract.place,
        source_cluster: contract.cluster.then(|| CLUSTER.to_owned()),
        projector: Projector {
            marks: Arc::default(),
            tombstone_ttl: TOMBSTONE_TTL,
            overflow_bucket: contract.bucket.then(|| "bucket".to_owned()),
            hash_key: None,
        },
    }
}

/// The view's table.
pub fn tables() -> [Option<Arc<TableSchema>>; 1] {
    [Some(Arc::new(TableSchema::with_partition_key(KEY_ATTRIBUTE)))]
}

/// The bytes with the long texts that single bytes stand for.
pub fn expanded(records: &[u8]) -> Vec<u8> {
    let mut expanded = Vec::with_capacity(records.len());
    for byte in records {
        match RUNS.iter().find(|(run, _)| run == byte) {
            Some((_, letters)) if expanded.len() + letters <= MOST_BYTES => {
                expanded.resize(expanded.len() + letters, b'x');
            }
            _ => expanded.push(*byte),
        }
    }
    expanded
}

fn assert_every_record_ends_once(records: &[&[u8]], contract: Contract, plan: &Plan<'_>) {
    let entries = plan.ledger.entries();
    assert_eq!(entries.len(), records.len(), "every record ends");
    let mut items: HashMap<usize, &ViewItem> = HashMap::new();
    for candidate in plan.rows.iter().flatten() {
        assert!(items.insert(candidate.id.0, &candidate.item).is_none(), "a record is a candidate twice");
    }
    let mut parts = BTreeSet::new();
    for part in &plan.parts {
        let name = part.object.strip_prefix("fragments/").and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
        assert!(name.is_some_and(|name| !name.contains('/')), "a part leaves its folder: {}", part.object);
        assert!(part.object.starts_with(&part.folder) && part.object.len() <= 1024, "{}", part.object);
        assert!(part.role == Role::NotNeeded || parts.insert(part.id.0), "a record is a part twice");
    }
    for (place, (entry, bytes)) in entries.iter().zip(records).enumerate() {
        let item = items.remove(&place);
        let is_part = parts.remove(&place);
        match (contract.expects(bytes), entry.end()) {
            (Expected::Filtered, Disposition::Filtered) => assert!(item.is_none() && !is_part),
            (Expected::Part, Disposition::Reported(Failure::NoBucket)) => assert!(item.is_none() && is_part),
            (Expected::Poison, Disposition::Reported(failure)) => {
                assert!(failure.is_poison() && item.is_none() && !is_part, "expected poison, found {failure:?}");
            }
            (Expected::Row(row), Disposition::Reported(failure)) => {
                assert!(!is_part);
                match item {
                    Some(item) => {
                        assert_eq!(failure, &Failure::OutOfTime);
                        assert_item(&row, item, contract);
                    }
                    None => assert_too_large(&row, failure, contract),
                }
            }
            (_, found) => panic!("record {place} must not end as {found:?}"),
        }
    }
    assert!(items.is_empty() && parts.is_empty(), "what is written belongs to a record");
}

/// Checks a refusal: a row that fits, however it is stored, must not be refused.
fn assert_too_large(row: &Row, failure: &Failure, contract: Contract) {
    assert!(failure.is_poison(), "{failure:?}");
    let (_, mut most) = row.size();
    if contract.bucket && !row.deleted {
        most += MARK;
        for (name, json) in &row.movable {
            most -= json.len().min(super::storage::size(&row.attributes[name]).0).saturating_sub(ADDRESS + name.len());
        }
    }
    assert!(most > LARGEST_ITEM, "a row of at most {most} bytes is refused: {failure}");
}

fn assert_item(row: &Row, item: &ViewItem, contract: Contract) {
    let key = &item.key.partition;
    assert_eq!((key, &item.key.sort), (&row.key(), &None));
    assert_eq!(name_in_key(key), row.name, "a key tells its row");
    assert_eq!(item.committed.to_string(), row.committed.to_string());
    assert_storable(&[(KEY_ATTRIBUTE, AttributeValue::S(key.clone()))], &item.attributes);

    let mut attributes = item.attributes.clone();
    let expiry = attributes.remove("_expires_at");
    let seconds = (WRITTEN_AT + TOMBSTONE_TTL).as_secs().to_string();
    assert_eq!(expiry, row.deleted.then_some(AttributeValue::N(seconds)));
    let (least, most) = row.size();
    if item.moved.is_empty() {
        assert!(!contract.bucket || least <= LARGEST_ITEM - MARK, "an item without room for its mark");
    } else {
        assert!(contract.bucket && most > LARGEST_ITEM - MARK, "columns of an item that fits were moved");
        put_back(row, item, &mut attributes);
    }
    assert!(same(&row.attributes, &attributes), "expected {:?}, found {attributes:?}", row.attributes);
}

/// Puts the columns from the objects back into the item.
fn put_back(row: &Row, item: &ViewItem, attributes: &mut HashMap<String, AttributeValue>) {
    let Some(AttributeValue::M(addresses)) = attributes.remove("_overflow") else { panic!("no addresses") };
    assert_eq!(addresses.len(), item.moved.len());
    let mut objects: HashMap<&str, &str> = HashMap::new();
    for column in &item.moved {
        assert!(objects.insert(&column.object, &column.json).is_none(), "two columns have one object");
        assert!(column.object.len() <= 1024 && column.object.split('/').count() == 5, "{}", column.object);
    }
    for (column, address) in addresses {
        let object = address.as_s().ok().and_then(|address| address.strip_prefix("s3://bucket/"));
        let json = objects.remove(object.expect("an address")).expect("an address of an object");
        assert_eq!(row.movable.get(&column).map(String::as_str), Some(json));
        assert!(attributes.insert(column.clone(), row.attributes[&column].clone()).is_none(), "a column stands twice");
    }
}

/// Whether two sets of attributes are the same; all zeros are the same number.
fn same(expected: &HashMap<String, AttributeValue>, found: &HashMap<String, AttributeValue>) -> bool {
    let same_member = |(name, value): (&String, _)| found.get(name).is_some_and(|found| same_value(value, found));
    expected.len() == found.len() && expected.iter().all(same_member)
}

fn same_value(expected: &AttributeValue, found: &AttributeValue) -> bool {
    match (expected, found) {
        (AttributeValue::N(a), AttributeValue::N(b)) => a == b || (decimal(a).0.is_empty() && decimal(b).0.is_empty()),
        (AttributeValue::L(a), AttributeValue::L(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b))
        }
        (AttributeValue::M(a), AttributeValue::M(b)) => same(a, b),
        _ => expected == found,
    }
}

/// Checks that each row stands once, with its newest change first.
pub fn assert_rows_are_in_order(plan: &Plan<'_>) {
    let mut keys = BTreeSet::new();
    for row in &plan.rows {
        assert!(keys.insert(&row[0].item.key), "two rows have one key");
        for pair in row.windows(2) {
            assert_eq!(pair[0].item.key, pair[1].item.key);
            let order = pair[0].item.committed.cmp(&pair[1].item.committed);
            assert!(order.is_gt() || (order.is_eq() && pair[0].id < pair[1].id), "a row's changes are in order");
        }
    }
}

/// How a record ended, in words.
pub fn message(disposition: &Disposition) -> String {
    match disposition {
        Disposition::Reported(failure) => failure.to_string(),
        other => format!("{other:?}"),
    }
}

/// The record with other values in its images, its fragment and its transaction. Each keeps its length, so that
/// messages about places and sizes stay the same.
fn redacted(record: &[u8]) -> Vec<u8> {
    let mut redacted = record.to_vec();
    let Some(document) = std::str::from_utf8(record).ok().and_then(Document::read) else { return redacted };
    let root = document.root();
    let values = ["before", "after", "data"].map(|name| root.member(name));
    let transaction = root.member("source").and_then(|source| source.member("txId"));
    let mut values: Vec<Value<'_>> = values.into_iter().flatten().chain(transaction).collect();
    while let Some(value) = values.pop() {
        match value.is() {
            Is::Text(_) | Is::Number(_) => redact(&mut redacted[value.place()]),
            Is::Array(elements) => values.extend(elements),
            Is::Object(members) => values.extend(members.into_iter().map(|(_, value)| value)),
            Is::Null | Is::Bool(_) => {}
        }
    }
    redacted
}

/// Writes other letters and digits in a value, except zeros; escapes and exponents stay.
pub fn redact(json: &mut [u8]) {
    let is_text = json[0] == b'"';
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'\\' if json[at + 1] == b'u' => at += 5,
            b'\\' => at += 1,
            b'e' | b'E' if !is_text => break,
            b'1'..=b'9' => json[at] = if json[at] == b'7' { b'3' } else { b'7' },
            letter if letter.is_ascii_alphabetic() => json[at] = if letter == b'q' { b'j' } else { b'q' },
            _ => {}
        }
        at += 1;
    }
}
