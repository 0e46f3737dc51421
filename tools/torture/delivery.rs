//! A round of records on its way through Lambda: the mapping, the functions and their ends.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::{Duration, Instant};

use dsql_view_support::kinesis::{KinesisRecord, place, shard_id};
use dsql_view_support::lambda::{End, Invocation, Lambda};
use dsql_view_support::mapping::{
    AfterSplit, Delivery, Mapping, Outcome, PartialWithBisect, Settings, TooOld, UnknownNumber,
};
use dsql_view_support::random::Random;
use dsql_view_tools::on_failure::{OnFailure, is_done};
use dsql_view_tools::quarantine::Poison;
use serde_json::{Value, json};

use crate::checks::Watch;
use crate::figures::Figures;
use crate::workload::{Kind, Round, Shows};
use crate::world::{ON_FAILURE, World};

/// The number of ends of invocations between two looks at the view.
const ENDS_BETWEEN_LOOKS: u64 = 10;
const SHARDS: u32 = 4;
/// A message that was received this often, or a round that stands still for so long, never ends.
const MOST_RECEIVES: u32 = 50;
const REDRIVE_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_STANDSTILL: Duration = Duration::from_secs(180);

/// Lambda: both functions, and the records that they were given.
pub struct Deliveries {
    seed: u64,
    function: Lambda<Delivery>,
    redrive: OnFailure,
    /// The place of the next record in the stream.
    place: u64,
    begun: Begun,
    /// Whether the function of the mapping sends creates together.
    pub batched_creates: bool,
    /// The poison records so far.
    pub poison: Poison,
    pub watch: Watch,
}

/// How often an invocation of a function began with the record at this place.
type Begun = HashMap<(u64, Role), u64>;

/// The random draws for a round or a delivery. Each has a source of its own, so that it does not depend on anything
/// else that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Round = 1,
    Function = 2,
    Redrive = 3,
    Answer = 4,
}

/// The records that nobody has answered for yet, by their places. Each has its shard, and the commit that the view must
/// show after it is done.
type Open = BTreeMap<u64, (u32, Option<Shows>)>;

impl Deliveries {
    pub fn new(world: &World, given: &crate::Settings, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let write_concurrency = [2, 8, 64][random.below(3)];
        let batched = [(); 2].map(|()| {
            let drawn = random.percent(50);
            given.batched_creates.unwrap_or(drawn)
        });
        let [function, redrive] = batched.map(|batched| world.environment(write_concurrency, batched));
        Self {
            seed,
            function: Lambda::new(&given.function, function, 8),
            redrive: OnFailure::new(ON_FAILURE, Lambda::new(&given.redrive, redrive, 3)),
            batched_creates: batched[0],
            place: 0,
            begun: Begun::new(),
            poison: Poison::new(),
            watch: Watch::default(),
        }
    }

