//! Writes the Lambda events of `events/` anew from the readable records in `events/source/`: `make events`.

use std::error::Error;

use dsql_view_support::events::{folder, samples};

fn main() -> Result<(), Box<dyn Error>> {
    for sample in samples()? {
        let path = folder().join(format!("{}.json", sample.name));
        std::fs::write(&path, sample.event_file())?;
        println!("events/{}.json: {} records", sample.name, sample.records.len());
    }
    Ok(())
}
