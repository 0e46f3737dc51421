//! The part between the stream and the view: the event source mapping with several processes of the function behind it.
//! The redrive function takes what the mapping gives up.
//!
//! Now and then a process is killed while it works, an answer is lost, and a message of the queue comes again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dsql_view_support::kinesis::KinesisRecord;
use dsql_view_support::lambda::{ENDS, End, Invocation, Lambda};
use dsql_view_support::mapping::{Delivery, Mapping, Outcome, Settings};
use dsql_view_support::random::Random;
use dsql_view_support::runtime_api;
use dsql_view_tools::Failure;
use dsql_view_tools::on_failure::{Message, OnFailure, is_done};
use tokio::sync::mpsc;

/// How many processes of the function run at a time.
const CONCURRENCY: usize = 4;

/// The functions' time-outs.
const TIMEOUT: Duration = Duration::from_secs(60);
const REDRIVE_TIMEOUT: Duration = Duration::from_secs(300);

/// Of a hundred invocations, the number that is killed, and the number whose answer is lost.
const KILLED: u64 = 2;
const LOST: u64 = 2;

/// A message of the queue that is not done after this many deliveries never will be.
const MOST_RECEIVES: u32 = 10;

/// The two functions.
pub struct Functions {
    mapping: Mapping,
    function: Lambda<Delivery>,
    redrive: OnFailure,
    /// The ARN under which the redrive function reads the stream.
    stream_arn: String,
    random: Random,
    counts: Counts,
}

/// Counts of what has happened.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub deliveries: u64,
    pub killed: u64,
    pub lost: u64,
    pub processes: u64,
    /// Messages of the on-failure queue, and their deliveries.
    pub given_up: u64,
    pub redrives: u64,
    /// The ends of the records in the deliveries that were logged. Each name of the log's line has its sum.
    pub ends: [u64; ENDS.len()],
}

impl Functions {
    /// The functions. Nothing of them runs yet.
    pub fn new(
        function: PathBuf,
        redrive: PathBuf,
        environment: &[(&'static str, String)],
        stream_arn: &str,
        mut random: Random,
    ) -> Self {
        let environment = || environment.iter().map(|(name, value)| (*name, value.clone()));
        let settings = Settings {
            batch_size: 100,
            window: Duration::from_millis(200),
            parallelization: 2,
            // Few retries, so that some records go through the queue.
            maximum_retries: Some(4),
            ..Settings::default()
        };
        Self {
            mapping: Mapping::new(settings, random.number()),
            function: Lambda::new(function, environment(), CONCURRENCY),
            redrive: OnFailure::new("failed", Lambda::new(redrive, environment(), 1)),
            stream_arn: stream_arn.to_owned(),
            random,
            counts: Counts::default(),
        }
    }

    /// Delivers all records that come, until each is done with. `watch` gets the counts after each step.
    pub async fn run(
        mut self,
        mut records: mpsc::Receiver<KinesisRecord>,
        watch: tokio::sync::watch::Sender<Counts>,
    ) -> Result<(), Failure> {
        let (mut is_open, mut arrived) = (true, Vec::new());
        let mut passed = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            self.mapping.pass(passed.elapsed());
            passed = Instant::now();
            self.start()?;
            watch.send_replace(self.counts.clone());
            if !is_open && self.function.is_idle() && self.mapping.is_through() && self.redrive.is_through() {
                return Ok(());
            }
            tokio::select! {
                count = records.recv_many(&mut arrived, usize::MAX), if is_open => {
                    is_open = count > 0;
                    arrived.drain(..).for_each(|record| self.mapping.put(record));
                }
                Some((delivery, end)) = self.function.next_end(), if !self.function.is_idle() => {
                    self.delivered(&delivery, &end)?;
                }
                Some((message, end)) = self.redrive.next_end(), if !self.redrive.is_idle() => self.redriven(message, &end)?,
                _ = tick.tick() => {}
            }
        }
    }

    /// Starts what can be started.
    fn start(&mut self) -> Result<(), Failure> {
        while self.function.has_room()
            && let Some(delivery) = self.mapping.next_delivery()
        {
            self.counts.deliveries += 1;
            let event = delivery.event().to_string().into();
            let killed_after = self.random.percent(KILLED).then(|| Duration::from_millis(self.random.number() % 100));
            self.function.invoke(delivery, Invocation { event, timeout: TIMEOUT, killed_after })?;
        }
        for mut body in self.mapping.on_failure() {
            self.counts.given_up += 1;
            body["KinesisBatchInfo"]["streamArn"] = self.stream_arn.as_str().into();
            self.redrive.tell(body);
        }
        self.redrive.start(REDRIVE_TIMEOUT, |_| None)?;
        self.counts.redrives = self.redrive.deliveries;
        self.counts.processes = self.function.started() + self.redrive.processes();
        Ok(())
    }

    fn delivered(&mut self, delivery: &Delivery, end: &End) -> Result<(), Failure> {
        match &end.outcome {
            None => self.counts.killed += 1,
            // A slow machine may run out of time. Lambda delivers the batch again.
            Some(runtime_api::Outcome::Response(_) | runtime_api::Outcome::TimedOut) => {}
            Some(other) => return Err(format!("the function failed: {other:?}\n{}", end.lines.join("\n")).into()),
        }
        self.count(end);
        let is_lost = end.outcome.is_some() && self.random.percent(LOST);
        self.counts.lost += u64::from(is_lost);
        self.mapping.settle(delivery, &if is_lost { Outcome::Failed } else { Outcome::from(end) });
        Ok(())
    }

    fn redriven(&mut self, message: Message, end: &End) -> Result<(), Failure> {
        self.count(end);
        let is_done = is_done(end);
        if !is_done && message.receives >= MOST_RECEIVES {
            let (outcome, lines) = (&end.outcome, end.lines.join("\n"));
            return Err(format!("a message was not done after {MOST_RECEIVES} deliveries: {outcome:?}\n{lines}").into());
        }
        // Queues deliver at least once, so some messages come again.
        if !is_done || (message.receives == 1 && self.random.percent(20)) {
            self.redrive.again(message);
        }
        Ok(())
    }

    fn count(&mut self, end: &End) {
        for line in end.batches() {
            for (sum, name) in self.counts.ends.iter_mut().zip(ENDS) {
                *sum += line[name].as_u64().unwrap_or_default();
            }
        }
    }
}
