//! The stub's settings, as flags and as JSON.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The settings of the stub. As a flag, `failed_share` is `--failed-share 0.5`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long an answer takes, in milliseconds.
    pub latency_ms: f64,
    /// How long an answer to a request with many statements takes; as long as any other, if it is not set.
    pub statements_latency_ms: Option<f64>,
    /// The share of puts whose condition is not met, 0 to 1; ignored if items are remembered.
    pub failed_share: f64,
    /// The share of requests that are throttled, 0 to 1.
    pub throttled_share: f64,
    /// The rate of accepted writes a second; writes above it are throttled.
    pub rate: Option<f64>,
    /// The share of statements whose condition is met, 0 to 1.
    pub statement_hits: f64,
    /// Whether it remembers the newest commit of each key, checks the condition by it, and counts write units.
    pub remember: bool,
    /// Whether its table has an index, whose key is `GSI1PK` and `GSI1SK`.
    pub indexed: bool,
    /// The seed of its random decisions.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency_ms: 0.0,
            statements_latency_ms: None,
            failed_share: 0.0,
            throttled_share: 0.0,
            rate: None,
            statement_hits: 1.0,
            remember: false,
            indexed: false,
            seed: 1,
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingsError(String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// These settings with the members of a JSON object in place of their own.
    pub fn with(&self, changes: &[u8]) -> Result<Self, SettingsError> {
        let changes = serde_json::from_slice(changes).map_err(|error| SettingsError(error.to_string()))?;
        self.with_members(changes)
    }

    /// The settings from flags: `--name value`, or `--name` alone to switch something on.
    pub fn from_flags(flags: impl IntoIterator<Item = String>) -> Result<Self, SettingsError> {
        let mut members = Map::new();
        let mut flags = flags.into_iter().peekable();
        while let Some(flag) = flags.next() {
            let name =
                flag.strip_prefix("--").ok_or_else(|| SettingsError(format!("expected a flag, found {flag:?}")))?;
            let value = flags.next_if(|next| !next.starts_with("--"));
            let value =
                value.map_or(Value::Bool(true), |text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
            members.insert(name.replace('-', "_"), value);
        }
        Self::default().with_members(members)
    }

    /// How long an answer takes to a request with many statements, or to another request.
    pub fn latency_of(&self, statements: bool) -> Duration {
        let latency_ms = self.statements_latency_ms.filter(|_| statements).unwrap_or(self.latency_ms);
        Duration::from_secs_f64(latency_ms / 1e3)
    }

    fn with_members(&self, changes: Map<String, Value>) -> Result<Self, SettingsError> {
        let not_right = |error: serde_json::Error| SettingsError(error.to_string());
        let mut members = serde_json::to_value(self).map_err(not_right)?;
        members.as_object_mut().expect("settings are an object").extend(changes);
        let settings: Self = serde_json::from_value(members).map_err(not_right)?;
        let shares = [settings.failed_share, settings.throttled_share, settings.statement_hits];
        if !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err(SettingsError("a share is a number from 0 to 1".to_owned()));
        }
        let latencies = [Some(settings.latency_ms), settings.statements_latency_ms];
        if latencies.iter().flatten().any(|latency| *latency < 0.0) || settings.rate.is_some_and(|rate| rate <= 0.0) {
            return Err(SettingsError("a latency is not negative, and a rate is positive".to_owned()));
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Result<Settings, SettingsError> {
        Settings::from_flags(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_and_json_say_the_same() {
        let by_flags = flags("--latency-ms 5 --remember --rate 1000 --failed-share 0.5").unwrap();
        let by_json = br#"{"latency_ms":5,"remember":true,"rate":1000,"failed_share":0.5}"#;
        assert_eq!(by_flags, Settings::default().with(by_json).unwrap());
        let expected =
            Settings { latency_ms: 5.0, remember: true, rate: Some(1000.0), failed_share: 0.5, ..Settings::default() };
        assert_eq!(by_flags, expected);
        assert_eq!(by_flags.with(br#"{"rate":null}"#).unwrap(), Settings { rate: None, ..expected });
    }

    #[test]
    fn statements_take_as_long_as_puts_unless_they_are_told_to() {
        let same = flags("--latency-ms 5").unwrap();
        assert_eq!(
            (same.latency_of(false), same.latency_of(true)),
            (Duration::from_millis(5), Duration::from_millis(5))
        );
        let slower = same.with(br#"{"statements_latency_ms":25}"#).unwrap();
        assert_eq!(
            (slower.latency_of(false), slower.latency_of(true)),
            (Duration::from_millis(5), Duration::from_millis(25))
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in [
            "--latency 5",
            "latency-ms 5",
            "--failed-share 50",
            "--rate 0",
            "--latency-ms -1",
            "--statements-latency-ms -1",
            "--rate fast",
        ] {
            assert!(flags(wrong).is_err(), "{wrong}");
        }
        assert!(Settings::default().with(b"5").is_err());
    }
}
