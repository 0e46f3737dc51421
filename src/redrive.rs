//! The redrive function: brings back the records that Lambda could not deliver and those of the quarantine, and looks
//! for records that still wait.
//!
//! | invoked with | does | in |
//! |---|---|---|
//! | messages of the on-failure queue | reads the ranges that they name from the stream, and applies them | this file |
//! | `{"replay": "quarantine/public.users/"}` | applies the records of the quarantine again; with `"force": true` also those whose rows may have been deleted since | [`replay`] |
//! | `{"check": "fragments"}` | tells which sets of split changes wait for some of their members | [`waiting`] |
//! | `{"check": "quarantine"}` | tells how many records the quarantine has | [`waiting`] |
//!
//! What may happen between any two steps of a message, and why no record is passed over:
//! - The function dies: SQS delivers the message again. Records that were applied are superseded.
//! - A record is not applied: the message is not done, and comes again, later each time. In the end, SQS moves it to
//!   the dead-letter queue.
//! - Records have expired: the function sends their range to the dead-letter queue before the message is done. If it
//!   dies in between, it sends the range twice.
//! - The time runs out: as for a record that is not applied.
//!
//! Invariants: a message is done only when each record of its range is applied, superseded, filtered, kept,
//! quarantined, or named as lost; a page of the stream bounds the memory, not the range.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_lambda_events::event::streams::{SqsBatchItemFailure, SqsEventResponse};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::aws::service_error::ServiceError;
use crate::batch::disposition::{Disposition, Failure};
use crate::batch::tally::Tally;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::handler::{DynamoDbHandler, StartError};
use crate::item::projection::Origin;
use crate::observe::metrics::{self, Lost, Redriven};
use crate::quarantine::QUARANTINE;

pub mod queue;
pub mod range;
pub mod replay;
pub mod shard;
pub mod waiting;

use queue::{Message, Queues};
use range::ShardRange;
use replay::Replay;
use shard::Shards;

/// The function.
#[derive(Debug)]
pub struct Redrive {
    handler: DynamoDbHandler,
    shards: Shards,
    queues: Queues,
}

/// The event of an invocation.
#[derive(Debug)]
pub enum Invocation {
    /// Messages of the on-failure queue.
    Messages(Vec<Message>),
    /// A replay of the quarantine.
    Replay(Replay),
    /// A look at the sets that wait for some of their members.
    CheckFragments,
    /// A look at the quarantine.
    CheckQuarantine,
    /// Something else.
    Unknown,
}

/// The function's answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To SQS: the messages that are not done.
    Sqs(SqsEventResponse),
    /// To a replay.
    Replay(replay::ReplayAnswer),
    /// To a look at the sets that wait for some of their members.
    Waiting(waiting::Found),
    /// To a look at the quarantine.
    Quarantined {
        /// The number of records, as far as they were counted.
        quarantined: usize,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum RedriveError {
    #[error(
        "expected messages of the on-failure queue, {{\"replay\": \"quarantine/…\"}} (with \"after\": \"…\", \"force\": true), {{\"check\": \"fragments\"}} or {{\"check\": \"quarantine\"}}, \
         found something else"
    )]
    Unknown,
    #[error("there is no bucket to look into: set OBJECTS_BUCKET")]
    NoBucket,
    #[error("expected replay to be a prefix within {QUARANTINE}, such as quarantine/public.users/, found another")]
    NotInQuarantine,
    #[error(transparent)]
    Objects(#[from] ServiceError),
}

impl<'de> Deserialize<'de> for Invocation {
    /// An event that does not fit becomes [`Invocation::Unknown`]. An error would say what does not fit, and the
    /// runtime would log it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Reads the fields by their names, because serde would read a struct from an array as well.
        let Ok(Value::Object(mut fields)) = Value::deserialize(deserializer) else { return Ok(Self::Unknown) };
        let mut field = |name: &str| fields.remove(name).unwrap_or_default();
        let force = match field("force") {
            Value::Null => Some(false),
            Value::Bool(force) => Some(force),
            _ => None,
        };
        Ok(match (field("Records"), field("replay"), field("after"), field("check")) {
            (Value::Array(records), Value::Null, _, Value::Null) if records.iter().all(Value::is_object) => {
                serde_json::from_value(records.into()).map_or(Self::Unknown, Self::Messages)
            }
            (Value::Null, Value::String(prefix), after @ (Value::String(_) | Value::Null), Value::Null) => {
                let after = after.as_str().map(str::to_owned);
                force.map_or(Self::Unknown, |force| Self::Replay(Replay { prefix, after, force }))
            }
            (Value::Null, Value::Null, _, Value::String(what)) if what == "fragments" => Self::CheckFragments,
            (Value::Null, Value::Null, _, Value::String(what)) if what == "quarantine" => Self::CheckQuarantine,
            _ => Self::Unknown,
        })
    }
}

