//! Runs the functions' release binaries under everything that may happen to them at once, until the time is over.
//!
//! `make torture` builds them and starts this program. It ends after `CHANGES` changes or `DURATION` seconds, whichever
//! comes first, in whole rounds.
//!
//! `SEED` repeats which changes are written, in which order and where they arrive, what each delivery meets, and which
//! rows are refused. It does not repeat everything: storms follow the calls as they come, and concurrent work runs at
//! new moments each time.
//!
//! `BATCHED_CREATES` says whether both functions send creates together. Without it, that is drawn for each function.
//!
//! `DEFINITIONS` says whether the functions have a definitions file, with three tables of the view, conditions and rows
//! that expire. Without it, the seed draws that.
//!
//! `BROKEN=puts` lets DynamoDB forget the conditions of some puts. `BROKEN=creates` lets it forget what stands in the
//! way of creates that are sent together. `BROKEN=replays` replays old changes by force. With each of these, the run
//! must fail.

mod checks;
mod definitions;
mod delivery;
mod figures;
mod replays;
mod storms;
mod workload;
mod world;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dsql_view_support::cdc::Change;
use dsql_view_support::model::{Model, Reading, without_definitions};
use dsql_view_support::progress::Progress;
use dsql_view_support::random::Random;
use dsql_view_tools::given::{binary, exit_code, variable};

use crate::delivery::Deliveries;
use crate::figures::Figures;
use crate::replays::Replays;
use crate::storms::{Broken, Storms};
use crate::workload::Workload;
use crate::world::World;

/// A round of a short run has half of the run's changes, because only changes that come after a round show mistakes in
/// its replays.
const CHANGES_A_ROUND: u64 = 1000;
/// Tombstones expire after the second round. Changes that come after that must not bring a row back.
const FEWEST_ROUNDS: u64 = 3;
/// The most problems that are shown of a failed run.
const MOST_PROBLEMS: usize = 20;
/// Names the draw of whether a run has definitions.
const DRAWS_DEFINITIONS: u64 = 5;
/// The steps of the whole run.
const STEPS: u64 = 1000;

struct Settings {
    seed: u64,
    changes: u64,
    given_changes: Option<u64>,
    duration: Duration,
    batched_creates: Option<bool>,
    definitions: bool,
    broken: Broken,
    function: PathBuf,
    redrive: PathBuf,
}

impl Settings {
    fn from_environment() -> Result<Self, Box<dyn Error>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let changes = number("CHANGES")?;
        if changes == Some(0) || number("DURATION")? == Some(0) {
            return Err("CHANGES and DURATION: expected at least 1, found 0".into());
        }
        let broken = broken()?;
        let default = if changes.is_some() { u64::MAX } else { 120 };
        let seed = number("SEED")?.unwrap_or(u64::from(now.subsec_nanos()));
        let drawn = Random::of(&[seed, DRAWS_DEFINITIONS]).percent(50);
        Ok(Self {
            seed,
            definitions: variable("DEFINITIONS", "true or false")?.unwrap_or(drawn),
            given_changes: changes,
            changes: changes.unwrap_or(u64::MAX),
            duration: Duration::from_secs(number("DURATION")?.unwrap_or(default)),
            batched_creates: variable("BATCHED_CREATES", "true or false")?
                .or((broken == Broken::Creates).then_some(true)),
            broken,
            function: binary("FUNCTION", "release", "dsql-view")?,
            redrive: binary("REDRIVE", "release", "redrive")?,
        })
    }

    /// How far the run has come, by its changes or by its time.
    fn step(&self, figures: &Figures, elapsed: Duration) -> u64 {
        let of = |part: u128, whole: u128| part * u128::from(STEPS) / whole.max(1);
        let answered = figures.records.saturating_sub(figures.open);
        let changes = of(u128::from(figures.changes) * u128::from(answered), self.changes.into())
            / u128::from(figures.records.max(1));
        let time = of(elapsed.as_millis(), self.duration.as_millis());
        u64::try_from(changes.max(time)).unwrap_or(STEPS).min(STEPS)
    }
}

fn number(name: &str) -> Result<Option<u64>, String> {
    variable(name, "a whole number")
}

