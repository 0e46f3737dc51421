//! The function against its writes alone, and against the least that a write can take.

use crate::figures::{Section, Spread, count, each, float, time, times, turns};
use crate::instructions::{Callgrind, WARM_UP};
use crate::programs::Program;
use crate::puts::Puts;
use crate::subject::{Spent, Subject};
use crate::targets::Target;
use crate::{Bench, BoxError};

const CHANGES: u64 = 5_000;
const IN_FLIGHT: usize = 64;
const LATENCIES_MS: [u32; 2] = [0, 5];
/// A difference of two figures has the noise of both.
const TURNS_A_RUN: usize = 3;
/// Fewer changes, because callgrind takes fifty times as long.
const CHANGES_COUNTED: u64 = 1_000;

/// Each loop that is subtracted stands beside the function that it is subtracted from.
const NAMES: [&str; 5] = [
    "**dsql-view**, from the event to its answer",
    "the SDK's PutItem, dsql-view's client and allocator",
    "the SDK's PutItem, its client with the defaults",
    "a request made by hand",
    "**dsql-view**, a batch that it knows",
];
/// The places in [`NAMES`].
const FUNCTION: usize = 0;
const OWN_CLIENT: usize = 1;
/// The base of the ratios.
const SDK: usize = 2;
const KNOWN: usize = 4;
/// The names by which `puts` knows the clients from [`OWN_CLIENT`] to [`KNOWN`].
const CLIENTS: [&str; 3] = ["own", "sdk", "hand-made"];

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
            "These tables show the cost of a change, with {IN_FLIGHT} writes in flight. The function has a batch of \
             {}. The loops beside it put the same items and do nothing else, and their items and requests are ready \
             before the clock runs. *A request made by hand* is the lower limit: JSON that is ready, `aws-sigv4`, and \
             one HTTP client (in the bench only). *A batch that it knows* is the previous batch again, which the \
             function remembers to be in the view. *Puts* is the number of puts that were sent, the most of any turn. \
             If a few puts were sent for a known batch, the memory had forgotten their rows, because its size is \
             fixed.\n\n\
             Instructions are callgrind's, of user code, for a batch of {} after a first one of {WARM_UP}. \
             Callgrind's processor has no instructions for SHA-256. So signing weighs more here than on a processor \
             that has them.",
            count(CHANGES),
            count(CHANGES_COUNTED),
        ),
    );
    section.says(
        "**The function's own work** is measured in two ways, each as a share of the SDK's PutItem with its default \
         client.\n\n\
         - *The difference* is the function less the loop with dsql-view's client and allocator. It contains all work \
         beyond sending: reading the event, decoding, projecting, and making items and requests, which the loop has \
         ready. The loop's own work to keep its writes in flight is subtracted with the writes. The difference has \
         the noise of both.\n\
         - *The batch that it knows* has less noise, and is a lower bound. The function reads, decodes and projects \
         each change, and looks it up. But it makes no requests, keeps none in flight, and remembers nothing new.",
    );
    let instructions = instructions(bench).await?;
    for latency in LATENCIES_MS {
        bench.stub.set_latency(latency)?;
        bench.progress(&format!("  DynamoDB answering after {latency} ms"));
        let taken = turn_by_turn(bench, &mut function, &mut puts).await?;
        section.says(&format!("DynamoDB answering after {latency} ms:"));
        let instructions = if latency == LATENCIES_MS[0] { instructions.as_ref() } else { None };
        section_of_all(&mut section, &taken, instructions);
        section_of_own_work(bench, &mut section, &taken, instructions, latency);
    }
    if instructions.is_none() {
        section.says("valgrind is not installed, so the instructions are missing.");
    }
    Ok(section.text())
}

/// The cost of one of [`NAMES`].
#[derive(Default)]
struct Taken {
    spent: Vec<Spent>,
    /// The most of any turn.
    puts: u64,
    bytes_of_a_put: Option<u64>,
}

async fn turn_by_turn(bench: &mut Bench, function: &mut Subject, puts: &mut [Puts]) -> Result<Vec<Taken>, BoxError> {
    let mut taken: Vec<Taken> = NAMES.iter().map(|_| Taken::default()).collect();
    let mut event = bench.workload.event(CHANGES);
    for (turn, which) in turns(TURNS_A_RUN * bench.runs + 1, NAMES.len()).enumerate() {
        bench.stub.reset()?;
        if which == FUNCTION {
            event = bench.workload.event(CHANGES);
        }
        let of_turn = match which {
            FUNCTION | KNOWN => function.apply([event.clone()]).await?,
            client => puts[client - OWN_CLIENT].put(bench.workload.rows(CHANGES).start, CHANGES).await?,
        };
        // The first turn opens the connections; its last program knows the batch of its first.
        if turn < NAMES.len() {
            continue;
        }
        let counts = bench.stub.counts()?;
        if which == KNOWN && counts.put_item * 100 > CHANGES {
            return Err(format!("of a batch that was known, {} rows were written", counts.put_item).into());
        }
        let of = &mut taken[which];
        of.spent.push(of_turn);
        of.puts = of.puts.max(counts.put_item);
        of.bytes_of_a_put = counts.put_item_bytes.checked_div(counts.put_item).or(of.bytes_of_a_put);
    }
    Ok(taken)
}

