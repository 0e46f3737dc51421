//! The code that the tools share: torture, e2e, local, soak and the dashboard.
//!
//! | module | |
//! |---|---|
//! | [`given`] | the variables that a run gets from the environment, and its exit code |
//! | [`stream`] | a stream by Kinesis's own interface |
//! | [`on_failure`] | the on-failure queue, with the redrive function behind it |
//! | [`quarantine`] | the quarantine, compared with the poison records |

pub mod given;
pub mod on_failure;
pub mod quarantine;
pub mod stream;

/// Why a run cannot be made.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
