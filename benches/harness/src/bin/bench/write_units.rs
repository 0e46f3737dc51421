//! DynamoDB's bill for a batch and for its repetitions.

use serde_json::json;

use crate::figures::{Section, count, float, times};
use crate::programs::Program;
use crate::subject::Subject;
use crate::targets::Target;
use crate::{Bench, BoxError};

/// Changes and rows of a batch.
const HISTORIES: [(u64, u64); 2] = [(1_000, 1_000), (1_000, 100)];

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let endpoint = bench.stub.endpoint();
    let mut programs = vec![bench.programs.function(&endpoint), bench.programs.plain(&endpoint)];
    programs.extend(bench.programs.node(&endpoint));
    programs.extend(bench.programs.python(&endpoint).into_iter().take(1));
    bench.stub.set(&json!({ "remember": true }))?;
    let mut rows = Vec::new();
    for (changes, of_rows) in HISTORIES {
        for program in &programs {
            bench.progress(&format!("  {}: {changes} changes of {of_rows} rows", program.name));
            let units = units(bench, program, changes, of_rows).await?;
            if program.name == programs[0].name {
                let rows = format!("({} of {} rows)", count(changes), count(of_rows));
                bench.targets.note(Target::FirstDelivery, &rows, float(units[0]) / float(of_rows));
                bench.targets.note(Target::Redelivery, &rows, float(units[1]));
            }
            let shown = units.map(|units| format!("{} ({})", times(float(units) / float(of_rows)), count(units)));
            rows.push([vec![count(changes), count(of_rows), program.name.to_owned()], shown.to_vec()].concat());
        }
    }
    let mut section = Section::new(
        "Write units",
        "This table shows DynamoDB's bill for a batch as a multiple of its rows, with the units in brackets. A first \
         delivery cannot cost less than one unit a row. The changes of a row come in no order. Then the same batch \
         comes again, to the same process and to one that has just started. DynamoDB bills a write whose condition is \
         not met like any other. The stub remembers each row's newest commit, checks the condition, and bills by \
         size. Every item has less than 1 KB. A row with columns in the bucket would take a request each time that it \
         comes.",
    );
    section.table(&["changes", "rows", "", "first delivery", "redelivery", "redelivery to a new process"], rows);
    Ok(section.text())
}

/// The units of a first delivery, of another to the same process, and of another to a new one.
pub async fn units(bench: &mut Bench, program: &Program, changes: u64, rows: u64) -> Result<[u64; 3], BoxError> {
    bench.stub.reset()?;
    let event = bench.workload.event_of_history(changes, rows);
    let mut subject = Subject::start(program).await?;
    let mut units = [0; 3];
    for (delivery, of_delivery) in units.iter_mut().enumerate() {
        if delivery == 2 {
            subject = Subject::start(program).await?;
        }
        let before = bench.stub.counts()?.write_units;
        subject.apply([event.clone()]).await?;
        *of_delivery = bench.stub.counts()?.write_units - before;
    }
    Ok(units)
}
