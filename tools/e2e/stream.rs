//! The stream: a Kinesis by its real interface, into which records go in another order than they were made, some of
//! them twice, and whose shards are read to their ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType, StreamMode, StreamModeDetails, StreamStatus};
use dsql_view_support::dynamodb::sdk_config;
use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::random::Random;
use tokio::sync::mpsc;

use crate::Failure;

/// As the set-up of change data capture asks for: 10 MiB.
const LARGEST_RECORD_KIB: i32 = 10_240;

/// How many records wait, of which any is the next to be put: so far can one come before or after its time.
const WINDOW: usize = 3_000;

/// Of a hundred records, how many are put a second time.
const REPEATED: u64 = 8;

/// A request's records at most, and the bytes from which on no further one is added.
const REQUEST_RECORDS: usize = 200;
const REQUEST_BYTES: usize = 500_000;

/// Between two pages, while more may be put. The local Kinesis goes through all records of a shard for each page.
const POLL: Duration = Duration::from_secs(1);

/// A stream.
#[derive(Debug)]
pub struct Stream {
    client: Client,
    pub arn: String,
    shards: Vec<String>,
    is_complete: AtomicBool,
    pub counts: Counts,
}

/// What has happened to a stream.
#[derive(Debug, Default)]
pub struct Counts {
    pub put: AtomicU64,
    pub repeated: AtomicU64,
    pub bytes: AtomicU64,
    pub read: AtomicU64,
}

impl Stream {
    /// Creates a stream on demand behind this endpoint, for records of 10 MiB.
    pub async fn create(endpoint: &str, name: &str) -> Result<Self, Failure> {
        let client = Client::new(&sdk_config(endpoint));
        let on_demand = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build()?;
        client.create_stream().stream_name(name).stream_mode_details(on_demand).send().await.map_err(told)?;
        let arn = active(&client, name).await?;
        let size = client.update_max_record_size().stream_arn(&arn).max_record_size_in_kib(LARGEST_RECORD_KIB);
        size.send().await.map_err(told)?;
        active(&client, name).await?;
        let shards = client.list_shards().stream_arn(&arn).send().await.map_err(told)?.shards.unwrap_or_default();
        let shards = shards.into_iter().map(|shard| shard.shard_id).collect();
        Ok(Self { client, arn, shards, is_complete: AtomicBool::new(false), counts: Counts::default() })
    }

    /// How many shards it has.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Puts all records that come, any of the window next, under random partition keys; some again.
    pub async fn put_all(&self, mut records: mpsc::Receiver<String>, mut random: Random) -> Result<(), Failure> {
        let mut window: Vec<String> = Vec::new();
        let mut request: Vec<String> = Vec::new();
        loop {
            let next = records.recv().await;
            let is_last = next.is_none();
            window.extend(next);
            while window.len() > if is_last { 0 } else { WINDOW } {
                let place = random.below(window.len());
                let record = if random.percent(REPEATED) {
                    self.counts.repeated.fetch_add(1, Ordering::Relaxed);
                    window[place].clone()
                } else {
                    window.swap_remove(place)
                };
                let bytes = record.len() + request.iter().map(String::len).sum::<usize>();
                if request.len() >= REQUEST_RECORDS || (bytes > REQUEST_BYTES && !request.is_empty()) {
                    self.put(std::mem::take(&mut request), &mut random).await?;
                }
                request.push(record);
            }
            if is_last {
                break;
            }
        }
        self.put(request, &mut random).await?;
        self.is_complete.store(true, Ordering::Release);
        Ok(())
    }

    async fn put(&self, records: Vec<String>, random: &mut Random) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let (count, bytes) = (records.len() as u64, records.iter().map(String::len).sum::<usize>() as u64);
        let mut entries = Vec::new();
        for record in records {
            let key = format!("{:016x}{:016x}", random.number(), random.number());
            let entry = PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(record)).build()?;
            entries.push(entry);
        }
        let answer =
            self.client.put_records().stream_arn(&self.arn).set_records(Some(entries)).send().await.map_err(told)?;
        if let Some(refused) = answer.records.iter().find(|record| record.error_code.is_some()) {
            return Err(format!("Kinesis refused a record: {refused:?}").into());
        }
        self.counts.put.fetch_add(count, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Reads a shard from its beginning until all records are put and its end is reached.
    pub async fn read_shard(&self, number: usize, records: mpsc::Sender<KinesisRecord>) -> Result<(), Failure> {
        let shard_id = &self.shards[number];
        let shard: u32 = shard_id.rsplit('-').next().unwrap_or_default().parse()?;
        let iterator = self.client.get_shard_iterator().stream_arn(&self.arn).shard_id(shard_id);
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.map_err(told)?;
        let mut iterator = iterator.shard_iterator;
        while let Some(from) = iterator {
            // Asked before the page: what was put by then is in it, or the page says that there is more.
            let is_complete = self.is_complete.load(Ordering::Acquire);
            let page = self.client.get_records().stream_arn(&self.arn).shard_iterator(from);
            let page = page.send().await.map_err(told)?;
            let is_empty = page.records.is_empty();
            for record in page.records {
                self.counts.read.fetch_add(1, Ordering::Relaxed);
                records.send(KinesisRecord::read(shard, record)?).await?;
            }
            iterator = page.next_shard_iterator;
            if is_empty && is_complete && page.millis_behind_latest == Some(0) {
                return Ok(());
            }
            if !is_complete {
                tokio::time::sleep(POLL).await;
            }
        }
        Err(format!("{shard_id} was closed").into())
    }
}

/// Waits until the stream can be used: its ARN.
async fn active(client: &Client, name: &str) -> Result<String, Failure> {
    loop {
        let stream = client.describe_stream_summary().stream_name(name).send().await.map_err(told)?;
        let stream = stream.stream_description_summary.ok_or("Kinesis tells nothing of the stream")?;
        if stream.stream_status == StreamStatus::Active {
            return Ok(stream.stream_arn);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn told(error: impl std::error::Error) -> String {
    format!("Kinesis: {}", DisplayErrorContext(error))
}
