//! The function against the handlers that one would write without it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::figures::{Section, Spread, count, each, mebibytes, time, times, turns};
use crate::subject::{Spent, Subject};
use crate::targets::Target;
use crate::{Bench, BoxError};

const BATCHES: [u64; 3] = [100, 1_000, 5_000];
const SUPERSEDED: [f64; 3] = [0.0, 0.5, 0.95];

/// Handlers with one write after the other are slow, and slow programs need fewer runs.
const RUNS: usize = 3;
/// Batches with many changes need fewer runs too.
const LARGE: u64 = 5_000;
const RUNS_OF_LARGE: usize = 2;

/// The least number of changes that are measured at a time.
const CHANGES: u64 = 1_000;

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let mut subjects = Vec::new();
    for program in bench.programs.all(&bench.stub.endpoint()) {
        subjects.push(Subject::start(&program).await?);
    }
    bench.progress("  each applies 1,000 changes to be warm");
    for subject in &mut subjects {
        subject.apply([bench.workload.event(1_000)]).await?;
    }
    let mut heads = vec!["batch", "superseded"];
    heads.extend(subjects.iter().map(|subject| subject.name));

    let (mut walls, mut cpus, mut handlers) = (Vec::new(), Vec::new(), Vec::new());
    for batch in BATCHES {
        for superseded in SUPERSEDED {
            bench.stub.set(&json!({ "failed_share": superseded }))?;
            bench.progress(&format!("  batches of {batch}, {:.0} % superseded", superseded * 100.0));
            let spent = turn_by_turn(bench, &mut subjects, batch).await?;
            let name = [count(batch), format!("{:.0} %", superseded * 100.0)];
            walls.push([&name[..], &shown(&spent, Spent::wall_ratios, |spent| spent.wall)].concat());
            cpus.push([&name[..], &shown(&spent, Spent::cpu_ratios, |spent| spent.cpu)].concat());
            handlers.extend(cpu_ratios(&subjects, &spent));
        }
    }
    bench.progress("  batches of 1,000, DynamoDB answering after 5 ms");
    bench.stub.set(&json!({ "failed_share": 0.0, "latency_ms": 5 }))?;
    let spent = turn_by_turn(bench, &mut subjects, 1_000).await?;
    handlers.extend(cpu_ratios(&subjects, &spent));
    for (target, language) in [(Target::Python, "Python"), (Target::Node, "Node.js")] {
        let of_language = handlers.iter().filter(|(name, _)| name.starts_with(language)).cloned();
        bench.targets.note_worst(target, of_language);
    }
    let wall = shown(&spent, Spent::wall_ratios, |spent| spent.wall);
    let cpu = shown(&spent, Spent::cpu_ratios, |spent| spent.cpu);
    let peaks: Result<Vec<f64>, _> = subjects.iter().map(Subject::peak_memory).collect();
    let peaks = peaks?;
    let others = peaks[1..].iter().map(|peak| format!("{} ({})", times(peak / peaks[0]), mebibytes(*peak)));
    let memory = [mebibytes(peaks[0])].into_iter().chain(others).collect();
    let slow = [("wall", wall), ("CPU", cpu), ("memory", memory)];

    let mut section = Section::new(
        "Against the straightforward handlers",
        "For dsql-view, each table shows the figure for 1,000 changes. For the others it shows a ratio, with \
         dsql-view as 1, and in brackets their own figure for 1,000 changes. All of them read the same events, make \
         the same items, and put them with the same condition (`benches/peers`). They use their SDK's defaults:\n\n\
         - Rust makes one write after the other.\n\
         - Node.js makes all writes at once, over 50 sockets.\n\
         - Python (boto3) uses 32 threads, makes one write after the other, or uses the batch processor of \
         Powertools.\n\n\
         *Superseded* is the share of writes whose condition DynamoDB finds not met.",
    );
    section.says("**CPU**, DynamoDB answering at once:");
    section.table(&heads, cpus);
    section.says("**Wall time**, DynamoDB answering at once, so only the processor takes time:");
    section.table(&heads, walls);
    section.says(
        "**Batches of 1,000, DynamoDB answering after 5 ms**, none superseded. The memory is the most that \
                  each process had in all these batches:",
    );
    heads.splice(0..2, [""]);
    section.table(&heads, slow.into_iter().map(|(name, row)| [vec![name.to_owned()], row].concat()));
    if subjects.len() < 6 {
        section.says("Python or Node.js is not installed, so its figures are missing.");
    }
    Ok(section.text())
}

/// The cost of 1,000 changes for each subject in each turn, in batches of this size.
async fn turn_by_turn(bench: &mut Bench, subjects: &mut [Subject], batch: u64) -> Result<Vec<Vec<Spent>>, BoxError> {
    let batches = CHANGES.div_ceil(batch);
    let mut spent = vec![Vec::new(); subjects.len()];
    let runs = if batch < LARGE { RUNS } else { RUNS_OF_LARGE };
    for which in turns(runs.min(bench.runs), subjects.len()) {
        let events: Vec<Bytes> = (0..batches).map(|_| bench.workload.event(batch)).collect();
        let of_turn = subjects[which].apply(events).await?;
        let of_thousand = |time| each(time, batch * batches) * 1_000;
        spent[which].push(Spent { wall: of_thousand(of_turn.wall), cpu: of_thousand(of_turn.cpu), reported: 0 });
    }
    Ok(spent)
}

/// The cost of the first, and the costs of the others with their ratios to it.
fn shown(spent: &[Vec<Spent>], ratios: fn(&[Spent], &[Spent]) -> Spread, of: fn(&Spent) -> Duration) -> Vec<String> {
    let taken = |turns: &[Spent]| time(of(&Spent::median(turns)));
    let others =
        spent[1..].iter().map(|turns| format!("{} ({})", times(ratios(turns, &spent[0]).median), taken(turns)));
    [taken(&spent[0])].into_iter().chain(others).collect()
}

/// The handlers, with the ratios of their CPU to that of the first.
fn cpu_ratios(subjects: &[Subject], spent: &[Vec<Spent>]) -> Vec<(String, f64)> {
    let ratio = |(subject, turns): (&Subject, &Vec<Spent>)| {
        (subject.name.to_owned(), Spent::cpu_ratios(turns, &spent[0]).median)
    };
    subjects.iter().zip(spent).skip(1).map(ratio).collect()
}
