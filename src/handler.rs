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

use crate::aws::secrets;
use crate::batch::answer::answer;
use crate::batch::coalesce::{Candidate, RowChanges};
use crate::batch::disposition::Disposition;
use crate::batch::ledger::{Entry, Ledger, RecordId};
use crate::batch::plan::{Plan, Planner, SetObject};
use crate::batch::poison;
use crate::batch::tally::BatchTally;
use crate::bucket::s3::S3Objects;
use crate::bucket::{MOST_OBJECTS_IN_FLIGHT, Objects};
use crate::config::{Config, ViewTable};
use crate::deadline::Deadline;
use crate::item::projection::{Circumstances, Origin, Projector};
use crate::item::schema::TableSchema;
use crate::item::typed::HashKey;
use crate::lock::lock;
use crate::observe::notices::Notices;
use crate::observe::{logs, metrics};
use crate::quarantine;
use crate::record::delivery::Batch;
use crate::split_changes::Assembler;
use crate::write::apply::apply;
use crate::write::attempts::Attempts;
use crate::write::dynamodb::retry::Sender;
use crate::write::dynamodb::sample;
use crate::write::dynamodb::{self, DynamoDbView, OpenError, Rows};
use crate::write::large_rows::OverflowView;
use crate::write::memory::Remembering;
use crate::write::pace::Pace;
use crate::write::view::{Put, Target, View, schemas};

/// How often a table is described again while values are left out for one of its indexes, which may have been mended or
/// removed.
const INDEXES_READ_EVERY: Duration = Duration::from_mins(5);

/// How often a table is described again while it is missing, denied, or does not fit.
const MISSING_READ_EVERY: Duration = Duration::from_secs(10);

/// Keeps a view up to date, batch by batch.
#[derive(Debug)]
pub struct Handler<V, O> {
    planner: Planner,
    views: Vec<Target<V>>,
    objects: Option<O>,
    notices: Notices,
    /// When each view table was described last.
    described: Vec<Mutex<Instant>>,
    table_metrics: bool,
    view_metrics: bool,
}

/// A batch that is done.
#[derive(Debug)]
pub struct Processed<'a> {
    /// Its records, each with its end.
    pub ledger: Ledger<'a>,
    /// How many tables its records name that are not configured. If there are very many, not all are counted.
    pub unconfigured_tables: usize,
}

/// Why the function cannot start: every problem.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct StartError(Vec<String>);

/// The handler of the binaries: a view in DynamoDB, with moved columns, kept records and the quarantine in S3.
pub type DynamoDbHandler = Handler<Remembering<OverflowView<S3Objects>>, S3Objects>;

