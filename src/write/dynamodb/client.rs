//! The SDK's client for the view: its limits, and which parts of the SDK's work on each request are kept or left out.
//! It sends each request once. The module `retry` tries it again.
//!
//! The SDK spends most of a write's time on work that is the same for each write, or that serves the SDK's makers. The
//! client changes all of this work where the SDK allows it. The requests are the SDK's own.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_runtime::invocation_id::InvocationIdInterceptor;
use aws_runtime::request_info::RequestInfoInterceptor;
use aws_runtime::service_clock_skew::ServiceClockSkewInterceptor;
use aws_runtime::user_agent::UserAgentInterceptor;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::{
    BeforeSerializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{ConfigBag, IdentityCache, Intercept, RuntimeComponents, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::{disable_interceptor, dyn_dispatch_hint};

use crate::aws::signing::KeepingAuthScheme;

/// DynamoDB answers in some milliseconds, and the SDK sets no limits of its own. An attempt must outlast a large item
/// over a new connection of a small function.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long credentials may take to load if they do not stand in the environment. They load within an attempt, so this
/// time is shorter than an attempt: then the error names the credentials as too slow. Without a limit, the SDK adds up
/// for each request how long all attempts of a write would take at worst.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(3);

/// How the function names itself to AWS, in place of the SDK's lists of features.
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// A client for the view, which makes one attempt at each request.
pub fn new(sdk_config: &SdkConfig) -> Client {
    let config = aws_sdk_dynamodb::config::Builder::from(sdk_config)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build())
        .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build())
        // Bodies have a few hundred kilobytes at most, and the attempt's time-out covers them.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .push_auth_scheme(KeepingAuthScheme::default())
        .interceptor(LeaveOut)
        .build();
    Client::from_conf(config)
}

/// Leaves out the parts of a request that DynamoDB does nothing with.
///
/// The correction of the clock's skew is left out too. Lambda keeps its machines' clocks, and a signature that DynamoDB
/// does not take is an error that is reported.
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

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};
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
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;

    use super::*;
    use crate::aws::signing::tests::expected as expected_signature;

    pub const DONE: (u16, &str) = (200, "{}");
    /// A service that is down cuts the connection.
    pub const CUT: (u16, &str) = (0, "");
    /// There is no answer.
    pub const SILENT: (u16, &str) = (0, "silent");

    /// Keeps the requests, and answers the first ones as told. All further requests get the last of these answers.
    #[derive(Debug, Clone)]
    pub struct Wire {
        pub sent: Arc<Mutex<Vec<HttpRequest>>>,
        answers: Arc<[(u16, &'static str)]>,
    }

    impl Wire {
        pub fn new(answers: &[(u16, &'static str)]) -> Self {
            Self { sent: Arc::default(), answers: answers.into() }
        }

        pub fn client(&self) -> Client {
            let config = SdkConfig::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new("eu-central-1"))
                .credentials_provider(SharedCredentialsProvider::new(credentials()))
                .time_source(StaticTimeSource::new(now()))
                .http_client(self.clone())
                .build();
            new(&config)
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
        let client = wire.client();
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
}
