//! A function's process, and the cost of its batches.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dsql_view_bench::clock::cpu_time;
use dsql_view_support::kinesis;
use dsql_view_support::runtime_api::Function;

use crate::figures::{Spread, median};
use crate::programs::Program;
use crate::{BoxError, PLENTY};

/// After its answer a process still asks for the next invocation. That is part of a batch's cost.
const AFTERWARDS: Duration = Duration::from_millis(10);

/// A function that runs.
pub struct Subject {
    pub name: &'static str,
    running: Function,
    process: u32,
    /// From the start of the process to its first request for an invocation.
    pub init: Duration,
}

/// The cost of batches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    pub wall: Duration,
    /// The processor time of all threads.
    pub cpu: Duration,
    /// The number of reported records.
    pub reported: u64,
}

impl Subject {
    /// Starts it, and waits until it is ready.
    pub async fn start(program: &Program) -> Result<Self, BoxError> {
        let environment = program.environment.iter().map(|(name, value)| (name, value));
        let mut running = Function::start(&program.binary, environment)?;
        running.ready_or_ended().await;
        let Some(process) = running.id() else {
            return Err(format!("{} did not start: {}", program.name, running.lines().join("\n")).into());
        };
        let init = running.ready().await;
        Ok(Self { name: program.name, running, process, init })
    }

    /// Applies the batches, one after the other; a reported record is an error.
    pub async fn apply(&mut self, events: impl IntoIterator<Item = Bytes>) -> Result<Spent, BoxError> {
        let spent = self.try_to_apply(events).await?;
        if spent.reported > 0 {
            let lines = self.running.lines();
            let last = lines.last().map_or("", String::as_str);
            return Err(format!("{} has reported {} records; its last line: {last}", self.name, spent.reported).into());
        }
        Ok(spent)
    }

    /// Like [`Subject::apply`], but records may be reported.
    pub async fn try_to_apply(&mut self, events: impl IntoIterator<Item = Bytes>) -> Result<Spent, BoxError> {
        let mut spent = Spent::default();
        let before = cpu_time(self.process)?;
        for event in events {
            let started = Instant::now();
            let answer = self.running.invoke(event, PLENTY).await;
            spent.wall += started.elapsed();
            spent.reported += kinesis::reported(&answer.response()).len() as u64;
        }
        tokio::time::sleep(AFTERWARDS).await;
        spent.cpu = cpu_time(self.process)?.saturating_sub(before);
        // A log of all batches would grow without an end.
        if spent.reported == 0 {
            self.running.take_lines();
        }
        Ok(spent)
    }

    /// Invokes it once, whatever it answers.
    pub async fn invoke(&mut self, event: Bytes) {
        self.running.invoke(event, PLENTY).await.response();
    }

    /// The highest resident memory so far, in bytes, from Linux.
    pub fn peak_memory(&self) -> Result<f64, BoxError> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        // Linux's kB has 1,024 bytes.
        let kibibytes: u32 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(f64::from(kibibytes) * 1024.0)
    }
}

impl Spent {
    /// The medians of the times, and the sum of the reported records.
    pub fn median(of: &[Self]) -> Self {
        Self {
            wall: median(of.iter().map(|spent| spent.wall)),
            cpu: median(of.iter().map(|spent| spent.cpu)),
            reported: of.iter().map(|spent| spent.reported).sum(),
        }
    }

    /// The ratios of the first's processor time to the second's, turn by turn.
    pub fn cpu_ratios(of: &[Self], to: &[Self]) -> Spread {
        Spread::of_ratios(of.iter().map(|spent| spent.cpu), to.iter().map(|spent| spent.cpu))
    }

    /// Like [`Spent::cpu_ratios`], for the time on the clock.
    pub fn wall_ratios(of: &[Self], to: &[Self]) -> Spread {
        Spread::of_ratios(of.iter().map(|spent| spent.wall), to.iter().map(|spent| spent.wall))
    }
}
