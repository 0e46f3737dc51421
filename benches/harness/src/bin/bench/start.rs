//! The start, the first batch, the size and the memory, against a function that does nothing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::figures::{Section, Spread, count, float, mebibytes, median, megabytes, ratio, time, times, turns};
use crate::programs::Program;
use crate::round_trip::{over_http, over_tls};
use crate::subject::{Spent, Subject};
use crate::targets::Target;
use crate::{Bench, BoxError};

/// Starts are short, and vary.
const STARTS: usize = 15;
const FIRST_BATCHES: [u64; 6] = [1, 10, 25, 50, 100, 1_000];
const LATENCY_MS: u32 = 5;
/// After 320 answers 64 writes may be in flight. In the second of two such batches they are, and all connections are
/// open.
const WARM_UP: [u64; 2] = [400; 2];
/// The changes in an event of 6 MB.
const FULL_PAYLOAD: u64 = 5_300;
const LARGEST_EVENT: usize = 6 * 1024 * 1024;
const PAYLOADS: usize = 10;

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let mut section = Section::new(
        "Start, first batch, size, memory",
        "Hello world is a function that does nothing, built with the same runtime in the same profile. *Init* lasts \
         from the start of the process to its first request for an invocation. It includes DescribeTable, which \
         DynamoDB answers at once. *A round trip* is a connection and DescribeTable alone, from a process that \
         already runs. Megabytes are millions of bytes, and a MiB is 1,048,576 bytes.\n\n\
         In production the certificates of Amazon's authorities are built in, and the function reads no file. This \
         cannot be measured here, because only Amazon has a certificate that they vouch for. The nearest figure is \
         *over TLS*, with the stub's certificate alone in `SSL_CERT_FILE`. It has the same handshake and one small \
         file to read, but no chain of signatures, which Amazon's certificates have. The difference to *without TLS* \
         is the price of the handshake and of its preparation. The difference to *all of the system's certificates* \
         in the file is the price of naming authorities of your own.",
    );
    let (endpoint, tls_endpoint) = (bench.stub.endpoint(), bench.stub.tls_endpoint());
    let over_tls = bench.programs.function(&tls_endpoint);
    let tls = over_tls.clone().with("SSL_CERT_FILE", bench.stub.certificate());
    let all_roots = over_tls.with("SSL_CERT_FILE", bench.stub.all_roots());
    let programs = [bench.programs.function(&endpoint), tls.clone(), all_roots, bench.programs.hello_world()];

    bench.progress("  init");
    let (mut rows, round_trips) = init(bench, &programs).await?;
    let [ours, theirs] = [bench.programs.function_binary(), &bench.programs.beside("hello_world")].map(zipped);
    let (ours, theirs) = (float(ours?), float(theirs?));
    bench.targets.note(Target::Zip, "", ours);
    rows.push(["zipped".to_owned(), times(ours / theirs), megabytes(ours), megabytes(theirs)].to_vec());
    bench.progress("  memory with full payloads");
    let [function, .., hello_world] = &programs;
    bench.stub.set_latency(LATENCY_MS)?;
    let (ours, theirs) = (memory(bench, function).await?, memory(bench, hello_world).await?);
    bench.targets.note(Target::Memory, "after one", ours[1]);
    bench.targets.note(Target::Memory, "after ten", ours[2]);
    let after = ["memory after init", "memory after a full payload of 6 MB", "memory after ten of them"];
    rows.extend(after.iter().zip(ours.into_iter().zip(theirs)).map(|(name, (ours, theirs))| {
        vec![(*name).to_owned(), times(ours / theirs), mebibytes(ours), mebibytes(theirs)]
    }));
    section.table(&["", "ratio", "dsql-view", "hello world"], rows);
    let [without_tls, with_tls] = round_trips.map(time);
    section.says(&format!("A round trip takes {without_tls} without TLS, and {with_tls} over it."));

    section.says(&format!(
        "**The first batch** of a process over TLS, DynamoDB answering after {LATENCY_MS} ms, against a warm one of \
         the same size. The warm one comes {} answers later, when all allowed writes have been in flight and the \
         connections have stopped growing. *Connections* is the number of connections that each batch opened, as a \
         median.",
        count(WARM_UP.iter().sum()),
    ));
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    for batch in FIRST_BATCHES {
        bench.progress(&format!("  the first batch of {batch}"));
        let (row, wall) = first_batch(bench, &tls, batch).await?;
        rows.push(row);
        ratios.push((format!("of {}", count(batch)), wall));
    }
    bench.targets.note_worst(Target::FirstBatch, ratios);
    let heads = [
        "batch",
        "wall",
        "the first",
        "a warm one",
        "CPU",
        "the first",
        "a warm one",
        "connections",
        "of the warm one",
    ];
    section.table(&heads, rows);
    Ok(section.text())
}

