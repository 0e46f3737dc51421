//! Lambda's event, taken apart without a word about its values.
//!
//! The runtime logs why an event does not deserialize, and serde's reasons quote what they found. Here the reason stays inside: an
//! event that is none of Kinesis deserializes into a [`Delivery`] without a batch, and the function answers with an error of its own.

use aws_lambda_events::event::kinesis::{KinesisEvent, KinesisEventRecord};
use serde::{Deserialize, Deserializer};

/// A batch, if the event is one.
#[derive(Debug)]
pub struct Delivery(Option<KinesisEvent>);

/// The event is not what a Kinesis event source mapping delivers. All of it is delivered again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the event of a Kinesis event source mapping: Records, each with kinesis.data in Base64, kinesis.sequenceNumber and \
     kinesis.approximateArrivalTimestamp; see events/ for samples"
)]
pub struct NoKinesisEvent;

impl Delivery {
    /// The batch.
    ///
    /// # Errors
    /// The event holds none.
    pub fn into_batch(self) -> Result<KinesisEvent, NoKinesisEvent> {
        self.0.ok_or(NoKinesisEvent)
    }
}

impl<'de> Deserialize<'de> for Delivery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(KinesisEvent::deserialize(deserializer).ok()))
    }
}

/// The shard of a record, from an `eventID` such as `shardId-000000000006:49590338271490256608559692538361571095921575989136588898`.
pub(crate) fn shard_id(record: &KinesisEventRecord) -> Option<&str> {
    let (shard, _) = record.event_id.as_deref()?.split_once(':')?;
    Some(shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(event: &str) -> Result<usize, NoKinesisEvent> {
        // As the runtime does it, which does not look for the end of the text.
        let mut deserializer = serde_json::Deserializer::from_str(event);
        Delivery::deserialize(&mut deserializer).unwrap().into_batch().map(|batch| batch.records.len())
    }

    #[test]
    fn only_a_kinesis_event_is_a_batch() {
        let record = r#"{"kinesis":{"data":"e30=","sequenceNumber":"1","approximateArrivalTimestamp":1.5}}"#;
        assert_eq!(records(r#"{"Records":[]}"#), Ok(0));
        assert_eq!(records(&format!(r#"{{"Records":[{record},{record}]}}"#)), Ok(2));
        for other in [
            "",
            "null",
            "{}",
            r#"{"Records":[{"body":"{}"}]}"#,
            r#"{"Records":[{"kinesis":{"data":"not Base64!","approximateArrivalTimestamp":1.5}}]}"#,
            r#"{"Records":["#,
        ] {
            assert_eq!(records(other), Err(NoKinesisEvent), "{other}");
        }
    }
}
