//! A proxy in front of DynamoDB, S3, Kinesis, SQS or Secrets Manager that makes the faults of a network and of a service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::server::{Answer, Server, json, serve_http};

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the request reaches DynamoDB, and the answer comes back.
    None,
    /// DynamoDB answers this error, and does nothing.
    Error { status: u16, code: &'static str },
    /// The service answers this error, with a message that quotes the request, and does nothing.
    Quote { status: u16, code: &'static str },
    /// DynamoDB does what was asked, and answers HTTP 500.
    ErrorAfterTheWrite,
    /// The connection is cut before DynamoDB has the request.
    Cut,
    /// DynamoDB does what was asked, and the connection is cut before the answer.
    CutAfterTheWrite,
    /// The request reaches DynamoDB after this time.
    Delay(Duration),
    /// DynamoDB does what was asked, and the answer comes after this time.
    DelayAfterTheWrite(Duration),
    /// A broken DynamoDB: it puts the item whatever its condition says, and inserts items over existing ones.
    WithoutCondition,
    /// In a BatchExecuteStatement, DynamoDB refuses the first statement and every second one after it with this error,
    /// and does the others.
    Statements { code: &'static str },
}

impl Fault {
    /// The table's throughput is used up.
    pub const THROTTLED: Self = Self::Error { status: 400, code: "ProvisionedThroughputExceededException" };
    /// DynamoDB fails before it does anything.
    pub const ERROR_BEFORE_THE_WRITE: Self = Self::Error { status: 500, code: "InternalServerError" };
}

/// Which of AWS's services a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    DynamoDb,
    S3,
    Kinesis,
    Sqs,
    SecretsManager,
}

impl Service {
    /// From the operation's full name, which all services but S3 have in a header.
    fn of(target: &str) -> Self {
        match target.split(['_', '.']).next() {
            Some("DynamoDB") => Self::DynamoDb,
            Some("Kinesis") => Self::Kinesis,
            Some("AmazonSQS") => Self::Sqs,
            Some("secretsmanager") => Self::SecretsManager,
            _ => Self::S3,
        }
    }
}

/// One request.
#[derive(Debug)]
pub struct Call {
    /// The service that the request is for.
    pub service: Service,
    /// The operation, such as `PutItem`; empty for S3, which names none.
    pub operation: String,
    /// The HTTP method.
    pub method: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The path with its query.
    pub path: String,
    /// For a write (see [`Call::is_write`]): how many writes came before, over all connections together.
    pub number: usize,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// Whether it writes rows of the view: a PutItem or a BatchExecuteStatement.
    pub fn is_write(&self) -> bool {
        is_write(&self.operation)
    }

    /// Whether it writes the row with this key of the view.
    pub fn writes(&self, view_key: &str) -> bool {
        let key = format!(r#"{{"S":"{view_key}"}}"#);
        self.body.windows(key.len()).any(|window| window == key.as_bytes())
    }
}

type Plan = dyn Fn(&Call) -> Fault + Send + Sync;

/// A proxy with a plan that decides on the fault of each call.
pub struct FaultProxy {
    server: Server,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    writes: AtomicUsize,
    in_flight: Mutex<InFlight>,
    /// The calls that are on their way, even if their senders are gone.
    under_way: AtomicUsize,
    /// The finished calls whose answers are held back.
    unanswered: AtomicUsize,
    statements: Mutex<Statements>,
}

/// The statements of the BatchExecuteStatement calls that reached DynamoDB.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Statements {
    pub asked: usize,
    /// The statements that succeeded.
    pub done: usize,
}

#[derive(Debug, Default)]
struct InFlight {
    now: usize,
    most: usize,
}

impl FaultProxy {
    /// Starts a proxy to `upstream` on a free port. Calls that do not write pass without asking the plan.
    pub fn start(upstream: &str, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> Self {
        Self::before_everything(upstream, move |call| if call.is_write() { plan(call) } else { Fault::None })
    }

    /// Starts a proxy to `upstream` on a free port; the plan decides on every operation.
    pub fn before_everything(upstream: &str, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> Self {
        let services = [Service::DynamoDb, Service::S3, Service::Kinesis, Service::Sqs];
        Self::before_services(&services.map(|service| (service, upstream.to_owned())), plan)
    }

    /// Starts one proxy to several services on a free port; the plan decides on every operation.
    pub fn before_services(
        upstreams: &[(Service, String)],
        plan: impl Fn(&Call) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let upstreams: Arc<HashMap<Service, String>> = Arc::new(upstreams.iter().cloned().collect());
        let plan: Arc<Plan> = Arc::new(plan);
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let server = Server::start(0, move |listener| async move {
            let client = Client::builder(TokioExecutor::new()).build_http();
            serve_http(listener, move |request| {
                let (client, upstreams, plan) = (client.clone(), Arc::clone(&upstreams), Arc::clone(&plan));
                let counters = Arc::clone(&counted);
                // On its own task: a request that its sender has sent goes on, whether or not the sender still waits.
                let answered = tokio::spawn(async move {
                    let _under_way = UnderWay::begin(&counters.under_way);
                    answer(&client, &upstreams, &*plan, &counters, request).await
                });
                async move { answered.await.ok()? }
            })
            .await;
        })
        .expect("a free loopback port");
        Self { server, counters }
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Whether no call is on its way, delayed ones included.
    pub fn is_quiet(&self) -> bool {
        self.counters.under_way.load(Ordering::SeqCst) == 0
    }

    /// Whether [`Fault::DelayAfterTheWrite`] holds back the answer to a finished call.
    pub fn holds_an_answer_back(&self) -> bool {
        self.counters.unanswered.load(Ordering::SeqCst) > 0
    }

    /// How many writes have come, retries included.
    pub fn writes(&self) -> usize {
        self.counters.writes.load(Ordering::SeqCst)
    }

    /// The statements that DynamoDB was asked for, and how many succeeded.
    pub fn statements(&self) -> Statements {
        *self.counters.statements.lock().expect("no holder panics")
    }

    /// The most writes that were in flight at the same time.
    pub fn most_in_flight(&self) -> usize {
        self.counters.in_flight.lock().expect("no holder panics").most
    }
}

async fn answer(
    client: &Client<HttpConnector, Full<Bytes>>,
    upstreams: &HashMap<Service, String>,
    plan: &Plan,
    counters: &Counters,
    request: Request<Incoming>,
) -> Answer {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let service = Service::of(target);
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();

    let is_write = is_write(&operation);
    let number = if is_write { counters.writes.fetch_add(1, Ordering::SeqCst) } else { 0 };
    let has_statements = operation == "BatchExecuteStatement";
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let call = Call {
        service,
        operation,
        method: head.method.to_string(),
        headers: head.headers.clone(),
        path: path.clone(),
        number,
        body: body.clone(),
    };
    let fault = plan(&call);
    let _in_flight = is_write.then(|| Passage::enter(&counters.in_flight));

    let forward = async |body: &Bytes| {
        let uri = format!("{}{path}", upstreams.get(&service)?);
        let mut forwarded = Request::builder().method(head.method.clone()).uri(uri);
        for (name, value) in &head.headers {
            if name != CONTENT_LENGTH {
                forwarded = forwarded.header(name, value);
            }
        }
        let response = client.request(forwarded.body(Full::new(body.clone())).ok()?).await.ok()?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        if has_statements {
            counters.count_statements(&body);
        }
        Some(Response::from_parts(head, Full::new(body)))
    };
    match fault {
        Fault::None => forward(&body).await,
        Fault::Error { status, code } => Some(error(status, code)),
        Fault::Quote { status, code } if service == Service::S3 => Some(xml_error(status, code, &body)),
        Fault::Quote { status, code } => Some(error_saying(status, code, &String::from_utf8_lossy(&body))),
        Fault::ErrorAfterTheWrite => {
            forward(&body).await?;
            Some(error(500, "InternalServerError"))
        }
        Fault::Cut => None,
        Fault::CutAfterTheWrite => {
            forward(&body).await?;
            None
        }
        Fault::Delay(time) => {
            tokio::time::sleep(time).await;
            forward(&body).await
        }
        Fault::DelayAfterTheWrite(time) => {
            let answer = forward(&body).await;
            let _unanswered = UnderWay::begin(&counters.unanswered);
            tokio::time::sleep(time).await;
            answer
        }
        Fault::WithoutCondition if has_statements => {
            forward(&removals(&body)?).await?;
            forward(&body).await
        }
        Fault::WithoutCondition => forward(&without_condition(&body)?).await,
        Fault::Statements { code } => match every_second_statement(&body) {
            Some((others, statements)) => {
                let answer = if others.is_empty() { None } else { Some(forward(&others).await?) };
                with_errors_between(code, &body, statements, answer).await
            }
            None => forward(&body).await,
        },
    }
}

fn is_write(operation: &str) -> bool {
    matches!(operation, "PutItem" | "BatchExecuteStatement")
}

/// The body of a BatchExecuteStatement without its first statement and every second one after it, and the original
/// number of statements. The body is empty if no statement is left; `None` if the given body is not a
/// BatchExecuteStatement's.
fn every_second_statement(body: &[u8]) -> Option<(Bytes, usize)> {
    let mut request: serde_json::Value = serde_json::from_slice(body).ok()?;
    let statements = request.get_mut("Statements")?.as_array_mut()?;
    let all = statements.len();
    *statements = std::mem::take(statements).into_iter().skip(1).step_by(2).collect();
    let is_empty = statements.is_empty();
    Some((if is_empty { Bytes::new() } else { request.to_string().into() }, all))
}

/// The answer to this number of statements: the first one and every second one after it was refused, with messages that
/// quote the request.
async fn with_errors_between(
    code: &str,
    request: &[u8],
    statements: usize,
    answer: Option<Response<Full<Bytes>>>,
) -> Answer {
    let mut done = Vec::new();
    if let Some(answer) = answer {
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
        done.clone_from(body["Responses"].as_array()?);
    }
    let mut done = done.into_iter();
    let refused = serde_json::json!({ "Error": { "Code": code, "Message": String::from_utf8_lossy(request) } });
    let responses: Option<Vec<_>> =
        (0..statements).map(|place| if place % 2 == 0 { Some(refused.clone()) } else { done.next() }).collect();
    Some(json(200, serde_json::json!({ "Responses": responses? }).to_string()))
}

/// The body of a PutItem without its condition.
fn without_condition(body: &[u8]) -> Option<Bytes> {
    let mut put: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    for name in ["ConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues"] {
        put.remove(name);
    }
    serde_json::to_vec(&put).ok().map(Bytes::from)
}

/// The body of a BatchExecuteStatement that removes the items where one with this body inserts.
fn removals(body: &[u8]) -> Option<Bytes> {
    let mut request: serde_json::Value = serde_json::from_slice(body).ok()?;
    for statement in request["Statements"].as_array_mut()? {
        // INSERT INTO "table" VALUE {'key': ?, …}
        let text = statement["Statement"].as_str()?;
        let (table, key) = (text.split('"').nth(1)?, text.split('\'').nth(1)?);
        statement["Statement"] = format!(r#"DELETE FROM "{table}" WHERE "{key}" = ?"#).into();
        statement["Parameters"].as_array_mut()?.truncate(1);
    }
    Some(request.to_string().into())
}

fn error(status: u16, code: &str) -> Response<Full<Bytes>> {
    error_saying(status, code, "made by the fault proxy")
}

fn error_saying(status: u16, code: &str, message: &str) -> Response<Full<Bytes>> {
    let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
    json(status, serde_json::json!({ "__type": kind, "message": message }).to_string())
}

/// An error in S3's form.
fn xml_error(status: u16, code: &str, quoted: &[u8]) -> Response<Full<Bytes>> {
    let quoted = String::from_utf8_lossy(quoted).replace('&', "&amp;").replace('<', "&lt;");
    let body = format!("<Error><Code>{code}</Code><Message>{quoted}</Message></Error>");
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status.try_into().expect("a status");
    response
}

impl Counters {
    fn count_statements(&self, answer: &[u8]) {
        let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
        let Some(responses) = answer["Responses"].as_array() else { return };
        let mut statements = self.statements.lock().expect("no holder panics");
        statements.asked += responses.len();
        statements.done += responses.iter().filter(|response| response["Error"].is_null()).count();
    }
}

/// Counts a call until the call ends.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(calls: &'a AtomicUsize) -> Self {
        calls.fetch_add(1, Ordering::SeqCst);
        Self(calls)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts a request while it is being served.
struct Passage<'a>(&'a Mutex<InFlight>);

impl<'a> Passage<'a> {
    fn enter(gauge: &'a Mutex<InFlight>) -> Self {
        let mut in_flight = gauge.lock().expect("no holder panics");
        in_flight.now += 1;
        in_flight.most = in_flight.most.max(in_flight.now);
        Self(gauge)
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.0.lock().expect("no holder panics").now -= 1;
    }
}
