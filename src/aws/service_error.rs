//! Why a service of AWS failed, in words that cannot quote the request.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// Why a service did not do the requested action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service} did not {action}: {reason}")]
pub struct ServiceError {
    /// The service, as a user knows it.
    pub service: &'static str,
    /// The requested action.
    pub action: &'static str,
    /// Why it failed: error codes, and problems on the way to the service.
    pub reason: String,
}

impl ServiceError {
    /// Puts an error of the SDK into words.
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