/// The starts of the function in three ways, beside those of hello world, and the round trips without and with TLS.
async fn init(bench: &mut Bench, programs: &[Program; 4]) -> Result<(Vec<Vec<String>>, [Duration; 2]), BoxError> {
    let mut inits = [const { Vec::new() }; 4];
    let mut round_trips = [const { Vec::new() }; 2];
    for which in turns(STARTS, programs.len()) {
        inits[which].push(Subject::start(&programs[which]).await?.init);
        match which {
            0 => round_trips[0].push(over_http(&bench.stub.endpoint()).await?),
            1 => round_trips[1].push(over_tls(&bench.stub.tls_endpoint(), &bench.stub.certificate()).await?),
            _ => {}
        }
    }
    let [_, _, _, hello_world] = &inits;
    let round_trips = round_trips.map(median);
    let hello = median(hello_world.iter().copied());
    let names = ["init, without TLS", "init over TLS", "init over TLS, with all of the system's certificates"];
    let mut rows = Vec::new();
    for (name, of) in names.iter().zip(&inits) {
        let ratio = Spread::of_ratios(of.iter().copied(), hello_world.iter().copied());
        rows.push([(*name).to_owned(), ratio.to_string(), time(median(of.iter().copied())), time(hello)].to_vec());
    }
    for (which, of) in ["without TLS", "over TLS"].into_iter().enumerate() {
        let bound = hello.mul_f64(1.5) + round_trips[which];
        let to_bound = ratio(median(inits[which].iter().copied()), bound);
        bench.targets.note(Target::Init, of, to_bound);
    }
    Ok((rows, round_trips))
}

/// The row of a first batch, and the ratio of its time to that of a warm one.
async fn first_batch(bench: &mut Bench, program: &Program, batch: u64) -> Result<(Vec<String>, f64), BoxError> {
    let (mut firsts, mut warms) = (Vec::new(), Vec::new());
    let mut connections = [const { Vec::new() }; 2];
    for _ in 0..2 * bench.runs {
        let mut subject = Subject::start(program).await?;
        let mut apply = async |changes: u64| -> Result<(Spent, f64), BoxError> {
            let before = bench.stub.counts()?.connections;
            let spent = subject.apply([bench.workload.event(changes)]).await?;
            Ok((spent, float(bench.stub.counts()?.connections - before)))
        };
        let (first, opened) = apply(batch).await?;
        for changes in WARM_UP {
            apply(changes).await?;
        }
        let (warm, opened_warm) = apply(batch).await?;
        firsts.push(first);
        warms.push(warm);
        connections[0].push(opened);
        connections[1].push(opened_warm);
    }
    let (wall, cpu) = (Spent::wall_ratios(&firsts, &warms), Spent::cpu_ratios(&firsts, &warms));
    let (first, warm) = (Spent::median(&firsts), Spent::median(&warms));
    let [opened, opened_warm] = connections.map(|of| format!("{:.0}", Spread::of(of).median));
    let row = [wall.to_string(), time(first.wall), time(warm.wall), cpu.to_string(), time(first.cpu), time(warm.cpu)];
    Ok(([vec![count(batch)], row.to_vec(), vec![opened, opened_warm]].concat(), wall.median))
}

/// The peak memory in bytes before any payload, after the first full one, and after ten.
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

/// The bytes of a file in a zip, without the hundred bytes of its directory entry.
fn zipped(file: &Path) -> Result<u64, BoxError> {
    let output = Command::new("gzip").args(["-9", "--stdout"]).arg(file).stdin(Stdio::null()).output()?;
    if output.status.success() { Ok(output.stdout.len() as u64) } else { Err("gzip failed".into()) }
}
