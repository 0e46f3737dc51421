//! Compares the contents of the local AWS with the changes that were sent, row by row.

use std::cell::RefCell;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_sqs::types::QueueAttributeName;
use dsql_view_support::cdc::Value;
use dsql_view_support::dynamodb::{Items, items, sdk_config};
use dsql_view_support::model::Model;
use dsql_view_tools::quarantine::{Differences, FOLDER, Poison, differences};

use crate::aws::Stack;
use crate::figures::Figures;
use crate::{Failure, told};

/// The time between two looks.
const POLL: Duration = Duration::from_secs(1);

/// The services that hold the view and all that belongs to it.
pub struct Storage<'a> {
    stack: &'a Stack,
    dynamodb: aws_sdk_dynamodb::Client,
    s3: aws_sdk_s3::Client,
    sqs: aws_sdk_sqs::Client,
}

impl<'a> Storage<'a> {
    pub fn new(stack: &'a Stack) -> Self {
        let config = sdk_config(&stack.endpoint);
        Self {
            stack,
            dynamodb: aws_sdk_dynamodb::Client::new(&config),
            s3: aws_sdk_s3::Client::new(&config),
            sqs: aws_sdk_sqs::Client::new(&config),
        }
    }

    /// Counts from time to time how much there is, until the on-failure queue is empty and `is_over`.
    pub async fn watch(&self, figures: &RefCell<Figures>, is_over: impl Fn() -> bool) -> Result<(), Failure> {
        loop {
            // This is asked before the look, because nothing comes into the queue later.
            let is_over = is_over();
            let table = self.dynamodb.describe_table().table_name(&self.stack.view).send().await.map_err(told)?;
            let items = table.table.and_then(|table| table.item_count).unwrap_or_default();
            let quarantined = self.keys(FOLDER).await?.len();
            let on_failure = self.messages(&self.stack.on_failure_queue).await?;
            let dead_letters = self.messages(&self.stack.dead_letter_queue).await?;
            {
                let mut figures = figures.borrow_mut();
                figures.items = u64::try_from(items).unwrap_or_default();
                figures.quarantined = quarantined as u64;
                (figures.on_failure, figures.dead_letters) = (on_failure, dead_letters);
            }
            if is_over && on_failure == 0 {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// How many items were compared, and the differences from what was sent, a line each.
    pub async fn differences(&self, model: &Model, poison: &Poison) -> Result<(usize, Vec<String>), Failure> {
        let (view, mut differences) = self.view().await?;
        differences.extend(model.differences(&view));
        differences.extend(self.quarantine_differences(poison).await?);
        let lost = self.messages(&self.stack.dead_letter_queue).await?;
        if lost > 0 {
            differences.push(format!("the dead-letter queue has {lost} messages, expected none"));
        }
        Ok((view.len(), differences))
    }

    /// The view as a reader sees it who follows `_overflow`, and the addresses that lead such a reader to nothing.
    async fn view(&self) -> Result<(Items, Vec<String>), Failure> {
        let mut view = items(&self.dynamodb, &self.stack.view).await.map_err(|error| error.to_string())?;
        let mut problems = Vec::new();
        let prefix = format!("s3://{}/", self.stack.bucket);
        for (row, item) in &mut view {
            let Some(AttributeValue::M(moved)) = item.remove("_overflow") else { continue };
            for (column, address) in moved {
                let object = address.as_s().ok().and_then(|address| address.strip_prefix(&prefix));
                match self.object(object.unwrap_or_default()).await.as_deref().map(Value::attribute_of_json) {
                    Ok(Some(value)) => {
                        item.insert(column, value);
                    }
                    Ok(None) => problems.push(format!("{row} names {address:?}, which holds no value")),
                    Err(error) => problems.push(format!("{row} names {address:?}: {error}")),
                }
            }
        }
        Ok((view, problems))
    }

    /// Each poison record must be in the quarantine as it came. Nothing else may be there.
    async fn quarantine_differences(&self, poison: &Poison) -> Result<Vec<String>, Failure> {
        let mut objects = Vec::new();
        for key in self.keys(FOLDER).await? {
            let body = self.object(&key).await?;
            objects.push((key, body));
        }
        let Differences { wrong, missing } = differences(poison, objects);
        Ok(wrong.into_iter().chain(missing).collect())
    }

    async fn keys(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let request = self.s3.list_objects_v2().bucket(&self.stack.bucket).prefix(prefix);
        let mut pages = request.into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let objects = page.map_err(told)?.contents.unwrap_or_default();
            keys.extend(objects.into_iter().filter_map(|object| object.key));
        }
        Ok(keys)
    }

    async fn object(&self, key: &str) -> Result<Vec<u8>, Failure> {
        let object = self.s3.get_object().bucket(&self.stack.bucket).key(key).send().await.map_err(told)?;
        Ok(object.body.collect().await?.to_vec())
    }

    /// How many messages a queue has. Messages that are being worked on count too.
    async fn messages(&self, queue: &str) -> Result<u64, Failure> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let request = self.sqs.get_queue_attributes().queue_url(queue).set_attribute_names(Some(names.to_vec()));
        let attributes = request.send().await.map_err(told)?.attributes.unwrap_or_default();
        Ok(names.iter().filter_map(|name| attributes.get(name)?.parse::<u64>().ok()).sum())
    }
}
