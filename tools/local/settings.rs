//! The settings of a run, in the variables that `make local` passes on.

use std::time::Duration;

/// The settings of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Changes a second.
    pub rate: u64,
    /// Of a hundred records, how many are held back.
    pub disorder: u64,
    /// Of a hundred records, how many come again.
    pub duplicates: u64,
    /// Of a hundred writes, how many DynamoDB refuses.
    pub faults: u64,
    /// How long changes are made. `None` means until Ctrl-C.
    pub duration: Option<Duration>,
    /// Whether a change is left out of the stream, which the comparison must notice.
    pub broken: bool,
}

impl Settings {
    /// The settings in the environment.
    ///
    /// # Errors
    /// All settings that are wrong.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut problems = Vec::new();
        let mut number = |name: &str, default: u64, from: u64, to: u64| {
            let given = variable(name).filter(|value| !value.is_empty());
            let number = given.as_ref().map_or(Some(default), |value| value.parse().ok());
            number.filter(|number| (from..=to).contains(number)).unwrap_or_else(|| {
                let found = given.unwrap_or_default();
                problems.push(format!("{name}: expected a whole number from {from} to {to}, found {found:?}"));
                default
            })
        };
        let settings = Self {
            rate: number("RATE", 50, 1, 10_000),
            disorder: number("DISORDER", 20, 0, 100),
            duplicates: number("DUPLICATES", 5, 0, 100),
            faults: number("FAULTS", 1, 0, 50),
            duration: Some(number("DURATION", 60, 0, 30 * 24 * 60 * 60))
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            broken: variable("BROKEN").as_deref() == Some("record"),
        };
        if problems.is_empty() { Ok(settings) } else { Err(problems.join("\n")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_has_a_default_and_no_duration_is_until_ctrl_c() {
        let given = |values: &'static [(&str, &str)]| {
            Settings::from_variables(|name| {
                let value = values.iter().find(|(given, _)| *given == name);
                value.map(|(_, value)| (*value).to_owned())
            })
        };
        let defaults = given(&[("RATE", "")]).unwrap();
        assert_eq!((defaults.rate, defaults.duration), (50, Some(Duration::from_secs(60))));
        assert_eq!(given(&[]), Ok(defaults));
        let other = given(&[("RATE", "7"), ("DISORDER", "100"), ("DURATION", "0"), ("BROKEN", "record")]).unwrap();
        assert_eq!(other, Settings { rate: 7, disorder: 100, duration: None, broken: true, ..defaults });
        let wrong = given(&[("RATE", "0"), ("DISORDER", "101"), ("DUPLICATES", "few")]).unwrap_err();
        assert_eq!(
            wrong,
            "RATE: expected a whole number from 1 to 10000, found \"0\"\n\
             DISORDER: expected a whole number from 0 to 100, found \"101\"\n\
             DUPLICATES: expected a whole number from 0 to 100, found \"few\""
        );
    }
}
