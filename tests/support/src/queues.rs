//! The part of SQS that a function behind a queue calls, in the process, and the events that invoke such a function.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::server::{Answer, Server, json as response, serve_http};

const ACCOUNT: &str = "123456789012";

/// Queues that a test makes.
pub struct LocalQueues {
    server: Server,
    queues: Arc<Mutex<BTreeMap<String, Queue>>>,
}

/// The state of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    /// The queue for messages that were received too often.
    pub dead_letter_queue: Option<String>,
    /// The bodies of the messages that were sent to it.
    pub sent: Vec<String>,
    /// The messages whose visibility was changed, by receipt handle, with the seconds.
    pub waits: Vec<(String, u64)>,
}

/// A queue's ARN.
pub fn arn(queue: &str) -> String {
    format!("arn:aws:sqs:us-east-1:{ACCOUNT}:{queue}")
}

/// The Lambda event of a message at this receive count.
pub fn event(queue: &str, message_id: &str, body: &str, receive_count: u32) -> Value {
    json!({ "Records": [{
        "messageId": message_id,
        "receiptHandle": format!("receipt of {message_id}"),
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": receive_count.to_string(),
            "SentTimestamp": "1773843842125",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1773843842130",
        },
        "messageAttributes": {},
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": arn(queue),
        "awsRegion": "us-east-1",
    }] })
}

impl LocalQueues {
    /// Starts on a free port, with these queues and the names of their dead-letter queues.
    pub fn start(queues: &[(&str, Option<&str>)]) -> Self {
        let queue = |(name, dead): &(&str, Option<&str>)| {
            ((*name).to_owned(), Queue { dead_letter_queue: dead.map(str::to_owned), ..Queue::default() })
        };
        let queues = Arc::new(Mutex::new(queues.iter().map(queue).collect()));
        let shared = Arc::clone(&queues);
        let server =
            Server::start(0, move |listener| serve_http(listener, move |request| answer(Arc::clone(&shared), request)))
                .expect("a free loopback port");
        Self { server, queues }
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The state of a queue.
    pub fn queue(&self, name: &str) -> Queue {
        self.queues.lock().expect("no holder panics")[name].clone()
    }
}

async fn answer(queues: Arc<Mutex<BTreeMap<String, Queue>>>, request: Request<Incoming>) -> Answer {
    let target = request.headers().get("x-amz-target")?.to_str().ok()?.to_owned();
    let body = request.into_body().collect().await.ok()?.to_bytes();
    let asked: Value = serde_json::from_slice(&body).ok()?;
    let text = |name: &str| asked[name].as_str().unwrap_or_default();
    let name = text("QueueUrl").rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(text("QueueName"));
    let mut queues = queues.lock().expect("no holder panics");
    let Some(queue) = queues.get_mut(name) else {
        return Some(response(400, json!({ "__type": "com.amazonaws.sqs#QueueDoesNotExist" }).to_string()));
    };
    let answered = match target.rsplit('.').next() {
        Some("GetQueueUrl") => json!({ "QueueUrl": format!("https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{name}") }),
        Some("GetQueueAttributes") => {
            let policy = |dead: &String| {
                let policy = json!({ "deadLetterTargetArn": arn(dead), "maxReceiveCount": 10 });
                json!({ "Attributes": { "RedrivePolicy": policy.to_string() } })
            };
            queue.dead_letter_queue.as_ref().map_or(json!({}), policy)
        }
        Some("SendMessage") => {
            queue.sent.push(text("MessageBody").to_owned());
            json!({ "MessageId": "00000000-0000-4000-8000-000000000000" })
        }
        Some("ChangeMessageVisibility") => {
            let seconds = asked["VisibilityTimeout"].as_u64().unwrap_or_default();
            queue.waits.push((text("ReceiptHandle").to_owned(), seconds));
            json!({})
        }
        _ => return Some(response(400, json!({ "__type": "UnknownOperationException" }).to_string())),
    };
    Some(response(200, answered.to_string()))
}
