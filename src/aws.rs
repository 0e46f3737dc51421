//! How the functions reach AWS: the [`https`] client, the `signing` of requests, [`secrets`], and the SDK's errors as
//! text.

pub mod https;
pub mod secrets;
pub mod service_error;
pub(crate) mod signing;
