//! Between the stream and the deployed function: the test kit's event source mapping, with the settings of the deployed
//! one.
//!
//! The local AWS's own mapping counts every batch as done that the function has answered, whatever the answer reports.
//! It does not wait for its window, does not count retries, has one batch at a time, and never tells the on-failure
//! queue.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_sdk_sqs::Client;
use dsql_view_support::cdc::Change;
use dsql_view_support::dynamodb::sdk_config;
use dsql_view_support::kinesis::{KinesisRecord, STREAM, shard_id};
use dsql_view_support::mapping::{Delivery, Mapping, Outcome};
use dsql_view_tools::quarantine::Poison;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::aws::Stack;
use crate::figures::Figures;
use crate::function::{Answer, Function};
use crate::workload::{POISON, primary_key};
use crate::{Failure, told};

/// One of this many batches is given up before it is tried, so that the redrive function has some work. The second
/// number says which one. On AWS, Lambda gives up a record whose event would be over 6 MB. Records here cannot be so
/// large.
const GIVEN_UP_OF: u64 = 50;
const FIRST_GIVEN_UP: u64 = 10;

/// How long records that wait for their window may wait for a look.
const TICK: Duration = Duration::from_millis(50);

/// The way from the stream to the function.
pub struct Deliveries<'a> {
    mapping: Mapping,
    function: Function,
    running: JoinSet<(Delivery, Result<Answer, Failure>)>,
    queues: Client,
    on_failure_queue: String,
    stream_arn: String,
    poison: Poison,
    /// The newest commit of each row that the function is done with.
    shown: HashMap<String, u64>,
    figures: &'a RefCell<Figures>,
}

impl<'a> Deliveries<'a> {
    pub fn new(stack: &Stack, seed: u64, figures: &'a RefCell<Figures>) -> Self {
        Self {
            mapping: Mapping::new(stack.mapping(), seed),
            function: Function::new(&stack.endpoint, &stack.function, stack.timeout()),
            running: JoinSet::new(),
            queues: Client::new(&sdk_config(&stack.endpoint)),
            on_failure_queue: stack.on_failure_queue.clone(),
            stream_arn: stack.stream_arn.clone(),
            poison: Poison::new(),
            shown: HashMap::new(),
            figures,
        }
    }

    /// Delivers all records that come, until each is done with or stands in the on-failure queue. Returns the poison
    /// among them.
    pub async fn run(mut self, mut records: mpsc::Receiver<KinesisRecord>) -> Result<Poison, Failure> {
        let (mut is_open, mut arrived) = (true, Vec::new());
        let mut passed = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        loop {
            self.mapping.pass(passed.elapsed());
            passed = Instant::now();
            self.start().await?;
            if !is_open && self.running.is_empty() && self.mapping.is_through() {
                return Ok(self.poison);
            }
            tokio::select! {
                count = records.recv_many(&mut arrived, usize::MAX), if is_open => {
                    is_open = count > 0;
                    arrived.drain(..).for_each(|record| self.take(record));
                }
                Some(ended) = self.running.join_next() => {
                    let (delivery, answer) = ended?;
                    self.settle(&delivery, &answer?);
                }
                _ = tick.tick() => {}
            }
        }
    }

    fn take(&mut self, record: KinesisRecord) {
        if record.data.starts_with(POISON.as_bytes()) {
            self.poison.insert(record.sequence_number.clone(), record.data.clone());
        }
        self.mapping.put(record);
    }

    /// Starts what can be started, and tells the on-failure queue of each batch that is given up.
    async fn start(&mut self) -> Result<(), Failure> {
        while let Some(delivery) = self.mapping.next_delivery() {
            let batches = self.figures.borrow().batches + 1;
            self.figures.borrow_mut().batches = batches;
            if delivery.attempts == 0 && batches % GIVEN_UP_OF == FIRST_GIVEN_UP {
                self.mapping.settle(&delivery, &Outcome::Response(Value::Null));
                self.tell(&given_up(&delivery)).await?;
                continue;
            }
            let invocation = self.function.clone().invoke(self.of_the_stack(&delivery.event()));
            self.running.spawn(async move { (delivery, invocation.await) });
        }
        for message in self.mapping.on_failure() {
            self.tell(&message).await?;
        }
        Ok(())
    }

    /// The text with the deployed stream in place of the test kit's own. The records in it are in Base64, so they stay
    /// as they are.
    fn of_the_stack(&self, made: &Value) -> String {
        made.to_string().replace(STREAM, &self.stream_arn)
    }

    async fn tell(&mut self, message: &Value) -> Result<(), Failure> {
        let request =
            self.queues.send_message().queue_url(&self.on_failure_queue).message_body(self.of_the_stack(message));
        request.send().await.map_err(told)?;
        let mut figures = self.figures.borrow_mut();
        figures.ranges += 1;
        figures.given_up += message["KinesisBatchInfo"]["batchSize"].as_u64().unwrap_or_default();
        Ok(())
    }

    fn settle(&mut self, delivery: &Delivery, answer: &Answer) {
        let mut figures = self.figures.borrow_mut();
        match &answer.outcome {
            Outcome::Response(response) => {
                figures.reported += response["batchItemFailures"].as_array().map_or(0, Vec::len) as u64;
            }
            Outcome::Failed | Outcome::Throttled => figures.failed_batches += 1,
        }
        if answer.failure.is_some() {
            figures.last_failure.clone_from(&answer.failure);
        }
        let done = self.mapping.settle(delivery, &answer.outcome);
        figures.done.add(done as u64);
        let now = since_epoch();
        let changes = delivery.records[..done].iter().filter_map(|record| Some((record, change(record)?)));
        for (record, change) in changes {
            let shown = self.shown.entry(change.view_key()).or_default();
            if change.committed > *shown {
                *shown = change.committed;
                figures.since_commit.add(now - Duration::from_nanos(change.committed).as_secs_f64());
                figures.since_arrival.add(now - record.arrival);
            }
        }
    }
}

/// Lambda's message about a batch that it gives up.
fn given_up(delivery: &Delivery) -> Value {
    let (first, last) = (&delivery.records[0], &delivery.records[delivery.records.len() - 1]);
    let time = |arrival| humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_secs_f64(arrival)).to_string();
    json!({
        "requestContext": { "condition": "RetryAttemptsExhausted", "approximateInvokeCount": 1 },
        "version": "1.0",
        "KinesisBatchInfo": {
            "shardId": shard_id(first.shard),
            "startSequenceNumber": first.sequence_number,
            "endSequenceNumber": last.sequence_number,
            "approximateArrivalOfFirstRecord": time(first.arrival),
            "approximateArrivalOfLastRecord": time(last.arrival),
            "batchSize": delivery.records.len(),
            "streamArn": STREAM,
        },
    })
}

/// Seconds since the epoch.
fn since_epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The change that a record holds. `None` if it holds no change, a member of a split one, or a change of another table.
fn change(record: &KinesisRecord) -> Option<Change> {
    Change::of_record(std::str::from_utf8(&record.data).ok()?, primary_key)
}
