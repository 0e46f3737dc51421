//! Tries a request to DynamoDB again until DynamoDB answers it. This is a loop around one call of the SDK, whose own
//! retries are off.
//!
//! What may happen between two attempts at a write:
//! - DynamoDB did the write, and its answer was lost: the next attempt finds its own commit. Its condition is not met,
//!   and the view shows the item.
//! - Another function writes a newer commit of the row: the condition of the next attempt is not met.
//! - An attempt that was cut off is still under way. DynamoDB does it after the next one, or after a newer commit: its
//!   condition is not met.
//! - The operation's time is over: it ends like an operation without an answer.
//! - The invocation's time is over, or the function dies: it sends nothing any more, and the record comes again.
//! - The pace comes down: this write stays in flight, and only others wait.
//! - The table or its indexes change: the next attempt is refused, or done.
//!
//! Invariants: a request has one attempt at a time, and all its attempts have the same item and condition; the pace and
//! the count learn of each attempt that has ended, once.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::errors::Attempt;
use crate::write::attempts::Attempts;
use crate::write::pace::Pace;

/// An operation ends with its attempts or with the invocation, which answers without waiting for any operation. This
/// limit ends the operations that neither of the two ends.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Lambda ends a function that is not ready after ten seconds. The function must tell its reason before.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a throttled write is tried again. This is a time and not a number of attempts, because a write's turn
/// depends on the writes of this function and of others that want the table's capacity. The pace needs some seconds to
/// bring these down, and it also decides how often DynamoDB is asked meanwhile. The time is well below that of the
/// invocation. So rows that are throttled for good do not keep the others of a batch from their turn.
pub const THROTTLED_FOR: Duration = Duration::from_secs(15);
/// The first wait after a throttled attempt, of which a write waits half on average. The next waits double. Many short
/// waits beat the SDK's few long ones, because a table takes the next write when its next token is there.
pub const FIRST_BACKOFF: Duration = Duration::from_millis(10);
/// The longest wait after a throttled attempt, while the first such attempt was not long ago. See [`longest_backoff`].
const LONGEST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF_OF_ALL: Duration = Duration::from_secs(1);

/// The longest wait of a write that has been throttled for this time. Writes that the pace has let go stay in flight.
/// If others want the same table, asking often brings none of these writes on. So the waits grow with their sum.
pub fn longest_backoff(throttled_for: Duration) -> Duration {
    (throttled_for / 8).clamp(LONGEST_BACKOFF, LONGEST_BACKOFF_OF_ALL)
}

/// The number of attempts that may fail in other ways: HTTP 5xx, no answer in time, no connection, or a refusal that
/// the SDK expects to pass. The waits double, so quick failures take one to two seconds, which outlasts a service that
/// moves a partition.
///
/// If DynamoDB is down for longer, no row waits for it: the row is reported, and the next one is tried. Meanwhile the
/// pace lets one write after the other go, some requests a second. So the invocation does no harm, and finds out when
/// DynamoDB answers again. It uses up one of Lambda's retries in all its time. An early answer would use one up each
/// time.
pub const MOST_FAILURES: u32 = 8;
const FIRST_BACKOFF_OF_FAILURES: Duration = Duration::from_millis(25);

/// Sends requests, and tells the pace and the count how each attempt ended.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Learns how much DynamoDB takes.
    pub pace: Arc<Pace>,
    /// Counts the attempts.
    pub attempts: Arc<Attempts>,
}

impl Sender {
    /// Sends a request until it is answered, for at most `limit`. Returns the result of the last attempt, or a time-out
    /// when the time is over.
    pub(super) async fn send<T, E, F>(
        &self,
        limit: Duration,
        classify: impl Fn(&SdkError<E>) -> Attempt,
        attempt: impl Fn() -> F,
    ) -> Result<T, SdkError<E>>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let ends = Instant::now() + limit;
        let (mut since, mut failures, mut repetitions) = (None, 0, 0);
        loop {
            let began = Instant::now();
            let answer = match timeout_at(ends, attempt()).await {
                Ok(answer) => answer,
                Err(_) => Err(out_of_time(limit)),
            };
            let end = answer.as_ref().err().map_or(Attempt::Answered, &classify);
            self.ended(began, end);
            let now = Instant::now();
            let time = now - *since.get_or_insert(now);
            let (first, longest) = match end {
                Attempt::Answered | Attempt::Failed { again: false } => return answer,
                Attempt::Throttled => (FIRST_BACKOFF, longest_backoff(time)),
                Attempt::RefusedForNow | Attempt::Failed { again: true } => {
                    failures += 1;
                    (FIRST_BACKOFF_OF_FAILURES, LONGEST_BACKOFF_OF_ALL)
                }
            };
            if failures >= MOST_FAILURES || time >= THROTTLED_FOR {
                return answer;
            }
            let most = first.saturating_mul(2_u32.saturating_pow(repetitions)).min(longest);
            let wait = wait_asked_for(&answer).map_or_else(|| most.mul_f64(fastrand::f64()), |wait| wait.min(longest));
            sleep_until(ends.min(now + wait)).await;
            if now + wait >= ends {
                return Err(out_of_time(limit));
            }
            repetitions += 1;
        }
    }

    /// Tells the pace and the count of an attempt that has ended.
    pub(super) fn ended(&self, began: Instant, end: Attempt) {
        match end {
            Attempt::Answered | Attempt::RefusedForNow => self.pace.answered(false),
            Attempt::Throttled => self.pace.answered(true),
            Attempt::Failed { .. } => self.pace.failed(),
        }
        self.attempts.ended(began.elapsed(), end == Attempt::Throttled);
    }
}

