//! The sample events: the readable sources in `events/source/`, and the Lambda event that each file becomes.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::kinesis::{self, KinesisRecord};

/// A sample event as its author writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// What happens, in a few words.
    pub title: String,
    /// What happens, and what the function does about it.
    pub about: String,
    /// The result that the records must have.
    pub expect: Expected,
    /// The records, in the order of their delivery.
    pub records: Vec<SampleRecord>,
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// How many records are in the files before it, so that sequence numbers grow from file to file.
    #[serde(skip)]
    first: u64,
}

/// The result that a sample's records must have, if the samples are delivered in order.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub applied: usize,
    pub superseded: usize,
    pub filtered: usize,
    /// The places of the reported records, from 0.
    pub reported: Vec<usize>,
}

impl Expected {
    /// The result that was found, from the function's answer and its log line for the batch.
    pub fn found(sample: &Sample, answer: &serde_json::Value, log: &serde_json::Value) -> Self {
        let count = |name: &str| log[name].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
        let place = |reported: u64| usize::try_from(reported - sample.first).expect("a place in the batch");
        Self {
            applied: count("applied"),
            superseded: count("superseded"),
            filtered: count("filtered"),
            reported: kinesis::reported(answer).into_iter().map(place).collect(),
        }
    }
}

/// A record: change data as JSON, or any text if the record is meant to be broken.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleRecord {
    shard: u32,
    cdc: Option<Box<RawValue>>,
    text: Option<String>,
}

impl SampleRecord {
    /// Its bytes.
    pub fn data(&self) -> String {
        match (&self.cdc, &self.text) {
            (Some(cdc), None) => compact(cdc.get()),
            (None, Some(text)) => text.clone(),
            _ => panic!("a record has either \"cdc\" or \"text\""),
        }
    }
}

impl Sample {
    /// The records as Kinesis holds them.
    pub fn kinesis_records(&self) -> Vec<KinesisRecord> {
        (self.first..)
            .zip(&self.records)
            .map(|(place, record)| KinesisRecord {
                shard: record.shard,
                arrival: 1_773_843_842.125 + f64::from(u32::try_from(place).expect("a small place")),
                ..KinesisRecord::at(place, record.data())
            })
            .collect()
    }

    /// The Lambda event's file, as it stands in `events/`.
    pub fn event_file(&self) -> String {
        file(&kinesis::event(&self.kinesis_records()))
    }
}

/// The Lambda event's file for change records as JSON: one object, or an array of objects.
pub fn event_of_records(json: &str) -> serde_json::Result<String> {
    let whole: &RawValue = serde_json::from_str(json)?;
    let records: Vec<&RawValue> =
        if whole.get().starts_with('[') { serde_json::from_str(whole.get())? } else { vec![whole] };
    Ok(file(&kinesis::event_of(records.iter().map(|record| compact(record.get())))))
}

fn file(event: &serde_json::Value) -> String {
    serde_json::to_string_pretty(event).expect("JSON of our own") + "\n"
}

/// The folder of the Lambda events; their sources are in `source/` in it.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events")
}

/// The `SOURCE_TABLES` that the samples are made for.
pub fn source_tables() -> io::Result<String> {
    std::fs::read_to_string(folder().join("source-tables.txt"))
}

/// All samples, in the order of their names.
pub fn samples() -> io::Result<Vec<Sample>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder().join("source"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    let mut samples: Vec<Sample> = Vec::new();
    let mut first = 0;
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut sample: Sample = serde_json::from_str(&std::fs::read_to_string(&path)?)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        (sample.name, sample.first) = (name, first);
        first += sample.records.len() as u64;
        samples.push(sample);
    }
    Ok(samples)
}

/// JSON without the white space between its tokens; all else unchanged.
fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for next in json.chars() {
        if in_string {
            in_string = escaped || next != '"';
            escaped = !escaped && next == '\\';
        } else if next.is_ascii_whitespace() {
            continue;
        } else {
            in_string = next == '"';
        }
        compact.push(next);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::{compact, event_of_records};

    #[test]
    fn one_record_or_an_array_of_them_makes_an_event() {
        let one = event_of_records(r#" {"op": "c"} "#).unwrap();
        assert_eq!(one, event_of_records(r#"[{"op":"c"}]"#).unwrap());
        assert!(one.contains("eyJvcCI6ImMifQ=="), "{one}");
        assert!(event_of_records("{").is_err());
    }

    #[test]
    fn compact_json_keeps_strings_and_digits() {
        let json = "{ \"a b\" : [ 1.50 ,\n \"c \\\" d\\\\\" , true ] }";
        assert_eq!(compact(json), r#"{"a b":[1.50,"c \" d\\",true]}"#);
    }
}
