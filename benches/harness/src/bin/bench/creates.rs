//! Creates that are sent together, against the same put row by row.

use serde_json::json;

use crate::figures::{Section, count, each, float, ratio, time, times, turns};
use crate::programs::Program;
use crate::subject::{Spent, Subject};
use crate::{Bench, BoxError};

const BATCH: u64 = 1_000;
const BATCHES: u64 = 5;
const LATENCIES_MS: [u32; 2] = [0, 5];
/// The shares of creates at whose keys something stands: a stream of inserts, and what is delivered again or all updates.
const FOUND: [f64; 5] = [0.0, 0.01, 0.1, 0.5, 1.0];

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let row_by_row = bench.programs.function(&bench.stub.endpoint());
    let together = row_by_row.clone().with("BATCHED_CREATES", "true");
    let programs = [together, row_by_row];
    let mut section = Section::new(
        "Creates sent together",
        &format!(
            "`BATCHED_CREATES` on against off, on {BATCHES} batches of {} changes, all of which say that they create their row. *Found* is the \
             share of those at whose key something stands, so that the row is put after all; where that is all of them, no stream is \
             of less use for it. *Requests* and *asked for* are with the setting on, for each change.",
            count(BATCH),
        ),
    );
    for latency in LATENCIES_MS {
        section.says(&format!("DynamoDB answering after {latency} ms:"));
        let mut rows = Vec::new();
        for found in FOUND {
            bench.progress(&format!("  {:.0} % found, after {latency} ms", found * 100.0));
            rows.push(of_share(bench, &programs, found, latency).await?);
        }
        let heads = ["found", "CPU", "of a batch, on", "off", "wall", "of a batch, on", "off", "requests", "asked for"];
        section.table(&heads, rows);
    }
    Ok(section.text())
}

/// A share's row.
async fn of_share(
    bench: &mut Bench,
    programs: &[Program; 2],
    found: f64,
    latency_ms: u32,
) -> Result<Vec<String>, BoxError> {
    let mut subjects = [Subject::start(&programs[0]).await?, Subject::start(&programs[1]).await?];
    let mut spent = [Vec::new(), Vec::new()];
    let (mut requests, mut asked) = (0, 0);
    for (turn, which) in turns(bench.runs + 1, subjects.len()).enumerate() {
        bench.stub.set(&json!({ "latency_ms": latency_ms, "statement_hits": 1.0 - found, "seed": turn }))?;
        bench.stub.reset()?;
        let events: Vec<_> = (0..BATCHES).map(|_| bench.workload.event_of_creates(BATCH)).collect();
        let of_turn = subjects[which].apply(events).await?;
        // The first turn opens the connections, and shows how creates go.
        if turn < subjects.len() {
            continue;
        }
        spent[which].push(of_turn);
        if which == 0 {
            let counts = bench.stub.counts()?;
            requests += counts.put_item + counts.batch_execute_statement;
            asked += counts.put_item + counts.statements;
        }
    }
    let [on, off] = spent.map(|of| Spent::median(&of));
    let batch = |spent| time(each(spent, BATCHES));
    let of_each = |number: u64| times(float(number) / float(BATCHES * BATCH * bench.runs as u64));
    Ok(vec![
        format!("{:.0} %", found * 100.0),
        times(ratio(on.cpu, off.cpu)),
        batch(on.cpu),
        batch(off.cpu),
        times(ratio(on.wall, off.wall)),
        batch(on.wall),
        batch(off.wall),
        of_each(requests),
        of_each(asked),
    ])
}
