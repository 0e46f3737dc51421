//! Creates that are sent together, against the same creates put row by row.

use serde_json::{Value, json};

use crate::figures::{Section, Spread, count, each, float, time, times, turns};
use crate::programs::Program;
use crate::subject::{Spent, Subject};
use crate::targets::Target;
use crate::{Bench, BoxError};

const BATCH: u64 = 1_000;
const BATCHES: u64 = 5;
const LATENCIES_MS: [u32; 2] = [0, 5];
/// The time of a request with many statements, if it is not the time of a put.
const SLOW_STATEMENTS_MS: u32 = 25;
/// The shares of creates that find an item: from a stream of inserts to one of repeated deliveries or updates.
const FOUND: [f64; 6] = [0.0, 0.01, 0.05, 0.1, 0.5, 1.0];
/// Figures that are nearly equal take more turns.
const TURNS_A_RUN: usize = 2;

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let row_by_row = bench.programs.function(&bench.stub.endpoint());
    let together = row_by_row.clone().with("BATCHED_CREATES", "true");
    let programs = [together, row_by_row];
    let mut section = Section::new(
        "Creates sent together",
        &format!(
            "`BATCHED_CREATES` on against off, on {BATCHES} batches of {} changes, which all say that they create \
             their row. *Found* is the share of changes that find an item at their key, so that the function puts the \
             row after all. At 100 % the setting is of no use. *Requests* and *asked for* are counts for each change, \
             with the setting on. The stub answers a request of 25 statements in the time of one put, which nobody \
             has tried on DynamoDB. In the last row of all it takes {SLOW_STATEMENTS_MS} ms.",
            count(BATCH),
        ),
    );
    let mut not_inserts = Vec::new();
    for latency in LATENCIES_MS {
        section.says(&format!("DynamoDB answering after {latency} ms:"));
        let mut rows = Vec::new();
        let mut streams: Vec<_> = FOUND.iter().map(|found| (*found, None)).collect();
        if latency == LATENCIES_MS[1] {
            streams.push((0.0, Some(SLOW_STATEMENTS_MS)));
        }
        for (found, statements_ms) in streams {
            let slow = statements_ms.map(|statements_ms| format!(", 25 statements after {statements_ms} ms"));
            let name = format!("{:.0} %{}", found * 100.0, slow.unwrap_or_default());
            bench.progress(&format!("  {name} found, after {latency} ms"));
            let stub =
                json!({ "latency_ms": latency, "statements_latency_ms": statements_ms, "statement_hits": 1.0 - found });
            let turns = TURNS_A_RUN * bench.runs;
            let compared = compare(bench, &programs, &stub, turns).await?;
            if found == 0.0 && compared.statements == 0 {
                return Err("no create was sent together with others, though their keys have no items".into());
            }
            let [cpu, wall] = compared.ratios();
            if found == 0.0 && statements_ms.is_none() {
                bench.targets.note(Target::CreatesOfInserts, format!("CPU at {latency} ms"), cpu.median);
                bench.targets.note(Target::CreatesOfInserts, format!("wall at {latency} ms"), wall.median);
            } else if found > 0.0 {
                not_inserts.push((format!("of {name} at {latency} ms"), cpu.median.max(wall.median)));
            }
            rows.push(compared.row(name));
        }
        let heads = ["found", "CPU", "of a batch, on", "off", "wall", "of a batch, on", "off", "requests", "asked for"];
        section.table(&heads, rows);
    }
    bench.targets.note_worst(Target::CreatesElsewhere, not_inserts);
    Ok(section.text())
}

/// The cost of the turns with the setting on and off, and the requests with it on.
struct Compared {
    on: Vec<Spent>,
    off: Vec<Spent>,
    requests: u64,
    statements: u64,
    asked: u64,
}

async fn compare(
    bench: &mut Bench,
    programs: &[Program; 2],
    stub: &Value,
    turns_of_each: usize,
) -> Result<Compared, BoxError> {
    let mut subjects = [Subject::start(&programs[0]).await?, Subject::start(&programs[1]).await?];
    let mut compared = Compared { on: Vec::new(), off: Vec::new(), requests: 0, statements: 0, asked: 0 };
    bench.stub.set(stub)?;
    for (turn, which) in turns(turns_of_each + 1, subjects.len()).enumerate() {
        bench.stub.set(&json!({ "seed": turn }))?;
        bench.stub.reset()?;
        let events: Vec<_> = (0..BATCHES).map(|_| bench.workload.event_of_creates(BATCH)).collect();
        let of_turn = subjects[which].apply(events).await?;
        // The first turn opens the connections, and shows how creates go.
        if turn < subjects.len() {
            continue;
        }
        if which == 1 {
            compared.off.push(of_turn);
            continue;
        }
        compared.on.push(of_turn);
        let counts = bench.stub.counts()?;
        compared.requests += counts.put_item + counts.batch_execute_statement;
        compared.statements += counts.statements;
        compared.asked += counts.put_item + counts.statements;
    }
    Ok(compared)
}

impl Compared {
    /// The ratios of CPU and wall time, on to off.
    fn ratios(&self) -> [Spread; 2] {
        [Spent::cpu_ratios(&self.on, &self.off), Spent::wall_ratios(&self.on, &self.off)]
    }

    fn row(&self, name: String) -> Vec<String> {
        let [cpu, wall] = self.ratios();
        let (on, off) = (Spent::median(&self.on), Spent::median(&self.off));
        let batch = |spent| time(each(spent, BATCHES));
        let of_each = |number: u64| times(float(number) / float(BATCHES * BATCH * self.on.len() as u64));
        vec![
            name,
            cpu.to_string(),
            batch(on.cpu),
            batch(off.cpu),
            wall.to_string(),
            batch(on.wall),
            batch(off.wall),
            of_each(self.requests),
            of_each(self.asked),
        ]
    }
}
