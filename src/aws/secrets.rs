//! Secrets in AWS Secrets Manager.
//!
//! Invariants: a secret's value reaches neither a log nor an error.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::retry::RetryConfig;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;

use crate::aws::service_error::ServiceError;

const SERVICE: &str = "Secrets Manager";

/// Lambda ends a function that is not ready after ten seconds. The function must tell its reason before.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);

/// The current value of the secret with this ARN or name, as bytes.
///
/// # Errors
/// Secrets Manager does not give it, or it is empty.
pub async fn value(sdk_config: &SdkConfig, id: &str) -> Result<Vec<u8>, ServiceError> {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let config = aws_sdk_secretsmanager::config::Builder::from(sdk_config)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard());
    let client = Client::from_conf(config.build());
    let answer = client.get_secret_value().secret_id(id).send().await;
    let answer = answer.map_err(|error| ServiceError::of(SERVICE, "give the secret", &error))?;
    let text = answer.secret_string.map(String::into_bytes);
    let value = text.or_else(|| answer.secret_binary.map(aws_sdk_secretsmanager::primitives::Blob::into_inner));
    value.filter(|value| !value.is_empty()).ok_or_else(|| ServiceError {
        service: SERVICE,
        action: "give the secret",
        reason: "the secret is empty".to_owned(),
    })
}
