//! The deployed function, invoked by the local AWS's own Lambda, through the interface that Lambda's Invoke has.

use std::time::Duration;

use bytes::Bytes;
use dsql_view_support::mapping::Outcome;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::Failure;

/// How much longer than the function's own time an answer may take.
const LONGEST_ANSWER: Duration = Duration::from_secs(30);

/// A function. Clones share their connections.
#[derive(Clone)]
pub struct Function {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    timeout: Duration,
}

/// The result of an invocation, and the reason if it failed.
pub struct Answer {
    pub outcome: Outcome,
    pub failure: Option<String>,
}

impl Function {
    pub fn new(endpoint: &str, name: &str, timeout: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            client,
            url: format!("{endpoint}/2015-03-31/functions/{name}/invocations"),
            timeout: timeout + LONGEST_ANSWER,
        }
    }

    /// Invokes it with an event.
    pub async fn invoke(self, event: String) -> Result<Answer, Failure> {
        let request = Request::post(&self.url).body(Full::new(Bytes::from(event)))?;
        let Ok(answer) = tokio::time::timeout(self.timeout, self.client.request(request)).await else {
            return Ok(failed(Outcome::Failed, "no answer in time".to_owned()));
        };
        let (head, body) = answer?.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = || String::from_utf8_lossy(&body).into_owned();
        Ok(match head.status {
            StatusCode::TOO_MANY_REQUESTS => failed(Outcome::Throttled, text()),
            StatusCode::OK if !head.headers.contains_key("x-amz-function-error") => {
                let answer = serde_json::from_slice(&body).unwrap_or(Value::Null);
                Answer { outcome: Outcome::Response(answer), failure: None }
            }
            _ => failed(Outcome::Failed, text()),
        })
    }
}

fn failed(outcome: Outcome, failure: String) -> Answer {
    Answer { outcome, failure: Some(failure) }
}
