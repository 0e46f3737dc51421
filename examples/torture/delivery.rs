//! A round of records on its way through Lambda: the mapping, the functions and their ends.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use dsql_view_support::kinesis::{KinesisRecord, place, shard_id};
use dsql_view_support::lambda::{End, Invocation, Lambda};
use dsql_view_support::mapping::{AfterSplit, Delivery, Mapping, Outcome, Settings, UnknownNumber};
use dsql_view_support::queues;
use dsql_view_support::random::Random;
use serde_json::{Value, json};

use crate::checks::{Poison, Watch};
use crate::figures::Figures;
use crate::workload::{Kind, Round};
use crate::world::{ON_FAILURE, VIEW, World};

/// So many ends of invocations lie between two looks at the view.
const ENDS_BETWEEN_LOOKS: u64 = 100;
const SHARDS: usize = 4;

/// Lambda: both functions, and what has been given to them.
pub struct Deliveries {
    random: Random,
    function: Lambda<Delivery>,
    redrive: Lambda<Message>,
    /// The place of the next record in the stream.
    place: u64,
    /// The poison records so far.
    pub poison: Poison,
    pub watch: Watch,
}

/// A message of the on-failure queue.
struct Message {
    body: Value,
    receive_count: u32,
}

/// The records that nobody has answered for yet: their shards, by their places.
type Open = BTreeMap<u64, u32>;

impl Deliveries {
    pub fn new(world: &World, function: &Path, redrive: &Path, random: Random) -> Self {
        Self {
            random,
            function: Lambda::new(function, world.environment(), 8),
            redrive: Lambda::new(redrive, world.environment(), 3),
            place: 0,
            poison: Poison::new(),
            watch: Watch::default(),
        }
    }

    /// Delivers a round until nothing of it is left. `progress` is told now and then.
    pub async fn deliver(
        &mut self,
        world: &World,
        round: &Round,
        figures: &mut Figures,
        mut progress: impl FnMut(&Figures),
    ) -> Result<(), Box<dyn Error>> {
        let mut mapping = Mapping::new(self.settings(), self.random.number());
        let mut open = self.put(world, round, &mut mapping);
        let mut messages = VecDeque::new();
        loop {
            self.start_invocations(&mut mapping, figures)?;
            messages.extend(mapping.on_failure().into_iter().map(|body| Message { body, receive_count: 1 }));
            while self.redrive.has_room()
                && let Some(message) = messages.pop_front()
            {
                let event = queues::event(ON_FAILURE, "m", &message.body.to_string(), message.receive_count);
                let killed_after = killed_after(&mut self.random);
                let timeout = Duration::from_secs(60);
                self.redrive.invoke(message, Invocation { event: event.to_string().into(), timeout, killed_after })?;
            }
            tokio::select! {
                Some((delivery, end)) = self.function.next_end() => {
                    self.settle(&mut mapping, &mut open, &delivery, &end, figures);
                }
                Some((message, end)) = self.redrive.next_end() => {
                    figures.note(&end);
                    if Outcome::from(&end) == Outcome::Response(json!({ "batchItemFailures": [] })) {
                        figures.ranges += 1;
                        close(&mut open, &message.body["KinesisBatchInfo"]);
                    } else {
                        messages.push_back(Message { receive_count: message.receive_count + 1, ..message });
                    }
                }
                else => {
                    if mapping.is_through() && messages.is_empty() {
                        break;
                    }
                    // Nothing runs: what there is waits for its window.
                    mapping.pass(Duration::from_secs(1));
                }
            }
            mapping.pass(Duration::from_millis(self.random.number() % 20));
            if figures.invocations.is_multiple_of(ENDS_BETWEEN_LOOKS) {
                self.watch.look(&world.db.items(VIEW).await, figures);
            }
            progress(figures);
        }
        figures.unaccounted += open.len() as u64;
        figures.problems.extend(open.keys().map(|place| format!("nobody has answered for the record at {place}")));
        Ok(())
    }

    /// Another mapping for every round.
    fn settings(&mut self) -> Settings {
        let random = &mut self.random;
        let unknown = [UnknownNumber::FailsAll, UnknownNumber::Ignored];
        Settings {
            batch_size: [3, 10, 50, 200][random.below(4)],
            window: Duration::from_secs(random.number() % 3),
            parallelization: 1 + u32::try_from(random.below(10)).unwrap_or_default(),
            // Few, so that the redrive function has its part.
            maximum_retries: Some(u32::try_from(random.below(3)).unwrap_or_default()),
            maximum_age: random.percent(30).then_some(Duration::from_secs(60)),
            bisect: random.percent(50),
            report_failures: true,
            after_split: [AfterSplit::GoOn, AfterSplit::StartAnew][random.below(2)],
            unknown_number: unknown[random.below(2)],
        }
    }

    /// Puts the records into shards, at random.
    fn put(&mut self, world: &World, round: &Round, mapping: &mut Mapping) -> Open {
        let mut open = Open::new();
        for record in &round.records {
            let shard = u32::try_from(self.random.below(SHARDS)).unwrap_or_default();
            let kinesis = KinesisRecord { shard, ..KinesisRecord::at(self.place, &*record.data) };
            open.insert(self.place, shard);
            self.place += 1;
            if record.is == Kind::Poison {
                self.poison.insert(kinesis.sequence_number.clone(), record.data.to_vec());
            }
            world.shards.put([kinesis.clone()]);
            mapping.put(kinesis);
        }
        open
    }

    fn start_invocations(&mut self, mapping: &mut Mapping, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
        while self.function.has_room()
            && let Some(delivery) = mapping.next_delivery()
        {
            let random = &mut self.random;
            if random.percent(3) {
                figures.throttled += 1;
                mapping.settle(&delivery, &Outcome::Throttled);
                continue;
            }
            let short = random.percent(5).then(|| Duration::from_millis(50 + random.number() % 800));
            let timeout = short.unwrap_or(Duration::from_secs(20));
            let killed_after = killed_after(random);
            let event = delivery.event().to_string().into();
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
        let mut outcome = Outcome::from(end);
        if let Outcome::Response(answer) = &mut outcome
            && self.random.percent(3)
        {
            figures.garbled += 1;
            garble(answer, self.random.below(3));
        }
        let done = mapping.settle(delivery, &outcome);
        for record in &delivery.records[..done] {
            if let Some(place) = place(&record.sequence_number) {
                open.remove(&place);
            }
        }
    }
}

/// One of ten is killed, at any of its steps: a batch takes some milliseconds, and seconds in a storm.
fn killed_after(random: &mut Random) -> Option<Duration> {
    let before = [5, 20, 80, 320][random.below(4)];
    random.percent(10).then(|| Duration::from_millis(random.number() % before))
}

/// What is left of an answer that does not reach Lambda as it was given; never less than was reported.
fn garble(answer: &mut Value, how: usize) {
    match (how, answer["batchItemFailures"].as_array_mut()) {
        (0, Some(failures)) => failures.push(json!({ "itemIdentifier": "" })),
        (1, Some(failures)) => failures.push(json!({ "itemIdentifier": "1" })),
        _ => *answer = json!("Internal Server Error"),
    }
}

/// The records of a range are answered for.
fn close(open: &mut Open, range: &Value) {
    let end = |name: &str| range[name].as_str().and_then(place);
    let (Some(first), Some(last)) = (end("startSequenceNumber"), end("endSequenceNumber")) else { return };
    open.retain(|place, shard| !(first..=last).contains(place) || range["shardId"] != shard_id(*shard));
}
