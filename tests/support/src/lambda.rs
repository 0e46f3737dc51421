//! A Lambda function of the test kit: as many processes of its real binary as are needed at a time. Each runs one
//! invocation at a time.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::task::{Id, JoinSet};

use crate::mapping;
use crate::runtime_api::{Function, Outcome};

/// A function.
pub struct Lambda<T> {
    binary: PathBuf,
    environment: Vec<(String, String)>,
    concurrency: usize,
    idle: Vec<Function>,
    running: JoinSet<(Option<Function>, End)>,
    /// The tag of each running invocation.
    tags: HashMap<Id, T>,
    started: u64,
}

/// An invocation to make.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub event: Bytes,
    /// Lambda's time-out.
    pub timeout: Duration,
    /// The time from being ready for the event until its process is killed, if it still runs.
    pub killed_after: Option<Duration>,
}

/// How an invocation ended.
#[derive(Debug)]
pub struct End {
    /// Its answer; `None` if it was killed before.
    pub outcome: Option<Outcome>,
    /// What its process has logged since its last invocation.
    pub lines: Vec<String>,
}

/// The ways in which a record can end, as the function's log line of a batch names them.
pub const ENDS: [&str; 6] = ["applied", "superseded", "filtered", "kept", "quarantined", "reported"];

impl End {
    /// The log lines of batches, if its process logs JSON.
    pub fn batches(&self) -> impl Iterator<Item = Value> {
        self.logged("batch")
    }

    /// The log lines on reported records, if its process logs JSON.
    pub fn reported(&self) -> impl Iterator<Item = Value> {
        self.logged("reported")
    }

    fn logged(&self, message: &'static str) -> impl Iterator<Item = Value> {
        let logged = self.lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        logged.filter(move |line| line["message"] == message)
    }
}

impl From<&End> for mapping::Outcome {
    /// The end as Lambda reports it to the mapping.
    fn from(end: &End) -> Self {
        match &end.outcome {
            Some(Outcome::Response(answer)) => Self::Response(answer.clone()),
            Some(Outcome::Error(_) | Outcome::Ended(_) | Outcome::TimedOut) | None => Self::Failed,
        }
    }
}

impl<T> Lambda<T> {
    /// A function that has no process yet and will run at most this many at a time.
    pub fn new<K: Into<String>, V: Into<String>>(
        binary: impl Into<PathBuf>,
        environment: impl IntoIterator<Item = (K, V)>,
        concurrency: usize,
    ) -> Self {
        let environment = environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self {
            binary: binary.into(),
            environment,
            concurrency,
            idle: Vec::new(),
            running: JoinSet::new(),
            tags: HashMap::new(),
            started: 0,
        }
    }

    /// Whether another invocation can start.
    pub fn has_room(&self) -> bool {
        self.running.len() < self.concurrency
    }

    /// Whether no invocation runs.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// How many processes have been started.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Ends a process that waits for an invocation, if any does.
    pub fn end_idle(&mut self) {
        self.idle.pop();
    }

    /// Starts an invocation for `tag`, in a process that waits for one or in a new one.
    pub fn invoke(&mut self, tag: T, invocation: Invocation) -> io::Result<()> {
        let function = if let Some(function) = self.idle.pop() {
            function
        } else {
            self.started += 1;
            Function::start(&self.binary, self.environment.iter().map(|(name, value)| (name, value)))?
        };
        let task = self.running.spawn(run(function, invocation));
        self.tags.insert(task.id(), tag);
        Ok(())
    }

    /// Waits until a running invocation ends; `None` if none runs.
    pub async fn next_end(&mut self) -> Option<(T, End)> {
        let (task, (function, end)) = self.running.join_next_with_id().await?.expect("an invocation does not panic");
        self.idle.extend(function);
        let tag = self.tags.remove(&task).expect("each has a tag");
        Some((tag, end))
    }
}

/// Runs an invocation; returns the process if it can take another.
async fn run(mut function: Function, invocation: Invocation) -> (Option<Function>, End) {
    let Invocation { event, timeout, killed_after } = invocation;
    if killed_after.is_some() {
        function.ready_or_ended().await;
    }
    let answered = function.invoke(event, timeout);
    let outcome = match killed_after {
        Some(time) => tokio::time::timeout(time, answered).await.ok(),
        None => Some(answered.await),
    };
    let is_kept = matches!(outcome, Some(Outcome::Response(_) | Outcome::Error(_)));
    // A process that is not kept ends here, at once.
    let lines = function.take_lines();
    (is_kept.then_some(function), End { outcome, lines })
}
