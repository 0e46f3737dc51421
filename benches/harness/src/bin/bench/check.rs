//! `bench check`: counts the targets that can be counted, on small batches, with the binaries that are there. It
//! measures no time.

use serde_json::json;
use tempfile::TempDir;

use crate::programs::Program;
use crate::subject::Subject;
use crate::{Bench, BoxError, definitions, write_units};

/// Few enough that the memory of known rows, which has a fixed size, forgets none of them.
const ROWS: u64 = 100;
const CHANGES: u64 = 300;

/// Fails if a count is wrong.
pub async fn run(bench: &mut Bench) -> Result<(), BoxError> {
    // Few at a time: on a slow machine, the function would otherwise give up a late answer and count its write twice.
    let function = bench.programs.function(&bench.stub.endpoint()).with("WRITE_CONCURRENCY", "4");
    bench.progress("write units: one a row, and none for the same batch again");
    bench.stub.set(&json!({ "remember": true }))?;
    let [first, again, to_another] = write_units::units(bench, &function, CHANGES, ROWS).await?;
    expect("write units of a first delivery", ROWS, first)?;
    expect("write units of a second one to the same process", 0, again)?;
    expect("write units of one to a new process", ROWS, to_another)?;

    bench.progress("a definitions file: the same items by names and keys alone, other ones by a full definition");
    let endpoint = bench.stub.endpoint();
    let folder = TempDir::new()?;
    let names = folder.path().join("names-and-keys.toml");
    std::fs::write(&names, definitions::names_and_keys())?;
    let few = |program: Program| program.with("WRITE_CONCURRENCY", "4");
    let names = few(bench.programs.defined(&endpoint, &names));
    let full = few(bench.programs.defined(&endpoint, &bench.programs.of_project(definitions::FULL)));
    let without = definitions::item_bytes(bench, &function).await?;
    expect("bytes of the items by names and keys", without, definitions::item_bytes(bench, &names).await?)?;
    let shaped = definitions::shaped_bytes() as u64;
    expect("bytes of the items by a full definition", shaped, definitions::item_bytes(bench, &full).await?)?;
    bench.stub.set(&json!({ "remember": true }))?;
    let [first, again, _] = write_units::units(bench, &full, CHANGES, ROWS).await?;
    expect("write units of a first delivery with a full definition", ROWS, first)?;
    expect("write units of a second one to the same process", 0, again)?;

    bench.stub.set(&json!({ "remember": false }))?;
    for batched in [true, false] {
        bench.progress(&format!("creates, with BATCHED_CREATES={batched}"));
        bench.stub.reset()?;
        let program = function.clone().with("BATCHED_CREATES", batched.to_string());
        Subject::start(&program).await?.apply([bench.workload.event_of_creates(CHANGES)]).await?;
        let counts = bench.stub.counts()?;
        expect("creates that were sent", CHANGES, counts.put_item + counts.statements)?;
        if (counts.statements > 0) != batched {
            return Err(
                format!("{} creates were sent together, with BATCHED_CREATES={batched}", counts.statements).into()
            );
        }
    }

    bench.progress("nothing is reported while some requests are throttled");
    bench.stub.set(&json!({ "throttled_share": 0.05 }))?;
    bench.stub.reset()?;
    Subject::start(&function).await?.apply([bench.workload.event(CHANGES)]).await?;
    let counts = bench.stub.counts()?;
    if counts.put_item <= CHANGES {
        return Err(format!("expected some of the {} puts to be throttled, found none", counts.put_item).into());
    }
    expect("changes that were written", CHANGES, counts.applied)
}

fn expect(what: &str, expected: u64, found: u64) -> Result<(), BoxError> {
    if found == expected { Ok(()) } else { Err(format!("{what}: expected {expected}, found {found}").into()) }
}
