//! The stream: a Kinesis by its real interface. Records go into it in another order than they were made, and some of
//! them twice. Its shards are read to their ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{StreamMode, StreamModeDetails, StreamStatus};
use dsql_view_support::dynamodb::sdk_config;
use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::random::Random;
use dsql_view_tools::stream::told;
use dsql_view_tools::{Failure, stream};
use tokio::sync::mpsc;

/// The limit that the set-up of change data capture asks for: 10 MiB.
const LARGEST_RECORD_KIB: i32 = 10_240;

/// How many records wait. Any of them is the next to be put, so a record can come this far before or after its time.
const WINDOW: usize = 3_000;

/// Of a hundred records, how many are put a second time.
const REPEATED: u64 = 8;

/// How many records are put together.
const TOGETHER: usize = 200;

/// The time between two pages, while more may be put. The local Kinesis goes through all records of a shard for each
/// page.
const POLL: Duration = Duration::from_secs(1);

/// A stream.
#[derive(Debug)]
pub struct Stream {
    kinesis: stream::Stream,
    is_complete: AtomicBool,
    pub counts: Counts,
}

/// Counts of what has happened to a stream.
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
        let kinesis = stream::Stream::open(client, &arn).await?;
        Ok(Self { kinesis, is_complete: AtomicBool::new(false), counts: Counts::default() })
    }

    pub fn arn(&self) -> &str {
        &self.kinesis.arn
    }

    pub fn shards(&self) -> &[String] {
        &self.kinesis.shards
    }

    /// Puts all records that come, under random partition keys, and some of them again. Any record of the window is the
    /// next.
    pub async fn put_all(&self, mut records: mpsc::Receiver<String>, mut random: Random) -> Result<(), Failure> {
        let mut window: Vec<String> = Vec::new();
        let mut together: Vec<String> = Vec::new();
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
                together.push(record);
                if together.len() == TOGETHER {
                    self.put(std::mem::take(&mut together), &mut random).await?;
                }
            }
            if is_last {
                break;
            }
        }
        self.put(together, &mut random).await?;
        self.is_complete.store(true, Ordering::Release);
        Ok(())
    }

    async fn put(&self, records: Vec<String>, random: &mut Random) -> Result<(), Failure> {
        let (count, bytes) = (records.len() as u64, records.iter().map(String::len).sum::<usize>() as u64);
        self.kinesis.put(records, random).await?;
        self.counts.put.fetch_add(count, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Reads a shard from its beginning until all records are put and its end is reached.
    pub async fn read_shard(&self, shard: &str, records: mpsc::Sender<KinesisRecord>) -> Result<(), Failure> {
        let mut shard = self.kinesis.shard(shard).await?;
        loop {
            // This is asked before the page. Everything that was put by then is in the page, or the page says that
            // there is more.
            let is_complete = self.is_complete.load(Ordering::Acquire);
            let page = shard.page().await?;
            if page.records.is_empty() && is_complete && page.is_last {
                return Ok(());
            }
            for record in page.records {
                self.counts.read.fetch_add(1, Ordering::Relaxed);
                records.send(record).await?;
            }
            if !is_complete {
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// Waits until the stream can be used, and returns its ARN.
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
