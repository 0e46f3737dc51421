//! The meaning of DynamoDB's errors: whether the request is tried again, and how its write ends otherwise.
//!
//! Invariants: pure; reasons leave out an error's text that could quote a row; an error that is not known for certain
//! is retryable.

use aws_runtime::retries::classifiers::{THROTTLING_ERRORS, TRANSIENT_ERRORS};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::BatchStatementResponse;

use crate::batch::disposition::Superseded;
use crate::write::view::Put;

/// How an attempt at a request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// DynamoDB has done it, or another attempt would change nothing.
    Answered,
    /// DynamoDB refuses it for now.
    RefusedForNow,
    /// DynamoDB refuses it, because it is asked for more than it gives.
    Throttled,
    /// There is no answer, or DynamoDB fails. Another attempt may end better if `again` is true.
    Failed { again: bool },
}

/// The codes with which DynamoDB answers if it is asked for more than it gives: for a request, and for a statement in
/// one.
const THROTTLING: [&str; 3] = ["ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException"];
const THROTTLED_STATEMENT: [&str; 3] = ["ProvisionedThroughputExceeded", "RequestLimitExceeded", "ThrottlingError"];

/// Another Region is writing the item.
const CONFLICT: &str = "ReplicatedWriteConflictException";

/// The HTTP statuses of a DynamoDB that fails, but may not fail the next time.
const FAILING: [u16; 4] = [500, 502, 503, 504];

/// How an attempt at statements that were sent together has ended, if DynamoDB answered it.
pub fn of_statements(responses: &[BatchStatementResponse]) -> Attempt {
    let mut codes = responses.iter().filter_map(|response| response.error()?.code());
    let throttled = codes.any(|code| THROTTLED_STATEMENT.contains(&code.as_str()));
    if throttled { Attempt::Throttled } else { Attempt::Answered }
}

/// How an attempt at a request other than a write has ended. Each error counts as a failure, so the limit for failures
/// holds for all its attempts.
pub fn of_read<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Attempt {
    let attempt = classify(error).0;
    Attempt::Failed { again: !matches!(attempt, Attempt::Answered | Attempt::Failed { again: false }) }
}

/// The meaning of an error for the attempt that it ended, and for the write if that was the last attempt.
pub fn classify<E: ProvideErrorMetadata>(error: &SdkError<E>) -> (Attempt, Put) {
    let (again, reason) = match error {
        SdkError::ServiceError(response) => {
            let status = response.raw().status().as_u16();
            return answered(response.err().code(), response.err().message(), status);
        }
        SdkError::TimeoutError(_) => (true, "it did not answer in time".to_owned()),
        // These errors do not hold the request. They tell of the way to DynamoDB, not of the row.
        SdkError::DispatchFailure(failure) => {
            let again = failure.is_io() || failure.is_timeout() || failure.as_other().is_some();
            let causes = failure.as_connector_error().map_or_else(String::new, |error| causes(error));
            (again, format!("the request could not be sent or was cut off: {causes}"))
        }
        SdkError::ConstructionFailure(_) => (false, "the SDK could not make the request".to_owned()),
        SdkError::ResponseError(_) => (true, "its answer could not be read".to_owned()),
        _ => (false, "the SDK gave an error that is not known".to_owned()),
    };
    (Attempt::Failed { again }, Put::Retryable(reason))
}

fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The meaning of an error that DynamoDB answered.
fn answered(code: Option<&str>, message: Option<&str>, status: u16) -> (Attempt, Put) {
    let message = message.unwrap_or("no message");
    let put = match code {
        Some("ConditionalCheckFailedException") => Put::Superseded(Superseded::Told),
        // Every item has the key that the table had at the start, so the table is another one now.
        Some("ValidationException") if TABLE_HAS_ANOTHER_KEY.iter().any(|known| message.starts_with(known)) => {
            Put::Unavailable(format!("ValidationException: {message}"))
        }
        Some("ValidationException") if is_of_an_index(message) => {
            Put::RefusedByIndex(format!("ValidationException: {}", without_values(message)))
        }
        Some("ValidationException") => Put::Refused(format!("ValidationException: {}", without_values(message))),
        // These speak of the table and the caller, not of the item.
        Some(code @ ("ResourceNotFoundException" | "AccessDeniedException")) => {
            Put::Unavailable(format!("{code}: {message}"))
        }
        // These speak of credentials and the signature. Their text can quote the request with its session token.
        Some(
            code @ ("UnrecognizedClientException"
            | "ExpiredTokenException"
            | "ExpiredToken"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "IncompleteSignatureException"
            | "MissingAuthenticationTokenException"
            | "OptInRequired"),
        ) => Put::Unavailable(code.to_owned()),
        Some(code) => return (other(code, status), Put::Retryable(format!("{code} (HTTP {status})"))),
        None => return (other("", status), Put::Retryable(format!("HTTP {status} without an error code"))),
    };
    (Attempt::Answered, put)
}

/// How an attempt has ended if its error may pass.
fn other(code: &str, status: u16) -> Attempt {
    let passes = code == CONFLICT || THROTTLING_ERRORS.contains(&code) || TRANSIENT_ERRORS.contains(&code);
    match status {
        _ if THROTTLING.contains(&code) => Attempt::Throttled,
        500.. => Attempt::Failed { again: passes || FAILING.contains(&status) },
        _ if passes => Attempt::RefusedForNow,
        _ => Attempt::Answered,
    }
}

const TABLE_HAS_ANOTHER_KEY: [&str; 2] = [
    "One or more parameter values were invalid: Missing the key ",
    "One or more parameter values were invalid: Type mismatch for key ",
];

/// Whether DynamoDB refuses an item because of an index of the table. The table's own key has been checked before: it
/// is not empty, and no longer than DynamoDB takes.
fn is_of_an_index(message: &str) -> bool {
    OF_AN_INDEX.iter().any(|known| message.starts_with(known))
        || (message.starts_with("One or more parameter values are not valid.") && message.contains(EMPTY_INDEX_KEY))
}

const OF_AN_INDEX: [&str; 3] = [
    "One or more parameter values were invalid: Type mismatch for Index Key ",
    "One or more parameter values were invalid: Size of hashkey has exceeded",
    "One or more parameter values were invalid: Aggregated size of all range keys has exceeded",
];
const EMPTY_INDEX_KEY: &str = "The AttributeValue for a key attribute cannot contain an empty string value.";

