//! The answer to Lambda: which records to deliver again.
//!
//! Lambda takes the lowest sequence number as its checkpoint. It delivers that record and all later ones of the batch
//! again, so the order of the answer only serves human readers.
//!
//! Invariant: the answer names each reported record, and no other.

use aws_lambda_events::event::streams::KinesisEventResponse;

use crate::batch::ledger::{Entry, Ledger};
use crate::record::sequence::SequenceNumber;

/// The sequence numbers of the reported records, lowest first.
pub fn answer(ledger: &Ledger<'_>) -> KinesisEventResponse {
    let entries = ledger.entries();
    let reported = entries.iter().filter(|entry| entry.failure().is_some()).map(Entry::delivered);
    let mut numbers: Vec<&SequenceNumber> = reported.map(|record| &record.sequence_number).collect();
    numbers.sort();
    let mut answer = KinesisEventResponse::default();
    answer.set_failures(numbers.into_iter().map(SequenceNumber::as_str));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::disposition::{Disposition, Failure};
    use crate::record::delivery::Record;

    fn check(reported: &[&str], json: &str) {
        let records: Vec<Record> = reported
            .iter()
            .map(|number| Record { sequence_number: SequenceNumber::new(*number), ..Record::default() })
            .collect();
        let mut ledger = Ledger::default();
        for record in &records {
            ledger.add(record, None, Failure::OutOfTime.into(), None);
            ledger.add(record, None, Disposition::Applied, None);
        }
        assert_eq!(serde_json::to_string(&answer(&ledger)).unwrap(), json);
    }

    #[test]
    fn nothing_reported_is_an_empty_list() {
        check(&[], r#"{"batchItemFailures":[]}"#);
    }

    #[test]
    fn the_lowest_number_stands_first_also_where_the_lengths_differ() {
        check(
            &["10", "9", "00000000000000000000000000000000000000000000000000000000000000011"],
            concat!(
                r#"{"batchItemFailures":[{"itemIdentifier":"9"},{"itemIdentifier":"10"},"#,
                r#"{"itemIdentifier":"00000000000000000000000000000000000000000000000000000000000000011"}]}"#
            ),
        );
    }
}
