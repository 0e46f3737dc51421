//! A handler of the library on a DynamoDB of the test's own.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::time::Duration;

use aws_lambda_events::event::kinesis::KinesisEvent;
use dsql_view::apply::Deadline;
use dsql_view::config::Config;
use dsql_view::disposition::Disposition;
use dsql_view::handler::Handler;
use dsql_view::objects::s3::S3Objects;
use dsql_view::view::dynamodb::DynamoDbView;
use dsql_view_support::dynamodb::{Items, LocalDynamoDb, sdk_config};
use dsql_view_support::kinesis;
use serde_json::Value;

pub const VIEW: &str = "view";

/// Longer than any test takes, so that no deadline is near.
pub const PLENTY: Duration = Duration::from_secs(120);

/// A function's handler.
pub struct Function {
    handler: Handler<DynamoDbView, S3Objects>,
}

impl Function {
    /// A function that keeps `source_tables` in the table [`VIEW`] behind `endpoint`.
    pub async fn new(endpoint: &str, source_tables: &str) -> Self {
        Self::with_settings(endpoint, VIEW, &[("SOURCE_TABLES", source_tables)]).await
    }

    /// A function with these settings.
    pub async fn with_settings(endpoint: &str, view_table: &str, settings: &[(&str, &str)]) -> Self {
        let variable = |name: &str| match name {
            "VIEW_TABLE" => Some(view_table.to_owned()),
            _ => settings.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()),
        };
        let config = Config::from_variables(variable).expect("settings of the test's own");
        let handler = Handler::start(config, &sdk_config(endpoint)).await.expect("a view that fits");
        Self { handler }
    }

    /// Delivers a batch of these data: what became of each.
    pub async fn dispositions<D: AsRef<[u8]>>(
        &self,
        data: impl IntoIterator<Item = D>,
        time: Duration,
    ) -> Vec<Disposition> {
        let event = parsed(&kinesis::event_of(data));
        let records = self.handler.process(&event, Deadline::after(time)).await;
        assert_eq!(records.len(), event.records.len(), "every record ends");
        records.into_iter().map(|record| record.disposition).collect()
    }

    /// Delivers a batch of these data: the places of those that are reported.
    pub async fn deliver<D: AsRef<[u8]>>(&self, data: impl IntoIterator<Item = D>) -> Vec<u64> {
        kinesis::reported(&self.answer(&kinesis::event_of(data)).await)
    }

    /// Delivers a Lambda event: the answer as Lambda gets it.
    pub async fn answer(&self, event: &Value) -> Value {
        let response = self.handler.handle(&parsed(event), "request", Deadline::after(PLENTY)).await;
        serde_json::to_value(response).expect("an answer is JSON")
    }
}

fn parsed(event: &Value) -> KinesisEvent {
    serde_json::from_value(event.clone()).expect("a Lambda event")
}

/// A DynamoDB with an empty view.
pub async fn dynamodb() -> LocalDynamoDb {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    db
}

/// Everything in the view.
pub async fn items(db: &LocalDynamoDb) -> Items {
    db.items(VIEW).await
}
