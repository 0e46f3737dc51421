//! Time and memory as the batch, the rows and the writes in flight grow, against straight lines.

use std::time::Duration;

use crate::figures::{Section, count, each, float, line, mebibytes, median, time, times, turns};
use crate::programs::Program;
use crate::subject::Subject;
use crate::{Bench, BoxError};

const CHANGES: [u64; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// Batches from this size on take long, but vary less.
const LARGE: u64 = 10_000;
const RUNS_OF_LARGE: usize = 3;
/// Bytes of a row, and how many rows make a batch of at most some 4 MB.
const ROWS: [(u32, u64); 5] = [(100, 1_000), (1_000, 1_000), (10_000, 200), (100_000, 40), (350_000, 10)];
const IN_FLIGHT: [u64; 5] = [1, 4, 16, 64, 256];
const LATENCY_MS: u32 = 5;
const CHANGES_IN_FLIGHT: u64 = 1_000;
/// After 1,856 answers 256 writes may be in flight.
const WARM_UP_IN_FLIGHT: u64 = 2_000;

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let mut section = Section::new(
        "Growth",
        "Each size has a process of its own, which has had a batch of one before. The sizes take turns. A line goes \
         through the first and the last figure of each column. The ratio says how far a figure lies above the line \
         (over 1) or below it. Memory is the most that was resident after the first batch of the size, in one process \
         each.",
    );
    let function = bench.programs.function(&bench.stub.endpoint());
    changes_in_a_batch(bench, &mut section, &function).await?;
    bytes_of_a_row(bench, &mut section, &function).await?;
    bench.stub.set_latency(LATENCY_MS)?;
    writes_in_flight(bench, &mut section, &function).await?;
    Ok(section.text())
}

async fn changes_in_a_batch(bench: &mut Bench, section: &mut Section, function: &Program) -> Result<(), BoxError> {
    let mut sizes = Vec::new();
    for changes in CHANGES {
        sizes.push(Size::start(function, float(changes), changes, None, 1).await?);
    }
    let points = points(bench, "changes in a batch", sizes).await?;
    section.says(
        "**Changes in a batch**, DynamoDB answering at once. Lambda gives a function at most some 5,300 of them at a \
         time.",
    );
    let rows = CHANGES.iter().zip(&points).map(|(changes, of)| {
        let (cpu, memory) = (against_line(&points, of, Point::cpu_of_batch), against_line(&points, of, |of| of.memory));
        vec![count(*changes), cpu, time(of.cpu), memory, mebibytes(of.memory)]
    });
    section.table(&["changes", "CPU to the line", "CPU a change", "memory to the line", "memory"], rows);
    Ok(())
}

async fn bytes_of_a_row(bench: &mut Bench, section: &mut Section, function: &Program) -> Result<(), BoxError> {
    let mut sizes = Vec::new();
    for (bytes, rows) in ROWS {
        sizes.push(Size::start(function, bytes.into(), rows, Some(bytes), 1).await?);
    }
    let points = points(bench, "bytes of a row", sizes).await?;
    section.says(
        "**Bytes of a row**, a text. CPU is that of a change. Memory is that of a batch of at most 4 MB, and so has \
         no line.",
    );
    let rows = ROWS.iter().zip(&points).map(|((bytes, rows), of)| {
        let cpu = against_line(&points, of, |of| of.cpu.as_secs_f64());
        vec![count((*bytes).into()), cpu, time(of.cpu), count(*rows), mebibytes(of.memory)]
    });
    section.table(&["bytes", "CPU to the line", "CPU a change", "batch", "memory"], rows);
    Ok(())
}