impl Redrive {
    /// Starts the function, with the settings of the function that writes the view.
    ///
    /// # Errors
    /// As [`DynamoDbHandler::start`].
    pub async fn start(config: Config, sdk_config: &SdkConfig) -> Result<Self, StartError> {
        let handler = DynamoDbHandler::start(config, sdk_config).await?;
        Ok(Self { handler, shards: Shards::new(sdk_config), queues: Queues::new(sdk_config) })
    }

    /// Carries out an invocation.
    ///
    /// # Errors
    /// The event is unknown, its prefix is not in the quarantine, there is no bucket, or the bucket did not list its
    /// objects.
    pub async fn handle(&self, invocation: Invocation, deadline: Deadline) -> Result<Answer, RedriveError> {
        let objects = || self.handler.objects().ok_or(RedriveError::NoBucket);
        Ok(match invocation {
            Invocation::Messages(messages) => {
                let mut answer = SqsEventResponse::default();
                for message in messages {
                    if !self.settle(&message, deadline).await {
                        let mut failure = SqsBatchItemFailure::default();
                        failure.item_identifier = Some(message.message_id);
                        answer.batch_item_failures.push(failure);
                    }
                }
                Answer::Sqs(answer)
            }
            Invocation::Replay(replay) => Answer::Replay(replay.run(&self.handler, objects()?, deadline).await?),
            Invocation::CheckFragments => Answer::Waiting(waiting::check(objects()?).await?),
            Invocation::CheckQuarantine => {
                Answer::Quarantined { quarantined: waiting::check_quarantine(objects()?).await? }
            }
            Invocation::Unknown => return Err(RedriveError::Unknown),
        })
    }

    /// Carries out a message, and returns whether it is done. If it is not, it waits for its next delivery.
    async fn settle(&self, message: &Message, deadline: Deadline) -> bool {
        let message_id = &message.message_id;
        let range = match ShardRange::of_message(&message.body) {
            Ok(range) => range,
            Err(error) => {
                tracing::error!(message_id, %error, "no message of an on-failure queue");
                // Waiting would not help. So the message reaches the dead-letter queue as fast as SQS delivers it.
                self.postpone(message, Duration::ZERO).await;
                return false;
            }
        };
        let (shard, first, last) = (&range.shard_id, range.first.as_str(), range.last.as_str());
        let redriven = self.redrive(message, &range, deadline);
        let redriven = tokio::time::timeout_at(deadline.answer_by, redriven).await;
        match redriven.unwrap_or_else(|_| Err(OUT_OF_TIME.to_owned())) {
            Ok(Tally { received: records, .. }) => {
                tracing::info!(message_id, shard, first, last, records, "redriven");
                metrics::emit(Redriven { redriven_records: records, redriven_ranges: 1, postponed_ranges: 0 });
                true
            }
            Err(reason) => {
                tracing::warn!(message_id, shard, first, last, reason, "not redriven yet");
                metrics::emit(Redriven { redriven_records: 0, redriven_ranges: 0, postponed_ranges: 1 });
                self.postpone(message, message.wait()).await;
                false
            }
        }
    }

    /// Applies the records of a range, and tells the dead-letter queue which are lost. An error says why the message is
    /// not done.
    async fn redrive(&self, message: &Message, range: &ShardRange, deadline: Deadline) -> Result<Tally, String> {
        let told = |error: ServiceError| error.to_string();
        let mut total = Tally::default();
        let mut reader = self.shards.read(range).await.map_err(told)?;
        loop {
            if Instant::now() >= deadline.stop_starting {
                return Err(OUT_OF_TIME.to_owned());
            }
            let Some(batch) = reader.next().await.map_err(told)? else { break };
            let ledger = self.handler.process_observed(&batch, Origin::Stream, deadline).await;
            ledger.entries().iter().for_each(|entry| total.add(entry));
            // A reported record does not end the reading: other pages may hold records that can be applied, and the
            // message comes again for this one.
            if ledger.any(|entry| is_hopeless(entry.end())) {
                break;
            }
        }
        if let Some(reported) = total.reported {
            return Err(format!("{reported} records are not applied"));
        }
        for lost in reader.lost().await.map_err(told)? {
            self.queues.tell_dead_letter_queue(message, lost.lost_message()).await.map_err(told)?;
            let (shard, first, last) = (&lost.shard_id, lost.first.as_str(), lost.last.as_str());
            tracing::error!(shard, first, last, "records are lost: the stream no longer holds them");
            metrics::emit(Lost {
                lost_ranges: 1,
                shard: shard.clone(),
                first_sequence_number: first.to_string(),
                last_sequence_number: last.to_string(),
            });
        }
        Ok(total)
    }