/// The wait that the answer asks for, as AWS's services may.
fn wait_asked_for<T, E>(answer: &Result<T, SdkError<E>>) -> Option<Duration> {
    let asked = answer.as_ref().err()?.raw_response()?.headers().get("x-amz-retry-after")?;
    asked.parse().ok().map(Duration::from_millis)
}

/// The SDK's error for an operation that takes too long.
fn out_of_time<E>(limit: Duration) -> SdkError<E> {
    SdkError::timeout_error(format!("operation timeout (all attempts including retries) occurred after {limit:?}"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use aws_sdk_dynamodb::error::ProvideErrorMetadata;
    use aws_sdk_dynamodb::types::{AttributeValue, BatchStatementRequest};

    use super::super::client::tests::{CUT, DONE, SILENT, Wire};
    use super::super::errors::{classify, of_statements};
    use super::*;

    const THROTTLED: (u16, &str) = (400, r#"{"__type":"ThrottlingException"}"#);
    const CONFLICT: (u16, &str) = (400, r#"{"__type":"ReplicatedWriteConflictException"}"#);
    const FAILED: (u16, &str) = (500, r#"{"__type":"InternalServerError"}"#);

    /// Puts an item. Returns the code of its error, the number of requests, and the time that they took.
    async fn put(answers: &[(u16, &'static str)]) -> (Result<(), Option<String>>, usize, Duration) {
        let wire = Wire::new(answers);
        let sender = Sender { pace: Arc::new(Pace::new(NonZeroUsize::MIN)), attempts: Arc::default() };
        let request = wire.client().put_item().table_name("view").item("pk", AttributeValue::S("1".to_owned()));
        let began = Instant::now();
        let put = sender.send(OPERATION_TIMEOUT, |error| classify(error).0, || request.clone().send()).await;
        let sent = wire.sent.lock().unwrap().len();
        (put.map(|_| ()).map_err(|error| error.code().map(str::to_owned)), sent, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_throttled_is_tried_again_for_a_time() {
        let (end, requests, took) = put(&[THROTTLED]).await;
        assert_eq!(end, Err(Some("ThrottlingException".to_owned())));
        assert!((THROTTLED_FOR..=THROTTLED_FOR + LONGEST_BACKOFF_OF_ALL).contains(&took), "{took:?}");
        assert!((50..150).contains(&requests), "{requests} requests");

        let (end, requests, _) = put(&[[THROTTLED; 40].as_slice(), &[DONE]].concat()).await;
        assert_eq!((end, requests), (Ok(()), 41));
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_a_few_times_and_ever_more_slowly() {
        for (failure, code) in
            [(FAILED, Some("InternalServerError")), (CONFLICT, Some("ReplicatedWriteConflictException")), (CUT, None)]
        {
            let code = code.map(str::to_owned);
            let (end, requests, took) = put(&[failure]).await;
            assert_eq!((end, requests), (Err(code.clone()), MOST_FAILURES as usize));
            assert!(took < Duration::from_secs(3), "{took:?}");
            // Failures and throttled attempts are counted apart: only the eighth failure ends the write.
            let between = [[THROTTLED; 8].as_slice(), &[failure; 7], &[THROTTLED; 8]].concat();
            assert_eq!(put(&[&between[..], &[DONE]].concat()).await.0, Ok(()));
            assert_eq!(put(&[&between[..], &[failure]].concat()).await.0, Err(code));
        }
        let (end, requests, _) = put(&[(400, r#"{"__type":"ConditionalCheckFailedException"}"#)]).await;
        assert_eq!((end, requests), (Err(Some("ConditionalCheckFailedException".to_owned())), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_tried_again_until_the_operation_ends() {
        let (end, requests, took) = put(&[SILENT]).await;
        assert_eq!((end, requests, took), (Err(None), 5, OPERATION_TIMEOUT));
        assert_eq!(put(&[SILENT, DONE]).await.0, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_and_the_count_are_told_of_whatever_is_not_done() {
        const STATEMENTS: (u16, &str) = (200, r#"{"Responses":[{},{"Error":{"Code":"ThrottlingError"}}]}"#);
        const FOUND: (u16, &str) = (200, r#"{"Responses":[{},{"Error":{"Code":"DuplicateItem"}}]}"#);
        for (answer, allowed, throttled) in [
            (DONE, 31, 0),
            (FOUND, 31, 0),
            (CONFLICT, 31, 0),
            (STATEMENTS, 64, 60),
            (THROTTLED, 64, 60),
            (FAILED, 14, 0),
            (CUT, 14, 0),
            (SILENT, 14, 0),
        ] {
            let pace = Arc::new(Pace::new(NonZeroUsize::new(256).unwrap()));
            let attempts = Arc::new(Attempts::default());
            let sender = Sender { pace: Arc::clone(&pace), attempts: Arc::clone(&attempts) };
            let client = Wire::new(&[answer]).client();
            for _ in 0..60 {
                let insert = BatchStatementRequest::builder().statement("INSERT").build().unwrap();
                let began = Instant::now();
                let answer = client.batch_execute_statement().statements(insert).send().await;
                let end = answer.map_or_else(|error| classify(&error).0, |done| of_statements(done.responses()));
                sender.ended(began, end);
            }
            let counted = attempts.take();
            let ended: u64 = counted.dynamo_db_time.groups(100).iter().map(|group| group.count).sum();
            assert_eq!((pace.writes_in_flight(), counted.throttled, ended), (allowed, throttled, 60), "{answer:?}");
        }
    }
}
