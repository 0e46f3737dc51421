//! Lambda's Runtime API around the real binary of a function, which it starts, invokes and ends as Lambda does.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use crate::server::{Answer, Server, json, serve_http};

/// A killed process is gone at once; if it takes longer than this, something holds it and waiting does not help.
const LONGEST_END: Duration = Duration::from_secs(5);

/// After this time nothing comes any more, on however slow a machine.
const LONG: Duration = Duration::from_secs(60);

/// The outcome of an invocation.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It answered.
    Response(Value),
    /// It reported an error.
    Error(Value),
    /// Its process ended before it answered.
    Ended(ExitStatus),
    /// It did not answer in its time.
    TimedOut,
}

impl Outcome {
    /// The answer of an invocation that went well.
    pub fn response(self) -> Value {
        match self {
            Self::Response(response) => response,
            other => panic!("expected a response, found {other:?}"),
        }
    }
}

/// A function's process, and the Runtime API that it talks to. The process ends when this is dropped.
pub struct Function {
    process: Child,
    invocations: mpsc::UnboundedSender<Invocation>,
    api: Arc<Shared>,
    count: u64,
    started: Instant,
    _server: Server,
}

struct Invocation {
    id: String,
    event: Bytes,
    deadline_ms: u128,
    outcome: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct Shared {
    running: Mutex<HashMap<String, oneshot::Sender<Outcome>>>,
    init_error: Mutex<Option<Value>>,
    lines: Mutex<Vec<String>>,
    /// The time when it first asked for an invocation.
    ready: watch::Sender<Option<Instant>>,
}

impl Function {
    /// Starts the binary with these variables, and nothing else in its environment.
    pub fn start<K: AsRef<str>, V: AsRef<str>>(
        binary: &Path,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> io::Result<Self> {
        let api = Arc::new(Shared::default());
        let (invocations, next) = mpsc::unbounded_channel();
        let next = Arc::new(tokio::sync::Mutex::new(next));
        let shared = Arc::clone(&api);
        let server = Server::start(0, move |listener| {
            serve_http(listener, move |request| answer(Arc::clone(&shared), Arc::clone(&next), request))
        })?;
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", server.address().to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "dsql-view")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            // The function must not ask the metadata service of the machine that the tests run on.
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (name, value) in environment {
            command.env(name.as_ref(), value.as_ref());
        }
        let started = Instant::now();
        let mut process = command.spawn()?;
        collect_lines(process.stdout.take(), &api);
        collect_lines(process.stderr.take(), &api);
        Ok(Self { process, invocations, api, count: 0, started, _server: server })
    }

    /// Invokes the function with an event. Lambda would end it after `timeout`, which does not include its start.
    pub async fn invoke(&mut self, event: impl Into<Bytes>, timeout: Duration) -> Outcome {
        let _ = tokio::time::timeout(LONG, self.ready_or_ended()).await;
        self.count += 1;
        let id = format!("00000000-0000-4000-8000-{:012}", self.count);
        let deadline = SystemTime::now() + timeout;
        let deadline_ms = deadline.duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970").as_millis();
        let (outcome, mut answered) = oneshot::channel();
        let invocation = Invocation { id, event: event.into(), deadline_ms, outcome };
        self.invocations.send(invocation).unwrap_or_else(|_| panic!("the Runtime API has stopped"));
        tokio::select! {
            biased;
            outcome = &mut answered => outcome.expect("the Runtime API runs"),
            status = self.process.wait() => Outcome::Ended(status.expect("a process of our own")),
            () = tokio::time::sleep(timeout) => Outcome::TimedOut,
        }
    }

    /// Waits until it first asks for an invocation; returns the time since the start of the process.
    pub async fn ready(&self) -> Duration {
        let mut ready = self.api.ready.subscribe();
        let at = *ready.wait_for(Option::is_some).await.expect("the Runtime API runs");
        at.unwrap_or_else(Instant::now).duration_since(self.started)
    }

    /// Waits until it asks for an invocation or ends.
    pub async fn ready_or_ended(&mut self) {
        let mut ready = self.api.ready.subscribe();
        tokio::select! {
            _ = ready.wait_for(Option::is_some) => {}
            _ = self.process.wait() => {}
        }
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// The error that it reported to Lambda when its start failed.
    pub fn init_error(&self) -> Option<Value> {
        self.api.init_error.lock().expect("no holder panics").clone()
    }

    /// What it has written to standard output and error so far.
    pub fn lines(&self) -> Vec<String> {
        self.api.lines.lock().expect("no holder panics").clone()
    }

    /// What it has written since this was last asked.
    pub fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.api.lines.lock().expect("no holder panics"))
    }

    /// The n-th line (from 1) with this message, if it logs JSON. Waits for the line, since the function's output comes
    /// through its own pipe.
    pub async fn log_line(&self, message: &str, number: usize) -> Option<Value> {
        let started = Instant::now();
        while started.elapsed() < LONG {
            let lines = self.lines();
            let logs = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(line) = logs.filter(|log| log["message"] == message).nth(number - 1) {
                return Some(line);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// Its process id.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }
}

impl Drop for Function {
    /// Ends the process and waits until it is gone.
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        let started = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) && started.elapsed() < LONGEST_END {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn collect_lines(output: Option<impl AsyncRead + Unpin + Send + 'static>, api: &Arc<Shared>) {
    let mut lines = BufReader::new(output.expect("a piped output")).lines();
    let api = Arc::clone(api);
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            api.lines.lock().expect("no holder panics").push(line);
        }
    });
}

type Next = Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>>;

async fn answer(api: Arc<Shared>, next: Next, request: Request<Incoming>) -> Answer {
    const PREFIX: &str = "/2018-06-01/runtime/";
    let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
    let method = request.method().clone();
    let body = request.into_body().collect().await.ok()?.to_bytes();
    let steps: Vec<&str> = path.split('/').collect();
    match (method, steps.as_slice()) {
        (Method::GET, ["invocation", "next"]) => {
            api.ready.send_if_modified(|ready| ready.replace(ready.unwrap_or_else(Instant::now)).is_none());
            let invocation = next.lock().await.recv().await?;
            let response = Response::builder()
                .header("Lambda-Runtime-Aws-Request-Id", &invocation.id)
                .header("Lambda-Runtime-Deadline-Ms", invocation.deadline_ms.to_string())
                .header(
                    "Lambda-Runtime-Invoked-Function-Arn",
                    "arn:aws:lambda:us-east-1:123456789012:function:dsql-view",
                )
                .header("Content-Type", "application/json")
                .body(Full::new(invocation.event));
            api.running.lock().expect("no holder panics").insert(invocation.id, invocation.outcome);
            response.ok()
        }
        (Method::POST, ["invocation", id, end @ ("response" | "error")]) => {
            let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let outcome = if *end == "response" { Outcome::Response(value) } else { Outcome::Error(value) };
            if let Some(invocation) = api.running.lock().expect("no holder panics").remove(*id) {
                let _ = invocation.send(outcome);
            }
            Some(json(202, r#"{"status":"OK"}"#))
        }
        (Method::POST, ["init", "error"]) => {
            *api.init_error.lock().expect("no holder panics") = serde_json::from_slice(&body).ok();
            Some(json(202, r#"{"status":"OK"}"#))
        }
        _ => Some(json(404, r#"{"errorMessage":"not a path of the Runtime API"}"#)),
    }
}
