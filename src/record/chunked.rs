//! The records of a change whose JSON is over 9 MiB: its main record, and the fragments of its images.
//!
//! Invariants: pure; this module checks the name of a set, the place of a fragment and the number of fragments, so that
//! no other code meets absurd ones; an error never quotes a value.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::record::envelope::{DecodeError, FullRecord, WireRecord, object, present, text};
use crate::record::json::kind;

/// The chunked images of a change: the one that this function needs, and the one that it does not. There is at least
/// one.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunks<'a> {
    /// The image that the operation needs, if it is in fragments.
    pub needed: Option<ChunkedImage<'a>>,
    /// The other image, if it is in fragments.
    pub unneeded: Option<ChunkedImage<'a>>,
}

/// An image in fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkedImage<'a> {
    /// The name of the set of fragments, the same at each redelivery.
    pub chunk_id: Cow<'a, str>,
    /// The number of fragments: 1 to [`MOST_FRAGMENTS`].
    pub total_fragments: u32,
    /// CRC32C of the joined fragments.
    pub crc32c: u32,
}

/// A fragment of an image.
#[derive(Debug)]
pub struct Fragment<'a> {
    /// The name of its set.
    pub chunk_id: Cow<'a, str>,
    /// Its place in the set, from 0, below [`MOST_FRAGMENTS`].
    pub index: u32,
    data: &'a RawValue,
}

/// The most fragments of an image. A fragment has up to 10 MiB, and a row up to 2 MiB in storage, so a record that
/// names more is no change of a row.
pub const MOST_FRAGMENTS: u32 = 1000;

#[derive(Deserialize)]
struct WireChunks<'a> {
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    after: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireChunkedImage<'a> {
    #[serde(borrow)]
    chunk_id: Option<&'a RawValue>,
    total_fragments: Option<&'a RawValue>,
    crc32c: Option<&'a RawValue>,
}

impl<'a> Fragment<'a> {
    /// Reads a record of the type `fragment`.
    pub(super) fn of(record: &WireRecord<'a>) -> Result<Self, DecodeError> {
        let data = present(record.data, "data", "a string")?;
        if !data.get().starts_with('"') {
            return Err(DecodeError::NoEnvelope { field: "data", expected: "a string", found: kind(data) });
        }
        Ok(Self {
            chunk_id: chunk_id(record.chunk_id, "chunk_id")?,
            index: whole_number(record.index, "index", "a whole number from 0 to 999", 0..=MOST_FRAGMENTS - 1)?,
            data,
        })
    }

    /// The fragment's text as a JSON string, as the record has it.
    pub(crate) fn json(&self) -> &str {
        self.data.get()
    }

    /// The fragment's text.
    ///
    /// # Errors
    /// The JSON string is not valid, for example because it holds half a surrogate pair.
    pub fn text(&self) -> Result<Cow<'a, str>, DecodeError> {
        text(self.data, "data")
    }
}

impl<'a> FullRecord<'a> {
    /// The images that are in fragments, if it is the main record of a chunked change.
    ///
    /// # Errors
    /// The operation is missing, or `chunked` does not describe the fragments of an image.
    pub fn chunks(&self) -> Result<Chunks<'a>, DecodeError> {
        let chunks: WireChunks<'a> = object(present(self.root.chunked, "chunked", "an object")?, "chunked")?;
        let before = chunks.before.map(|image| ChunkedImage::read(image, BEFORE)).transpose()?;
        let after = chunks.after.map(|image| ChunkedImage::read(image, AFTER)).transpose()?;
        if before.is_none() && after.is_none() {
            let expected = "an object with before or after";
            return Err(DecodeError::NoEnvelope { field: "chunked", expected, found: "neither" });
        }
        Ok(if self.is_delete()? {
            Chunks { needed: before, unneeded: after }
        } else {
            Chunks { needed: after, unneeded: before }
        })
    }
}