fn section_of_all(section: &mut Section, taken: &[Taken], instructions: Option<&[u64; NAMES.len()]>) {
    let sdk = &taken[SDK].spent;
    let rows = NAMES.iter().zip(taken).enumerate().map(|(which, (name, of))| {
        let spent = Spent::median(&of.spent);
        let mut row = vec![
            (*name).to_owned(),
            Spent::cpu_ratios(&of.spent, sdk).to_string(),
            time(each(spent.cpu, CHANGES)),
            Spent::wall_ratios(&of.spent, sdk).to_string(),
            time(each(spent.wall, CHANGES)),
            count(of.puts),
            of.bytes_of_a_put.map_or_else(String::new, count),
        ];
        row.extend(
            instructions.into_iter().flat_map(|of| [times(float(of[which]) / float(of[SDK])), count(of[which])]),
        );
        row
    });
    let heads = ["", "CPU", "a change", "wall", "a change", "puts", "bytes a put", "instructions", "a change"];
    section.table(if instructions.is_some() { &heads } else { &heads[..7] }, rows);
}

fn section_of_own_work(
    bench: &mut Bench,
    section: &mut Section,
    taken: &[Taken],
    instructions: Option<&[u64; NAMES.len()]>,
    latency: u32,
) {
    let cpu = |which: usize| taken[which].spent.iter().map(|spent| spent.cpu.as_secs_f64());
    let ways = [
        ("the difference", cpu(FUNCTION).zip(cpu(OWN_CLIENT)).map(|(all, writes)| all - writes).collect::<Vec<_>>()),
        ("a batch that it knows, the lower bound", cpu(KNOWN).collect()),
    ];
    let counted = instructions.map(|of| [of[FUNCTION].saturating_sub(of[OWN_CLIENT]), of[KNOWN]]);
    let mut rows = Vec::new();
    for (way, (name, work)) in ways.into_iter().enumerate() {
        let shares = Spread::of(work.iter().zip(cpu(SDK)).map(|(work, sdk)| work / sdk));
        let of_change = Spread::of(work).median / float(CHANGES) * 1e6;
        let mut row = vec![name.to_owned(), shares.to_string(), format!("{of_change:.1} µs")];
        let mut note = |target, figure| match way {
            0 => bench.targets.note(target, format!("at {latency} ms"), figure),
            _ => bench.targets.note_beside(target, format!("at {latency} ms of a batch that it knows"), figure),
        };
        note(Target::OwnCpu, shares.median);
        if let (Some(counted), Some(all)) = (counted, instructions) {
            let share = float(counted[way]) / float(all[SDK]);
            note(Target::OwnInstructions, share);
            row.extend([times(share), count(counted[way])]);
        }
        rows.push(row);
    }
    let client = Spent::cpu_ratios(&taken[OWN_CLIENT].spent, &taken[SDK].spent);
    bench.targets.note(Target::Client, format!("at {latency} ms"), client.median);
    let heads = ["own work", "CPU, to the SDK's PutItem", "a change", "instructions, the same", "a change"];
    section.table(if instructions.is_some() { &heads } else { &heads[..3] }, rows);
}

/// The instructions of a change for each of [`NAMES`], if callgrind is installed.
async fn instructions(bench: &mut Bench) -> Result<Option<[u64; NAMES.len()]>, BoxError> {
    let Some(callgrind) = Callgrind::find() else { return Ok(None) };
    bench.progress("  instructions, by callgrind");
    let endpoint = bench.stub.endpoint();
    let (warm_up, batch) = (bench.workload.event(WARM_UP), bench.workload.event(CHANGES_COUNTED));
    let mut counts = [0; NAMES.len()];
    counts[FUNCTION] = callgrind.of_function(&function(bench), &[&warm_up], &batch).await?;
    counts[KNOWN] = callgrind.of_function(&function(bench), &[&warm_up, &batch], &batch).await?;
    for (place, client) in (OWN_CLIENT..).zip(CLIENTS) {
        counts[place] = callgrind.of_puts(&bench.programs, client, &endpoint, CHANGES_COUNTED).await?;
    }
    Ok(Some(counts.map(|count| count / CHANGES_COUNTED)))
}

fn function(bench: &Bench) -> Program {
    bench.programs.function(&bench.stub.endpoint()).with("WRITE_CONCURRENCY", IN_FLIGHT.to_string())
}