impl DynamoDbHandler {
    /// A handler for the view in DynamoDB that `config` names.
    ///
    /// # Errors
    /// A table of the view does not fit, or none can be reached.
    pub async fn start(config: Config, sdk_config: &SdkConfig) -> Result<Self, StartError> {
        let client = dynamodb::client::new(sdk_config);
        let objects = config.objects_bucket.clone().map(|bucket| S3Objects::new(sdk_config.clone(), bucket));
        let source_tables = Arc::new(config.source_tables);
        let opened = config.view_tables.iter().enumerate().map(|(place, ViewTable { name, setting })| {
            let mut pace = Pace::new(config.write_concurrency);
            if config.batched_creates {
                pace = pace.with_creates_together();
            }
            let (pace, attempts) = (Arc::new(pace), Arc::new(Attempts::default()));
            let sender = Sender { pace: Arc::clone(&pace), attempts: Arc::clone(&attempts) };
            let overflow = config.objects_bucket.is_some().then(|| config.marks.overflow.clone());
            let rows = Rows { tables: Arc::clone(&source_tables), place, overflow };
            let table = DynamoDbView::new(client.clone(), sender, (*setting, name.clone()), config.marks.clone(), rows);
            let (objects, looks) = (objects.clone(), config.definitions.is_some());
            async move {
                let opened = table.open().await;
                if looks && opened.is_ok() {
                    // Nothing waits for it: the look only warns.
                    let table = table.clone();
                    tokio::spawn(async move { sample::look(&table).await });
                }
                let view = Remembering::new(OverflowView::new(table, objects));
                (Target { name: name.clone(), view, pace, attempts }, opened)
            }
        });
        let secret = async {
            let id = config.hash_secret.as_deref()?;
            Some(secrets::value(sdk_config, id).await.map(|secret| Arc::new(HashKey::new(&secret))))
        };
        let (opened, hash_key) = tokio::join!(futures_util::future::join_all(opened), secret);
        let (views, opened): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let tables = views.len();
        let problems: Vec<OpenError> = opened.into_iter().filter_map(Result::err).collect();
        let stops = problems.len() == tables || problems.iter().any(OpenError::is_misfit);
        let mut stopped: Vec<String> =
            if stops { problems.iter().map(ToString::to_string).collect() } else { Vec::new() };
        let hash_key = hash_key.transpose().unwrap_or_else(|error| {
            stopped.push(format!(
                "VIEW_HASH_SECRET: {error}; check that the secret is there, and that the function may call \
                 secretsmanager:GetSecretValue on it"
            ));
            None
        });
        if !stopped.is_empty() {
            return Err(StartError(stopped));
        }
        for problem in problems {
            tracing::error!(%problem, "a table of the view cannot be written: its rows are reported, and the others are applied");
        }
        let planner = Planner {
            source_tables,
            commit_timestamp: config.commit_timestamp,
            source_cluster: config.source_cluster,
            projector: Projector {
                marks: config.marks,
                tombstone_ttl: config.tombstone_ttl,
                overflow_bucket: config.objects_bucket,
                hash_key,
            },
        };
        Ok(Self {
            planner,
            view_metrics: config.definitions.is_some() || tables > 1,
            views,
            objects,
            notices: Notices::default(),
            described: (0..tables).map(|_| Mutex::new(Instant::now())).collect(),
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
        for target in &self.views {
            target.attempts.take();
        }
        // On the heap, once a batch: the types of nested futures must not grow too deep for the compiler.
        let Processed { ledger, unconfigured_tables } = Box::pin(self.process(batch, origin, deadline)).await;
        let BatchTally { all, tables, .. } = BatchTally::of(&ledger);
        logs::batch(&ledger, &all);
        let attempted: Vec<_> = self.views.iter().map(|target| target.attempts.take()).collect();
        if self.view_metrics {
            metrics::emit_views(self.views.iter().map(|target| &*target.name).zip(&attempted), &ledger);
        }
        let attempted = attempted.into_iter().reduce(|mut sum, next| {
            sum.add(&next);
            sum
        });
        metrics::emit_batch(all, unconfigured_tables, attempted.unwrap_or_default());
        if self.table_metrics {
            metrics::emit_tables(tables);
        }
        ledger
    }

    /// Applies a batch, and returns how its records have ended.
    pub async fn process<'b>(&'b self, batch: &'b Batch, origin: Origin, deadline: Deadline) -> Processed<'b> {
        let known = schemas(&self.views);
        let Plan { ledger, rows, parts, sources } = self.plan(batch, origin, &known);

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
            Box::pin(self.write_again(batch, &ledger, origin, &known, deadline)).await;
        }
        if self.objects.is_some() {
            for place in 0..self.views.len() {
                if is_time() && poison::is_undecided(&ledger, place) {
                    Box::pin(self.decide(batch, &ledger, origin, place, deadline)).await;
                }
            }
        }
        Box::pin(self.quarantine_refused(&ledger, deadline)).await;
        if is_time() {
            Box::pin(self.describe_again(&ledger, deadline)).await;
        }
        self.notices.tell(&sources, &ledger, &self.planner.source_tables, &schemas(&self.views));
        Processed { ledger, unconfigured_tables: sources.unconfigured.len() }
    }

    fn plan<'b>(&'b self, batch: &'b Batch, origin: Origin, tables: &[Option<Arc<TableSchema>>]) -> Plan<'b> {
        self.planner.plan(&batch.records, Circumstances { written_at: SystemTime::now(), origin, tables })
    }

    /// Writes rows, those of each view table at the pace of that table.
    async fn apply(&self, ledger: &Ledger<'_>, rows: Vec<RowChanges>, deadline: Deadline) {
        let settle = |id, end| ledger.settle(id, end, SystemTime::now());
        if let [Target { view, pace, .. }] = &self.views[..] {
            return apply(view, rows, pace, deadline, settle).await;
        }
        let mut of_views: Vec<Vec<RowChanges>> = self.views.iter().map(|_| Vec::new()).collect();
        for row in rows {
            let place = row.first().map_or(0, |newest| newest.item.key.view);
            of_views[place].push(row);
        }
        let applied = self.views.iter().zip(of_views).filter(|(_, rows)| !rows.is_empty());
        let applied = applied.map(|(Target { view, pace, .. }, rows)| apply(view, rows, pace, deadline, settle));
        futures_util::future::join_all(applied).await;
    }

    /// Reads the schema of a view table again. Returns whether it differs from `known`; it is known from then on.
    async fn learn_schema(&self, place: usize, known: Option<&TableSchema>, deadline: Deadline) -> bool {
        *lock(&self.described[place]) = Instant::now();
        let learned = self.views[place].view.learn_schema(known);
        tokio::time::timeout_at(deadline.stop_starting, learned).await == Ok(true)
    }

    /// Reads the schemas again of tables that have not been described yet, and of those with an index for which values
    /// were left out, if the last time was long enough ago.
    async fn describe_again(&self, ledger: &Ledger<'_>, deadline: Deadline) {
        let leaves_out = |entry: &Entry<'_>| entry.write().is_some_and(|write| !write.notes.left_out.is_empty());
        for (place, known) in schemas(&self.views).into_iter().enumerate() {
            let age = lock(&self.described[place]).elapsed();
            if age < MISSING_READ_EVERY {
                continue;
            }
            let of_view = |entry: &Entry<'_>| entry.view() == Some(place);
            let is_missing = known.is_none() && ledger.any(of_view);
            let is_left_out = || age >= INDEXES_READ_EVERY && ledger.any(|entry| of_view(entry) && leaves_out(entry));
            if is_missing || is_left_out() {
                self.learn_schema(place, known.as_deref(), deadline).await;
            }
        }
    }

    /// Writes the refused items again if their view table has other indexes than `known`, without the values that the
    /// new indexes refuse.
    ///
    /// Between the refusals and this write, an older change of a row may have been written in the refused one's place,
    /// or a newer one by another function. The condition has the last word on both.
    async fn write_again(
        &self,
        batch: &Batch,
        ledger: &Ledger<'_>,
        origin: Origin,
        known: &[Option<Arc<TableSchema>>],
        deadline: Deadline,
    ) {
        let mut changed = Vec::new();
        for (place, known) in known.iter().enumerate() {
            let is_refused = |entry: &Entry<'_>| entry.end().is_refused() && entry.view() == Some(place);
            if ledger.any(is_refused) && self.learn_schema(place, known.as_deref(), deadline).await {
                changed.push(place);
            }
        }
        if changed.is_empty() {
            return;
        }
        let Plan { ledger: planned, mut rows, .. } = self.plan(batch, origin, &schemas(&self.views));
        for row in &mut rows {
            row.retain(|change| changed.contains(&change.item.key.view) && ledger.entry(change.id).end().is_refused());
        }
        rows.retain(|row| !row.is_empty());
        ledger.plan_again(planned);
        self.apply(ledger, rows, deadline).await;
    }

    /// Writes one remembered change of a view table again, so that DynamoDB shows whether it refuses everything.
    async fn decide(&self, batch: &Batch, ledger: &Ledger<'_>, origin: Origin, place: usize, deadline: Deadline) {
        let rows = self.plan(batch, origin, &schemas(&self.views)).rows;
        let Some(Candidate { id, item }) = poison::deciding_change(rows, ledger, place) else { return };
        let put = self.views[place].view.put_without_memory(item);
        let put = tokio::time::timeout_at(deadline.answer_by, put).await;
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
        let assembler = Assembler { planner: &self.planner, views: &self.views, objects, origin };
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
            let most = self.views.iter().map(|target| target.pace.most().get()).max().unwrap_or(1);
            let at_once = most.min(MOST_OBJECTS_IN_FLIGHT);
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
