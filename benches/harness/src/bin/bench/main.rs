//! `make bench`: measures the release binary beside other programs for the same task, and writes docs/benchmarks.md.
//!
//! | variable | |
//! |---|---|
//! | `ONLY` | the sections to measure and only print, separated by commas; all, if it is empty |
//! | `RUNS` | how many times each figure is measured; its median counts |
//! | `FUNCTION` | the function's binary, if it is not the one beside this |
//! | `BEFORE` | the binary of an earlier version, to which the section `definitions` compares this one |
//!
//! With the argument `check` it counts instead of measuring, on small batches, and fails if a count is wrong.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

mod bucket;
mod check;
mod creates;
mod definitions;
mod figures;
mod growth;
mod instructions;
mod machine;
mod pace;
mod peers;
mod pipeline;
mod programs;
mod puts;
mod requests;
mod round_trip;
mod start;
mod stub;
mod subject;
mod targets;
mod throttling;
mod write_units;

use dsql_view_bench::workload::Workload;
use programs::Programs;
use stub::StubProcess;
use targets::Targets;

/// An error that ends the bench.
pub type BoxError = Box<dyn Error + Send + Sync>;

const SECTIONS: [&str; 11] = [
    "peers",
    "requests",
    "write-units",
    "start",
    "growth",
    "pace",
    "creates",
    "throttling",
    "bucket",
    "definitions",
    "pipeline",
];
const DOCUMENT: &str = "docs/benchmarks.md";
const RUNS: usize = 5;

/// The tools that all sections measure with.
pub struct Bench {
    runs: usize,
    programs: Programs,
    /// The binary of an earlier version.
    before: Option<PathBuf>,
    stub: StubProcess,
    workload: Workload,
    targets: Targets,
    started: Instant,
}

impl Bench {
    /// Prints the step that is being measured.
    fn progress(&self, what: &str) {
        eprintln!("{:>5.0} s  {what}", self.started.elapsed().as_secs_f64());
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let only = variable("ONLY").unwrap_or_else(|| SECTIONS.join(","));
    let only: Vec<&str> = only.split(',').map(str::trim).collect();
    if let Some(unknown) = only.iter().find(|name| !SECTIONS.contains(name)) {
        return Err(format!("ONLY: expected some of {}, found {unknown}", SECTIONS.join(", ")).into());
    }
    let programs = Programs::find(variable("FUNCTION"))?;
    let stub = StubProcess::start(&programs)?;
    let runs = variable("RUNS").map_or(Ok(RUNS), |runs| runs.parse())?;
    let (workload, targets) = (Workload::default(), Targets::default());
    let before = variable("BEFORE").map(std::path::absolute).transpose()?;
    let mut bench = Bench { runs, programs, before, stub, workload, targets, started: Instant::now() };

    if std::env::args().nth(1).is_some_and(|argument| argument == "check") {
        return check::run(&mut bench).await;
    }
    bench.programs.peers_are_built()?;
    let mut sections = Vec::new();
    for section in &only {
        bench.progress(section);
        bench.stub.set(&serde_json::json!(dynamodb_stub::Settings::default()))?;
        bench.stub.reset()?;
        let measured = section_of(section, &mut bench).await.map_err(|error| format!("{section}: {error}"))?;
        println!("\n{measured}");
        sections.push(measured);
    }
    if let Some(reached) = std::mem::take(&mut bench.targets).section() {
        println!("\n{reached}");
        sections.insert(0, reached);
    }
    if only.len() == SECTIONS.len() {
        sections.insert(0, machine::heading(&bench.programs));
        std::fs::write(DOCUMENT, sections.join("\n"))?;
        bench.progress(&format!("{DOCUMENT} is written"));
    }
    Ok(())
}

async fn section_of(name: &str, bench: &mut Bench) -> Result<String, BoxError> {
    match name {
        "peers" => peers::measure(bench).await,
        "requests" => requests::measure(bench).await,
        "write-units" => write_units::measure(bench).await,
        "start" => start::measure(bench).await,
        "growth" => growth::measure(bench).await,
        "pace" => pace::measure(bench).await,
        "creates" => creates::measure(bench).await,
        "throttling" => throttling::measure(bench).await,
        "bucket" => bucket::measure(bench).await,
        "definitions" => definitions::measure(bench).await,
        "pipeline" => pipeline::measure(),
        _ => unreachable!("the names are checked"),
    }
}

/// Longer than any batch takes.
const PLENTY: Duration = Duration::from_secs(800);
