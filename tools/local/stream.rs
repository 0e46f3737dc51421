//! The stream of the local AWS: records are put into it, and its shards are read, by Kinesis's own interface.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use dsql_view_support::dynamodb::sdk_config;
use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::random::Random;
use tokio::sync::mpsc;

use crate::figures::Figures;
use crate::{Failure, told};

/// A request's records at most, and the bytes from which on no further one is added.
const REQUEST_RECORDS: usize = 500;
const REQUEST_BYTES: usize = 1_000_000;

/// Between two reads of a shard. Lambda reads once a second.
const POLL: Duration = Duration::from_millis(250);

/// A stream.
pub struct Stream {
    client: Client,
    arn: String,
    pub shards: Vec<String>,
}

impl Stream {
    /// The stream behind this endpoint.
    pub async fn open(endpoint: &str, arn: &str) -> Result<Self, Failure> {
        let client = Client::new(&sdk_config(endpoint));
        let shards = client.list_shards().stream_arn(arn).send().await.map_err(told)?.shards.unwrap_or_default();
        let shards = shards.into_iter().map(|shard| shard.shard_id).collect();
        Ok(Self { client, arn: arn.to_owned(), shards })
    }

    /// Puts these records, in their order, under random partition keys.
    pub async fn put(
        &self,
        records: Vec<String>,
        random: &mut Random,
        figures: &RefCell<Figures>,
    ) -> Result<(), Failure> {
        let mut request: Vec<String> = Vec::new();
        let mut bytes = 0;
        for record in records {
            if request.len() == REQUEST_RECORDS || bytes > REQUEST_BYTES {
                self.request(std::mem::take(&mut request), random, figures).await?;
                bytes = 0;
            }
            bytes += record.len();
            request.push(record);
        }
        self.request(request, random, figures).await
    }

    async fn request(
        &self,
        records: Vec<String>,
        random: &mut Random,
        figures: &RefCell<Figures>,
    ) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let count = records.len() as u64;
        let mut entries = Vec::new();
        for record in records {
            let key = format!("{:016x}{:016x}", random.number(), random.number());
            entries.push(PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(record)).build()?);
        }
        let request = self.client.put_records().stream_arn(&self.arn).set_records(Some(entries));
        let answer = request.send().await.map_err(told)?;
        if let Some(refused) = answer.records.iter().find(|record| record.error_code.is_some()) {
            return Err(format!("Kinesis refused a record: {refused:?}").into());
        }
        figures.borrow_mut().put.add(count);
        Ok(())
    }

    /// Reads a shard from its beginning until all records of the stream have been read, of which no more come once
    /// `is_complete`.
    pub async fn read(
        &self,
        shard_id: &str,
        records: mpsc::Sender<KinesisRecord>,
        figures: &RefCell<Figures>,
        is_complete: &Cell<bool>,
    ) -> Result<(), Failure> {
        let shard: u32 = shard_id.rsplit('-').next().unwrap_or_default().parse()?;
        let iterator = self.client.get_shard_iterator().stream_arn(&self.arn).shard_id(shard_id);
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.map_err(told)?;
        let mut iterator = iterator.shard_iterator;
        while let Some(from) = iterator {
            let page = self.client.get_records().stream_arn(&self.arn).shard_iterator(from);
            let page = page.send().await.map_err(told)?;
            for record in page.records {
                figures.borrow_mut().read += 1;
                records.send(KinesisRecord::read(shard, record)?).await?;
            }
            iterator = page.next_shard_iterator;
            let is_read = |figures: &Figures| figures.read == figures.put.total();
            if is_complete.get() && is_read(&figures.borrow()) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!("expected {shard_id} to be open, found it closed").into())
    }
}
