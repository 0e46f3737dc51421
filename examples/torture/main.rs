//! The functions' release binaries under everything that may happen to them at once, until the time is over.
//!
//! `make torture` builds them and starts this. `SEED` repeats what is written, in which order it arrives, and what goes wrong; only the
//! moments at which what runs at once takes place are new each time. It ends after `CHANGES` changes or `DURATION` seconds, whichever
//! comes first. `BROKEN=1` lets DynamoDB forget the conditions of some writes: then the run must fail.

mod checks;
mod delivery;
mod figures;
mod storms;
mod workload;
mod world;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dsql_view_support::model::Model;
use dsql_view_support::progress::Progress;
use dsql_view_support::random::Random;

use crate::delivery::Deliveries;
use crate::figures::Figures;
use crate::storms::Storms;
use crate::workload::Workload;
use crate::world::World;

const CHANGES_A_ROUND: u64 = 2000;
/// What is shown of a failed run.
const MOST_PROBLEMS: usize = 20;
/// The steps of the whole run.
const STEPS: u64 = 1000;

struct Settings {
    seed: u64,
    changes: u64,
    duration: Duration,
    conditions_get_lost: bool,
    function: PathBuf,
    redrive: PathBuf,
}

impl Settings {
    fn from_environment() -> Result<Self, Box<dyn Error>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let changes = number("CHANGES")?;
        let default = if changes.is_some() { u64::MAX } else { 120 };
        Ok(Self {
            seed: number("SEED")?.unwrap_or(u64::from(now.subsec_nanos())),
            changes: changes.unwrap_or(u64::MAX),
            duration: Duration::from_secs(number("DURATION")?.unwrap_or(default)),
            conditions_get_lost: number("BROKEN")?.is_some_and(|broken| broken != 0),
            function: binary("FUNCTION", "dsql-view")?,
            redrive: binary("REDRIVE", "redrive")?,
        })
    }

    /// How far a run is, by its changes or by its time.
    fn step(&self, figures: &Figures, elapsed: Duration) -> u64 {
        let of = |part: u128, whole: u128| part * u128::from(STEPS) / whole.max(1);
        let changes = of(figures.changes.saturating_sub(CHANGES_A_ROUND).into(), self.changes.into());
        let time = of(elapsed.as_millis(), self.duration.as_millis());
        u64::try_from(changes.max(time)).unwrap_or(STEPS).min(STEPS)
    }
}

/// A variable that holds a whole number; an empty one holds none.
fn number(name: &str) -> Result<Option<u64>, String> {
    let value = std::env::var(name).unwrap_or_default();
    let number = (!value.is_empty()).then(|| value.parse());
    number.transpose().map_err(|_| format!("{name} is {value:?}: expected a whole number"))
}

fn binary(variable: &str, name: &str) -> Result<PathBuf, String> {
    let given = std::env::var_os(variable).filter(|path| !path.is_empty());
    let path = given.map_or(PathBuf::from("target/release").join(name), PathBuf::from);
    let found = path.is_file().then(|| path.clone());
    found.ok_or(format!("{variable}: expected a function's binary at {}: run `make torture`", path.display()))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe run could not be made: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
async fn run() -> Result<bool, Box<dyn Error>> {
    let settings = Settings::from_environment()?;
    let mut random = Random::new(settings.seed);
    println!("SEED={}", settings.seed);
    let mut workload = Workload::new(random.number());
    let world = World::new(Storms::new(random.number(), settings.conditions_get_lost)).await;
    let mut deliveries = Deliveries::new(&world, &settings.function, &settings.redrive, random);
    let (mut model, mut figures) = (Model::default(), Figures::default());
    let mut progress = Progress::start(STEPS);
    let mut last_round_began = SystemTime::now();

    while figures.changes < settings.changes && progress.elapsed() < settings.duration {
        let began = SystemTime::now();
        let round = workload.round(usize::try_from(CHANGES_A_ROUND.min(settings.changes - figures.changes))?);
        round.changes.iter().for_each(|change| model.commit(change));
        figures.changes += round.changes.len() as u64;
        figures.records += round.records.len() as u64;
        figures.duplicates += round.duplicates as u64;
        let show = |figures: &Figures| progress.show(settings.step(figures, progress.elapsed()), || figures.line());
        deliveries.deliver(&world, &round, &mut figures, show).await?;

        checks::compare(&world, &model, &deliveries.poison, &mut figures).await;
        figures.rounds += 1;
        figures.poison = deliveries.poison.len() as u64;
        if !figures.problems.is_empty() {
            break;
        }
        // What this round has written can come once more in the next; what is older cannot.
        checks::expire_tombstones(&world, round.begins, &mut model, &mut figures).await;
        checks::expire_objects(&world, last_round_began);
        deliveries.watch.forget();
        last_round_began = began;
    }

    println!("{}", figures.table(&world.storms.faults(), progress.elapsed()));
    progress.finish();
    if figures.problems.is_empty() {
        println!("The view is the newest commit of every row, and every record is accounted for.");
        return Ok(true);
    }
    for problem in figures.problems.iter().take(MOST_PROBLEMS) {
        println!("{}", problem.chars().take(1000).collect::<String>());
    }
    println!(
        "{} problems. Again: make torture SEED={} CHANGES={}",
        figures.problems.len(),
        settings.seed,
        figures.changes
    );
    Ok(false)
}
