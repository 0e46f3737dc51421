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
    BeforeSerializationInterceptorContextMut, BeforeTransmitInterceptorContextMut, FinalizerInterceptorContextRef,
};
use aws_sdk_dynamodb::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents, StalledStreamProtectionConfig};
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::batch_execute_statement::BatchExecuteStatementError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::{disable_interceptor, dyn_dispatch_hint};

use super::signing::KeepingAuthScheme;
use crate::pace::Pace;

/// An answer takes DynamoDB some milliseconds; the SDK sets no limits of its own. An attempt must outlast a large item over a new
/// connection of a small function, an operation all attempts that its back-off allows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);

/// Lambda ends a function that is not ready after ten seconds; its reason must be told before.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(8);

/// Throttling lasts for moments: many short waits beat the SDK's few long ones. How often DynamoDB is asked all in all is the pace's
/// matter.
pub const MOST_ATTEMPTS: u32 = 48;
/// The first wait between two attempts, on average half of it; the next ones double.
pub const FIRST_BACKOFF: Duration = Duration::from_millis(10);
/// The longest wait between two attempts.
pub const LONGEST_BACKOFF: Duration = Duration::from_millis(100);

/// How the function names itself to AWS, in place of the SDK's lists of features.
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// A client for the view, which tells `pace` what becomes of its attempts.
pub fn new(sdk_config: &SdkConfig, pace: Arc<Pace>) -> Client {
    let retry = RetryConfig::standard()
        .with_max_attempts(MOST_ATTEMPTS)
        .with_initial_backoff(FIRST_BACKOFF)
        .with_max_backoff(LONGEST_BACKOFF);
    // The SDK's token bucket refuses retries in a storm of throttling. Here the writes in flight and the deadline bound them.
    let partition = RetryPartition::custom("dsql-view").token_bucket(TokenBucket::unlimited()).build();
    let config = aws_sdk_dynamodb::config::Builder::from(sdk_config)
        .retry_config(retry)
        .retry_partition(partition)
        .timeout_config(timeouts(OPERATION_TIMEOUT))
        // Bodies of a few hundred kilobytes at most, which the attempt's time-out covers.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .push_auth_scheme(KeepingAuthScheme::default())
        .interceptor(LeaveOut)
        .interceptor(TellPace(pace))
        .build();
    Client::from_conf(config)
}

pub(super) fn timeouts(operation: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(operation)
        .build()
}

/// Leaves out of a request what DynamoDB does nothing with.
///
/// The clock's skew, too: Lambda keeps its machines' clocks, and a signature that DynamoDB does not take is an error that is reported.
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

/// What DynamoDB answers where it is asked for more than it gives.
const THROTTLING: [&str; 3] = ["ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException"];

/// Tells the pace of each attempt that DynamoDB answered whether it was throttled.
#[derive(Debug)]
struct TellPace(Arc<Pace>);

#[dyn_dispatch_hint]
impl Intercept for TellPace {
    fn name(&self) -> &'static str {
        "TellPace"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match context.output_or_error() {
            Some(Ok(_)) => self.0.answered(false),
            Some(Err(error)) => {
                let Some(answer) = error.as_operation_error() else { return Ok(()) };
                let put = answer.downcast_ref::<PutItemError>().map(ProvideErrorMetadata::code);
                let code =
                    put.or_else(|| answer.downcast_ref::<BatchExecuteStatementError>().map(ProvideErrorMetadata::code));
                if let Some(code) = code {
                    self.0.answered(code.is_some_and(|code| THROTTLING.contains(&code)));
                }
            }
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Mutex;
    use std::time::SystemTime;

    use aws_config::{BehaviorVersion, Region};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_sdk_dynamodb::types::AttributeValue;
    use aws_smithy_async::time::StaticTimeSource;
    use aws_smithy_runtime_api::client::http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_types::body::SdkBody;

    use super::*;
    use crate::view::dynamodb::signing::tests::expected as expected_signature;

    /// Keeps the requests, and answers that all is well.
    #[derive(Debug, Clone, Default)]
    struct Wire(Arc<Mutex<Vec<HttpRequest>>>);

    impl HttpConnector for Wire {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            self.0.lock().unwrap().push(request);
            HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), SdkBody::from("{}"))))
        }
    }

    impl HttpClient for Wire {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(self.clone())
        }
    }

    #[tokio::test]
    async fn a_write_is_signed_and_has_no_header_that_dynamodb_does_nothing_with() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_773_835_200);
        let credentials = Credentials::new("AKIAEXAMPLE", "secret", Some("token".to_owned()), None, "test");
        let wire = Wire::default();
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
            .time_source(StaticTimeSource::new(now))
            .http_client(wire.clone())
            .build();
        let client = new(&config, Arc::new(Pace::new(NonZeroUsize::MIN)));
        client.put_item().table_name("view").item("pk", AttributeValue::S("1".to_owned())).send().await.unwrap();

        let sent = wire.0.lock().unwrap().remove(0);
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
        for (name, value) in expected_signature(&unsigned, now, &credentials) {
            assert_eq!(sent.headers().get(&name), Some(value.as_str()), "{name}");
        }
    }
}
