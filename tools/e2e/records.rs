//! Turns a change into the records that Aurora DSQL's change data capture puts into the stream.

use std::fmt::Write;

use dsql_view_support::random::Random;
use serde_json::{Value, json};

use crate::changes::{Change, Kind};
use crate::values;

/// A change whose JSON is larger is split into fragments.
const LARGEST_RECORD: usize = 9 * 1024 * 1024;

/// The transaction of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Nanoseconds since the epoch.
    pub timestamp: u64,
    /// The transaction's name in the records.
    pub transaction: String,
}

/// The two published layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The documentation's layout: the commit's timestamp is `source.ts_ns`.
    Documented,
    /// The preview's layout: the commit's timestamp is the root's `ts_ns`. There is no `type`, updates are `c`, and
    /// null columns may be left out.
    Preview,
}

/// The properties that differ from record to record, and mean nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    pub layout: Layout,
    /// Nanoseconds from the commit to the record. They are negative if the change stream's clock is behind.
    pub lag: i64,
    /// Whether columns that are null are left out.
    pub without_nulls: bool,
    /// Whether there is a field that nobody knows.
    pub unknown_field: bool,
    /// How many fragments the image is split into if it is too large.
    pub pieces: usize,
    pub chunk_id: String,
}

impl Form {
    /// A random form.
    pub fn any(random: &mut Random) -> Self {
        let layout = if random.percent(50) { Layout::Documented } else { Layout::Preview };
        Self {
            layout,
            // If its clock were behind, a preview record would be filed by its earlier timestamp.
            lag: match i64::try_from(random.number() % 300_000_000).unwrap_or_default() {
                lag if layout == Layout::Documented && random.percent(20) => -lag,
                lag => 1 + lag,
            },
            without_nulls: layout == Layout::Preview && random.percent(50),
            unknown_field: random.percent(5),
            pieces: 2 + random.below(3),
            chunk_id: format!("{:016x}{:016x}", random.number(), random.number()),
        }
    }
}

/// The records of a change: one, or a main record and its fragments.
///
/// # Errors
/// A column is of a type that is not in the documented mapping.
pub fn records(change: &Change, commit: &Commit, form: &Form) -> Result<Vec<String>, String> {
    let image = (!change.image.is_empty()).then(|| image(change, form)).transpose()?;
    let whole = record(change, commit, form, image.as_deref(), None);
    let Some(image) = image.filter(|_| whole.len() > LARGEST_RECORD) else { return Ok(vec![whole]) };

    let pieces = split(&image, form.pieces);
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, image.as_bytes()).to_string();
    let place = if change.kind == Kind::Delete { "before" } else { "after" };
    let chunked = json!({
        place: { "chunk_id": form.chunk_id, "total_fragments": pieces.len(), "crc32c": checksum },
    });
    // A split change has a type, and so the layout that the documentation has.
    let form = Form { layout: Layout::Documented, ..form.clone() };
    let mut records = vec![record(change, commit, &form, None, Some(&chunked))];
    for (index, data) in pieces.into_iter().enumerate() {
        records
            .push(json!({ "type": "fragment", "chunk_id": form.chunk_id, "index": index, "data": data }).to_string());
    }
    Ok(records)
}