/// DynamoDB's text for an item that it refuses, if that text is known to name only attributes and limits.
fn without_values(message: &str) -> &str {
    const FREE_OF_VALUES: [&str; 5] = [
        "Item size has exceeded the maximum allowed size",
        "Nesting Levels have exceeded supported limits",
        "Attempting to store more than 38 significant digits in a Number",
        "Number overflow.",
        "Number underflow.",
    ];
    let is_known = FREE_OF_VALUES.iter().any(|known| message.starts_with(known)) || is_of_an_index(message);
    if is_known { message } else { "DynamoDB's message is left out, since it can quote the row" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: Option<&str>, message: Option<&str>, status: u16) -> Put {
        super::answered(code, message, status).1
    }

    #[test]
    fn an_attempt_is_followed_by_another_where_that_may_end_better() {
        use Attempt::{Answered, Failed, RefusedForNow, Throttled};
        for (code, status, attempt) in [
            (Some("ConditionalCheckFailedException"), 400, Answered),
            (Some("ValidationException"), 400, Answered),
            (Some("ExpiredTokenException"), 400, Answered),
            (Some("TransactionConflictException"), 400, Answered),
            (Some("NewInAnotherYear"), 400, Answered),
            (None, 413, Answered),
            (Some("ReplicatedWriteConflictException"), 400, RefusedForNow),
            (Some("LimitExceededException"), 400, RefusedForNow),
            (Some("RequestTimeoutException"), 400, RefusedForNow),
            (Some("ProvisionedThroughputExceededException"), 400, Throttled),
            (Some("RequestLimitExceeded"), 400, Throttled),
            (Some("ThrottlingException"), 503, Throttled),
            (Some("InternalServerError"), 500, Failed { again: true }),
            (Some("SlowDown"), 505, Failed { again: true }),
            (None, 503, Failed { again: true }),
            (None, 501, Failed { again: false }),
        ] {
            assert_eq!(super::answered(code, Some("why"), status).0, attempt, "{code:?} {status}");
        }
    }

    #[test]
    fn only_what_no_repetition_can_change_is_refused() {
        let refused = |why: &str| Put::Refused(format!("ValidationException: {why}"));
        let unavailable = |why: &str| Put::Unavailable(why.to_owned());
        let retryable = |why: &str| Put::Retryable(why.to_owned());
        let withheld = "DynamoDB's message is left out, since it can quote the row";
        for (code, status, expected) in [
            (Some("ConditionalCheckFailedException"), 400, Put::Superseded(Superseded::Told)),
            (Some("ValidationException"), 400, refused(withheld)),
            (Some("ResourceNotFoundException"), 400, unavailable("ResourceNotFoundException: why")),
            (Some("AccessDeniedException"), 400, unavailable("AccessDeniedException: why")),
            (Some("ExpiredTokenException"), 400, unavailable("ExpiredTokenException")),
            (Some("UnrecognizedClientException"), 400, unavailable("UnrecognizedClientException")),
            (
                Some("ProvisionedThroughputExceededException"),
                400,
                retryable("ProvisionedThroughputExceededException (HTTP 400)"),
            ),
            (Some("ThrottlingException"), 400, retryable("ThrottlingException (HTTP 400)")),
            (Some("InternalServerError"), 500, retryable("InternalServerError (HTTP 500)")),
            (Some("NewInAnotherYear"), 400, retryable("NewInAnotherYear (HTTP 400)")),
            (None, 503, retryable("HTTP 503 without an error code")),
        ] {
            assert_eq!(answered(code, Some("why"), status), expected);
        }
    }

    #[test]
    fn a_table_whose_key_has_changed_is_no_fault_of_the_item() {
        let message = "One or more parameter values were invalid: Missing the key id in the item";
        let put = answered(Some("ValidationException"), Some(message), 400);
        assert_eq!(put, Put::Unavailable(format!("ValidationException: {message}")));
    }

    #[test]
    fn a_refusal_of_an_index_is_told_from_one_of_the_item() {
        for message in [
            "One or more parameter values were invalid: Type mismatch for Index Key price Expected: N Actual: S IndexName: by_price",
            "One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes",
            "One or more parameter values were invalid: Aggregated size of all range keys has exceeded the size limit of 1024 bytes",
            "One or more parameter values are not valid. A value specified for a secondary index key is not supported. The \
             AttributeValue for a key attribute cannot contain an empty string value. IndexName: by_name, IndexKey: name",
        ] {
            let put = answered(Some("ValidationException"), Some(message), 400);
            assert_eq!(put, Put::RefusedByIndex(format!("ValidationException: {message}")));
        }
        let put = answered(Some("ValidationException"), Some("Item size has exceeded the maximum allowed size"), 400);
        assert!(matches!(put, Put::Refused(_)), "{put:?}");
    }

    #[test]
    fn a_message_that_can_quote_the_row_is_left_out() {
        for (message, shown) in [
            ("Item size has exceeded the maximum allowed size", true),
            (
                "One or more parameter values were invalid: Type mismatch for Index Key price Expected: N Actual: S",
                true,
            ),
            ("The parameter cannot be converted to a numeric value: 4111 1111", false),
            ("secret: Item size has exceeded the maximum allowed size", false),
        ] {
            assert_eq!(without_values(message) == message, shown, "{message}");
        }
    }
}
