//! The part of Kinesis that a reader of shards sees, in the process: records, pages, expiry.
//!
//! The documentation does not say how Kinesis treats an expired sequence number: [`Trimmed`] has both answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::kinesis::{KinesisRecord, STREAM, shard_id};
use crate::server::{Answer, Server, json as response, serve_http};

/// The answer to a request for an iterator at a number that the shard no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trimmed {
    /// An iterator at the oldest record.
    Oldest,
    /// An error.
    Error,
}

/// Shards of the stream [`STREAM`].
pub struct LocalShards {
    server: Server,
    state: Arc<Mutex<State>>,
}

struct State {
    shards: BTreeMap<String, Vec<KinesisRecord>>,
    trimmed: Trimmed,
    page: usize,
    pages_read: usize,
    /// How many empty pages come before each other page: Kinesis may answer with an empty page although there are more
    /// records.
    empty_pages: usize,
}

impl LocalShards {
    /// Starts on a free port, with pages of at most this number of records.
    pub fn start(page: usize, trimmed: Trimmed) -> Self {
        let state = State { shards: BTreeMap::new(), trimmed, page, pages_read: 0, empty_pages: 0 };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let server =
            Server::start(0, move |listener| serve_http(listener, move |request| answer(Arc::clone(&shared), request)))
                .expect("a free loopback port");
        Self { server, state }
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Puts records into their shards, in the order of their numbers.
    pub fn put(&self, records: impl IntoIterator<Item = KinesisRecord>) {
        let mut state = self.lock();
        for record in records {
            state.shards.entry(shard_id(record.shard)).or_default().push(record);
        }
    }

    /// From now on, this number of empty pages comes before each other page.
    pub fn answer_with_empty_pages(&self, count: usize) {
        self.lock().empty_pages = count;
    }

    /// Lets the oldest records of a shard expire.
    pub fn expire(&self, shard: u32, count: usize) {
        if let Some(records) = self.lock().shards.get_mut(&shard_id(shard)) {
            records.drain(..count.min(records.len()));
        }
    }

    /// Removes a shard, as Kinesis does long after the stream was split.
    pub fn remove(&self, shard: u32) {
        self.lock().shards.remove(&shard_id(shard));
    }

    /// How many pages have been read.
    pub fn pages_read(&self) -> usize {
        self.lock().pages_read
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Answer {
    let target = request.headers().get("x-amz-target")?.to_str().ok()?.to_owned();
    let body = request.into_body().collect().await.ok()?.to_bytes();
    let asked: Value = serde_json::from_slice(&body).ok()?;
    let mut state = state.lock().expect("no holder panics");
    let answered = match target.rsplit('.').next() {
        Some("GetShardIterator") => state.iterator(&asked),
        Some("GetRecords") => state.records(&asked),
        _ => Err("UnknownOperationException"),
    };
    Some(match answered {
        Ok(answered) => response(200, answered.to_string()),
        Err(code) => response(400, json!({ "__type": code, "message": "made by the local shards" }).to_string()),
    })
}

type Answered = Result<Value, &'static str>;

impl State {
    /// Makes an iterator: the shard's name, and the number from which it reads.
    fn iterator(&self, asked: &Value) -> Answered {
        if asked["StreamARN"] != STREAM {
            return Err("ResourceNotFoundException");
        }
        let shard = asked["ShardId"].as_str().unwrap_or_default();
        let records = self.shards.get(shard).ok_or("ResourceNotFoundException")?;
        let number = asked["StartingSequenceNumber"].as_str().unwrap_or_default();
        let oldest = records.first().map_or("", |record| record.sequence_number.as_str());
        let from = match asked["ShardIteratorType"].as_str() {
            Some("AT_SEQUENCE_NUMBER") if number < oldest && self.trimmed == Trimmed::Error => {
                return Err("InvalidArgumentException");
            }
            Some("AT_SEQUENCE_NUMBER") => number.to_owned(),
            Some("AFTER_SEQUENCE_NUMBER") => format!("{number}!"),
            Some("AT_TIMESTAMP") => {
                let since = asked["Timestamp"].as_f64().ok_or("InvalidArgumentException")?;
                let first = records.iter().find(|record| record.arrival >= since);
                first.map_or("9", |record| record.sequence_number.as_str()).to_owned()
            }
            Some("TRIM_HORIZON") => oldest.to_owned(),
            _ => return Err("InvalidArgumentException"),
        };
        Ok(json!({ "ShardIterator": format!("{shard} {from}") }))
    }

    fn records(&mut self, asked: &Value) -> Answered {
        let (shard, from) =
            asked["ShardIterator"].as_str().and_then(|it| it.split_once(' ')).ok_or("InvalidArgumentException")?;
        let records = self.shards.get(shard).ok_or("ResourceNotFoundException")?;
        let limit = asked["Limit"].as_u64().map_or(self.page, |limit| usize::try_from(limit).unwrap_or(self.page));
        // All numbers have the same length, so they compare as texts.
        let rest: Vec<&KinesisRecord> =
            records.iter().filter(|record| record.sequence_number.as_str() >= from).collect();
        self.pages_read += 1;
        let empty = !self.pages_read.is_multiple_of(self.empty_pages + 1);
        let page: Vec<&KinesisRecord> =
            rest.iter().copied().take(if empty { 0 } else { limit.min(self.page) }).collect();
        let next = page.last().map_or(from.to_owned(), |record| format!("{}!", record.sequence_number));
        let behind = if rest.len() > page.len() { 60_000 } else { 0 };
        let record = |record: &&KinesisRecord| {
            json!({
                "Data": BASE64_STANDARD.encode(&record.data),
                "PartitionKey": record.partition_key,
                "SequenceNumber": record.sequence_number,
                "ApproximateArrivalTimestamp": record.arrival,
            })
        };
        Ok(json!({
            "Records": page.iter().map(record).collect::<Vec<_>>(),
            "NextShardIterator": format!("{shard} {next}"),
            "MillisBehindLatest": behind,
        }))
    }
}
