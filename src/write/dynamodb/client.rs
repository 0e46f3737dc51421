//! The SDK's client for the view: its limits, its retries, and what of its work on each request is kept or left out.
//!
//! The SDK spends most of a write's time on things that are the same for each, or that serve its makers. All of it
//! is changed where the SDK lets one change it; the requests are the SDK's own.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_runtime::invocation_id::InvocationIdInterceptor;
use aws_runtime::request_info::RequestInfoInterceptor;
use aws_runtime::service_clock_skew::ServiceClockSkewInterceptor;
use aws_runtime::user_agent::UserAgentInterceptor;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::{
    BeforeSerializationInterceptorContextMut, BeforeTransmitInterceptorContextMut, BeforeTransmitInterceptorContextRef,
    FinalizerInterceptorContextRef,
};
use aws_sdk_dynamodb::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{ConfigBag, IdentityCache, Intercept, RuntimeComponents, StalledStreamProtectionConfig};
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::batch_execute_statement::{BatchExecuteStatementError, BatchExecuteStatementOutput};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::BatchStatementErrorCodeEnum;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{Error, Output};
use aws_smithy_runtime_api::client::interceptors::{disable_interceptor, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use tokio::time::Instant;

use crate::aws::signing::KeepingAuthScheme;
use crate::write::attempts::Attempts;
use crate::write::pace::Pace;

/// An answer takes DynamoDB some milliseconds; the SDK sets no limits of its own. An attempt must outlast a large item
/// over a new connection of a small function. An operation ends with its attempts, or with the invocation, whose answer
/// waits for none; its own limit is for what neither ends.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Lambda ends a function that is not ready after ten seconds; its reason must be told before.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a write that is throttled is tried again. A time and no number: how soon its turn comes depends on how many
/// others, of this function and of others, want what the table takes, and the pace needs some seconds to bring these
/// down; how often DynamoDB is asked meanwhile is the pace's matter. It ends well within the invocation, so that rows
/// that are throttled for good do not keep the others of a batch from their turn.
pub const THROTTLED_FOR: Duration = Duration::from_secs(15);
/// The first wait after a throttled attempt, on average half of it; the next ones double. Many short waits beat the
/// SDK's few long ones: a table takes the next write when its next token is there.
pub const FIRST_BACKOFF: Duration = Duration::from_millis(10);
/// The longest wait after a throttled attempt, while the first was not long ago; see [`longest_backoff`].
const LONGEST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF_OF_ALL: Duration = Duration::from_secs(1);

/// The longest wait of a write that has been throttled for so long. What the pace has let go is in flight until it is
/// done, and where others want the same table, asking often brings none of them on: the waits grow with their sum.
pub fn longest_backoff(throttled_for: Duration) -> Duration {
    (throttled_for / 8).clamp(LONGEST_BACKOFF, LONGEST_BACKOFF_OF_ALL)
}

/// So many attempts may fail in other ways: HTTP 5xx, no answer in time, no connection, or a refusal that the SDK takes
/// for one that passes. With waits that double, these take one to two seconds where the failure is quick, and outlast
/// what a service that moves a partition does. What is down for longer is not waited for with one row: that row is
/// reported, and the next one tried. Meanwhile the pace lets one write after the other go, some requests a second, so
/// that the invocation does no harm, finds out when DynamoDB answers again, and uses up one of Lambda's retries in all
/// its time, where an early answer would use one up each time.
pub const MOST_FAILURES: u32 = 8;
const FIRST_BACKOFF_OF_FAILURES: Duration = Duration::from_millis(25);

/// For the SDK, which wants a number: no write makes as many in its time.
const MORE_ATTEMPTS_THAN_ANY: u32 = 1000;

/// How long credentials may take to load, where they do not stand in the environment: less than an attempt, which they
/// are loaded in, so that what was too slow is told by its name. Where no limit is set the SDK sums up, for each
/// request anew, what all the attempts of a write would take at worst.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(3);

/// How the function names itself to AWS, in place of the SDK's lists of features.
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// A client for the view, which tells `pace` and `attempts` what becomes of its attempts.
pub fn new(sdk_config: &SdkConfig, pace: Arc<Pace>, attempts: Arc<Attempts>) -> Client {
    // Its waits are set after each attempt that is not done, by `set_next`.
    let retry = RetryConfig::standard().with_max_attempts(MORE_ATTEMPTS_THAN_ANY);
    // The SDK's token bucket refuses retries in a storm of throttling. Here the writes in flight and the deadline bound
    // them.
    let partition = RetryPartition::custom("dsql-view").token_bucket(TokenBucket::unlimited()).build();
    let config = aws_sdk_dynamodb::config::Builder::from(sdk_config)
        .retry_config(retry)
        .retry_partition(partition)
        .timeout_config(timeouts(OPERATION_TIMEOUT))
        .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build())
        // Bodies of a few hundred kilobytes at most, which the attempt's time-out covers.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .push_auth_scheme(KeepingAuthScheme::default())
        .interceptor(LeaveOut)
        .interceptor(EachAttempt { pace, attempts })
        .build();
    Client::from_conf(config)
}

