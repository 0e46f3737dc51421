//! A DynamoDB that answers without storing, in a process of its own.
//!
//! `dynamodb-stub [--tls CA_FILE] [--latency-ms 5] [--failed-share 0.5] …` (see [`Settings`] for all flags) serves on
//! free loopback ports until its standard input ends. The first line of its output is its address. With `--tls` that is
//! the HTTPS address, the second line is the HTTP one, and the stub writes the certificate to trust to `CA_FILE`.
//!
//! It answers PutItem and BatchExecuteStatement, and what a function asks at its start. For the bench, both ports also answer `GET /counts`,
//! `POST /reset` (counts and items) and `POST /settings` (a JSON object of the changes).

use std::error::Error;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use bytes::Bytes;
use dynamodb_stub::{Decision, Settings, Stub};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The partition key in the table's description. The table's name is always the one that was asked for.
const PARTITION_KEY: &str = "pk";

type BoxError = Box<dyn Error + Send + Sync>;

/// A stub, and the threads that delay its answers.
struct Server {
    stub: Mutex<Stub>,
    /// The answers to requests with many statements, which have their own latency.
    delayed_statements: Delayed,
    delayed: Delayed,
}

/// Takes the requests that wait, each with the time of its answer.
type Delayed = mpsc::Sender<(Instant, oneshot::Sender<()>)>;

/// A request that waits until it is answered or its client is gone.
struct Waiting<'a>(&'a Mutex<Stub>);

impl<'a> Waiting<'a> {
    fn for_an_answer_of(stub: &'a Mutex<Stub>) -> Self {
        stub.lock().expect("no holder panics").came_in();
        Self(stub)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().expect("no holder panics").went_out();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut flags: Vec<String> = std::env::args().skip(1).collect();
    let tls = flags.iter().position(|flag| flag == "--tls");
    let ca_file =
        tls.map(|at| flags.drain(at..(at + 2).min(flags.len())).nth(1).ok_or("--tls wants a file")).transpose()?;
    let stub = Stub::new(Settings::from_flags(flags)?, Instant::now());
    let server = Arc::new(Server { stub: Mutex::new(stub), delayed_statements: delay(), delayed: delay() });

    let mut addresses = Vec::new();
    if let Some(ca_file) = ca_file {
        let acceptor = acceptor(&ca_file)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        addresses.push(format!("https://localhost:{}", listener.local_addr()?.port()));
        tokio::spawn(serve(listener, Some(acceptor), Arc::clone(&server)));
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    addresses.push(format!("http://{}", listener.local_addr()?));
    println!("{}", addresses.join("\n"));
    std::io::stdout().flush()?;
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = end.send(());
    });
    tokio::select! {
        () = serve(listener, None, server) => Err("no connection can be taken".into()),
        _ = ended => Ok(()),
    }
}

/// Wakes each request at its time. They wake in the order in which they came, because all wait equally long. A thread's
/// sleep is accurate to some 60 µs, whereas tokio's timers would round 5 ms up to 6.
fn delay() -> Delayed {
    let (sender, receiver): (Delayed, _) = mpsc::channel();
    std::thread::spawn(move || {
        for (at, wake) in receiver {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let _ = wake.send(());
        }
    });
    sender
}

/// TLS with a certificate for this machine, which only clients that read `ca_file` trust.
fn acceptor(ca_file: &str) -> Result<TlsAcceptor, BoxError> {
    let names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    std::fs::write(ca_file, cert.pem())?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der())?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, server: Arc<Server>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let server = Arc::clone(&server);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match acceptor {
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve_connection(stream, server).await;
                    }
                }
                None => serve_connection(stream, server).await,
            }
        });
    }
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, server: Arc<Server>) {
    let is_counted = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        // A connection that only asks for counts is not one of the function's.
        if is_of_dynamodb(&request) && !is_counted.swap(true, Ordering::Relaxed) {
            server.stub().connected();
        }
        server.answer(request)
    });
    // An error means that the client has cut the connection.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn is_of_dynamodb(request: &Request<Incoming>) -> bool {
    request.uri().path() == "/"
}

/// The name of the operation, as its header has it.
fn operation_of(request: &Request<Incoming>) -> String {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    target.and_then(|target| target.strip_prefix("DynamoDB_20120810.")).unwrap_or_default().to_owned()
}

