//! The cost of a bucket for a function that does not need it.

use serde_json::json;

use crate::figures::{Section, Spread, each, median, time, turns};
use crate::subject::{Spent, Subject};
use crate::{Bench, BoxError};

const CHANGES: u64 = 5_000;
const STARTS: usize = 31;
/// Figures that are nearly equal take more turns.
const TURNS_A_RUN: usize = 5;

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let without = bench.programs.function(&bench.stub.endpoint());
    // Nothing listens there, so a call would fail.
    let with = without.clone().with("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9").with("OBJECTS_BUCKET", "not-needed");
    let programs = [with, without];
    let mut inits = [Vec::new(), Vec::new()];
    for which in turns(STARTS, programs.len()) {
        inits[which].push(Subject::start(&programs[which]).await?.init);
    }
    let ratio = Spread::of_ratios(inits[0].iter().copied(), inits[1].iter().copied());
    let [with, without] = inits.map(median).map(time);
    let mut rows = vec![vec!["init".to_owned(), ratio.to_string(), with, without]];

    let mut subjects = [Subject::start(&programs[0]).await?, Subject::start(&programs[1]).await?];
    for (name, superseded) in [("CPU of a change that is newer", 0.0), ("CPU of one that is superseded", 1.0)] {
        bench.progress(&format!("  {name}"));
        bench.stub.set(&json!({ "failed_share": superseded }))?;
        let mut spent = [Vec::new(), Vec::new()];
        for (turn, which) in turns(TURNS_A_RUN * bench.runs + 1, subjects.len()).enumerate() {
            let of_turn = subjects[which].apply([bench.workload.event(CHANGES)]).await?;
            if turn >= subjects.len() {
                spent[which].push(of_turn);
            }
        }
        let ratio = Spent::cpu_ratios(&spent[0], &spent[1]);
        let [with, without] = spent.map(|of| time(each(Spent::median(&of).cpu, CHANGES)));
        rows.push(vec![name.to_owned(), ratio.to_string(), with, without]);
    }
    let mut section = Section::new(
        "A bucket that is not needed",
        "`OBJECTS_BUCKET` set against not set, with batches that need no bucket. If a request asks for it, the stub \
         sends the live item with a refusal, as DynamoDB does.",
    );
    section.table(&["", "ratio", "with", "without"], rows);
    Ok(section.text())
}
