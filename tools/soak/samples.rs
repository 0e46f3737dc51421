//! Samples of the memory and the connections of a process, taken from time to time.

use std::fs;
use std::io;
use std::time::Duration;

use dsql_view_support::table;

/// A moment of a run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the run began.
    pub at: Duration,
    /// Resident memory, kibibytes.
    pub memory: u64,
    /// Open sockets.
    pub connections: usize,
    /// The time that the invocation before took.
    pub latency: Duration,
    /// Records that wait in the stream.
    pub backlog: usize,
}

impl Sample {
    /// Takes a sample of the process now.
    pub fn of(process: u32, at: Duration, latency: Duration, backlog: usize) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let memory =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let memory = memory.ok_or_else(|| io::Error::other("expected VmRSS in the process's status, found none"))?;
        let is_socket = |file: &fs::DirEntry| {
            fs::read_link(file.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        };
        let connections = fs::read_dir(format!("/proc/{process}/fd"))?.flatten().filter(is_socket).count();
        Ok(Self { at, memory, connections, latency, backlog })
    }
}

/// The samples of a run, in their order.
#[derive(Debug, Default)]
pub struct Samples {
    pub invocations: usize,
    all: Vec<Sample>,
}

/// The two parts of the run that are compared, in hundredths. The first is the time before the last storm but one, when
/// everything has been used. The second is the end.
const BEGINNING: std::ops::Range<usize> = 15..35;
const END: std::ops::Range<usize> = 85..100;
/// Kibibytes that an allocator may hold back although nothing has grown. A leak of 200 bytes in each of 6,000
/// invocations is more than this.
const SLACK: u64 = 1024;
/// One connection for each write in flight, and some for the runtime, S3 and those that are being closed.
const MOST_CONNECTIONS: usize = 64 + 8;

impl Samples {
    pub fn push(&mut self, sample: Sample) {
        self.all.push(sample);
    }

    pub fn all(&self) -> &[Sample] {
        &self.all
    }

    /// The median of a value between two hundredths of the run.
    fn median<T: Ord + Copy + Default>(&self, hundredths: std::ops::Range<usize>, of: impl Fn(&Sample) -> T) -> T {
        let at = |hundredth| self.all.len() * hundredth / 100;
        let mut values: Vec<T> = self.all[at(hundredths.start)..at(hundredths.end)].iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    }

    /// Whether the end of the run uses no more than its beginning.
    pub fn are_flat(&self) -> Result<(), String> {
        let memory = [BEGINNING, END].map(|part| self.median(part, |sample| sample.memory));
        let connections = [BEGINNING, END].map(|part| self.median(part, |sample| sample.connections));
        if memory[1] > memory[0] + SLACK {
            return Err(format!("memory has grown from {} KiB to {} KiB", memory[0], memory[1]));
        }
        // Up to this number, connections may come and go with the storms.
        if connections[1] > connections[0].max(MOST_CONNECTIONS) {
            return Err(format!("open sockets have grown from {} to {}", connections[0], connections[1]));
        }
        Ok(())
    }

    /// The run in figures.
    pub fn table(&self, records: u64) -> String {
        let microseconds = |sample: &Sample| u64::try_from(sample.latency.as_micros()).unwrap_or(u64::MAX);
        let sockets = |sample: &Sample| sample.connections as u64;
        table::figures(&[
            ("invocations of one process", self.invocations as u64),
            ("records", records),
            ("resident memory at the beginning, KiB", self.median(BEGINNING, |sample| sample.memory)),
            ("resident memory at the end, KiB", self.median(END, |sample| sample.memory)),
            ("most resident memory, KiB", self.all.iter().map(|sample| sample.memory).max().unwrap_or_default()),
            ("open sockets at the beginning", self.median(BEGINNING, sockets)),
            ("open sockets at the end", self.median(END, sockets)),
            ("time of an invocation at the beginning, µs", self.median(BEGINNING, microseconds)),
            ("time of an invocation at the end, µs", self.median(END, microseconds)),
            ("longest backlog, records", self.all.iter().map(|sample| sample.backlog as u64).max().unwrap_or_default()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(grows: impl Fn(u64) -> (u64, usize)) -> Samples {
        let sample = |place| {
            let (memory, connections) = grows(place);
            let at = Duration::from_secs(place);
            Sample { at, memory, connections, latency: Duration::from_millis(5), backlog: 0 }
        };
        Samples { invocations: 1000, all: (0..1000).map(sample).collect() }
    }

    #[test]
    fn what_grows_is_noticed_and_what_is_reached_in_between_is_not() {
        run(|_| (30_000, 20)).are_flat().unwrap();
        run(|place| (if place > 400 { 31_000 } else { 30_000 }, if place > 400 { 70 } else { 20 })).are_flat().unwrap();
        let memory = run(|place| (30_000 + place * 10, 20)).are_flat().unwrap_err();
        assert!(memory.starts_with("memory has grown from 32500 KiB to 39"), "{memory}");
        let sockets = run(|place| (30_000, 20 + usize::try_from(place).unwrap() / 5)).are_flat().unwrap_err();
        assert!(sockets.starts_with("open sockets have grown from 70 to 205"), "{sockets}");
    }
}
