//! The on-failure queue and its dead-letter queue.
//!
//! Invariant: nothing here removes a message. SQS does, once the function has said that the message is done.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::types::QueueAttributeName;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::aws::service_error::ServiceError;

/// The name of the service in errors.
const SQS: &str = "SQS";

const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a message waits after its first failure. The wait doubles after each further failure.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// The longest wait. With the ten deliveries of `template.yaml`, a message waits some six hours in all, well within the
/// shortest retention of a stream.
const LONGEST_WAIT: Duration = Duration::from_secs(2 * 60 * 60);

/// The queues of the account.
#[derive(Debug, Clone)]
pub struct Queues {
    client: Client,
}

/// A message of the on-failure queue, as Lambda delivers it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Names the message in the answer to SQS.
    pub message_id: String,
    /// Names this delivery of the message to SQS.
    #[serde(default, deserialize_with = "text_or_none")]
    pub receipt_handle: String,
    /// Its text.
    #[serde(default, deserialize_with = "text_or_none")]
    pub body: String,
    /// The queue, `arn:aws:sqs:<region>:<account>:<name>`.
    #[serde(default, rename = "eventSourceARN", deserialize_with = "text_or_none")]
    pub queue_arn: String,
    /// Its attributes, in any form: only the receive count is used.
    #[serde(default)]
    attributes: Value,
}

/// Reads a field that may be missing or of another type, which gives an empty text. One such field must not fail all
/// messages of a batch.
fn text_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

impl Message {
    /// How long the message waits for its next delivery: longer each time.
    pub fn wait(&self) -> Duration {
        let count = &self.attributes["ApproximateReceiveCount"];
        let times = count.as_str().and_then(|count| count.parse().ok()).unwrap_or(1_u32);
        FIRST_WAIT.saturating_mul(2_u32.saturating_pow(times.saturating_sub(1))).min(LONGEST_WAIT)
    }
}

impl Queues {
    /// The queues that this configuration reaches.
    pub fn new(sdk_config: &SdkConfig) -> Self {
        let timeouts = TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT);
        let config = aws_sdk_sqs::config::Builder::from(sdk_config).timeout_config(timeouts.build());
        Self { client: Client::from_conf(config.build()) }
    }

    /// Lets a message wait before it is delivered again.
    ///
    /// # Errors
    /// It is not certain that the message waits for this time. If it does not, it comes again when the queue's own
    /// visibility time-out is over.
    pub async fn postpone(&self, message: &Message, wait: Duration) -> Result<(), ServiceError> {
        let url = self.url(&message.queue_arn).await?;
        let seconds = i32::try_from(wait.as_secs()).unwrap_or(i32::MAX);
        let request = self.client.change_message_visibility().queue_url(url).receipt_handle(&message.receipt_handle);
        let done = request.visibility_timeout(seconds).send().await;
        done.map(|_| ()).map_err(|error| ServiceError::of(SQS, "let a message wait", &error))
    }

    /// Sends a message to the dead-letter queue of the queue that the message `from` came from.
    ///
    /// # Errors
    /// It is not certain that the new message is there.
    pub async fn tell_dead_letter_queue(&self, from: &Message, body: String) -> Result<(), ServiceError> {
        let url = self.url(&from.queue_arn).await?;
        let request = self.client.get_queue_attributes().queue_url(url);
        let attributes = request.attribute_names(QueueAttributeName::RedrivePolicy).send().await;
        let attributes = attributes.map_err(|error| ServiceError::of(SQS, "name the dead-letter queue", &error))?;
        let policy = attributes.attributes.unwrap_or_default().remove(&QueueAttributeName::RedrivePolicy);
        let arn = policy.as_deref().and_then(dead_letter_queue).ok_or_else(|| ServiceError {
            service: SQS,
            action: "name the dead-letter queue",
            reason: format!("{} has no RedrivePolicy: give it one", from.queue_arn),
        })?;
        let url = self.url(&arn).await?;
        let sent = self.client.send_message().queue_url(url).message_body(body).send().await;
        sent.map(|_| ()).map_err(|error| ServiceError::of(SQS, "take a message into the dead-letter queue", &error))
    }

    async fn url(&self, arn: &str) -> Result<String, ServiceError> {
        const ACTION: &str = "say where a queue is";
        let failed = |reason: String| ServiceError { service: SQS, action: ACTION, reason };
        let mut parts = arn.split(':').skip(4);
        let (Some(account), Some(name)) = (parts.next(), parts.next()) else {
            return Err(failed(format!("expected eventSourceARN to be the ARN of a queue, found {arn:?}")));
        };
        let request = self.client.get_queue_url().queue_name(name).queue_owner_aws_account_id(account);
        let found = request.send().await.map_err(|error| ServiceError::of(SQS, ACTION, &error))?;
        found.queue_url.ok_or_else(|| failed("its answer holds no URL".to_owned()))
    }
}

fn dead_letter_queue(policy: &str) -> Option<String> {
    let policy: Value = serde_json::from_str(policy).ok()?;
    policy["deadLetterTargetArn"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_waits_longer_each_time() {
        for (count, seconds) in [
            (r#""attributes":{"ApproximateReceiveCount":"1"},"#, 60),
            (r#""attributes":{"ApproximateReceiveCount":"2"},"#, 120),
            (r#""attributes":{"ApproximateReceiveCount":"5"},"#, 960),
            (r#""attributes":{"ApproximateReceiveCount":"50"},"#, 7_200),
            (r#""attributes":{},"#, 60),
            (r#""attributes":{"ApproximateReceiveCount":2},"receiptHandle":7,"body":null,"#, 60),
            (r#""attributes":null,"eventSourceARN":[],"#, 60),
            ("", 60),
        ] {
            let json = format!(r#"{{{count}"messageId":"m"}}"#);
            let message: Message = serde_json::from_str(&json).unwrap();
            assert_eq!(message.wait().as_secs(), seconds, "{json}");
        }
    }

    #[test]
    fn the_queue_s_policy_names_the_dead_letter_queue() {
        let policy = r#"{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:1:dead", "maxReceiveCount": 10}"#;
        assert_eq!(dead_letter_queue(policy).as_deref(), Some("arn:aws:sqs:us-east-1:1:dead"));
        assert_eq!(dead_letter_queue("{}"), None);
    }
}