fn image(change: &Change, form: &Form) -> Result<String, String> {
    let mut members = Vec::new();
    for (column, value) in &change.image {
        let value = match value {
            Some(text) => values::json(column.type_id, text)?,
            None if form.without_nulls => continue,
            None => "null".to_owned(),
        };
        members.push(format!("{}:{value}", Value::from(column.name.as_str())));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

fn record(change: &Change, commit: &Commit, form: &Form, image: Option<&str>, chunked: Option<&Value>) -> String {
    let processed = commit.timestamp.saturating_add_signed(form.lag);
    let (source, root) = match form.layout {
        Layout::Documented => (commit.timestamp, processed),
        Layout::Preview => (processed, commit.timestamp),
    };
    let mut record = "{".to_owned();
    match (chunked, form.layout) {
        (Some(chunked), _) => write!(record, r#""type":"chunked","chunked":{chunked},"#),
        (None, Layout::Documented) => write!(record, r#""type":"full","#),
        (None, Layout::Preview) => Ok(()),
    }
    .expect("writing to a string");
    if form.unknown_field {
        record.push_str(r#""added_later":{"nested":[1,{"op":"d"}]},"#);
    }
    let op = match (change.kind, form.layout) {
        (Kind::Delete, _) => "d",
        (Kind::Update, Layout::Documented) => "u",
        (Kind::Create | Kind::Update, _) => "c",
    };
    let image = image.unwrap_or("null");
    let (before, after) = if change.kind == Kind::Delete { (image, "null") } else { ("null", image) };
    let (source_ms, root_ms) = (source / 1_000_000, root / 1_000_000);
    let [schema, table, transaction] =
        [&change.schema, &change.table, &commit.transaction].map(|name| Value::from(name.as_str()));
    write!(
        record,
        concat!(
            r#""op":"{op}","before":{before},"after":{after},"source":{{"version":"1.0","ts_ms":{source_ms},"ts_ns":{source},"#,
            r#""txId":{transaction},"schema":{schema},"table":{table},"db":"postgres","cluster":"kmabugltfmjdaj2siqr2qbxgju"}},"#,
            r#""ts_ms":{root_ms},"ts_ns":{root}}}"#
        ),
        op = op,
        before = before,
        after = after,
        source_ms = source_ms,
        source = source,
        transaction = transaction,
        schema = schema,
        table = table,
        root_ms = root_ms,
        root = root,
    )
    .expect("writing to a string");
    record
}

/// Cuts the text into this many fragments. No fragment splits a character.
fn split(text: &str, pieces: usize) -> Vec<&str> {
    let each = text.len().div_ceil(pieces);
    let boundaries: Vec<usize> =
        (0..=pieces).map(|piece| text.floor_char_boundary((piece * each).min(text.len()))).collect();
    boundaries.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoding::Column;

    const PREVIEW: &str = concat!(
        r#"{"op":"c","before":null,"after":{"id":"521d51b6-47fd-46dc-854a-32306bfc5001","name":"Alice","#,
        r#""email":"alice@example.com","created_at":1773843841048727},"source":{"version":"1.0","ts_ms":1773843841175,"#,
        r#""ts_ns":1773843841175766820,"txId":"dco7le2ijpdsjtspu7hqkf2lyi","schema":"public","table":"users","db":"postgres","#,
        r#""cluster":"kmabugltfmjdaj2siqr2qbxgju"},"ts_ms":1773843841076,"ts_ns":1773843841076494565}"#
    );

    fn change(kind: Kind, image: &[(&str, u32, Option<&str>)]) -> Change {
        let column = |(name, type_id, value): &(&str, u32, Option<&str>)| {
            (Column { name: (*name).to_owned(), type_id: *type_id }, value.map(str::to_owned))
        };
        let image = image.iter().map(column).collect();
        Change { schema: "public".to_owned(), table: "users".to_owned(), kind, image }
    }

    fn commit() -> Commit {
        Commit { timestamp: 1_773_843_841_076_494_565, transaction: "dco7le2ijpdsjtspu7hqkf2lyi".to_owned() }
    }

    fn form(layout: Layout) -> Form {
        Form {
            layout,
            lag: 99_272_255,
            without_nulls: false,
            unknown_field: false,
            pieces: 3,
            chunk_id: "a chunk".to_owned(),
        }
    }

    #[test]
    fn the_preview_s_example_comes_out_as_published() {
        let alice = change(
            Kind::Update,
            &[
                ("id", 2950, Some("521d51b6-47fd-46dc-854a-32306bfc5001")),
                ("name", 25, Some("Alice")),
                ("email", 25, Some("alice@example.com")),
                ("created_at", 1114, Some("2026-03-18 14:24:01.048727")),
            ],
        );
        assert_eq!(records(&alice, &commit(), &form(Layout::Preview)).unwrap(), [PREVIEW]);
    }

    #[test]
    fn the_documented_layout_has_the_commit_in_its_source() {
        let row = [("id", 20, Some("1001")), ("price", 1700, Some("29.99")), ("note", 25, None)];
        for (kind, image, expected) in [
            (Kind::Create, &row[..], r#""op":"c","before":null,"after":{"id":1001,"price":"29.99","note":null}"#),
            (Kind::Update, &row[..], r#""op":"u","before":null,"after":{"id":1001,"price":"29.99","note":null}"#),
            (Kind::Delete, &row[..1], r#""op":"d","before":{"id":1001},"after":null"#),
            (Kind::Delete, &[], r#""op":"d","before":null,"after":null"#),
        ] {
            let made = records(&change(kind, image), &commit(), &form(Layout::Documented)).unwrap();
            let record: Value = serde_json::from_str(&made[0]).unwrap();
            assert!(made[0].contains(expected), "{}", made[0]);
            assert_eq!(record["type"], "full");
            assert_eq!(record["source"]["ts_ns"], 1_773_843_841_076_494_565_u64);
            assert_eq!(record["ts_ns"], 1_773_843_841_175_766_820_u64);
        }
    }

    #[test]
    fn a_preview_may_leave_nulls_out_and_any_record_may_have_more_fields() {
        let form = Form { without_nulls: true, unknown_field: true, ..form(Layout::Preview) };
        let made =
            records(&change(Kind::Create, &[("id", 23, Some("1")), ("note", 25, None)]), &commit(), &form).unwrap();
        assert!(made[0].contains(r#""after":{"id":1},"#) && made[0].contains("added_later"), "{}", made[0]);
    }

    #[test]
    fn a_change_over_nine_mib_comes_in_pieces_that_make_up_its_image() {
        // The first character takes six bytes in JSON. The second has two bytes, which no fragment splits.
        let text = "\u{1}ü".repeat(1_300_000);
        let large = change(Kind::Update, &[("id", 23, Some("1")), ("text", 25, Some(&text))]);
        let made = records(&large, &commit(), &form(Layout::Preview)).unwrap();
        assert_eq!(made.len(), 4);
        let main: Value = serde_json::from_str(&made[0]).unwrap();
        assert_eq!((&main["type"], &main["after"], &main["op"]), (&json!("chunked"), &Value::Null, &json!("u")));
        assert_eq!(main["source"]["ts_ns"], commit().timestamp);
        let chunk = &main["chunked"]["after"];
        assert_eq!((&chunk["chunk_id"], &chunk["total_fragments"]), (&json!("a chunk"), &json!(3)));
        let mut joined = String::new();
        for (index, fragment) in made[1..].iter().enumerate() {
            let fragment: Value = serde_json::from_str(fragment).unwrap();
            assert_eq!((&fragment["type"], &fragment["index"]), (&json!("fragment"), &json!(index)));
            assert!(fragment.get("source").is_none());
            joined.push_str(fragment["data"].as_str().unwrap());
        }
        let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, joined.as_bytes());
        assert_eq!(chunk["crc32c"], checksum.to_string());
        let image: Value = serde_json::from_str(&joined).unwrap();
        assert_eq!((&image["id"], image["text"].as_str()), (&json!(1), Some(text.as_str())));
    }
}
