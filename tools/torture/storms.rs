//! The weather of the services: calm with a fault now and then, storms of one kind, and rows that cannot be written for
//! a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dsql_view::write::dynamodb::retry::{MOST_FAILURES, THROTTLED_FOR};
use dsql_view_support::proxy::{Call, Fault, Service};
use dsql_view_support::random::Random;

use crate::workload::Round;

/// The faults to come, and those that came.
pub struct Storms {
    state: Mutex<State>,
    /// The writes whose conditions DynamoDB forgets.
    broken: Broken,
}

/// Whether DynamoDB forgets the conditions of some writes, which the run must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    No,
    Puts,
    /// Creates that are sent together.
    Creates,
    /// Replays of old changes. DynamoDB has no part in these.
    Replays,
}

struct State {
    random: Random,
    weather: Weather,
    /// How many calls are left of the weather, unless it lasts too long.
    left: usize,
    began: Instant,
    /// The rows that are refused, by their view keys.
    refused: HashMap<String, Refused>,
    /// How many objects of the quarantine are refused from now on.
    refused_poison: u32,
    faults: BTreeMap<&'static str, u64>,
    /// Requests with creates that met a fault.
    faulty_creates: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Calm,
    Throttling,
    Failing,
    Cutting,
    Slow,
    Denying,
}

/// How a row is refused.
#[derive(Debug, Clone, Copy)]
struct Refused {
    how: Weather,
    /// How many more times it is refused.
    left: u32,
    /// When the refusals end, once they have begun.
    until: Option<Instant>,
}

/// A storm that is counted in calls alone would not end if one call waits for the next.
const LONGEST_STORM: Duration = Duration::from_millis(1500);
const LONGEST_CALM: Duration = Duration::from_secs(6);

/// The function gives an attempt four seconds, so this write happens after the function has given it up.
const LONGER_THAN_AN_ATTEMPT: Duration = Duration::from_millis(4500);

/// How the refused rows of a round are refused. An invocation gives a row up after a number of failures, or after a
/// time of throttling. The next invocation with the row meets the rest.
const REFUSED_ROWS: [Weather; 6] =
    [Weather::Failing, Weather::Cutting, Weather::Throttling, Weather::Slow, Weather::Failing, Weather::Cutting];
const REFUSED_ATTEMPTS: u32 = 3 * MOST_FAILURES;
const REFUSED_FOR: Duration = THROTTLED_FOR.saturating_add(Duration::from_secs(1));
/// How many times objects of the quarantine are refused in a round. This affects the objects of some records.
const REFUSED_OBJECTS: u32 = 24;

impl Storms {
    pub fn new(random: Random, broken: Broken) -> Self {
        let state = State {
            random,
            weather: Weather::Calm,
            left: 200,
            began: Instant::now(),
            refused: HashMap::new(),
            refused_poison: 0,
            faults: BTreeMap::new(),
            faulty_creates: 0,
        };
        Self { state: Mutex::new(state), broken }
    }

    /// Begins a round: some of its rows are refused for a while, and so are its poison records.
    pub fn begin(&self, round: &Round, random: &mut Random) {
        let mut state = self.state.lock().expect("no holder panics");
        state.refused.clear();
        for how in REFUSED_ROWS {
            let change = &round.changes[random.below(round.changes.len())];
            let left = match how {
                Weather::Throttling => u32::MAX,
                // Each refusal takes as long as an attempt, so the first invocation runs out of time with it.
                Weather::Slow => 4,
                _ => REFUSED_ATTEMPTS,
            };
            state.refused.insert(change.view_key(), Refused { how, left, until: None });
        }
        state.refused_poison = REFUSED_OBJECTS;
    }

    /// Decides what happens to a call.
    pub fn fault(&self, call: &Call) -> Fault {
        let mut state = self.state.lock().expect("no holder panics");
        let fault = self.drawn(&mut state, call);
        state.faulty_creates += u64::from(call.operation == "BatchExecuteStatement" && fault != Fault::None);
        fault
    }

    fn drawn(&self, state: &mut State, call: &Call) -> Fault {
        let is_broken = match self.broken {
            Broken::No | Broken::Replays => false,
            Broken::Puts => call.operation == "PutItem" && state.random.percent(2),
            Broken::Creates => call.operation == "BatchExecuteStatement",
        };
        if is_broken {
            return state.count("without its condition", Fault::WithoutCondition);
        }
        let is_poison = call.service == Service::S3 && call.method == "PUT" && call.path.contains("/quarantine/");
        if is_poison && state.refused_poison > 0 {
            state.refused_poison -= 1;
            return state.happens(Weather::Failing, call, false);
        }
        if let Some(kind) = state.refusal(call) {
            return match kind {
                Weather::Slow => state.count("done after it was given up", Fault::Delay(LONGER_THAN_AN_ATTEMPT)),
                kind => state.happens(kind, call, false),
            };
        }
        state.next(call)
    }

