//! Treats metrics as CloudWatch does: keeps values by name and dimensions, and makes statistics of them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value as Json;

/// The name and the dimensions of a metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    pub namespace: String,
    pub name: String,
    /// The values of its dimensions, in the order in which a dashboard names them.
    pub of: Vec<String>,
}

impl Metric {
    pub fn new(namespace: &str, name: &str, of: &[&str]) -> Self {
        let of = of.iter().map(|&value| value.to_owned()).collect();
        Self { namespace: namespace.to_owned(), name: name.to_owned(), of }
    }
}

/// A value, and how often it occurs.
type Weighted = (f64, f64);

/// The values of a run.
#[derive(Debug)]
pub struct Numbers {
    began: SystemTime,
    values: BTreeMap<Metric, Vec<(f64, Weighted)>>,
}

impl Numbers {
    pub fn since(began: SystemTime) -> Self {
        Self { began, values: BTreeMap::new() }
    }

    /// Takes a value of one of AWS's own metrics.
    pub fn add(&mut self, metric: Metric, at: SystemTime, value: f64) {
        let at = at.duration_since(self.began).unwrap_or_default().as_secs_f64();
        self.values.entry(metric).or_default().push((at, (value, 1.0)));
    }

    /// Takes the values of a line in the embedded metric format. Any other line is passed over.
    pub fn read(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Json>(line) else { return };
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        let (Some(namespace), Some(metrics)) = (directive["Namespace"].as_str(), directive["Metrics"].as_array())
        else {
            return;
        };
        let milliseconds = line["_aws"]["Timestamp"].as_u64().unwrap_or_default();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        let at = at.duration_since(self.began).unwrap_or_default().as_secs_f64();
        let names = directive["Dimensions"][0].as_array().into_iter().flatten().filter_map(Json::as_str);
        let of: Vec<&str> = names.filter_map(|name| line[name].as_str()).collect();
        for name in metrics.iter().filter_map(|metric| metric["Name"].as_str()) {
            let values = self.values.entry(Metric::new(namespace, name, &of)).or_default();
            match (line[name].as_f64(), line[name]["Values"].as_array(), line[name]["Counts"].as_array()) {
                (Some(value), ..) => values.push((at, (value, 1.0))),
                (None, Some(several), Some(counts)) => {
                    let pairs = several.iter().zip(counts);
                    values.extend(pairs.filter_map(|(value, count)| Some((at, (value.as_f64()?, count.as_f64()?)))));
                }
                _ => {}
            }
        }
    }

    /// The metrics of this name whose first dimension has this value, and that have a second dimension.
    pub fn by_second_dimension(&self, name: &str, first: &str) -> Vec<Metric> {
        let is_meant = |metric: &&Metric| metric.name == name && metric.of.len() == 2 && metric.of[0] == first;
        self.values.keys().filter(is_meant).cloned().collect()
    }

    /// A statistic of each second that has values.
    pub fn by_second(&self, metric: &Metric, statistic: &str) -> Vec<(f64, f64)> {
        let mut seconds: BTreeMap<u64, Vec<Weighted>> = BTreeMap::new();
        for (at, value) in self.values.get(metric).into_iter().flatten() {
            seconds.entry(Duration::from_secs_f64(*at).as_secs()).or_default().push(*value);
        }
        let second = |second: u64| Duration::from_secs(second).as_secs_f64();
        seconds.into_iter().map(|(at, values)| (second(at), of(statistic, values))).collect()
    }

    /// A statistic of all values. `None` if there are no values.
    pub fn in_all(&self, metric: &Metric, statistic: &str) -> Option<f64> {
        let values: Vec<Weighted> = self.values.get(metric)?.iter().map(|(_, value)| *value).collect();
        Some(of(statistic, values))
    }
}

/// `Sum`, `Maximum`, or a percentile such as `p99`.
fn of(statistic: &str, mut values: Vec<Weighted>) -> f64 {
    values.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let last = values.last().map_or(0.0, |(value, _)| *value);
    match statistic.strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok()) {
        Some(percent) => {
            let all: f64 = values.iter().map(|(_, count)| count).sum();
            let mut below = 0.0;
            let reaches = |(_, count): &&Weighted| {
                below += count;
                below >= all * percent / 100.0
            };
            values.iter().find(reaches).map_or(last, |(value, _)| *value)
        }
        None if statistic == "Maximum" => last,
        None => values.iter().map(|(value, count)| value * count).sum(),
    }
}