async fn writes_in_flight(bench: &mut Bench, section: &mut Section, function: &Program) -> Result<(), BoxError> {
    let mut sizes = Vec::new();
    for writes in IN_FLIGHT {
        let function = function.clone().with("WRITE_CONCURRENCY", writes.to_string());
        sizes.push(Size::start(&function, float(writes), CHANGES_IN_FLIGHT, None, WARM_UP_IN_FLIGHT).await?);
    }
    let points = points(bench, "writes in flight", sizes).await?;
    section.says(&format!(
        "**Writes in flight**, a batch of {}, DynamoDB answering after {LATENCY_MS} ms. The least possible wall time \
         is the latency divided by the writes in flight, or the CPU time if that is more. Each process has had a \
         batch of {} before, and after it all allowed writes may be in flight. *Connections* is the number of \
         connections after that batch and the first measured one.",
        count(CHANGES_IN_FLIGHT),
        count(WARM_UP_IN_FLIGHT),
    ));
    let rows = IN_FLIGHT.iter().zip(&points).map(|(writes, of)| {
        let latency = f64::from(LATENCY_MS) / 1e3 / float(*writes);
        let to_least = times(of.wall.as_secs_f64() / latency.max(of.cpu.as_secs_f64()));
        let memory = against_line(&points, of, |of| of.memory);
        let connections = count(of.connections);
        vec![count(*writes), to_least, time(of.wall), time(of.cpu), memory, mebibytes(of.memory), connections]
    });
    let heads = [
        "in flight",
        "wall to the least",
        "wall a change",
        "CPU a change",
        "memory to the line",
        "memory",
        "connections",
    ];
    section.table(&heads, rows);
    Ok(())
}

/// A process for batches of a size.
struct Size {
    /// Its place on the line.
    x: f64,
    changes: u64,
    /// The bytes of a row's text, if it is not the usual row.
    bytes: Option<u32>,
    subject: Subject,
    walls: Vec<Duration>,
    cpus: Vec<Duration>,
    /// The changes of the batch before all others.
    warm_up: u64,
    /// The memory in bytes and the connections, after the first batch.
    memory: Option<f64>,
    connections: u64,
}

impl Size {
    async fn start(
        program: &Program,
        x: f64,
        changes: u64,
        bytes: Option<u32>,
        warm_up: u64,
    ) -> Result<Self, BoxError> {
        let subject = Subject::start(program).await?;
        let (walls, cpus) = (Vec::new(), Vec::new());
        Ok(Self { x, changes, bytes, subject, walls, cpus, warm_up, memory: None, connections: 0 })
    }

    async fn apply(&mut self, bench: &mut Bench) -> Result<(), BoxError> {
        if self.memory.is_none() {
            bench.stub.reset()?;
            self.subject.apply([bench.workload.event(self.warm_up)]).await?;
        }
        let event = match self.bytes {
            None => bench.workload.event(self.changes),
            Some(bytes) => bench.workload.event_of_size(self.changes, usize::try_from(bytes)?),
        };
        let spent = self.subject.apply([event]).await?;
        self.walls.push(each(spent.wall, self.changes));
        self.cpus.push(each(spent.cpu, self.changes));
        if self.memory.is_none() {
            self.memory = Some(self.subject.peak_memory()?);
            // Plus the connection that asked for the table's description.
            self.connections = bench.stub.counts()?.connections + 1;
        }
        Ok(())
    }
}

/// The cost of a size. The times are per change.
struct Point {
    x: f64,
    changes: u64,
    wall: Duration,
    cpu: Duration,
    /// In bytes.
    memory: f64,
    connections: u64,
}

impl Point {
    fn cpu_of_batch(&self) -> f64 {
        self.cpu.as_secs_f64() * float(self.changes)
    }
}

/// The costs of the sizes, turn by turn.
async fn points(bench: &mut Bench, what: &str, mut sizes: Vec<Size>) -> Result<Vec<Point>, BoxError> {
    bench.progress(&format!("  {what}"));
    let count = sizes.len();
    for (place, which) in turns(bench.runs, count).enumerate() {
        let size = &mut sizes[which];
        if size.changes < LARGE || place / count < RUNS_OF_LARGE {
            size.apply(bench).await?;
        }
    }
    let point = |Size { x, changes, walls, cpus, memory, connections, .. }: Size| {
        let memory = memory.ok_or("no turn")?;
        Ok(Point { x, changes, wall: median(walls), cpu: median(cpus), memory, connections })
    };
    sizes.into_iter().map(point).collect()
}

fn against_line(points: &[Point], point: &Point, of: fn(&Point) -> f64) -> String {
    let [first, .., last] = points else { return String::new() };
    times(of(point) / line((first.x, of(first)), (last.x, of(last)), point.x))
}