    /// How many requests with creates met a fault.
    pub fn faulty_creates(&self) -> u64 {
        self.state.lock().expect("no holder panics").faulty_creates
    }

    /// Whether the row with this key of the view is one of those that are refused for a while in this round.
    pub fn refuses(&self, view_key: &str) -> bool {
        self.state.lock().expect("no holder panics").refused.contains_key(view_key)
    }

    /// How often each kind of fault came.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().expect("no holder panics").faults.clone()
    }
}

impl State {
    /// How the row that a call writes is refused, if it is.
    fn refusal(&mut self, call: &Call) -> Option<Weather> {
        if !call.is_write() {
            return None;
        }
        let (_, row) = self.refused.iter_mut().find(|(key, row)| row.left > 0 && call.writes(key))?;
        let now = Instant::now();
        let until = *row.until.get_or_insert(now + REFUSED_FOR);
        row.left = if row.how == Weather::Throttling && now >= until { 0 } else { row.left - 1 };
        Some(row.how)
    }

    fn next(&mut self, call: &Call) -> Fault {
        let longest = if self.weather == Weather::Calm { LONGEST_CALM } else { LONGEST_STORM };
        if self.left == 0 || self.began.elapsed() > longest {
            use Weather::{Calm, Cutting, Denying, Failing, Slow, Throttling};
            let storms = [Throttling, Failing, Cutting, Slow, Denying];
            let is_calm = self.random.percent(50);
            self.weather = if is_calm { Calm } else { storms[self.random.below(storms.len())] };
            self.began = Instant::now();
            self.left = match self.weather {
                Calm => 500 + self.random.below(5000),
                // The function stops at the first call that is denied.
                Denying => 5,
                Throttling | Failing | Cutting | Slow => 50 + self.random.below(300),
            };
        }
        self.left -= 1;
        let (weather, percent) = match self.weather {
            Weather::Calm => {
                let all = [Weather::Throttling, Weather::Failing, Weather::Cutting, Weather::Slow];
                (all[self.random.below(all.len())], 2)
            }
            Weather::Throttling => (self.weather, 85),
            Weather::Failing | Weather::Cutting => (self.weather, 60),
            Weather::Slow => (self.weather, 50),
            Weather::Denying => (self.weather, 100),
        };
        // There are few calls of this kind.
        let percent = if call.operation == "BatchExecuteStatement" { percent.max(20) } else { percent };
        let is_done_first = self.random.percent(50);
        if self.random.percent(percent) { self.happens(weather, call, is_done_first) } else { Fault::None }
    }

    fn happens(&mut self, weather: Weather, call: &Call, is_done_first: bool) -> Fault {
        let is_database = call.service == Service::DynamoDb;
        match weather {
            Weather::Calm => Fault::None,
            Weather::Denying if is_database => {
                self.count("denied", Fault::Error { status: 400, code: "AccessDeniedException" })
            }
            Weather::Throttling if is_done_first && call.operation == "BatchExecuteStatement" => {
                self.count("throttled in part", Fault::Statements { code: "ThrottlingError" })
            }
            Weather::Throttling if is_database => self.count("throttled", Fault::THROTTLED),
            Weather::Denying | Weather::Throttling => {
                self.count("HTTP 503", Fault::Error { status: 503, code: "SlowDown" })
            }
            Weather::Failing if is_done_first => self.count("HTTP 500 after it was done", Fault::ErrorAfterTheWrite),
            Weather::Failing => self.count("HTTP 500 before it was done", Fault::ERROR_BEFORE_THE_WRITE),
            Weather::Cutting if is_done_first => self.count("cut after it was done", Fault::CutAfterTheWrite),
            Weather::Cutting => self.count("cut before it was done", Fault::Cut),
            Weather::Slow => {
                let time = Duration::from_millis(self.random.number() % 250);
                // A request that a killed function has sent to the bucket does not come so late. Otherwise the object
                // would be there again after it was retired.
                if is_done_first || !is_database {
                    self.count("answered late", Fault::DelayAfterTheWrite(time))
                } else {
                    self.count("done late", Fault::Delay(time))
                }
            }
        }
    }

    fn count(&mut self, kind: &'static str, fault: Fault) -> Fault {
        *self.faults.entry(kind).or_default() += 1;
        fault
    }
}