impl Server {
    fn stub(&self) -> std::sync::MutexGuard<'_, Stub> {
        self.stub.lock().expect("no holder panics")
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        if !is_of_dynamodb(&request) {
            return self.control(request).await;
        }
        let _waiting = Waiting::for_an_answer_of(&self.stub);
        let came_in = Instant::now();
        let operation = operation_of(&request);
        let has_statements = operation == "BatchExecuteStatement";
        let answered = self.operation(&operation, request).await;
        let latency = self.stub().settings().latency_of(has_statements);
        if !latency.is_zero() {
            let delayed = if has_statements { &self.delayed_statements } else { &self.delayed };
            let (wake, woken) = oneshot::channel();
            if delayed.send((came_in + latency, wake)).is_ok() {
                let _ = woken.await;
            }
        }
        let (status, body) = answered?;
        Ok(response(status, body))
    }

    /// DynamoDB's answer to an operation.
    async fn operation(&self, name: &str, request: Request<Incoming>) -> Result<(StatusCode, Bytes), hyper::Error> {
        let body = request.into_body().collect().await?.to_bytes();
        let now = Instant::now();
        Ok(match name {
            "PutItem" => match self.stub().put(&body, now) {
                Ok(Decision::Applied) => (StatusCode::OK, Bytes::from_static(b"{}")),
                Ok(Decision::ConditionFailed) => condition_failed(&body),
                Ok(Decision::Throttled) => throttled(),
                Err(not_understood) => error("ValidationException", &not_understood.0),
            },
            "BatchExecuteStatement" => {
                let request: Result<Value, _> = serde_json::from_slice(&body);
                let statements = request.ok().and_then(|request| Some(request["Statements"].as_array()?.len()));
                match statements {
                    Some(statements) => executed(&self.stub().execute(statements, now)),
                    None => error("ValidationException", "expected an object with Statements"),
                }
            }
            "DescribeTable" => {
                let indexed = {
                    let mut stub = self.stub();
                    stub.described();
                    stub.settings().indexed
                };
                let request: Value = serde_json::from_slice(&body).unwrap_or_default();
                (StatusCode::OK, description(&request["TableName"], indexed).to_string().into())
            }
            // What a function with definitions looks at once: an empty table, with TTL.
            "Scan" => (StatusCode::OK, json!({ "Items": [], "Count": 0, "ScannedCount": 0 }).to_string().into()),
            "DescribeTimeToLive" => {
                let ttl = json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": "_expires_at" });
                (StatusCode::OK, json!({ "TimeToLiveDescription": ttl }).to_string().into())
            }
            _ => error(
                "UnknownOperationException",
                "the stub answers DescribeTable, DescribeTimeToLive, Scan, PutItem and BatchExecuteStatement",
            ),
        })
    }

    /// The answer to a request of the bench.
    async fn control(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect().await?.to_bytes();
        let mut stub = self.stub();
        let (status, body) = match (method, path.as_str()) {
            (Method::GET, "/counts") => (StatusCode::OK, json!(stub.counts()).to_string()),
            (Method::POST, "/reset") => {
                stub.reset(Instant::now());
                (StatusCode::OK, json!(stub.counts()).to_string())
            }
            (Method::POST, "/settings") => match stub.settings().with(&body) {
                Ok(settings) => {
                    stub.set(settings, Instant::now());
                    (StatusCode::OK, json!(stub.settings()).to_string())
                }
                Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            },
            _ => (StatusCode::NOT_FOUND, "expected GET /counts, POST /reset or POST /settings".to_owned()),
        };
        Ok(response(status, (body + "\n").into()))
    }
}

/// A response with the headers that DynamoDB sends, because clients read them.
fn response(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    const CRC32: HeaderName = HeaderName::from_static("x-amz-crc32");
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
    let crc32 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &body);
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
    headers.insert(REQUEST_ID, HeaderValue::from_static("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEF"));
    headers.insert(CRC32, HeaderValue::from(crc32));
    response
}

fn error(name: &str, message: &str) -> (StatusCode, Bytes) {
    let body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{name}"), "message": message });
    (StatusCode::BAD_REQUEST, body.to_string().into())
}

/// The error of a failed condition. It contains the existing item, if the request asks for it; that item looks like the
/// one in the request.
fn condition_failed(request: &[u8]) -> (StatusCode, Bytes) {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Put<'a> {
        #[serde(borrow)]
        item: &'a RawValue,
        return_values_on_condition_check_failure: Option<&'a str>,
    }

    let (status, body) = error("ConditionalCheckFailedException", "The conditional request failed");
    match serde_json::from_slice(request) {
        Ok(Put { item, return_values_on_condition_check_failure: Some("ALL_OLD") }) => {
            let members = String::from_utf8_lossy(&body);
            (status, format!(r#"{{"Item":{item},{}"#, members.trim_start_matches('{')).into())
        }
        _ => (status, body),
    }
}

fn throttled() -> (StatusCode, Bytes) {
    error(
        "ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded.",
    )
}

fn executed(decisions: &[Decision]) -> (StatusCode, Bytes) {
    if decisions.contains(&Decision::Throttled) {
        return throttled();
    }
    let failed = json!({ "Error": { "Code": "DuplicateItem", "Message": "Duplicate primary key exists in table" } });
    let responses: Vec<Value> = decisions
        .iter()
        .map(|decision| if *decision == Decision::Applied { json!({}) } else { failed.clone() })
        .collect();
    (StatusCode::OK, json!({ "Responses": responses }).to_string().into())
}

fn description(table: &Value, indexed: bool) -> Value {
    let key = |name, kind| json!({ "AttributeName": name, "KeyType": kind });
    let mut attributes = vec![PARTITION_KEY];
    let mut secondary = Vec::new();
    if indexed {
        attributes.extend(["GSI1PK", "GSI1SK"]);
        secondary.push(json!({
            "IndexName": "GSI1",
            "IndexStatus": "ACTIVE",
            "KeySchema": [key("GSI1PK", "HASH"), key("GSI1SK", "RANGE")],
            "Projection": { "ProjectionType": "ALL" },
        }));
    }
    let attributes: Vec<Value> =
        attributes.iter().map(|name| json!({ "AttributeName": name, "AttributeType": "S" })).collect();
    json!({ "Table": {
        "TableName": table,
        "TableStatus": "ACTIVE",
        "TableArn": "arn:aws:dynamodb:us-east-1:123456789012:table/view",
        "AttributeDefinitions": attributes,
        "KeySchema": [key(PARTITION_KEY, "HASH")],
        "GlobalSecondaryIndexes": secondary,
        "ItemCount": 0,
        "TableSizeBytes": 0,
    } })
}
