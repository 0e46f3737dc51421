//! The function against its writes alone, and against the least that a write can take.

use crate::figures::{Section, count, each, float, ratio, time, times, turns};
use crate::instructions::{Callgrind, WARM_UP};
use crate::programs::Program;
use crate::puts::Puts;
use crate::subject::{Spent, Subject};
use crate::{Bench, BoxError};

const CHANGES: u64 = 5_000;
const IN_FLIGHT: usize = 64;
const LATENCIES_MS: [u32; 2] = [0, 5];
/// Callgrind takes fifty times as long.
const CHANGES_COUNTED: u64 = 1_000;

const NAMES: [&str; 5] = [
    "**dsql-view**, from the event to its answer",
    "**dsql-view**, the same batch again, of which nothing is written",
    "the SDK's PutItem, its client with the defaults",
    "the SDK's PutItem, dsql-view's client and allocator",
    "a request made by hand",
];
/// The places of what the function does, in [`NAMES`].
const FUNCTION: usize = 0;
const AGAIN: usize = 1;
/// The place of what the ratios are to.
const SDK: usize = 2;
/// The names of the others to `puts`, from [`SDK`] on.
const CLIENTS: [&str; 3] = ["sdk", "own", "hand-made"];

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let endpoint = bench.stub.endpoint();
    let mut function = Subject::start(&function(bench)).await?;
    let mut puts = Vec::new();
    for client in CLIENTS {
        puts.push(Puts::start(&bench.programs, client, &endpoint, IN_FLIGHT)?);
    }
    let mut section = Section::new(
        "Against its writes alone, and the limit",
        &format!(
            "What a change takes, with {IN_FLIGHT} writes in flight: the function with a batch of {}, beside loops that put the same items and do \
             nothing else, their requests ready before the clock runs. The second row is the function's own work: it reads, decodes and projects \
             each change, and then knows that the view shows it. *Made by hand* is the least there can be: JSON that is there already, `aws-sigv4`, one HTTP client (in the bench only). Instructions \
             are callgrind's, of user code, for a batch of {} after a first one of {WARM_UP}; its processor has none for SHA-256, so that signing \
             weighs more in them than where there are such.",
            count(CHANGES),
            count(CHANGES_COUNTED),
        ),
    );
    let instructions = instructions(bench).await?;
    for latency in LATENCIES_MS {
        bench.stub.set_latency(latency)?;
        let mut spent = vec![Vec::new(); NAMES.len()];
        let mut bytes = [0; NAMES.len()];
        bench.progress(&format!("  DynamoDB answering after {latency} ms"));
        // The first turn opens the connections.
        let mut event = bench.workload.event(CHANGES);
        for (turn, which) in turns(bench.runs + 1, NAMES.len()).enumerate() {
            bench.stub.reset()?;
            if which == FUNCTION {
                event = bench.workload.event(CHANGES);
            }
            let of_turn = match which.checked_sub(SDK) {
                None => function.apply([event.clone()]).await?,
                Some(client) => puts[client].put(bench.workload.rows(CHANGES).start, CHANGES).await?,
            };
            let counts = bench.stub.counts()?;
            // Its memory is of fixed size: it may have forgotten some.
            if which == AGAIN && counts.put_item * 100 > CHANGES {
                return Err(format!("of a batch that was known, {} rows were written", counts.put_item).into());
            }
            bytes[which] = counts.put_item_bytes / counts.put_item.max(1);
            if turn >= NAMES.len() {
                spent[which].push(of_turn);
            }
        }
        let spent: Vec<Spent> = spent.iter().map(|of| Spent::median(of)).collect();
        let rows = (0..NAMES.len()).map(|which| {
            let of = &spent[which];
            let mut row = vec![
                NAMES[which].to_owned(),
                times(ratio(of.cpu, spent[SDK].cpu)),
                time(each(of.cpu, CHANGES)),
                times(ratio(of.wall, spent[SDK].wall)),
                time(each(of.wall, CHANGES)),
                bytes[which].to_string(),
            ];
            if latency == LATENCIES_MS[0] {
                row.extend(instructions.as_ref().map_or_else(
                    || [String::new(), "no valgrind here".to_owned()],
                    |of| [times(float(of[which]) / float(of[SDK])), count(of[which])],
                ));
            }
            row
        });
        section.says(&format!("DynamoDB answering after {latency} ms:"));
        let heads = ["", "CPU", "a change", "wall", "a change", "bytes a request", "instructions", "a change"];
        let heads = if latency == LATENCIES_MS[0] { &heads[..] } else { &heads[..6] };
        section.table(heads, rows);
    }
    Ok(section.text())
}

/// What a change takes each of [`NAMES`], where callgrind is there.
async fn instructions(bench: &mut Bench) -> Result<Option<[u64; NAMES.len()]>, BoxError> {
    let Some(callgrind) = Callgrind::find() else { return Ok(None) };
    bench.progress("  instructions, by callgrind");
    let endpoint = bench.stub.endpoint();
    let (warm_up, batch) = (bench.workload.event(WARM_UP), bench.workload.event(CHANGES_COUNTED));
    let mut counts = [0; NAMES.len()];
    counts[FUNCTION] = callgrind.of_function(&function(bench), &[&warm_up], &batch).await?;
    counts[AGAIN] = callgrind.of_function(&function(bench), &[&warm_up, &batch], &batch).await?;
    for (place, client) in (SDK..).zip(CLIENTS) {
        counts[place] = callgrind.of_puts(&bench.programs, client, &endpoint, CHANGES_COUNTED).await?;
    }
    Ok(Some(counts.map(|count| count / CHANGES_COUNTED)))
}

fn function(bench: &Bench) -> Program {
    bench.programs.function(&bench.stub.endpoint()).with("WRITE_CONCURRENCY", IN_FLIGHT.to_string())
}
