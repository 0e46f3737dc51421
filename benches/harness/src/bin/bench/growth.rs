//! Time and memory as the batch, the rows and the writes in flight grow, against straight lines.

use crate::figures::{Section, count, each, float, line, median, time, times};
use crate::programs::Program;
use crate::subject::Subject;
use crate::{Bench, BoxError};

const CHANGES: [u64; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// Bytes of a row, and how many rows make a batch of at most some 4 MB.
const ROWS: [(usize, u64); 5] = [(100, 1_000), (1_000, 1_000), (10_000, 200), (100_000, 40), (350_000, 10)];
const IN_FLIGHT: [u64; 5] = [1, 4, 16, 64, 256];
const LATENCY_MS: u32 = 5;
const CHANGES_IN_FLIGHT: u64 = 1_000;

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let mut section = Section::new(
        "Growth",
        "Each in processes of their own, one for each size, which have had a batch of one before. The line goes through the first and the \
         last figure of each column; the ratio is how far above it (over 1) or below it a figure lies. Memory is the most that was \
         resident.",
    );
    let function = bench.programs.function(&bench.stub.endpoint());
    let mut points = Vec::new();
    for changes in CHANGES {
        bench.progress(&format!("  {changes} changes"));
        let runs = if changes >= 10_000 { 1 } else { bench.runs };
        points.push(point(bench, &function, float(changes), runs, 1, |bench| bench.workload.event(changes)).await?);
    }
    section.says("**Changes in a batch**, DynamoDB answering at once. Lambda gives a function no more than some 5,300 of them at a time.");
    let rows = CHANGES.iter().zip(&points).map(|(changes, of)| {
        let cpu = time(each(of.cpu, *changes));
        vec![
            count(*changes),
            against_line(&points, of, Point::seconds),
            cpu,
            against_line(&points, of, |of| of.memory),
            of.megabytes(),
        ]
    });
    section.table(&["changes", "CPU to the line", "CPU a change", "memory to the line", "memory"], rows);

    let mut points = Vec::new();
    for (bytes, rows) in ROWS {
        bench.progress(&format!("  rows of {bytes} bytes"));
        let x = u32::try_from(bytes)?.into();
        points.push(
            point(bench, &function, x, bench.runs, rows, |bench| bench.workload.event_of_size(rows, bytes)).await?,
        );
    }
    section.says(
        "**Bytes of a row**, a text. CPU is a change's; memory is that of a batch of at most 4 MB, and so has no line.",
    );
    let rows = ROWS.iter().zip(&points).map(|((bytes, rows), of)| {
        vec![
            count(*bytes as u64),
            against_line(&points, of, Point::seconds),
            time(of.cpu),
            count(*rows),
            of.megabytes(),
        ]
    });
    section.table(&["bytes", "CPU to the line", "CPU a change", "batch", "memory"], rows);

    bench.stub.set_latency(LATENCY_MS)?;
    let mut points = Vec::new();
    for writes in IN_FLIGHT {
        bench.progress(&format!("  {writes} writes in flight"));
        let function = function.clone().with("WRITE_CONCURRENCY", writes.to_string());
        let event = |bench: &mut Bench| bench.workload.event(CHANGES_IN_FLIGHT);
        points.push(point(bench, &function, float(writes), bench.runs.min(3), CHANGES_IN_FLIGHT, event).await?);
    }
    section.says(&format!(
        "**Writes in flight**, a batch of {}, DynamoDB answering after {LATENCY_MS} ms. The least that the wall time can be is the latency \
         divided by the writes in flight, or the CPU's time where that is more.",
        count(CHANGES_IN_FLIGHT)
    ));
    let rows = IN_FLIGHT.iter().zip(&points).map(|(writes, of)| {
        let latency = f64::from(LATENCY_MS) / 1e3 / float(*writes);
        let least = latency.max(of.cpu.as_secs_f64());
        let to_least = times(of.wall.as_secs_f64() / least);
        vec![
            count(*writes),
            to_least,
            time(of.wall),
            time(of.cpu),
            against_line(&points, of, |of| of.memory),
            of.megabytes(),
        ]
    });
    section.table(
        &["in flight", "wall to the least", "wall a change", "CPU a change", "memory to the line", "memory"],
        rows,
    );
    Ok(section.text())
}

struct Point {
    x: f64,
    wall: std::time::Duration,
    cpu: std::time::Duration,
    /// In megabytes.
    memory: f64,
}

impl Point {
    fn seconds(&self) -> f64 {
        self.cpu.as_secs_f64()
    }

    fn megabytes(&self) -> String {
        format!("{:.1} MB", self.memory)
    }
}

/// What a batch takes, divided by `parts`.
async fn point(
    bench: &mut Bench,
    program: &Program,
    x: f64,
    runs: usize,
    parts: u64,
    event: impl Fn(&mut Bench) -> bytes::Bytes,
) -> Result<Point, BoxError> {
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    let mut subject = Subject::start(program).await?;
    subject.apply([bench.workload.event(1)]).await?;
    let mut memory = 0.0;
    for run in 0..runs {
        let batch = event(bench);
        let spent = subject.apply([batch]).await?;
        walls.push(each(spent.wall, parts));
        cpus.push(each(spent.cpu, parts));
        if run == 0 {
            memory = subject.peak_memory()?;
        }
    }
    Ok(Point { x, wall: median(walls), cpu: median(cpus), memory })
}

fn against_line(points: &[Point], point: &Point, of: fn(&Point) -> f64) -> String {
    let [first, .., last] = points else { return String::new() };
    times(of(point) / line((first.x, of(first)), (last.x, of(last)), point.x))
}