/// The names of an image and of its fields, for messages.
type Names = [&'static str; 4];
const BEFORE: Names =
    ["chunked.before", "chunked.before.chunk_id", "chunked.before.total_fragments", "chunked.before.crc32c"];
const AFTER: Names =
    ["chunked.after", "chunked.after.chunk_id", "chunked.after.total_fragments", "chunked.after.crc32c"];

impl<'a> ChunkedImage<'a> {
    fn read(image: &'a RawValue, [name, id, total, checksum]: Names) -> Result<Self, DecodeError> {
        const EXPECTED: &str = "a CRC32C in decimal";
        let image: WireChunkedImage<'a> = object(image, name)?;
        let fragments = "a whole number from 1 to 1000";
        let crc32c = present(image.crc32c, checksum, EXPECTED)?;
        let digits = match crc32c.get().as_bytes().first() {
            Some(b'"') => text(crc32c, checksum)?,
            _ => Cow::Borrowed(crc32c.get()),
        };
        // Rust's integer parser accepts a plus sign, too.
        let number = if digits.starts_with('+') { None } else { digits.parse().ok() };
        let no_number = DecodeError::NoEnvelope { field: checksum, expected: EXPECTED, found: kind(crc32c) };
        Ok(Self {
            chunk_id: chunk_id(image.chunk_id, id)?,
            total_fragments: whole_number(image.total_fragments, total, fragments, 1..=MOST_FRAGMENTS)?,
            crc32c: number.ok_or(no_number)?,
        })
    }
}

fn chunk_id<'a>(value: Option<&'a RawValue>, field: &'static str) -> Result<Cow<'a, str>, DecodeError> {
    let expected = "a string that is not empty";
    let id = text(present(value, field, expected)?, field)?;
    if id.is_empty() { Err(DecodeError::NoEnvelope { field, expected, found: "an empty one" }) } else { Ok(id) }
}

fn whole_number(
    value: Option<&RawValue>,
    field: &'static str,
    expected: &'static str,
    range: RangeInclusive<u32>,
) -> Result<u32, DecodeError> {
    let value = present(value, field, expected)?;
    let number = value.get().parse().ok().filter(|number| range.contains(number));
    number.ok_or(DecodeError::NoEnvelope { field, expected, found: kind(value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::decode::{Envelope, read};

    fn chunked(op: &str, chunked: &str) -> String {
        format!(
            r#"{{"type":"chunked","op":"{op}","source":{{"schema":"public","table":"users"}},"chunked":{chunked}}}"#
        )
    }

    fn image(id: &str) -> String {
        format!(r#"{{"chunk_id":"{id}","total_fragments":3,"crc32c":"2073618257"}}"#)
    }

    fn chunks(record: &str) -> Result<(Option<String>, Option<String>), DecodeError> {
        let Envelope::Chunked(chunked) = read(record.as_bytes()).unwrap() else { panic!("{record}") };
        let id = |image: Option<ChunkedImage<'_>>| {
            image.map(|image| {
                assert_eq!((image.total_fragments, image.crc32c), (3, 2_073_618_257));
                image.chunk_id.into_owned()
            })
        };
        chunked.chunks().map(|chunks| (id(chunks.needed), id(chunks.unneeded)))
    }

    #[test]
    fn an_upsert_needs_the_image_after_and_a_delete_the_one_before() {
        let (before, after) = (image("b"), image("a"));
        let both = format!(r#"{{"before":{before},"after":{after}}}"#);
        let (a, b) = (|| Some("a".to_owned()), || Some("b".to_owned()));
        for (op, json, expected) in [
            ("c", &both, (a(), b())),
            ("u", &format!(r#"{{"after":{after}}}"#), (a(), None)),
            ("u", &format!(r#"{{"before":{before},"after":null}}"#), (None, b())),
            ("d", &both, (b(), a())),
        ] {
            assert_eq!(chunks(&chunked(op, json)), Ok(expected), "{op} {json}");
        }
        // A checksum may come as a number, too.
        assert!(chunks(&chunked("c", &both.replace(r#""2073618257""#, "2073618257"))).is_ok());
    }

    #[test]
    fn unusable_chunks_are_refused_with_what_was_expected() {
        for (json, expected) in [
            ("null".to_owned(), "expected chunked to be an object, found none"),
            ("{}".to_owned(), "expected chunked to be an object with before or after, found neither"),
            (r#"{"after":[]}"#.to_owned(), "expected chunked.after to be an object, found an array"),
            (format!(r#"{{"after":{}}}"#, image("")), "chunked.after.chunk_id to be a string that is not empty"),
            (
                format!(r#"{{"after":{}}}"#, image("x").replace(":3", ":0")),
                "chunked.after.total_fragments to be a whole number from 1 to 1000, found a number that does not fit",
            ),
            (format!(r#"{{"after":{}}}"#, image("x").replace(":3", ":4000000000")), "from 1 to 1000"),
            (format!(r#"{{"after":{}}}"#, image("x").replace(":3", ":\"3\"")), "from 1 to 1000, found a string"),
            (format!(r#"{{"after":{}}}"#, image("x").replace("2073618257", "secret")), "a CRC32C in decimal"),
            (format!(r#"{{"after":{}}}"#, image("x").replace("2073618257", "4294967296")), "a CRC32C in decimal"),
        ] {
            let error = chunks(&chunked("c", &json)).expect_err(&json).to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{json} gave: {error}");
        }
    }

    #[test]
    fn regression_a_checksum_has_no_sign() {
        for sign in ["+", "-"] {
            let json = format!(r#"{{"after":{}}}"#, image("x").replace("2073618257", &format!("{sign}2073618257")));
            let error = chunks(&chunked("c", &json)).expect_err(&json).to_string();
            assert!(error.contains("a CRC32C in decimal"), "{json} gave: {error}");
        }
    }

    #[test]
    fn a_fragment_has_a_set_a_place_and_a_text() {
        let record = |id: &str, index: &str, data: &str| {
            format!(r#"{{"type":"fragment","chunk_id":{id},"index":{index},"data":{data}}}"#)
        };
        let good = record(r#""x""#, "2", r#""{\"a\"""#);
        let Ok(Envelope::Fragment(fragment)) = read(good.as_bytes()) else { panic!("{good}") };
        assert_eq!((&*fragment.chunk_id, fragment.index, fragment.text().unwrap().as_ref()), ("x", 2, "{\"a\""));
        for (record, expected) in [
            (record(r#""""#, "0", r#""""#), "chunk_id to be a string that is not empty"),
            (record("7", "0", r#""""#), "chunk_id to be a string, found a number"),
            (record(r#""x""#, "1000", r#""""#), "index to be a whole number from 0 to 999"),
            (record(r#""x""#, "-1", r#""""#), "index to be a whole number from 0 to 999"),
            (record(r#""x""#, "0.5", r#""""#), "index to be a whole number from 0 to 999"),
            (record(r#""x""#, "0", "null"), "data to be a string, found none"),
            (record(r#""x""#, "0", "{}"), "data to be a string, found an object"),
        ] {
            let error = read(record.as_bytes()).expect_err(&record).to_string();
            assert!(error.contains(expected), "{record} gave: {error}");
        }
    }
}
