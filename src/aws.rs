//! How the functions reach AWS: the [`https`] client, the `signing` of requests, and the SDK's errors as text.

pub mod https;
pub mod service_error;
pub(crate) mod signing;
