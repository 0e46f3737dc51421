//! A stream by Kinesis's own interface: records are put into it, and its shards are read from their beginnings.

use std::error::Error;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::random::Random;

use crate::Failure;

/// The most records of a request, and the number of bytes from which on it takes no further record.
const REQUEST_RECORDS: usize = 200;
const REQUEST_BYTES: usize = 500_000;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    client: Client,
    /// Its ARN.
    pub arn: String,
    /// The names of its shards.
    pub shards: Vec<String>,
}

/// A shard, read from its beginning.
#[derive(Debug)]
pub struct Shard<'a> {
    stream: &'a Stream,
    name: &'a str,
    number: u32,
    iterator: Option<String>,
}

/// Some records of a shard.
#[derive(Debug)]
pub struct Page {
    /// The records, in their order.
    pub records: Vec<KinesisRecord>,
    /// Whether the shard held no more at that moment.
    pub is_last: bool,
}

impl Stream {
    /// The stream with this ARN.
    ///
    /// # Errors
    /// Kinesis refuses to list its shards.
    pub async fn open(client: Client, arn: &str) -> Result<Self, Failure> {
        let shards = client.list_shards().stream_arn(arn).send().await.map_err(told)?.shards.unwrap_or_default();
        let shards = shards.into_iter().map(|shard| shard.shard_id).collect();
        Ok(Self { client, arn: arn.to_owned(), shards })
    }

    /// Puts these records, in their order, under random partition keys.
    ///
    /// # Errors
    /// Kinesis refuses a request or a record.
    pub async fn put(&self, records: Vec<String>, random: &mut Random) -> Result<(), Failure> {
        let (mut request, mut bytes) = (Vec::new(), 0);
        for record in records {
            if request.len() == REQUEST_RECORDS || bytes > REQUEST_BYTES {
                self.request(std::mem::take(&mut request)).await?;
                bytes = 0;
            }
            bytes += record.len();
            let key = format!("{:016x}{:016x}", random.number(), random.number());
            request.push(PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(record)).build()?);
        }
        self.request(request).await
    }

    async fn request(&self, entries: Vec<PutRecordsRequestEntry>) -> Result<(), Failure> {
        if entries.is_empty() {
            return Ok(());
        }
        let request = self.client.put_records().stream_arn(&self.arn).set_records(Some(entries));
        let answer = request.send().await.map_err(told)?;
        match answer.records.iter().find(|record| record.error_code.is_some()) {
            Some(refused) => Err(format!("Kinesis refused a record: {refused:?}").into()),
            None => Ok(()),
        }
    }

    /// A shard, to be read from its beginning.
    ///
    /// # Errors
    /// Kinesis refuses to read it.
    pub async fn shard<'a>(&'a self, name: &'a str) -> Result<Shard<'a>, Failure> {
        let number = name.rsplit('-').next().unwrap_or_default().parse()?;
        let request = self.client.get_shard_iterator().stream_arn(&self.arn).shard_id(name);
        let iterator = request.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.map_err(told)?;
        Ok(Shard { stream: self, name, number, iterator: iterator.shard_iterator })
    }
}

impl Shard<'_> {
    /// The next records. There may be no next record yet.
    ///
    /// # Errors
    /// Kinesis refuses to read, or the shard is closed.
    pub async fn page(&mut self) -> Result<Page, Failure> {
        let from = self.iterator.take().ok_or_else(|| format!("expected {} to be open, found it closed", self.name))?;
        let request = self.stream.client.get_records().stream_arn(&self.stream.arn).shard_iterator(from);
        let page = request.send().await.map_err(told)?;
        self.iterator = page.next_shard_iterator;
        let records: Result<Vec<_>, _> =
            page.records.into_iter().map(|record| KinesisRecord::read(self.number, record)).collect();
        Ok(Page { records: records?, is_last: page.millis_behind_latest == Some(0) })
    }
}

/// The text of an error of Kinesis, with its causes.
pub fn told(error: impl Error) -> String {
    format!("Kinesis: {}", DisplayErrorContext(error))
}
