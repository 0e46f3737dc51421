//! The function: one batch in, one answer out.
//!
//! Invariants: the answer is never an error, so that what was applied counts whatever else went wrong; the dispositions of a batch
//! add up to its records.

use std::num::NonZeroUsize;
use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_lambda_events::event::kinesis::KinesisEvent;
use aws_lambda_events::event::streams::KinesisEventResponse;

use crate::apply::{Deadline, apply};
use crate::config::Config;
use crate::disposition::Disposition;
use crate::plan::{Plan, PlannedRecord, Planner};
use crate::projection::Projector;
use crate::report::report;
use crate::telemetry;
use crate::view::View;
use crate::view::dynamodb::{self, DynamoDbView, OpenError};

/// Keeps a view up to date, batch by batch.
#[derive(Debug)]
pub struct Handler<V> {
    planner: Planner,
    view: V,
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

impl Handler<DynamoDbView> {
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
        Ok(Self::new(planner, view, config.write_concurrency))
    }
}

impl<V: View> Handler<V> {
    /// A handler that writes what `planner` makes of the records to `view`, at most `write_concurrency` rows at a time.
    pub fn new(planner: Planner, view: V, write_concurrency: NonZeroUsize) -> Self {
        Self { planner, view, write_concurrency }
    }

    /// Applies a batch, and answers which of its records shall be delivered again.
    pub async fn handle(&self, event: &KinesisEvent, request_id: &str, deadline: Deadline) -> KinesisEventResponse {
        let records = self.process(event, deadline).await;
        telemetry::log_batch(request_id, &event.records, &records);
        let reported = event.records.iter().zip(&records).filter_map(|(delivered, record)| match record.disposition {
            Disposition::Reported(_) => Some(delivered.kinesis.sequence_number.as_str()),
            Disposition::Applied | Disposition::Superseded | Disposition::Filtered => None,
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
        records
    }
}
