//! The function's part without the network, as `cargo bench --bench pipeline` has measured it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::BoxError;
use crate::figures::{Section, count, each, time};

const FOLDER: &str = "target/criterion";
const GROUPS: [(&str, &str); 2] = [
    ("event bytes to requests", "from the bytes of the event to ready requests"),
    ("of which parsing the event", "of which parsing the event"),
];
const BATCHES: [u64; 3] = [1, 100, 5_000];

pub fn measure() -> Result<String, BoxError> {
    let mut section = Section::new(
        "Without the network",
        "The time that a record takes before a request is sent, by criterion (`benches/pipeline.rs`), in one thread.",
    );
    let mut rows = Vec::new();
    for (group, name) in GROUPS {
        let mut row = vec![name.to_owned()];
        for batch in BATCHES {
            let file = Path::new(FOLDER).join(group).join(batch.to_string()).join("new/estimates.json");
            let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let estimates: Value = serde_json::from_str(&text)?;
            let nanoseconds = estimates["median"]["point_estimate"].as_f64().ok_or("no median")?;
            row.push(time(each(Duration::from_secs_f64(nanoseconds / 1e9), batch)));
        }
        rows.push(row);
    }
    let batches = BATCHES.map(|batch| format!("a batch of {}", count(batch)));
    let heads: Vec<&str> = [""].into_iter().chain(batches.iter().map(String::as_str)).collect();
    section.table(&heads, rows);
    Ok(section.text())
}