fn broken() -> Result<Broken, String> {
    match std::env::var("BROKEN").unwrap_or_default().as_str() {
        "" => Ok(Broken::No),
        "puts" => Ok(Broken::Puts),
        "creates" => Ok(Broken::Creates),
        "replays" => Ok(Broken::Replays),
        other => Err(format!("BROKEN is {other:?}: expected puts, creates or replays")),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(run().await, "The run could not be made")
}

/// Whether all went well.
async fn run() -> Result<bool, Box<dyn Error>> {
    let settings = Settings::from_environment()?;
    let (seed, mut random) = (settings.seed, Random::new(settings.seed));
    println!("SEED={seed} DEFINITIONS={}", settings.definitions);
    let reading: Reading = if settings.definitions { definitions::reading } else { without_definitions };
    let mut workload = Workload::new(random.number(), reading);
    let storms = Storms::new(Random::new(random.number()), settings.broken);
    let world = World::new(storms, settings.definitions).await?;
    let mut deliveries = Deliveries::new(&world, &settings, random.number());
    let mut model = Model::with(reading, "_");
    let mut figures = Figures { definitions: settings.definitions, ..Figures::default() };
    let force = settings.broken == Broken::Replays;
    let mut replays = Replays::new(settings.redrive.clone(), force, Random::new(random.number()));
    let mut progress = Progress::start(STEPS);
    let mut last_round_began = SystemTime::now();

    let is_time_left = |figures: &Figures, elapsed| figures.rounds < FEWEST_ROUNDS || elapsed < settings.duration;
    while figures.changes < settings.changes && is_time_left(&figures, progress.elapsed()) {
        let began = SystemTime::now();
        let round = workload.round(usize::try_from(CHANGES_A_ROUND.min(settings.changes.div_ceil(2)))?);
        round.changes.iter().for_each(|change| model.commit(change));
        replays.committed(&round.changes);
        figures.changes += round.changes.len() as u64;
        let is_hidden = |change: &&Change| change.row.is_some() && model.is_tombstone(change);
        figures.hidden += round.changes.iter().filter(is_hidden).count() as u64;
        figures.records += round.records.len() as u64;
        figures.duplicates += round.duplicates as u64;
        let show = |figures: &Figures| progress.show(settings.step(figures, progress.elapsed()), || figures.line());
        deliveries.deliver(&world, figures.rounds, &round, &mut figures, show).await?;
        if figures.problems.is_empty() {
            checks::compare(&world, &model, &deliveries.poison, &mut figures).await;
            figures.rounds += 1;
        }
        figures.poison = deliveries.poison.len() as u64;
        if !figures.problems.is_empty() {
            break;
        }
        // Changes of this round can come once more in the next round. Older changes cannot.
        let expired = checks::expire(&world, round.begins, began, &mut model, &mut figures).await;
        replays.replay(&world, &expired, &mut model, &mut figures).await?;
        checks::expire_objects(&world, last_round_began);
        deliveries.watch.forget();
        last_round_began = began;
    }

    let faults = world.storms.faults();
    figures.batched_creates = deliveries.batched_creates;
    (figures.creates, figures.faulty_creates) = (world.creates(), world.storms.faulty_creates());
    if figures.problems.is_empty() && figures.rounds >= FEWEST_ROUNDS {
        figures.look_for_what_did_not_come(&faults, deliveries.processes());
    }
    let took = progress.elapsed();
    progress.finish();
    println!("{}", figures.table(&faults, took));
    if figures.problems.is_empty() {
        println!("The view is the newest commit of every row, and every record is accounted for.");
        return Ok(true);
    }
    for problem in figures.problems.iter().take(MOST_PROBLEMS) {
        println!("{}", problem.chars().take(1000).collect::<String>());
    }
    let broken = match settings.broken {
        Broken::No => "",
        Broken::Puts => "BROKEN=puts ",
        Broken::Creates => "BROKEN=creates ",
        Broken::Replays => "BROKEN=replays ",
    };
    let batched = settings.batched_creates.map_or(String::new(), |batched| format!(" BATCHED_CREATES={batched}"));
    let changes = settings.given_changes.unwrap_or(figures.changes);
    let again = format!("SEED={seed} CHANGES={changes}{batched} DEFINITIONS={}", settings.definitions);
    println!("{} problems. Again: {broken}make torture {again}", figures.problems.len());
    Ok(false)
}
