//! The function: one batch in, one answer out.
//!
//! Invariants: the answer is never an error, so applied records count whatever else went wrong; the dispositions of a
//! batch add up to its records.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_lambda_events::event::streams::KinesisEventResponse;
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use crate::batch::answer::answer;
use crate::batch::coalesce::{Candidate, RowChanges};
use crate::batch::disposition::Disposition;
use crate::batch::ledger::{Entry, Ledger, RecordId};
use crate::batch::plan::{Plan, Planner, SetObject};
use crate::batch::poison;
use crate::batch::tally::BatchTally;
use crate::bucket::s3::S3Objects;
use crate::bucket::{MOST_OBJECTS_IN_FLIGHT, Objects};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::definitions::marks::OVERFLOW;
use crate::item::indexes::Indexes;
use crate::item::projection::{Circumstances, Origin, Projector};
use crate::lock::lock;
use crate::observe::notices::Notices;
use crate::observe::{logs, metrics};
use crate::quarantine;
use crate::record::delivery::Batch;
use crate::split_changes::Assembler;
use crate::write::apply::apply;
use crate::write::attempts::Attempts;
use crate::write::dynamodb::retry::Sender;
use crate::write::dynamodb::{self, DynamoDbView, OpenError};
use crate::write::large_rows::OverflowView;
use crate::write::memory::Remembering;
use crate::write::pace::Pace;
use crate::write::view::{Put, View};

/// How often the indexes are read again while values are left out for one of them, which may have been mended or
/// removed.
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
    /// Its records, each with its end.
    pub ledger: Ledger<'a>,
    /// How many tables its records name that are not configured. If there are very many, not all are counted.
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
         key, so that no row of it could be stored; use a view table whose partition key has a name that no column has"
    )]
    KeyColumnNamedAsKey { column: String, source_table: String },
    #[error(
        "SOURCE_TABLES: the key column {OVERFLOW} of {source_table} has the name that the view keeps for itself where OBJECTS_BUCKET is \
         set; rename the column"
    )]
    KeyColumnReserved { source_table: String },
}