pub(super) fn timeouts(operation: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).operation_timeout(operation).build()
}

/// Leaves out of a request what DynamoDB does nothing with.
///
/// The clock's skew, too: Lambda keeps its machines' clocks, and a signature that DynamoDB does not take is an error
/// that is reported.
#[derive(Debug)]
struct LeaveOut;

#[dyn_dispatch_hint]
impl Intercept for LeaveOut {
    fn name(&self) -> &'static str {
        "LeaveOut"
    }

    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        const WHY: &str = "DynamoDB does nothing with it";
        let state = config.interceptor_state();
        state.store_put(disable_interceptor::<UserAgentInterceptor>(WHY));
        state.store_put(disable_interceptor::<InvocationIdInterceptor>(WHY));
        state.store_put(disable_interceptor::<RequestInfoInterceptor>(WHY));
        state.store_put(disable_interceptor::<ServiceClockSkewInterceptor>(WHY));
        Ok(())
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().headers_mut().insert("user-agent", USER_AGENT);
        Ok(())
    }
}

/// What DynamoDB answers where it is asked for more than it gives: of a request, and of a statement in one.
const THROTTLING: [&str; 3] = ["ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException"];
const THROTTLED_STATEMENT: [BatchStatementErrorCodeEnum; 3] = [
    BatchStatementErrorCodeEnum::ProvisionedThroughputExceeded,
    BatchStatementErrorCodeEnum::RequestLimitExceeded,
    BatchStatementErrorCodeEnum::ThrottlingError,
];

/// Tells the pace and the count what becomes of each attempt, and says whether and when there is another after one that
/// was not done.
#[derive(Debug)]
struct EachAttempt {
    pace: Arc<Pace>,
    attempts: Arc<Attempts>,
}

/// How an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// DynamoDB has done it, or its condition is not met.
    Answered,
    /// DynamoDB says that it does not do it. The SDK tries some such again, as where another region writes the item.
    Refused,
    Throttled,
    Failed,
}

impl Attempt {
    fn of(output_or_error: Result<&Output, &OrchestratorError<Error>>, status: Option<u16>) -> Self {
        match output_or_error {
            Ok(output) => {
                let together = output.downcast_ref().map_or(&[][..], BatchExecuteStatementOutput::responses);
                let mut codes = together.iter().filter_map(|response| response.error()?.code());
                if codes.any(|code| THROTTLED_STATEMENT.contains(code)) { Self::Throttled } else { Self::Answered }
            }
            Err(error) => {
                let answer = error.as_operation_error();
                let put = answer.and_then(|answer| answer.downcast_ref().map(PutItemError::code));
                let of_write = || answer.and_then(|answer| answer.downcast_ref().map(BatchExecuteStatementError::code));
                match put.or_else(of_write) {
                    Some(Some("ConditionalCheckFailedException")) => Self::Answered,
                    Some(Some(code)) if THROTTLING.contains(&code) => Self::Throttled,
                    Some(_) if status.is_some_and(|status| status < 500) => Self::Refused,
                    // Also whatever is answered to what is no write: it is tried again no more often.
                    _ => Self::Failed,
                }
            }
        }
    }
}

