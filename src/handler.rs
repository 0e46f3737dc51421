//! The function: one batch in, one answer out.
//!
//! Invariants: the answer is never an error, so that what was applied counts whatever else went wrong; the dispositions
//! of a batch add up to its records.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_lambda_events::event::streams::KinesisEventResponse;
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use crate::assembly::{Assembler, Settled, quarantine_set};
use crate::batch::coalesce::Candidate;
use crate::batch::disposition::{Disposition, Failure};
use crate::batch::plan::{Part, Plan, PlannedRecord, Planner, Role};
use crate::batch::poison;
use crate::batch::tally::BatchTally;
use crate::bucket::Objects;
use crate::bucket::s3::S3Objects;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::item::indexes::Indexes;
use crate::item::projection::{Circumstances, Origin, Projector};
use crate::item::reserved::OVERFLOW;
use crate::observe::notices::Notices;
use crate::observe::{logs, metrics};
use crate::quarantine;
use crate::record::delivery::{Batch, Record};
use crate::record::sequence::SequenceNumber;
use crate::record::tables::SourceTable;
use crate::write::apply::apply;
use crate::write::attempts::Attempts;
use crate::write::dynamodb::{self, DynamoDbView, OpenError};
use crate::write::known::Remembering;
use crate::write::large_rows::OverflowView;
use crate::write::pace::Pace;
use crate::write::view::{Put, View};

/// A poison record can have megabytes: so many are on their way to the quarantine at a time, at most.
const MOST_OBJECTS_IN_FLIGHT: usize = 8;

/// While something is left out for an index, it is looked at again so often: it may have been mended or removed.
const INDEXES_READ_EVERY: Duration = Duration::from_mins(5);

/// Keeps a view up to date, batch by batch.
#[derive(Debug)]
pub struct Handler<V, O> {
    planner: Planner,
    view: V,
    objects: Option<O>,
    pace: Arc<Pace>,
    attempts: Arc<Attempts>,
    notices: Notices,
    indexes_read: Mutex<Instant>,
    table_metrics: bool,
}

/// A batch that is done.
#[derive(Debug)]
pub struct Processed<'a> {
    /// What became of its records, in their order.
    pub records: Vec<PlannedRecord<'a>>,
    /// How many tables its records name that are not configured; of very many, not all are counted.
    pub unconfigured_tables: usize,
}

/// Why the function cannot start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum StartError {
    #[error(transparent)]
    View(#[from] OpenError),
    #[error(
        "SOURCE_TABLES and VIEW_TABLE do not fit: the key column {column} of {source_table} has the name of the view table's partition \
         key, so that no row of it could be stored; use a view table whose partition key no column is named after"
    )]
    KeyColumnNamedAsKey { column: String, source_table: String },
    #[error(
        "SOURCE_TABLES: the key column {OVERFLOW} of {source_table} has the name that the view keeps for itself where OBJECTS_BUCKET is \
         set; rename the column"
    )]
    KeyColumnReserved { source_table: String },
}

/// A handler as the binaries have it: a view in DynamoDB, rows over its limit and what is kept in S3.
pub type DynamoDbHandler = Handler<Remembering<OverflowView<S3Objects>>, S3Objects>;

impl DynamoDbHandler {
    /// A handler for the view in DynamoDB that `config` names.
    ///
    /// # Errors
    /// The view's table is missing, does not fit, or cannot be reached.
    pub async fn start(config: Config, sdk_config: &SdkConfig) -> Result<Self, StartError> {
        let mut pace = Pace::new(config.write_concurrency);
        if config.batched_creates {
            pace = pace.with_creates_together();
        }
        let pace = Arc::new(pace);
        let attempts = Arc::new(Attempts::default());
        let client = dynamodb::client::new(sdk_config, Arc::clone(&pace), Arc::clone(&attempts));
        let table = DynamoDbView::open(client, config.view_table).await?;
        let key_attribute = table.key_attribute().to_owned();
        for table in config.source_tables.iter() {
            if table.primary_key().contains(&key_attribute) {
                return Err(StartError::KeyColumnNamedAsKey { column: key_attribute, source_table: table.to_string() });
            }
            if config.objects_bucket.is_some() && table.primary_key().iter().any(|column| column == OVERFLOW) {
                return Err(StartError::KeyColumnReserved { source_table: table.to_string() });
            }
        }
        let planner = Planner {
            source_tables: config.source_tables,
            commit_timestamp: config.commit_timestamp,
            source_cluster: config.source_cluster,
            projector: Projector {
                key_attribute,
                tombstone_ttl: config.tombstone_ttl,
                overflow_bucket: config.objects_bucket.clone(),
            },
        };
        let objects = config.objects_bucket.map(|bucket| S3Objects::new(sdk_config.clone(), bucket));
        let view = Remembering::new(OverflowView::new(table, objects.clone()));
        Ok(Self {
            planner,
            view,
            objects,
            pace,
            attempts,
            notices: Notices::default(),
            indexes_read: Mutex::new(Instant::now()),
            table_metrics: config.table_metrics,
        })
    }
}

