//! The quarantine, compared with the poison records.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// The poison records: the data of each, by its sequence number.
pub type Poison = BTreeMap<String, Vec<u8>>;

/// Where quarantined records stand in the bucket.
pub const FOLDER: &str = "quarantine/";

/// How the quarantine differs from the poison records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Objects that hold no poison record, or another one than the record that came.
    pub wrong: Vec<String>,
    /// Poison records that are not in the quarantine.
    pub missing: Vec<String>,
}

/// Compares the objects of [`FOLDER`], each with its key, with the poison records.
pub fn differences(poison: &Poison, objects: impl IntoIterator<Item = (String, impl AsRef<[u8]>)>) -> Differences {
    let mut missing: BTreeSet<&str> = poison.keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for (key, body) in objects {
        let number = key.rsplit('/').next().and_then(|name| name.strip_suffix(".json")).unwrap_or_default();
        let body: Value = serde_json::from_slice(body.as_ref()).unwrap_or_default();
        let data = body["data"].as_str().and_then(|data| BASE64_STANDARD.decode(data).ok());
        match poison.get(number) {
            Some(expected) if data.as_ref() == Some(expected) => {
                missing.remove(number);
            }
            Some(_) => wrong.push(format!("the quarantine holds {key} otherwise than it came")),
            None => wrong.push(format!("the quarantine holds {key}, which is no poison")),
        }
    }
    let missing = missing.into_iter().map(|number| format!("poison record {number} is in no quarantine")).collect();
    Differences { wrong, missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_changed_or_no_poison_is_noticed() {
        let poison: Poison = ["1", "2", "3"].map(|number| (number.to_owned(), b"poison".to_vec())).into();
        let object = |number: &str, data: &str| {
            let body = format!(r#"{{"data":"{}"}}"#, BASE64_STANDARD.encode(data));
            (format!("quarantine/public.users/{number}.json"), body)
        };
        let found = differences(&poison, [object("1", "poison"), object("2", "other"), object("4", "poison")]);
        assert_eq!(found.wrong.len(), 2, "{found:?}");
        assert!(found.wrong[0].contains("2.json") && found.wrong[1].contains("4.json"), "{found:?}");
        let missing = ["2", "3"].map(|number| format!("poison record {number} is in no quarantine"));
        assert_eq!(found.missing, missing);
        assert_eq!(differences(&Poison::new(), [] as [(String, &str); 0]), Differences::default());
    }
}
