//! The start, the first batch, the size and the memory, against a function that does nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::figures::{Section, count, float, median, ratio, time, times, turns};
use crate::programs::Program;
use crate::subject::Subject;
use crate::{Bench, BoxError};

/// Starts are short, and differ.
const STARTS: usize = 15;
const FIRST_BATCHES: [u64; 3] = [1, 100, 1_000];
const LATENCY_MS: u32 = 5;
/// What an event of 6 MB holds.
const FULL_PAYLOAD: u64 = 5_300;
const LARGEST_EVENT: usize = 6 * 1024 * 1024;
const PAYLOADS: usize = 10;

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let mut section = Section::new(
        "Start, first batch, size, memory",
        &format!(
            "Beside a function that does nothing, built with the same runtime in the same profile. *Init* is from the start of the process to \
             its first request for an invocation, with DescribeTable, which DynamoDB answers at once. Over TLS the stub's certificate stands \
             first in a file with all those of this system. The first batch after init is over TLS, DynamoDB answering after {LATENCY_MS} ms, \
             against the third of the same process.",
        ),
    );
    let (endpoint, (tls_endpoint, roots)) = (bench.stub.endpoint(), bench.stub.tls_endpoint());
    let tls = bench.programs.function(&tls_endpoint).with("SSL_CERT_FILE", roots);
    let programs = [bench.programs.function(&endpoint), tls.clone(), bench.programs.hello_world()];

    bench.progress("  init");
    let mut inits = vec![Vec::new(); programs.len()];
    for which in turns(STARTS, programs.len()) {
        inits[which].push(Subject::start(&programs[which]).await?.init);
    }
    let inits: Vec<_> = inits.into_iter().map(median).collect();
    let [ours, theirs] = [bench.programs.function_binary(), &bench.programs.beside("hello_world")].map(zipped);
    let (ours, theirs) = (ours?, theirs?);
    bench.progress("  memory with full payloads");
    let [function, _, hello_world] = &programs;
    bench.stub.set_latency(LATENCY_MS)?;
    let ([before, first, tenth], [their_before, their_first, their_tenth]) =
        (memory(bench, function).await?, memory(bench, hello_world).await?);
    let megabytes = |ours: f64, theirs: f64| [times(ours / theirs), format!("{ours:.1} MB"), format!("{theirs:.1} MB")];
    let init = |ours| [times(ratio(ours, inits[2])), time(ours), time(inits[2])];
    let rows = [
        ("init", init(inits[0])),
        ("init over TLS", init(inits[1])),
        ("zipped", [times(float(ours) / float(theirs)), bytes(ours), bytes(theirs)]),
        ("memory after init", megabytes(before, their_before)),
        ("memory after a full payload of 6 MB", megabytes(first, their_first)),
        ("memory after ten of them", megabytes(tenth, their_tenth)),
    ];
    let rows = rows.map(|(name, figures)| [vec![name.to_owned()], figures.to_vec()].concat());
    section.table(&["", "ratio", "dsql-view", "hello world"], rows);

    let mut rows = Vec::new();
    for batch in FIRST_BATCHES {
        bench.progress(&format!("  the first batch of {batch}"));
        rows.push(first_batch(bench, &tls, batch).await?);
    }
    section.table(
        &["batch", "ratio", "the first after init", "a warm one", "ratio of CPU", "the first", "a warm one"],
        rows,
    );
    Ok(section.text())
}

async fn first_batch(bench: &mut Bench, program: &Program, batch: u64) -> Result<Vec<String>, BoxError> {
    let (mut firsts, mut warms) = (Vec::new(), Vec::new());
    for _ in 0..bench.runs {
        let mut subject = Subject::start(program).await?;
        firsts.push(subject.apply([bench.workload.event(batch)]).await?);
        subject.apply([bench.workload.event(batch)]).await?;
        warms.push(subject.apply([bench.workload.event(batch)]).await?);
    }
    let (first, warm) = (crate::subject::Spent::median(&firsts), crate::subject::Spent::median(&warms));
    let figures = |first, warm| [times(ratio(first, warm)), time(first), time(warm)];
    Ok([vec![count(batch)], figures(first.wall, warm.wall).to_vec(), figures(first.cpu, warm.cpu).to_vec()].concat())
}

/// The most memory before any payload, after the first full one, and after ten.
async fn memory(bench: &mut Bench, program: &Program) -> Result<[f64; 3], BoxError> {
    let mut subject = Subject::start(program).await?;
    let mut peaks = [subject.peak_memory()?; 3];
    for payload in 1..=PAYLOADS {
        let event = bench.workload.event(FULL_PAYLOAD);
        if event.len() > LARGEST_EVENT {
            return Err(format!("an event has {} bytes, more than Lambda takes", event.len()).into());
        }
        subject.invoke(event).await;
        if payload == 1 {
            peaks[1] = subject.peak_memory()?;
        }
    }
    peaks[2] = subject.peak_memory()?;
    Ok(peaks)
}

/// The bytes of a file in a zip, but for its directory's hundred.
fn zipped(file: &Path) -> Result<u64, BoxError> {
    let output = Command::new("gzip").args(["-9", "--stdout"]).arg(file).stdin(Stdio::null()).output()?;
    if output.status.success() { Ok(output.stdout.len() as u64) } else { Err("gzip failed".into()) }
}

fn bytes(count: u64) -> String {
    format!("{:.2} MB", float(count) / 1e6)
}
