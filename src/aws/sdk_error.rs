//! What went wrong on the way to a service of AWS, in words that cannot quote what was sent.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// The reason, by codes alone.
pub fn reason<E: ProvideErrorMetadata>(error: &SdkError<E>) -> String {
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
