//! The place for what does not fit into the view: a bucket, as the handler sees it.
//!
//! Invariant: an object counts as written only where the bucket confirmed it.

use std::future::Future;

pub mod s3;

/// Where objects are put. One trait, so that the handler knows nothing of S3.
pub trait Objects {
    /// Puts an object in place of what stands at its key.
    ///
    /// # Errors
    /// Why the object is not there for certain; free of its contents.
    fn put(&self, key: String, body: Vec<u8>) -> impl Future<Output = Result<(), ObjectsError>>;
}

/// Why an object is not there for certain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the object could not be written to OBJECTS_BUCKET: {reason}")]
pub struct ObjectsError {
    /// What S3 or the way to it says.
    pub reason: String,
}
