//! What a bucket costs a function that does not need it.

use serde_json::json;

use crate::figures::{Section, each, median, ratio, time, times, turns};
use crate::subject::{Spent, Subject};
use crate::{Bench, BoxError};

const CHANGES: u64 = 5_000;
const STARTS: usize = 15;

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let without = bench.programs.function(&bench.stub.endpoint());
    // Where nothing listens: a call would fail.
    let with = without.clone().with("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9").with("OBJECTS_BUCKET", "not-needed");
    let programs = [with, without];
    let mut inits = [Vec::new(), Vec::new()];
    for which in turns(STARTS, programs.len()) {
        inits[which].push(Subject::start(&programs[which]).await?.init);
    }
    let [with, without] = inits.map(median);
    let mut rows = vec![vec!["init".to_owned(), times(ratio(with, without)), time(with), time(without)]];

    let mut subjects = [Subject::start(&programs[0]).await?, Subject::start(&programs[1]).await?];
    for (name, superseded) in [("CPU of a change that is newer", 0.0), ("CPU of one that is superseded", 1.0)] {
        bench.progress(&format!("  {name}"));
        bench.stub.set(&json!({ "failed_share": superseded }))?;
        let mut spent = [Vec::new(), Vec::new()];
        for (turn, which) in turns(2 * bench.runs + 1, subjects.len()).enumerate() {
            let of_turn = subjects[which].apply([bench.workload.event(CHANGES)]).await?;
            if turn >= subjects.len() {
                spent[which].push(of_turn);
            }
        }
        let [with, without] = spent.map(|of| Spent::median(&of).cpu);
        let shown = [with, without].map(|cpu| time(each(cpu, CHANGES)));
        rows.push([vec![name.to_owned(), times(ratio(with, without))], shown.to_vec()].concat());
    }
    let mut section = Section::new(
        "A bucket that is not needed",
        "`OBJECTS_BUCKET` set, with batches that have nothing for it, against not set. The stub sends the live item with a refusal where it is \
         asked to, as DynamoDB does.",
    );
    section.table(&["", "ratio", "with", "without"], rows);
    Ok(section.text())
}