    async fn postpone(&self, message: &Message, wait: Duration) {
        if let Err(error) = self.queues.postpone(message, wait).await {
            let message_id = &message.message_id;
            let so = "a message comes again when its queue's visibility time-out is over";
            tracing::warn!(message_id, %error, "{so}");
        }
    }
}

const OUT_OF_TIME: &str = "the invocation's time was running out; a longer time-out helps";

/// Whether the pages that follow would fail in the same way.
fn is_hopeless(disposition: &Disposition) -> bool {
    matches!(disposition, Disposition::Reported(Failure::Unavailable(_) | Failure::OutOfTime))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks_for(event: &str) -> String {
        match serde_json::from_str(event).unwrap() {
            Invocation::Messages(messages) => {
                let told = messages.iter().map(|message| format!("{}: {}", message.message_id, message.body));
                told.collect::<Vec<_>>().join(", ")
            }
            Invocation::Replay(Replay { prefix, after, force }) => {
                format!("{prefix} after {after:?}{}", if force { " by force" } else { "" })
            }
            Invocation::CheckFragments => "fragments".to_owned(),
            Invocation::CheckQuarantine => "quarantine".to_owned(),
            Invocation::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn only_a_failure_of_all_writes_ends_the_reading_of_a_range() {
        for (disposition, expected) in [
            (Failure::Unavailable("denied".to_owned()).into(), true),
            (Failure::OutOfTime.into(), true),
            (Failure::Retryable("throttled".to_owned()).into(), false),
            (Failure::Refused("too large".to_owned()).into(), false),
            (Failure::NewerReported.into(), false),
            (Disposition::Quarantined(Failure::OutOfTime), false),
            (Disposition::Applied, false),
        ] {
            assert_eq!(is_hopeless(&disposition), expected, "{disposition:?}");
        }
    }

    #[test]
    fn an_invocation_asks_for_one_thing() {
        for (event, expected) in [
            (r#"{"Records":[{"messageId":"m","body":"b","md5OfBody":"x"}]}"#, "m: b"),
            (r#"{"Records":[{"messageId":"m"}],"replay":null}"#, "m: "),
            (r#"{"Records":[]}"#, ""),
            (r#"{"replay":"quarantine/"}"#, "quarantine/ after None"),
            (r#"{"replay":"quarantine/","after":"quarantine/x"}"#, r#"quarantine/ after Some("quarantine/x")"#),
            (r#"{"replay":"quarantine/","force":true}"#, "quarantine/ after None by force"),
            (r#"{"replay":"quarantine/","force":false}"#, "quarantine/ after None"),
            (r#"{"replay":"quarantine/","force":"true"}"#, "unknown"),
            (r#"{"check":"fragments"}"#, "fragments"),
            (r#"{"check":"quarantine"}"#, "quarantine"),
            (r#"{"check":"everything"}"#, "unknown"),
            (r#"{"check":"fragments","replay":"quarantine/"}"#, "unknown"),
            (r#"{"Records":[],"replay":"quarantine/"}"#, "unknown"),
            (r#"{"Records":[],"check":"fragments"}"#, "unknown"),
            (r#"{"Records":[{"body":"no id"}]}"#, "unknown"),
            (r#"{"replay":"quarantine/","after":7}"#, "unknown"),
            ("{}", "unknown"),
            ("7", "unknown"),
        ] {
            assert_eq!(asks_for(event), expected, "{event}");
        }
    }

    #[test]
    fn regression_an_invocation_is_read_by_the_names_of_its_fields_alone() {
        for event in [r#"[null,"quarantine/",null,null]"#, r#"{"Records":[["m","r","b","q",["1"]]]}"#] {
            assert_eq!(asks_for(event), "unknown", "{event}");
        }
    }
}
