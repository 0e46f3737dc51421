//! Reads a range of a shard straight from Kinesis, page by page. A page has up to 10 MiB: Lambda's limits do not apply
//! here.
//!
//! Invariant: if Kinesis does not say for certain that records are gone, there is an error and not a loss.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::GetRecordsError;
use aws_sdk_kinesis::operation::get_shard_iterator::GetShardIteratorError;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record as KinesisRecord, ShardIteratorType};

use super::range::{Progress, ShardRange};
use crate::aws::service_error::ServiceError;
use crate::record::delivery::{Batch, Data, Record, to_the_millisecond};
use crate::record::sequence::SequenceNumber;

/// The name of the service in errors.
const KINESIS: &str = "Kinesis";

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(90);

/// A shard gives 2 MiB and five answers a second to all its readers together, so reading takes patience.
const MOST_ATTEMPTS: u32 = 12;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Reads shards.
#[derive(Debug, Clone)]
pub struct Shards {
    client: Client,
}

/// A range being read.
#[derive(Debug)]
pub struct Reader<'s> {
    client: &'s Client,
    range: &'s ShardRange,
    /// Where the next page begins; `None` after the last page.
    iterator: Option<String>,
    progress: Progress,
    end_of_first_page: Option<SequenceNumber>,
}

impl Shards {
    /// Shards of streams that this configuration reaches.
    pub fn new(sdk_config: &SdkConfig) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let retry = RetryConfig::standard()
            .with_max_attempts(MOST_ATTEMPTS)
            .with_initial_backoff(FIRST_BACKOFF)
            .with_max_backoff(LONGEST_BACKOFF);
        let config = aws_sdk_kinesis::config::Builder::from(sdk_config).timeout_config(timeouts).retry_config(retry);
        Self { client: Client::from_conf(config.build()) }
    }

    /// Begins to read a range.
    ///
    /// # Errors
    /// Kinesis did not say where the range begins.
    pub async fn read<'s>(&'s self, range: &'s ShardRange) -> Result<Reader<'s>, ServiceError> {
        let iterator = iterator_at(&self.client, range).await?;
        let progress = Progress::default();
        Ok(Reader { client: &self.client, range, iterator, progress, end_of_first_page: None })
    }
}

impl Reader<'_> {
    /// The next records of the range as a batch, or `None` when there are no more.
    ///
    /// # Errors
    /// Kinesis did not give a page.
    pub async fn next(&mut self) -> Result<Option<Batch>, ServiceError> {
        while let Some(iterator) = self.iterator.take() {
            let request = self.client.get_records().shard_iterator(iterator).stream_arn(&self.range.stream_arn);
            let page = match request.send().await {
                Ok(page) => page,
                // An iterator lives for five minutes, and the records of a page may take longer to apply.
                Err(error) if error.as_service_error().is_some_and(GetRecordsError::is_expired_iterator_exception) => {
                    self.iterator = self.iterator_again().await?;
                    continue;
                }
                Err(error) => return Err(ServiceError::of(KINESIS, "give records", &error)),
            };
            let at_the_tip = page.records.is_empty() && page.millis_behind_latest.unwrap_or_default() == 0;
            let mut records = self.records(page.records);
            let at_the_end = records.last().is_some_and(|record| record.sequence_number >= self.range.last);
            records.retain(|record| self.range.contains(&record.sequence_number));
            for record in &records {
                self.progress.read(&record.sequence_number);
            }
            if !at_the_end && !at_the_tip {
                self.iterator = page.next_shard_iterator;
            }
            if !records.is_empty() {
                self.end_of_first_page.get_or_insert_with(|| records[records.len() - 1].sequence_number.clone());
                return Ok(Some(Batch { records }));
            }
        }
        Ok(None)
    }

    /// The parts of the range that the shard no longer holds, once the range has been read.
    ///
    /// # Errors
    /// Kinesis did not say which records it holds.
    pub async fn lost(self) -> Result<Vec<ShardRange>, ServiceError> {
        let mut lost = self.progress.lost(self.range);
        // Several pages take time to read. The records that were read do not show whether others expired in that time,
        // no matter which ones were gone before.
        if let Some(end_of_first_page) = self.end_of_first_page.filter(|end| self.progress.highest() != Some(end)) {
            let held = first_held(self.client, self.range).await?;
            lost.extend(self.progress.lost_meanwhile(self.range, &end_of_first_page, held.as_ref()));
        }
        Ok(lost)
    }

    async fn iterator_again(&self) -> Result<Option<String>, ServiceError> {
        let Some(highest) = self.progress.highest() else { return iterator_at(self.client, self.range).await };
        let iterator = iterator(self.client, self.range, Position::After(highest)).await;
        iterator.map_err(|error| ServiceError::of(KINESIS, BEGIN, &error))
    }

    /// The records as Lambda would deliver them.
    fn records(&self, records: Vec<KinesisRecord>) -> Vec<Record> {
        let stream_arn: Arc<str> = self.range.stream_arn.as_str().into();
        let shard_id: Arc<str> = self.range.shard_id.as_str().into();
        let arrival = |time: DateTime| to_the_millisecond(time.as_secs_f64());
        let record = |record: KinesisRecord| Record {
            stream_arn: Some(Arc::clone(&stream_arn)),
            shard_id: Some(Arc::clone(&shard_id)),
            sequence_number: SequenceNumber::new(record.sequence_number),
            partition_key: record.partition_key.unwrap_or_default(),
            approximate_arrival_timestamp: record.approximate_arrival_timestamp.map(arrival),
            data: Data(record.data.into_inner()),
        };
        records.into_iter().map(record).collect()
    }
}

