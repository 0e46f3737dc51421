//! Makes Lambda events from change records.
//!
//! Without arguments (`make events`), it writes the events in `events/` again from `events/source/`. With two
//! arguments, it writes an event of your own from a file with one change record or an array of them: `make event
//! FROM=mine.json TO=mine-event.json`.

use std::error::Error;

use dsql_view_support::events::{event_of_records, folder, samples};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {
            for sample in samples()? {
                let path = folder().join(format!("{}.json", sample.name));
                std::fs::write(&path, sample.event_file())?;
                println!("events/{}.json: {} records", sample.name, sample.records.len());
            }
            Ok(())
        }
        [from, to] => {
            let records = std::fs::read_to_string(from).map_err(|error| format!("{from}: {error}"))?;
            let event = event_of_records(&records).map_err(|error| format!("{from}: {error}"))?;
            std::fs::write(to, event).map_err(|error| format!("{to}: {error}"))?;
            println!("{to}: make invoke EVENT={to}");
            Ok(())
        }
        _ => Err("expected no arguments, or a file with change records and the file to write".into()),
    }
}
