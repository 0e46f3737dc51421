//! What the services do to the functions: calm, with a fault now and then, and storms of one kind.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dsql_view_support::proxy::{Call, Fault, Service};
use dsql_view_support::random::Random;

/// The faults to come, and those that came.
pub struct Storms {
    state: Mutex<State>,
    /// Whether DynamoDB forgets the conditions of some writes, which the run must notice.
    conditions_get_lost: bool,
}

struct State {
    random: Random,
    weather: Weather,
    /// So many calls are left of it, unless it lasts too long.
    left: usize,
    began: Instant,
    faults: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Calm,
    Throttling,
    Failing,
    Cutting,
    Slow,
}

/// What is counted in calls alone would not end where one call waits for the next.
const LONGEST_STORM: Duration = Duration::from_millis(1500);
const LONGEST_CALM: Duration = Duration::from_secs(6);

/// The function gives an attempt four seconds: its write happens after it has been given up.
const LONGER_THAN_AN_ATTEMPT: Duration = Duration::from_millis(4500);

impl Storms {
    pub fn new(seed: u64, conditions_get_lost: bool) -> Self {
        let state = State {
            random: Random::new(seed),
            weather: Weather::Calm,
            left: 200,
            began: Instant::now(),
            faults: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), conditions_get_lost }
    }

    /// What happens to a call.
    pub fn fault(&self, call: &Call) -> Fault {
        let mut state = self.state.lock().expect("no holder panics");
        if self.conditions_get_lost && call.operation == "PutItem" && state.random.percent(2) {
            return state.count("without its condition", Fault::WithoutCondition);
        }
        state.next(call.service)
    }

    /// How often each kind came.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().expect("no holder panics").faults.clone()
    }
}

impl State {
    fn next(&mut self, service: Service) -> Fault {
        let longest = if self.weather == Weather::Calm { LONGEST_CALM } else { LONGEST_STORM };
        if self.left == 0 || self.began.elapsed() > longest {
            use Weather::{Calm, Cutting, Failing, Slow, Throttling};
            let storms = [Throttling, Throttling, Failing, Cutting, Slow];
            let calm = self.random.percent(50);
            self.weather = if calm { Calm } else { storms[self.random.below(storms.len())] };
            self.began = Instant::now();
            self.left = if calm { 500 + self.random.below(5000) } else { 50 + self.random.below(300) };
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
        };
        if !self.random.percent(percent) {
            return Fault::None;
        }
        let happens_first = self.random.percent(50);
        match weather {
            Weather::Calm => Fault::None,
            Weather::Throttling if service == Service::DynamoDb => self.count("throttled", Fault::THROTTLED),
            Weather::Throttling => self.count("throttled", Fault::Error { status: 503, code: "SlowDown" }),
            Weather::Failing if happens_first => self.count("HTTP 500 after it was done", Fault::ErrorAfterTheWrite),
            Weather::Failing => self.count("HTTP 500 before it was done", Fault::ERROR_BEFORE_THE_WRITE),
            Weather::Cutting if happens_first => self.count("cut after it was done", Fault::CutAfterTheWrite),
            Weather::Cutting => self.count("cut before it was done", Fault::Cut),
            Weather::Slow if self.random.percent(1) => {
                self.count("done after it was given up", Fault::Delay(LONGER_THAN_AN_ATTEMPT))
            }
            Weather::Slow => {
                let time = Duration::from_millis(self.random.number() % 250);
                if happens_first {
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
