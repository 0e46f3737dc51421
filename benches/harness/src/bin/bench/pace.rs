//! A batch against the least time in which its writes could be done.

use std::time::Duration;

use crate::figures::{Section, Spread, count, each, time, turns};
use crate::puts::Puts;
use crate::subject::{Spent, Subject};
use crate::targets::Target;
use crate::{Bench, BoxError};

const CHANGES: u64 = 1_000;
const IN_FLIGHT: u32 = 64;
const LATENCY_MS: u32 = 5;
/// The number of puts that show the stub's latency.
const ONE_BY_ONE: u64 = 100;

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    bench.stub.set_latency(LATENCY_MS)?;
    let endpoint = bench.stub.endpoint();
    let in_flight = usize::try_from(IN_FLIGHT)?;
    let function = bench.programs.function(&endpoint).with("WRITE_CONCURRENCY", IN_FLIGHT.to_string());
    let mut function = Subject::start(&function).await?;
    let names = ["**dsql-view**", "the SDK's PutItem, with the defaults", "a request made by hand"];
    let mut puts = Vec::new();
    for client in ["sdk", "hand-made"] {
        puts.push(Puts::start(&bench.programs, client, &endpoint, in_flight)?);
    }
    let mut spent = vec![Vec::new(); names.len()];
    for (turn, which) in turns(2 * bench.runs + 1, names.len()).enumerate() {
        let of_turn = match which.checked_sub(1) {
            None => function.apply([bench.workload.event(CHANGES)]).await?,
            Some(client) => puts[client].put(bench.workload.rows(CHANGES).start, CHANGES).await?,
        };
        // The first turn opens the connections.
        if turn >= names.len() {
            spent[which].push(of_turn);
        }
    }
    let mut one_by_one = Puts::start(&bench.programs, "hand-made", &endpoint, 1)?;
    one_by_one.put(0, ONE_BY_ONE).await?;
    let answer = each(one_by_one.put(0, ONE_BY_ONE).await?.wall, ONE_BY_ONE);

    let latency = Duration::from_millis(LATENCY_MS.into());
    let ideal = each(latency * u32::try_from(CHANGES)?, IN_FLIGHT.into());
    let mut section = Section::new(
        "Pace",
        &format!(
            "The wall time of a batch of {} rows, DynamoDB answering after {LATENCY_MS} ms, with {IN_FLIGHT} writes \
             in flight. The ideal is {} × {LATENCY_MS} ms ÷ {IN_FLIGHT} = {}. One after the other, a write takes {} \
             here, with the way to the stub and back.",
            count(CHANGES),
            count(CHANGES),
            time(ideal),
            time(answer),
        ),
    );
    let to_ideal = |of: &[Spent]| Spread::of_ratios(of.iter().map(|spent| spent.wall), std::iter::repeat(ideal));
    bench.targets.note(Target::Wall, "", to_ideal(&spent[0]).median);
    bench.targets.note_beside(Target::Wall, "a request made by hand", to_ideal(&spent[2]).median);
    let rows = names.iter().zip(&spent).map(|(name, of)| {
        let Spent { wall, cpu, .. } = Spent::median(of);
        vec![(*name).to_owned(), to_ideal(of).to_string(), time(wall), time(cpu)]
    });
    section.table(&["", "to the ideal", "wall", "CPU"], rows);
    Ok(section.text())
}