/// The attempts of an operation that were not done.
#[derive(Debug, Clone)]
struct NotDone {
    since: Instant,
    failures: u32,
}

impl Storable for NotDone {
    type Storer = StoreReplace<Self>;
}

/// When an attempt began.
#[derive(Debug)]
struct Began(Instant);

impl Storable for Began {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for EachAttempt {
    fn name(&self) -> &'static str {
        "EachAttempt"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(Began(Instant::now()));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(output_or_error) = context.output_or_error() else { return Ok(()) };
        let attempt = Attempt::of(output_or_error, context.response().map(|response| response.status().as_u16()));
        match attempt {
            Attempt::Answered | Attempt::Refused => self.pace.answered(false),
            Attempt::Throttled => self.pace.answered(true),
            Attempt::Failed => self.pace.failed(),
        }
        if let Some(Began(began)) = config.load::<Began>() {
            self.attempts.ended(began.elapsed(), attempt == Attempt::Throttled);
        }
        if attempt != Attempt::Answered {
            set_next(config, attempt != Attempt::Throttled);
        }
        Ok(())
    }
}

/// Sets what the SDK's retry strategy asks next: whether there is another attempt, and after which wait. It reads that
/// anew after each attempt; an operation that ends in this way keeps the error of its last attempt, which one that ends
/// by its own time-out does not.
fn set_next(config: &mut ConfigBag, has_failed: bool) {
    let Some(retry) = config.load::<RetryConfig>().filter(|retry| retry.has_retry()).cloned() else { return };
    let now = Instant::now();
    let mut so_far = config.load::<NotDone>().cloned().unwrap_or(NotDone { since: now, failures: 0 });
    so_far.failures += u32::from(has_failed);
    let time = now.duration_since(so_far.since);
    let is_over = so_far.failures >= MOST_FAILURES || time >= THROTTLED_FOR;
    let (first, longest) = if has_failed {
        (FIRST_BACKOFF_OF_FAILURES, LONGEST_BACKOFF_OF_ALL)
    } else {
        (FIRST_BACKOFF, longest_backoff(time))
    };
    let next = retry.with_initial_backoff(first).with_max_backoff(longest);
    let state = config.interceptor_state();
    state.store_put(if is_over { next.with_max_attempts(1) } else { next });
    state.store_put(so_far);
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Mutex;
    use std::time::SystemTime;

    use aws_config::{BehaviorVersion, Region};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_sdk_dynamodb::types::{AttributeValue, BatchStatementRequest};
    use aws_smithy_async::time::StaticTimeSource;
    use aws_smithy_runtime_api::client::http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;

    use super::*;
    use crate::aws::signing::tests::expected as expected_signature;

    const DONE: (u16, &str) = (200, "{}");
    const THROTTLED: (u16, &str) = (400, r#"{"__type":"ThrottlingException"}"#);
    const CONFLICT: (u16, &str) = (400, r#"{"__type":"ReplicatedWriteConflictException"}"#);
    const FAILED: (u16, &str) = (500, r#"{"__type":"InternalServerError"}"#);
    /// As a service does that is down: the connection is cut.
    const CUT: (u16, &str) = (0, "");
    /// There is no answer.
    const SILENT: (u16, &str) = (0, "silent");

    /// Keeps the requests, and answers the first ones as told, and all others with the last of these.
    #[derive(Debug, Clone)]
    struct Wire {
        sent: Arc<Mutex<Vec<HttpRequest>>>,
        answers: Arc<[(u16, &'static str)]>,
    }

    impl Wire {
        fn new(answers: &[(u16, &'static str)]) -> Self {
            Self { sent: Arc::default(), answers: answers.into() }
        }

        fn client(&self, pace: &Arc<Pace>) -> Client {
            new(&self.config(), Arc::clone(pace), Arc::default())
        }

        fn config(&self) -> SdkConfig {
            SdkConfig::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new("eu-central-1"))
                .credentials_provider(SharedCredentialsProvider::new(credentials()))
                .time_source(StaticTimeSource::new(now()))
                .http_client(self.clone())
                .build()
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_773_835_200)
    }

    fn credentials() -> Credentials {
        Credentials::new("AKIAEXAMPLE", "secret", Some("token".to_owned()), None, "test")
    }

    impl HttpConnector for Wire {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let mut sent = self.sent.lock().unwrap();
            let answer = self.answers.get(sent.len()).or(self.answers.last()).copied();
            sent.push(request);
            HttpConnectorFuture::ready(match answer.unwrap() {
                CUT => Err(ConnectorError::io("cut".into())),
                SILENT => return HttpConnectorFuture::new(std::future::pending()),
                (status, body) => Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body))),
            })
        }
    }

    impl HttpClient for Wire {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(self.clone())
        }
    }

    #[tokio::test]
    async fn a_write_is_signed_and_has_no_header_that_dynamodb_does_nothing_with() {
        let wire = Wire::new(&[DONE]);
        let client = wire.client(&Arc::new(Pace::new(NonZeroUsize::MIN)));
        client.put_item().table_name("view").item("pk", AttributeValue::S("1".to_owned())).send().await.unwrap();

        let sent = wire.sent.lock().unwrap().remove(0);
        let mut names: Vec<&str> = sent.headers().iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let expected = [
            "authorization",
            "content-length",
            "content-type",
            "user-agent",
            "x-amz-date",
            "x-amz-security-token",
            "x-amz-target",
        ];
        assert_eq!(names, expected);
        assert!(sent.headers().get("user-agent").is_some_and(|agent| agent.starts_with("dsql-view/")));

        let mut unsigned = sent.try_clone().unwrap();
        for of_signature in ["authorization", "x-amz-date", "x-amz-security-token"] {
            unsigned.headers_mut().remove(of_signature);
        }
        for (name, value) in expected_signature(&unsigned, now(), &credentials()) {
            assert_eq!(sent.headers().get(&name), Some(value.as_str()), "{name}");
        }
    }

    /// Puts an item: the code that it ends with, how many requests there were, and how long it took.
    async fn put(answers: &[(u16, &'static str)]) -> (Result<(), Option<String>>, usize, Duration) {
        let wire = Wire::new(answers);
        let client = wire.client(&Arc::new(Pace::new(NonZeroUsize::MIN)));
        let began = Instant::now();
        let put = client.put_item().table_name("view").item("pk", AttributeValue::S("1".to_owned())).send().await;
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
            // It is in the numbers of either alone.
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
            let client = new(&Wire::new(&[answer]).config(), Arc::clone(&pace), Arc::clone(&attempts));
            for _ in 0..60 {
                let once = aws_sdk_dynamodb::config::Builder::new().retry_config(RetryConfig::disabled());
                let insert = BatchStatementRequest::builder().statement("INSERT").build().unwrap();
                let request = client.batch_execute_statement().statements(insert).customize().config_override(once);
                let _ = request.send().await;
            }
            let counted = attempts.take();
            let ended: u64 = counted.dynamo_db_time.groups(100).iter().map(|group| group.count).sum();
            assert_eq!((pace.writes_in_flight(), counted.throttled, ended), (allowed, throttled, 60), "{answer:?}");
        }
    }
}
