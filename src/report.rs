//! The answer to Lambda: the sequence numbers of the records to deliver again.
//!
//! Lambda takes the lowest number as its checkpoint and delivers that record and all later ones of the batch again, so
//! the order of the list is for people; the conditions on the writes make the repetition harmless.
//!
//! Invariants: pure; an entry for each reported record, none for another.

use std::cmp::Ordering;

use aws_lambda_events::event::streams::KinesisEventResponse;

/// The answer that reports the records with these sequence numbers, lowest first.
pub fn report<'a>(reported: impl IntoIterator<Item = &'a str>) -> KinesisEventResponse {
    let mut numbers: Vec<&str> = reported.into_iter().collect();
    numbers.sort_by(|a, b| compare_sequence_numbers(a, b));
    let mut response = KinesisEventResponse::default();
    response.set_failures(numbers);
    response
}

/// Orders sequence numbers by value: decimal numbers of up to 128 digits, too long for any integer type.
pub fn compare_sequence_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reported: &[&str], json: &str) {
        assert_eq!(serde_json::to_string(&report(reported.iter().copied())).unwrap(), json);
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