    /// Delivers a round until nothing of it is left, or a problem is found. Calls `progress` now and then.
    pub async fn deliver(
        &mut self,
        world: &World,
        number: u64,
        round: &Round,
        figures: &mut Figures,
        mut progress: impl FnMut(&Figures),
    ) -> Result<(), Box<dyn Error>> {
        let mut random = Random::of(&[self.seed, Role::Round as u64, number]);
        let mut mapping = Mapping::new(settings(&mut random, number), random.number());
        let mut open = self.put(world, round, &mut random, &mut mapping);
        world.storms.begin(round, &mut random);
        let mut last_done = (open.len(), Instant::now());
        while figures.problems.is_empty() {
            self.start_invocations(&mut mapping, figures)?;
            mapping.on_failure().into_iter().for_each(|message| self.redrive.tell(message));
            self.redrive.start(REDRIVE_TIMEOUT, |message| {
                let first = message.body["KinesisBatchInfo"]["startSequenceNumber"].as_str().and_then(place);
                killed_after(&mut source(self.seed, &mut self.begun, Role::Redrive, first.unwrap_or_default()))
            })?;
            tokio::select! {
                Some((delivery, end)) = self.function.next_end() => {
                    figures.refused_rows += refused_rows(world, &open, &end);
                    self.settle(&mut mapping, &mut open, &delivery, &end, figures);
                }
                Some((message, end)) = self.redrive.next_end() => {
                    figures.note(&end);
                    if is_done(&end) {
                        figures.ranges += 1;
                        self.close(&mut open, &message.body["KinesisBatchInfo"]);
                    } else if message.receives > MOST_RECEIVES {
                        figures.problems.push(format!("the redrive function is never done with {}", message.body));
                    } else {
                        self.redrive.again(message);
                    }
                }
                else => {
                    if mapping.is_through() && self.redrive.is_through() {
                        break;
                    }
                    // Nothing runs, so the records that are left wait for their window.
                    mapping.pass(Duration::from_secs(1));
                }
            }
            mapping.pass(Duration::from_millis(10));
            if figures.invocations.is_multiple_of(ENDS_BETWEEN_LOOKS) {
                self.watch.look(world, &world.items().await, figures);
            }
            if open.len() < last_done.0 {
                last_done = (open.len(), Instant::now());
            } else if last_done.1.elapsed() > LONGEST_STANDSTILL {
                figures.problems.push(format!("nothing was done for {LONGEST_STANDSTILL:?}"));
            }
            figures.open = open.len() as u64;
            progress(figures);
        }
        world.quiet().await;
        if figures.problems.is_empty() {
            self.watch.look(world, &world.items().await, figures);
            figures.unaccounted += open.len() as u64;
            figures.problems.extend(open.keys().map(|place| format!("nobody has answered for the record at {place}")));
        }
        for shard in 0..SHARDS {
            world.services.shards.expire(shard, usize::MAX);
        }
        Ok(())
    }

    /// How many processes of the functions have been started.
    pub fn processes(&self) -> u64 {
        self.function.started() + self.redrive.processes()
    }

    /// Puts the records into shards, at random.
    fn put(&mut self, world: &World, round: &Round, random: &mut Random, mapping: &mut Mapping) -> Open {
        let mut open = Open::new();
        for record in &round.records {
            let shard = u32::try_from(random.number() % u64::from(SHARDS)).unwrap_or_default();
            let kinesis = KinesisRecord { shard, ..KinesisRecord::at(self.place, &*record.data) };
            open.insert(self.place, (shard, record.shows.clone()));
            self.place += 1;
            if record.is == Kind::Poison {
                self.poison.insert(kinesis.sequence_number.clone(), record.data.to_vec());
            }
            world.services.shards.put([kinesis.clone()]);
            mapping.put(kinesis);
        }
        open
    }

    fn start_invocations(&mut self, mapping: &mut Mapping, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
        while self.function.has_room()
            && let Some(delivery) = mapping.next_delivery()
        {
            let mut random = source(self.seed, &mut self.begun, Role::Function, first_of(&delivery));
            if random.percent(3) {
                figures.throttled += 1;
                mapping.settle(&delivery, &Outcome::Throttled);
                continue;
            }
            // Lambda ends processes when it likes. A new process knows neither rows nor how creates went.
            if random.percent(30) {
                self.function.end_idle();
            }
            let longest = [200, 1500][random.below(2)];
            let short = random.percent(20).then(|| Duration::from_millis(50 + random.number() % longest));
            let timeout = short.unwrap_or(Duration::from_secs(20));
            let event = delivery.event().to_string().into();
            let killed_after = killed_after(&mut random);
            self.function.invoke(delivery, Invocation { event, timeout, killed_after })?;
        }
        Ok(())
    }

    fn settle(
        &mut self,
        mapping: &mut Mapping,
        open: &mut Open,
        delivery: &Delivery,
        end: &End,
        figures: &mut Figures,
    ) {
        figures.note(end);
        let mut random = source(self.seed, &mut self.begun, Role::Answer, first_of(delivery));
        let mut outcome = Outcome::from(end);
        if let Outcome::Response(answer) = &mut outcome
            && random.percent(3)
        {
            figures.garbled += 1;
            garble(answer, random.below(3));
        }
        let done = mapping.settle(delivery, &outcome);
        for record in &delivery.records[..done] {
            let shows = place(&record.sequence_number).and_then(|place| open.remove(&place)?.1);
            if let Some(shows) = shows {
                self.watch.done(shows);
            }
        }
    }

