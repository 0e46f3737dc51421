//! The function: one batch in, one answer out.
//!
//! Invariants: the answer is never an error, so that what was applied counts whatever else went wrong; the dispositions of a batch
//! add up to its records.

use std::num::NonZeroUsize;
use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_lambda_events::event::kinesis::{KinesisEvent, KinesisEventRecord};
use aws_lambda_events::event::streams::KinesisEventResponse;

use futures_util::stream::{self, StreamExt};

use crate::apply::{Deadline, apply};
use crate::config::Config;
use crate::disposition::Disposition;
use crate::objects::Objects;
use crate::objects::s3::S3Objects;
use crate::plan::{Plan, PlannedRecord, Planner};
use crate::projection::Projector;
use crate::quarantine::{self, QuarantineObject};
use crate::report::report;
use crate::telemetry;
use crate::view::View;
use crate::view::dynamodb::{self, DynamoDbView, OpenError};

/// A poison record can have megabytes: so many are on their way to the quarantine at a time, at most.
const MOST_OBJECTS_IN_FLIGHT: usize = 8;

/// Keeps a view up to date, batch by batch.
#[derive(Debug)]
pub struct Handler<V, O> {
    planner: Planner,
    view: V,
    objects: Option<O>,
    write_concurrency: NonZeroUsize,
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
}

impl Handler<DynamoDbView, S3Objects> {
    /// A handler for the view in DynamoDB that `config` names.
    ///
    /// # Errors
    /// The view's table is missing, does not fit, or cannot be reached.
    pub async fn start(config: Config, sdk_config: &SdkConfig) -> Result<Self, StartError> {
        let view = DynamoDbView::open(dynamodb::client(sdk_config), config.view_table).await?;
        let key_attribute = view.key_attribute().to_owned();
        for table in config.source_tables.iter() {
            if table.primary_key().contains(&key_attribute) {
                return Err(StartError::KeyColumnNamedAsKey { column: key_attribute, source_table: table.to_string() });
            }
        }
        let planner = Planner {
            source_tables: config.source_tables,
            commit_timestamp: config.commit_timestamp,
            projector: Projector { key_attribute, tombstone_ttl: config.tombstone_ttl },
        };
        let objects = config.objects_bucket.map(|bucket| S3Objects::new(sdk_config.clone(), bucket));
        Ok(Self { planner, view, objects, write_concurrency: config.write_concurrency })
    }
}

impl<V: View, O: Objects> Handler<V, O> {
    /// Applies a batch, and answers which of its records shall be delivered again.
    pub async fn handle(&self, event: &KinesisEvent, request_id: &str, deadline: Deadline) -> KinesisEventResponse {
        let records = self.process(event, deadline).await;
        telemetry::log_batch(request_id, &event.records, &records);
        let reported = event.records.iter().zip(&records).filter_map(|(delivered, record)| match record.disposition {
            Disposition::Reported(_) => Some(delivered.kinesis.sequence_number.as_str()),
            Disposition::Applied | Disposition::Superseded | Disposition::Filtered | Disposition::Quarantined(_) => {
                None
            }
        });
        report(reported)
    }

    /// Applies a batch: what became of each of its records, in their order.
    pub async fn process(&self, event: &KinesisEvent, deadline: Deadline) -> Vec<PlannedRecord<'_>> {
        let data = event.records.iter().map(|record| &*record.kinesis.data.0);
        let Plan { mut records, rows } = self.planner.plan(data, SystemTime::now());
        apply(&self.view, rows, self.write_concurrency, deadline, |record, disposition| {
            records[record].disposition = disposition;
        })
        .await;
        if let Some(objects) = &self.objects {
            self.quarantine(objects, &event.records, &mut records, deadline).await;
        }
        records
    }

    /// Writes the poison records of a batch to the quarantine; those whose objects are confirmed in time count as done.
    async fn quarantine(
        &self,
        objects: &O,
        delivered: &[KinesisEventRecord],
        records: &mut [PlannedRecord<'_>],
        deadline: Deadline,
    ) {
        let writes: Vec<_> = quarantine::poison(records)
            .into_iter()
            .filter_map(|place| {
                let Disposition::Reported(failure) = &records[place].disposition else { return None };
                let object = quarantine::object(&delivered[place], records[place].table, failure).ok()?;
                Some((place, object))
            })
            .collect();
        let mut writes = stream::iter(writes)
            .map(async |(place, object): (usize, QuarantineObject)| (place, objects.put(object.key, object.body).await))
            .buffer_unordered(self.write_concurrency.get().min(MOST_OBJECTS_IN_FLIGHT));
        let mut problem = None;
        while let Ok(Some((place, written))) = tokio::time::timeout_at(deadline.answer_by, writes.next()).await {
            match written {
                Ok(()) => records[place].disposition.quarantine(),
                Err(error) => problem = Some(error),
            }
        }
        if let Some(error) = problem {
            tracing::warn!(%error, "poison records are reported, since the quarantine does not take them");
        }
    }
}