/// The handler of the binaries: a view in DynamoDB, with moved columns, kept records and the quarantine in S3.
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
        let sender = Sender { pace: Arc::clone(&pace), attempts: Arc::clone(&attempts) };
        let table = DynamoDbView::open(dynamodb::client::new(sdk_config), sender, config.view_table).await?;
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
    /// The bucket, if there is one.
    pub fn objects(&self) -> Option<&O> {
        self.objects.as_ref()
    }

    /// Applies a batch, and tells Lambda which of its records to deliver again.
    pub async fn handle(&self, batch: &Batch, deadline: Deadline) -> KinesisEventResponse {
        answer(&self.process_observed(batch, Origin::Stream, deadline).await)
    }

    /// Applies a batch, and shows in the log and the metrics how its records have ended.
    pub async fn process_observed<'b>(&'b self, batch: &'b Batch, origin: Origin, deadline: Deadline) -> Ledger<'b> {
        // The start made requests too, which do not belong to this batch.
        self.attempts.take();
        // On the heap, once a batch: the types of nested futures must not grow too deep for the compiler.
        let Processed { ledger, unconfigured_tables } = Box::pin(self.process(batch, origin, deadline)).await;
        let BatchTally { all, tables } = BatchTally::of(&ledger);
        logs::batch(&ledger, &all);
        metrics::emit_batch(all, unconfigured_tables, self.attempts.take());
        if self.table_metrics {
            metrics::emit_tables(tables);
        }
        ledger
    }

    /// Applies a batch, and returns how its records have ended.
    pub async fn process<'b>(&'b self, batch: &'b Batch, origin: Origin, deadline: Deadline) -> Processed<'b> {
        let indexes = self.view.indexes();
        let Plan { ledger, rows, parts, sources } = self.plan(batch, origin, &indexes);

        // An unreadable record must not wait for a slow DynamoDB, or it would hold the shard. Nor must the rows wait
        // for the bucket.
        let unreadable = poison::unreadable(&ledger);
        tokio::join!(
            self.quarantine(&ledger, unreadable, deadline),
            self.assemble(&ledger, &parts, origin, deadline),
            self.apply(&ledger, rows, deadline),
        );
        // The rest is rare, so it is on the heap.
        let is_time = || Instant::now() < deadline.stop_starting;
        if is_time() && ledger.any(|entry| entry.end().is_refused()) {
            Box::pin(self.write_again(batch, &ledger, origin, &indexes, deadline)).await;
        }
        if is_time() && self.objects.is_some() && poison::is_undecided(&ledger) {
            Box::pin(self.decide(batch, &ledger, origin, deadline)).await;
        }
        Box::pin(self.quarantine_refused(&ledger, deadline)).await;
        let leaves_out = |entry: &Entry<'_>| entry.write().is_some_and(|write| !write.notes.left_out.is_empty());
        if is_time() && ledger.any(leaves_out) && lock(&self.indexes_read).elapsed() >= INDEXES_READ_EVERY {
            Box::pin(self.learn_indexes(&self.view.indexes(), deadline)).await;
        }
        self.notices.tell(&sources, &ledger, &self.planner.source_tables, &self.view.indexes());
        Processed { ledger, unconfigured_tables: sources.unconfigured.len() }
    }

    fn plan<'b>(&'b self, batch: &'b Batch, origin: Origin, indexes: &Indexes) -> Plan<'b> {
        self.planner.plan(&batch.records, Circumstances { written_at: SystemTime::now(), origin, indexes })
    }

    async fn apply(&self, ledger: &Ledger<'_>, rows: Vec<RowChanges>, deadline: Deadline) {
        apply(&self.view, rows, &self.pace, deadline, |id, end| ledger.settle(id, end, SystemTime::now())).await;
    }

    /// Reads the indexes of the view's table again. Returns whether they differ from `known`; they are known from then
    /// on.
    async fn learn_indexes(&self, known: &Indexes, deadline: Deadline) -> bool {
        *lock(&self.indexes_read) = Instant::now();
        tokio::time::timeout_at(deadline.stop_starting, self.view.learn_indexes(known)).await == Ok(true)
    }

    /// Writes the refused items again if the view's table has other indexes than `known`, without the values that the
    /// new indexes refuse.
    ///
    /// Between the refusals and this write, an older change of a row may have been written in the refused one's place,
    /// or a newer one by another function. The condition has the last word on both.
    async fn write_again(
        &self,
        batch: &Batch,
        ledger: &Ledger<'_>,
        origin: Origin,
        known: &Indexes,
        deadline: Deadline,
    ) {
        if !self.learn_indexes(known, deadline).await {
            return;
        }
        let Plan { ledger: planned, mut rows, .. } = self.plan(batch, origin, &self.view.indexes());
        for row in &mut rows {
            row.retain(|change| ledger.entry(change.id).end().is_refused());
        }
        rows.retain(|row| !row.is_empty());
        ledger.plan_again(planned);
        self.apply(ledger, rows, deadline).await;
    }

    /// Writes one remembered change again, so that DynamoDB shows whether it refuses everything.
    async fn decide(&self, batch: &Batch, ledger: &Ledger<'_>, origin: Origin, deadline: Deadline) {
        let rows = self.plan(batch, origin, &self.view.indexes()).rows;
        let Some(Candidate { id, item }) = poison::deciding_change(rows, ledger) else { return };
        let put = tokio::time::timeout_at(deadline.answer_by, self.view.put_without_memory(item)).await;
        let end = match put {
            Ok(Put::Applied) => Disposition::Applied,
            Ok(Put::Superseded(how)) => how.into(),
            // The memory still holds. Nobody knows whether DynamoDB takes writes now.
            Ok(
                Put::NothingToReplace
                | Put::Refused(_)
                | Put::RefusedByIndex(_)
                | Put::Retryable(_)
                | Put::Unavailable(_),
            )
            | Err(_) => return,
        };
        ledger.settle(id, end, SystemTime::now());
    }

    /// Keeps the main records and fragments of split changes, and applies the changes that are whole. Without a bucket
    /// to keep them in, their records stay reported.
    async fn assemble<'b>(&'b self, ledger: &Ledger<'b>, parts: &[SetObject], origin: Origin, deadline: Deadline) {
        let Some(objects) = &self.objects else { return };
        if parts.is_empty() {
            return;
        }
        let assembler = Assembler { planner: &self.planner, view: &self.view, objects, origin };
        // On the heap: nearly all batches have no split changes, and pay nothing for them.
        Box::pin(assembler.settle(ledger, parts, deadline)).await;
    }

    /// Writes the changes that DynamoDB refused to the quarantine.
    async fn quarantine_refused(&self, ledger: &Ledger<'_>, deadline: Deadline) {
        let refused = poison::refused(ledger);
        let (sets, records) = refused.into_iter().partition(|id| !ledger.entry(*id).refused_set().is_empty());
        self.quarantine(ledger, records, deadline).await;
        self.quarantine(ledger, sets, deadline).await;
    }

    /// Writes poison to the quarantine: single records, or the sets of split changes. What is not confirmed to be there
    /// stays reported.
    async fn quarantine(&self, ledger: &Ledger<'_>, poison: Vec<RecordId>, deadline: Deadline) {
        let Some(objects) = &self.objects else { return };
        let are_sets = poison.first().is_some_and(|id| !ledger.entry(*id).refused_set().is_empty());
        let (at_once, not_taken) = if are_sets {
            // A set has many megabytes.
            (1, "split changes are reported, since the quarantine does not take them")
        } else {
            let at_once = self.pace.most().get().min(MOST_OBJECTS_IN_FLIGHT);
            (at_once, "poison records are reported, since the quarantine does not take them")
        };
        let writes = stream::iter(poison).map(async |id| (id, quarantine::take(objects, ledger, id).await));
        let writes = writes.buffer_unordered(at_once);
        tokio::pin!(writes);
        let (mut left, mut problem) = (Vec::new(), None);
        while let Ok(Some((id, taken))) = tokio::time::timeout_at(deadline.answer_by, writes.next()).await {
            if let Err(error) = taken {
                left.push(id);
                problem = Some(error);
            }
        }
        if let Some(error) = problem {
            logs::bucket(ledger, &left, &error, not_taken);
        }
    }
}
