//! Batches while DynamoDB throttles.

use std::time::{Duration, Instant};

use dynamodb_stub::burst;
use futures_util::future::try_join_all;
use serde_json::json;

use crate::figures::{Section, count, float, percent, time, times, turns};
use crate::subject::{Spent, Subject};
use crate::targets::Target;
use crate::{Bench, BoxError};

const BATCH: u64 = 1_000;
const LATENCY_MS: u32 = 5;
const SHARES: [f64; 3] = [0.0, 0.05, 0.3];
/// Writes a second, and how many functions write at the same time.
const RATES: [(u32, u64); 4] = [(500, 1), (2_000, 1), (500, 4), (2_000, 4)];
/// The least time for which each rate is tested.
const STORM: Duration = Duration::from_secs(8);

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let mut section = Section::new(
        "Throttling",
        &format!("Batches of {} rows. DynamoDB answers after {LATENCY_MS} ms, also if it throttles.", count(BATCH)),
    );
    at_random(bench, &mut section).await?;
    over_a_rate(bench, &mut section).await?;
    Ok(section.text())
}

async fn at_random(bench: &mut Bench, section: &mut Section) -> Result<(), BoxError> {
    let mut subject = Subject::start(&bench.programs.function(&bench.stub.endpoint())).await?;
    bench.stub.set_latency(LATENCY_MS)?;
    subject.apply([bench.workload.event(BATCH)]).await?;
    bench.progress("  a share of the requests throttled");
    let mut spent = vec![Vec::new(); SHARES.len()];
    let mut requests = [0; SHARES.len()];
    for (turn, which) in turns(2 * bench.runs, SHARES.len()).enumerate() {
        bench.stub.set(&json!({ "throttled_share": SHARES[which], "seed": turn }))?;
        bench.stub.reset()?;
        spent[which].push(subject.try_to_apply([bench.workload.event(BATCH)]).await?);
        requests[which] += bench.stub.counts()?.put_item;
    }
    let walls: Vec<_> = spent.iter().map(|of| Spent::wall_ratios(of, &spent[0])).collect();
    bench.targets.note(Target::Throttled5, "", walls[1].median);
    bench.targets.note(Target::Throttled30, "", walls[2].median);
    section.says("**At random**: the wall time of a batch, against a batch without throttling.");
    let mut rows = Vec::new();
    for (which, of) in spent.iter().enumerate() {
        let Spent { wall, reported, .. } = Spent::median(of);
        bench.targets.note(Target::Reported, format!("at {:.0} %", SHARES[which] * 100.0), float(reported));
        rows.push(vec![
            format!("{:.0} %", SHARES[which] * 100.0),
            walls[which].to_string(),
            time(wall),
            Spent::cpu_ratios(of, &spent[0]).to_string(),
            times(float(requests[which]) / float(BATCH * of.len() as u64)),
            count(reported),
        ]);
    }
    section.table(&["throttled", "wall", "of a batch", "CPU", "requests a change", "reported"], rows);
    Ok(())
}

async fn over_a_rate(bench: &mut Bench, section: &mut Section) -> Result<(), BoxError> {
    section.says(
        "**Over a rate**: DynamoDB accepts a number of writes a second (saved up for at most 50 ms), and throttles \
         all others. Each function gets one batch after the other, always with new rows. *Goodput* is the share of \
         the rate that was written, without the writes that were saved up before. Every change was either written or \
         reported for another delivery, or the bench would have failed.",
    );
    let program = bench.programs.function(&bench.stub.endpoint());
    let (mut rows, mut goodputs, mut all_reported) = (Vec::new(), Vec::new(), Vec::new());
    for (rate, functions) in RATES {
        bench.progress(&format!("  {rate} writes a second, {functions} functions"));
        bench.stub.set(&json!({ "throttled_share": 0.0, "rate": null }))?;
        let mut subjects = Vec::new();
        for _ in 0..functions {
            let mut subject = Subject::start(&program).await?;
            subject.apply([bench.workload.event(BATCH)]).await?;
            subjects.push(subject);
        }
        bench.stub.set(&json!({ "rate": rate }))?;
        bench.stub.reset()?;
        let started = Instant::now();
        let (mut changes, mut reported) = (0, 0);
        while started.elapsed() < STORM {
            let batches = subjects.iter_mut().map(|subject| subject.try_to_apply([bench.workload.event(BATCH)]));
            reported += try_join_all(batches).await?.iter().map(|spent| spent.reported).sum::<u64>();
            changes += BATCH * functions;
        }
        let time_taken = started.elapsed();
        let counts = bench.stub.counts()?;
        if counts.applied + reported < changes {
            return Err(format!("of {changes} changes {} were written and {reported} reported", counts.applied).into());
        }
        let goodput = (float(counts.applied) - burst(rate.into())) / (f64::from(rate) * time_taken.as_secs_f64());
        let name = format!("({rate} writes a second, {functions} functions)");
        goodputs.push((name.clone(), goodput));
        all_reported.push((name, float(reported)));
        rows.push(vec![
            count(rate.into()),
            functions.to_string(),
            percent(goodput),
            times(float(counts.put_item) / float(counts.applied)),
            count(changes),
            count(changes.saturating_sub(counts.applied)),
            count(reported),
        ]);
    }
    bench.targets.note_worst(Target::Goodput, goodputs);
    bench.targets.note_worst(Target::Reported, all_reported);
    section.table(&["rate", "functions", "goodput", "requests a write", "changes", "not written", "reported"], rows);
    Ok(())
}
