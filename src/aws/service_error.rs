//! Why a service of AWS did not do what was asked, in words that cannot quote what was sent.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// Why a service did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service} did not {action}: {reason}")]
pub struct ServiceError {
    /// The service, as a user knows it.
    pub service: &'static str,
    /// What was asked of it.
    pub action: &'static str,
    /// Why it was not done: codes, and the way to the service.
    pub reason: String,
}

impl ServiceError {
    /// What the SDK's error means.
    pub(crate) fn of<E: ProvideErrorMetadata>(
        service: &'static str,
        action: &'static str,
        error: &SdkError<E>,
    ) -> Self {
        let reason = match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                format!("{} (HTTP {status})", answer.err().code().unwrap_or("no error code"))
            }
            SdkError::TimeoutError(_) => "it did not answer in time".to_owned(),
            SdkError::DispatchFailure(_) => "the request could not be sent or was cut off".to_owned(),
            SdkError::ResponseError(_) => "its answer could not be read".to_owned(),
            _ => "the request could not be made".to_owned(),
        };
        Self { service, action, reason }
    }
}