/// Where the range begins, or the rest of it that is left; `None` if the shard is gone.
///
/// If the shard no longer holds the first number, Kinesis gives the oldest record or an error. Both cases end in the
/// same place here.
async fn iterator_at(client: &Client, range: &ShardRange) -> Result<Option<String>, ServiceError> {
    const ARRIVAL_MAY_BE_OFF_BY: Duration = Duration::from_secs(1);
    match iterator(client, range, Position::At(&range.first)).await {
        Ok(iterator) => Ok(iterator),
        Err(error) if matches!(error.code(), Some(NOT_FOUND | "InvalidArgumentException")) => {
            let place = match range.arrived.and_then(|arrived| arrived.checked_sub(ARRIVAL_MAY_BE_OFF_BY)) {
                Some(arrived) => Position::Since(arrived),
                None => Position::Oldest,
            };
            match iterator(client, range, place).await {
                Ok(iterator) => Ok(iterator),
                Err(error) if error.code() == Some(NOT_FOUND) => Ok(None),
                Err(error) => Err(ServiceError::of(KINESIS, BEGIN, &error)),
            }
        }
        Err(error) => Err(ServiceError::of(KINESIS, BEGIN, &error)),
    }
}

const NOT_FOUND: &str = "ResourceNotFoundException";
const BEGIN: &str = "say where a range begins";

/// A place in a shard.
enum Position<'a> {
    At(&'a SequenceNumber),
    After(&'a SequenceNumber),
    Since(SystemTime),
    Oldest,
}

async fn iterator(
    client: &Client,
    range: &ShardRange,
    place: Position<'_>,
) -> Result<Option<String>, SdkError<GetShardIteratorError>> {
    let (kind, number, time) = match place {
        Position::At(number) => (ShardIteratorType::AtSequenceNumber, Some(number.to_string()), None),
        Position::After(number) => (ShardIteratorType::AfterSequenceNumber, Some(number.to_string()), None),
        Position::Since(time) => (ShardIteratorType::AtTimestamp, None, Some(time.into())),
        Position::Oldest => (ShardIteratorType::TrimHorizon, None, None),
    };
    let request = client.get_shard_iterator().stream_arn(&range.stream_arn).shard_id(&range.shard_id);
    let request = request.shard_iterator_type(kind).set_starting_sequence_number(number).set_timestamp(time);
    Ok(request.send().await?.shard_iterator)
}

/// The number of the first record of the range that the shard holds now.
async fn first_held(client: &Client, range: &ShardRange) -> Result<Option<SequenceNumber>, ServiceError> {
    let mut next = iterator_at(client, range).await?;
    while let Some(iterator) = next {
        let page = client.get_records().shard_iterator(iterator).stream_arn(&range.stream_arn).limit(1).send().await;
        let page = page.map_err(|error| ServiceError::of(KINESIS, "give records", &error))?;
        let number = page.records.into_iter().next().map(|record| SequenceNumber::new(record.sequence_number));
        match number {
            Some(number) if range.contains(&number) => return Ok(Some(number)),
            // An iterator by time can begin before the range, whose records may follow. Records after the range are of
            // no use.
            Some(number) if number > range.last => return Ok(None),
            None if page.millis_behind_latest.unwrap_or_default() == 0 => return Ok(None),
            Some(_) | None => next = page.next_shard_iterator,
        }
    }
    Ok(None)
}