    /// Notes that the records of a range are answered for.
    fn close(&mut self, open: &mut Open, range: &Value) {
        let end = |name: &str| range[name].as_str().and_then(place);
        let (Some(first), Some(last)) = (end("startSequenceNumber"), end("endSequenceNumber")) else { return };
        let is_in = |shard: u32| range["shardId"] == shard_id(shard);
        for (_, (_, shows)) in open.extract_if(first..=last, |_, (shard, _)| is_in(*shard)) {
            if let Some(shows) = shows {
                self.watch.done(shows);
            }
        }
    }
}

/// The random source for the n-th invocation that begins with this record.
fn source(seed: u64, begun: &mut Begun, role: Role, first: u64) -> Random {
    let count = begun.entry((first, role)).or_default();
    *count += 1;
    Random::of(&[seed, role as u64, first, *count])
}

/// The number of ways of failing in this invocation's log that concern a refused row. The row must have been given up
/// after all its attempts, and not just because the time was over.
fn refused_rows(world: &World, open: &Open, end: &End) -> u64 {
    let given_up = end.reported().filter(|line| {
        let is_after_all = line["reason"].as_str().is_some_and(|reason| reason.contains("did not confirm the write"));
        let lowest = line["lowest"].as_str().and_then(place).and_then(|place| open.get(&place)?.1.as_ref());
        is_after_all && lowest.is_some_and(|shows| world.storms.refuses(&shows.key))
    });
    given_up.count() as u64
}

fn first_of(delivery: &Delivery) -> u64 {
    delivery.records.first().and_then(|record| place(&record.sequence_number)).unwrap_or_default()
}

/// Another mapping for every round. Few retries and, in most rounds, no bisecting give the redrive function some work.
/// The rounds that make most rows have large batches, so that many creates come together.
fn settings(random: &mut Random, round: u64) -> Settings {
    let batch_sizes = if round % 3 == 2 { [20, 100, 100] } else { [5, 20, 100] };
    Settings {
        batch_size: batch_sizes[random.below(3)],
        window: Duration::from_secs(random.number() % 3),
        parallelization: 1 + u32::try_from(random.below(10)).unwrap_or_default(),
        maximum_retries: Some(u32::try_from(random.below(3)).unwrap_or_default()),
        maximum_age: random.percent(30).then_some(Duration::from_millis(1500)),
        bisect: round % 4 == 1,
        report_failures: true,
        after_split: [AfterSplit::GoOn, AfterSplit::StartAnew][random.below(2)],
        partial_with_bisect: [PartialWithBisect::UsesARetry, PartialWithBisect::UsesNone][random.below(2)],
        too_old: [TooOld::Batch, TooOld::Records][random.below(2)],
        unknown_number: [UnknownNumber::FailsAll, UnknownNumber::Ignored][random.below(2)],
    }
}

/// One of ten invocations is killed, at any of its steps. A batch takes some milliseconds, or seconds in a storm.
fn killed_after(random: &mut Random) -> Option<Duration> {
    let before = [5, 20, 80, 320][random.below(4)];
    random.percent(10).then(|| Duration::from_millis(random.number() % before))
}

/// Garbles an answer, as if Lambda did not receive it as it was given. It still reports at least the records that it
/// reported before.
fn garble(answer: &mut Value, how: usize) {
    match (how, answer["batchItemFailures"].as_array_mut()) {
        (0, Some(failures)) => failures.push(json!({ "itemIdentifier": "" })),
        (1, Some(failures)) => failures.push(json!({ "itemIdentifier": "1" })),
        _ => *answer = json!("Internal Server Error"),
    }
}
