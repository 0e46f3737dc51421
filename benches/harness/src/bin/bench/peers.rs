//! The function against what one would write without it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::figures::{Section, count, each, time, times, turns};
use crate::subject::{Spent, Subject};
use crate::{Bench, BoxError};

const BATCHES: [u64; 3] = [100, 1_000, 5_000];
const SUPERSEDED: [f64; 3] = [0.0, 0.5, 0.95];

/// One that takes its writes one by one is slow, and what is slow needs fewer runs.
const RUNS: usize = 3;

/// What is measured at a time has at least so many changes.
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

    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for batch in BATCHES {
        for superseded in SUPERSEDED {
            bench.stub.set(&json!({ "failed_share": superseded }))?;
            bench.progress(&format!("  batches of {batch}, {:.0} % superseded", superseded * 100.0));
            let spent = turn_by_turn(bench, &mut subjects, batch).await?;
            let name = [count(batch), format!("{:.0} %", superseded * 100.0)];
            walls.push([&name[..], &times_of(&spent, |spent| spent.wall)].concat());
            cpus.push([&name[..], &times_of(&spent, |spent| spent.cpu)].concat());
        }
    }
    bench.progress("  batches of 1,000, DynamoDB answering after 5 ms");
    bench.stub.set(&json!({ "failed_share": 0.0, "latency_ms": 5 }))?;
    let spent = turn_by_turn(bench, &mut subjects, 1_000).await?;
    let [wall, cpu] = [times_of(&spent, |spent| spent.wall), times_of(&spent, |spent| spent.cpu)];
    let memory: Result<Vec<f64>, _> = subjects.iter().map(Subject::peak_memory).collect();
    let memory = against_the_first(&memory?, |megabytes| format!("{megabytes:.0} MB"));
    let slow = [("wall", wall), ("CPU", cpu), ("memory", memory)];

    let mut section = Section::new(
        "Against the straightforward handlers",
        "How many times as much each takes as dsql-view, and in brackets what it takes for 1,000 changes. All of them read the same events, \
         make the same items and put them with the same condition (`benches/peers`), with their SDK's defaults: Rust with one write \
         after the other; Node.js with all at once over 50 sockets; Python (boto3) with 32 threads, with one write after the other, and \
         with the batch processor of Powertools. *Superseded* is the share of writes whose condition DynamoDB finds not met.",
    );
    section.says("**CPU**, DynamoDB answering at once:");
    section.table(&heads, cpus);
    section.says("**Wall time**, DynamoDB answering at once, so that nothing but the processor is waited for:");
    section.table(&heads, walls);
    section.says("**Batches of 1,000, DynamoDB answering after 5 ms**, none superseded, and the most memory that each had in all of this:");
    heads.splice(0..2, [""]);
    section.table(&heads, slow.into_iter().map(|(name, row)| [vec![name.to_owned()], row].concat()));
    if subjects.len() < 6 {
        section.says("Python or Node.js is not there: what it would show is missing.");
    }
    Ok(section.text())
}

/// What each of the subjects takes for 1,000 changes, in batches of this size.
async fn turn_by_turn(bench: &mut Bench, subjects: &mut [Subject], batch: u64) -> Result<Vec<Spent>, BoxError> {
    let batches = CHANGES.div_ceil(batch);
    let mut spent = vec![Vec::new(); subjects.len()];
    for which in turns(RUNS.min(bench.runs), subjects.len()) {
        let events: Vec<Bytes> = (0..batches).map(|_| bench.workload.event(batch)).collect();
        let of_turn = subjects[which].apply(events).await?;
        let of_thousand = |time| each(time, batch * batches) * 1_000;
        spent[which].push(Spent { wall: of_thousand(of_turn.wall), cpu: of_thousand(of_turn.cpu), reported: 0 });
    }
    Ok(spent.into_iter().map(|of_subject| Spent::median(&of_subject)).collect())
}

fn times_of(spent: &[Spent], of: fn(&Spent) -> Duration) -> Vec<String> {
    let seconds: Vec<f64> = spent.iter().map(|spent| of(spent).as_secs_f64()).collect();
    against_the_first(&seconds, |seconds| time(Duration::from_secs_f64(seconds)))
}

/// The first as it is, the others with their ratio to it.
fn against_the_first(figures: &[f64], shown: impl Fn(f64) -> String) -> Vec<String> {
    let others = figures.iter().skip(1).map(|figure| format!("{} ({})", times(figure / figures[0]), shown(*figure)));
    [shown(figures[0])].into_iter().chain(others).collect()
}
