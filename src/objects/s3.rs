//! Objects in an S3 bucket.
//!
//! Invariants: the client is made with the first object, so that a function which never writes one pays nothing; an error's text
//! holds codes and the way to S3, never what was to be written.

use std::sync::OnceLock;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;

use crate::objects::{Objects, ObjectsError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Some megabytes take S3 well under a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(25);
const MOST_ATTEMPTS: u32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// A bucket.
#[derive(Debug)]
pub struct S3Objects {
    sdk_config: SdkConfig,
    bucket: String,
    client: OnceLock<Client>,
}

impl S3Objects {
    /// The bucket of that name.
    pub fn new(sdk_config: SdkConfig, bucket: String) -> Self {
        Self { sdk_config, bucket, client: OnceLock::new() }
    }

    fn client(&self) -> &Client {
        self.client.get_or_init(|| {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build();
            let retry = RetryConfig::standard().with_max_attempts(MOST_ATTEMPTS).with_initial_backoff(FIRST_BACKOFF);
            let config = aws_sdk_s3::config::Builder::from(&self.sdk_config);
            Client::from_conf(config.timeout_config(timeouts).retry_config(retry).build())
        })
    }
}

impl Objects for S3Objects {
    async fn put(&self, key: String, body: Vec<u8>) -> Result<(), ObjectsError> {
        let request = self.client().put_object().bucket(&self.bucket).key(key).body(ByteStream::from(body));
        match request.content_type("application/json").send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(ObjectsError { reason: reason(&error) }),
        }
    }
}

fn reason<E: ProvideErrorMetadata>(error: &SdkError<E>) -> String {
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            format!("{} (HTTP {status})", answer.err().code().unwrap_or("no error code"))
        }
        SdkError::TimeoutError(_) => "it did not answer in time".to_owned(),
        SdkError::DispatchFailure(_) => "the request could not be sent or was cut off".to_owned(),
        SdkError::ResponseError(_) => "its answer could not be read".to_owned(),
        _ => "the request could not be made".to_owned(),
    }
}