impl<V: View, O: Objects> Handler<V, O> {
    /// The bucket, where there is one.
    pub fn objects(&self) -> Option<&O> {
        self.objects.as_ref()
    }

    /// Applies a batch, and answers which of its records shall be delivered again.
    pub async fn handle(&self, batch: &Batch, request_id: &str, deadline: Deadline) -> KinesisEventResponse {
        let records = self.account(batch, Origin::Stream, request_id, deadline).await;
        let reported = batch.records.iter().zip(&records).filter_map(|(delivered, record)| match record.disposition {
            Disposition::Reported(_) => Some(&delivered.sequence_number),
            Disposition::Applied
            | Disposition::Superseded
            | Disposition::Duplicate
            | Disposition::Known
            | Disposition::Filtered
            | Disposition::Kept
            | Disposition::Quarantined(_) => None,
        });
        let mut numbers: Vec<_> = reported.collect();
        numbers.sort();
        let mut answer = KinesisEventResponse::default();
        answer.set_failures(numbers.into_iter().map(SequenceNumber::as_str));
        answer
    }

    /// Applies a batch, and tells of it in the log and in metrics: what became of each of its records, in their order.
    pub async fn account(
        &self,
        batch: &Batch,
        origin: Origin,
        request_id: &str,
        deadline: Deadline,
    ) -> Vec<PlannedRecord<'_>> {
        // What was asked for before, at the start, is none of this batch's.
        self.attempts.take();
        // On the heap, once a batch: the types of what is awaited nest no deeper than the compiler likes.
        let processed = Box::pin(self.process(batch, origin, request_id, deadline)).await;
        let Processed { records, unconfigured_tables } = processed;
        let tally = BatchTally::of(&records);
        logs::log_batch(request_id, &batch.records, &records, &tally.all.ends);
        metrics::emit_batch(&tally.all, unconfigured_tables, &self.attempts.take());
        if self.table_metrics {
            metrics::emit_tables(&tally.tables);
        }
        records
    }

    /// Applies a batch: what became of each of its records, in their order.
    pub async fn process(&self, batch: &Batch, origin: Origin, request_id: &str, deadline: Deadline) -> Processed<'_> {
        let indexes = self.view.indexes();
        let Plan { mut records, rows, parts, sources } = self.plan(batch, origin, &indexes);

        // What cannot be read needs no write to be known, and must not wait for a slow DynamoDB: else it would hold the
        // shard. Nor must the rows wait for the bucket.
        let unreadable = failed(&batch.records, &records, poison::unreadable(&records));
        let written = apply(&self.view, rows, &self.pace, deadline, |record, disposition| {
            records[record].settle(disposition, SystemTime::now());
        });
        let parts = self.parts(&parts, &batch.records, origin, request_id, deadline);
        let unreadable = self.quarantine(unreadable, request_id, deadline);
        let (quarantined, parts, ()) = tokio::join!(unreadable, parts, written);
        for place in quarantined {
            records[place].disposition.quarantine();
        }
        let mut refused_sets = HashMap::new();
        for part in parts {
            let record = &mut records[part.record];
            record.table = record.table.or(part.table);
            (record.disposition, record.write) = (part.disposition, part.write);
            refused_sets.insert(part.record, part.refused_set);
        }

        if records.iter().any(|record| record.disposition.is_refused()) && Instant::now() < deadline.stop_starting {
            // On the heap, as it is rare.
            Box::pin(self.write_again(batch, &mut records, origin, &indexes, deadline)).await;
        }
        if self.objects.is_some() && poison::is_undecided(&records) && Instant::now() < deadline.stop_starting {
            // On the heap, as it is rare.
            Box::pin(self.decide(batch, &mut records, origin, deadline)).await;
        }
        let refused = poison::refused(&records);
        let (sets, refused) = refused.into_iter().partition(|place| refused_sets.contains_key(place));
        let refused = failed(&batch.records, &records, refused);
        let mut quarantined = self.quarantine(refused, request_id, deadline).await;
        let sets = self.quarantine_sets(sets, &refused_sets, &batch.records, &records, request_id, deadline);
        quarantined.extend(sets.await);
        for place in quarantined {
            records[place].disposition.quarantine();
        }
        let leaves_out =
            |record: &PlannedRecord<'_>| record.write.as_ref().is_some_and(|write| !write.notes.left_out.is_empty());
        if records.iter().any(leaves_out)
            && self.read_indexes_at().elapsed() >= INDEXES_READ_EVERY
            && Instant::now() < deadline.stop_starting
        {
            Box::pin(self.learn_indexes(&self.view.indexes(), deadline)).await;
        }
        self.notices.tell(&sources, &records, &self.planner.source_tables, &self.view.indexes(), request_id);
        Processed { records, unconfigured_tables: sources.unconfigured.len() }
    }

    fn plan(&self, batch: &Batch, origin: Origin, indexes: &Indexes) -> Plan<'_> {
        let data = batch.records.iter().map(|record| &*record.data.0);
        self.planner.plan(data, Circumstances { written_at: SystemTime::now(), origin, indexes })
    }

    fn read_indexes_at(&self) -> MutexGuard<'_, Instant> {
        // A time is written whole: a panic elsewhere leaves no half of one.
        self.indexes_read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the view's table has other indexes than are `known`; they are known from then on.
    async fn learn_indexes(&self, known: &Indexes, deadline: Deadline) -> bool {
        *self.read_indexes_at() = Instant::now();
        tokio::time::timeout_at(deadline.stop_starting, self.view.learn_indexes(known)).await == Ok(true)
    }

    /// Looks whether the view's table has other indexes than are `known`, since items were refused. If so, writes these
    /// again, without what the new ones do not take.
    ///
    /// What may happen between the refusals and that: an older change of a row was written in the refused one's place,
    /// or a newer one by another function. The condition has the last word on both.
    async fn write_again(
        &self,
        batch: &Batch,
        records: &mut [PlannedRecord<'_>],
        origin: Origin,
        known: &Indexes,
        deadline: Deadline,
    ) {
        if !self.learn_indexes(known, deadline).await {
            return;
        }
        let indexes = self.view.indexes();
        let Plan { records: planned, mut rows, .. } = self.plan(batch, origin, &indexes);
        for row in &mut rows {
            row.retain(|change| records[change.record].disposition.is_refused());
        }
        rows.retain(|row| !row.is_empty());
        for (record, planned) in records.iter_mut().zip(planned).filter(|(record, _)| record.disposition.is_refused()) {
            // A part has none here: its set was written again where it was put together.
            record.write = planned.write.or(record.write.take());
        }
        apply(&self.view, rows, &self.pace, deadline, |record, disposition| {
            records[record].settle(disposition, SystemTime::now());
        })
        .await;
    }

    /// Puts a change after all that is known to be superseded, so that what DynamoDB makes of it tells whether it
    /// refuses everything.
    async fn decide(&self, batch: &Batch, records: &mut [PlannedRecord<'_>], origin: Origin, deadline: Deadline) {
        let rows = self.plan(batch, origin, &self.view.indexes()).rows;
        let Some(Candidate { record, item }) = poison::to_decide(rows, records) else { return };
        let put = tokio::time::timeout_at(deadline.answer_by, self.view.put_anew(item)).await;
        let end = match put {
            Ok(Put::Applied) => Disposition::Applied,
            Ok(Put::Superseded) => Disposition::Superseded,
            Ok(Put::Duplicate) => Disposition::Duplicate,
            // What is known stays so, and nothing is known of how DynamoDB takes writes now.
            Ok(
                Put::Known
                | Put::NothingToReplace
                | Put::Refused(_)
                | Put::RefusedByIndex(_)
                | Put::Retryable(_)
                | Put::Unavailable(_),
            )
            | Err(_) => return,
        };
        records[record].settle(end, SystemTime::now());
    }

    /// What becomes of the parts of split changes; nothing, where there is no bucket to keep them in.
    async fn parts<'h>(
        &'h self,
        parts: &[Part],
        delivered: &[Record],
        origin: Origin,
        request_id: &str,
        deadline: Deadline,
    ) -> Vec<Settled<'h>> {
        let Some(objects) = &self.objects else { return Vec::new() };
        if parts.is_empty() {
            return Vec::new();
        }
        let assembler = Assembler { planner: &self.planner, view: &self.view, objects, origin };
        // On the heap: a batch without parts, as nearly all are, pays nothing for it.
        let mut settled = Box::pin(assembler.settle(parts, delivered, request_id, deadline)).await;
        let in_time: HashSet<usize> = settled.iter().map(|settled| settled.record).collect();
        let late = parts.iter().filter(|part| part.role == Role::Member && !in_time.contains(&part.record));
        settled.extend(late.map(|part| Settled::out_of_time(part.record)));
        settled
    }

    /// Writes poison records to the quarantine: the places of those that are confirmed to be there.
    async fn quarantine(&self, poison: Vec<Poison<'_>>, request_id: &str, deadline: Deadline) -> Vec<usize> {
        let mut quarantined = Vec::new();
        let Some(objects) = &self.objects else { return quarantined };
        let writes = stream::iter(poison).map(async |Poison { place, record, table, failure }: Poison<'_>| {
            quarantine::put(objects, record, table, &failure).await.map(|()| place).map_err(|error| (record, error))
        });
        let writes = writes.buffer_unordered(self.pace.most().get().min(MOST_OBJECTS_IN_FLIGHT));
        tokio::pin!(writes);
        let (mut left, mut problem) = (Vec::new(), None);
        while let Ok(Some(written)) = tokio::time::timeout_at(deadline.answer_by, writes.next()).await {
            match written {
                Ok(place) => quarantined.push(place),
                Err((record, error)) => {
                    left.push(record);
                    problem = Some(error);
                }
            }
        }
        if let Some(error) = problem {
            let so = "poison records are reported, since the quarantine does not take them";
            logs::log_bucket(request_id, &left, &error, so);
        }
        quarantined
    }

    /// Writes the sets of split changes that DynamoDB refused to the quarantine: the places of those that are confirmed
    /// to be there.
    async fn quarantine_sets(
        &self,
        places: Vec<usize>,
        sets: &HashMap<usize, Vec<String>>,
        delivered: &[Record],
        records: &[PlannedRecord<'_>],
        request_id: &str,
        deadline: Deadline,
    ) -> Vec<usize> {
        let mut quarantined = Vec::new();
        let Some(objects) = &self.objects else { return quarantined };
        let (mut left, mut problem) = (Vec::new(), None);
        for place in places {
            let Disposition::Reported(failure) = &records[place].disposition else { continue };
            let set = quarantine_set(objects, &sets[&place], records[place].table, failure);
            match tokio::time::timeout_at(deadline.answer_by, set).await {
                Ok(Ok(())) => quarantined.push(place),
                Ok(Err(error)) => {
                    left.push(&delivered[place]);
                    problem = Some(error);
                }
                Err(_) => break,
            }
        }
        if let Some(error) = problem {
            let so = "split changes are reported, since the quarantine does not take them";
            logs::log_bucket(request_id, &left, &error, so);
        }
        quarantined
    }
}

/// The records at these places, with why they failed.
fn failed<'e>(delivered: &'e [Record], records: &[PlannedRecord<'e>], places: Vec<usize>) -> Vec<Poison<'e>> {
    let poison = |place: usize| match &records[place].disposition {
        Disposition::Reported(failure) => {
            Some(Poison { place, record: &delivered[place], table: records[place].table, failure: failure.clone() })
        }
        _ => None,
    };
    places.into_iter().filter_map(poison).collect()
}

/// A poison record on its way to the quarantine.
struct Poison<'e> {
    place: usize,
    record: &'e Record,
    table: Option<&'e SourceTable>,
    failure: Failure,
}
