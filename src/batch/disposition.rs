//! The ends of a record: every record that the function receives ends in exactly one [`Disposition`].
//!
//! Invariants: pure; [`Failure::is_poison`] alone decides whether a record can ever be applied. It names every variant,
//! so the compiler asks the question for each new one.

use std::fmt;

use crate::aws::service_error::ServiceError;
use crate::item::projection::ProjectionError;
use crate::record::envelope::DecodeError;
use crate::record::fragments::AssemblyError;

/// How a record ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The view shows it.
    Applied,
    /// The view already shows a newer change of the row, or this same one.
    Superseded(Superseded),
    /// Its table is not in `SOURCE_TABLES`.
    Filtered,
    /// It is a member of the set of a change over 9 MiB. It stands whole in the bucket until the other members are
    /// there; the last of them applies the change.
    Kept,
    /// No repetition can apply it. It stands whole in the quarantine.
    Quarantined(Failure),
    /// It is reported as a batch item failure, so that it is delivered again.
    Reported(Failure),
}

/// How the function learned that a change is superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Superseded {
    /// The view or the batch has a newer change of the row, or has this same one but did not say so.
    Told,
    /// The view or the batch already has this very change.
    Same,
    /// The function remembers that the view confirmed this change or a newer one, so it did not ask again.
    Remembered,
}

/// Why a record is quarantined or reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It is not a readable change record.
    #[error(transparent)]
    Decode(DecodeError),
    /// It cannot become an item of the view.
    #[error(transparent)]
    Project(ProjectionError),
    /// DynamoDB does not take the item, and no repetition will change that.
    #[error("DynamoDB does not take the item: {0}")]
    Refused(String),
    /// An index of the view's table does not take the item. DynamoDB takes it once the index has changed.
    #[error(
        "an index of the view's table does not take the item: {0}; the record applies once the function knows the index, or the index is \
         gone"
    )]
    RefusedByIndex(String),
    /// It comes from the quarantine and is older than any tombstone that can still exist, and the view has no older
    /// item of its row. The row may have been deleted since.
    #[error("{MAY_BE_DELETED}")]
    MayBeDeleted,
    /// It is a member of a split change's set, and there is no bucket to keep it in.
    #[error("the record is a part of a change over 9 MiB: set OBJECTS_BUCKET, where the parts wait for each other")]
    NoBucket,
    /// The change that its fragments make cannot be read.
    #[error(transparent)]
    Assemble(AssemblyError),
    /// The bucket did not take or give an object that this record needs.
    #[error(transparent)]
    Objects(ServiceError),
    /// DynamoDB did not answer, or did not take the write this time. The write may have happened.
    #[error("the view did not confirm the write: {0}")]
    Retryable(String),
    /// Nothing can be written: the table, the permission or the credentials are missing.
    #[error("the view cannot be written: {0}")]
    Unavailable(String),
    /// Another write of the batch found that nothing can be written, so this one was not tried.
    #[error("not tried, since another write of the batch found that the view cannot be written")]
    NotTried,
    /// A newer change of the same row is reported, and this one shares its fate.
    #[error("a newer change of the same row is reported, and this one with it")]
    NewerReported,
    /// The invocation's time was running out before the record was tried, or while it was.
    #[error(
        "the invocation's time was running out; a longer time-out or a smaller batch helps, or more capacity where the table throttles"
    )]
    OutOfTime,
}

/// Why an old record stays in the quarantine, and what to do.
pub const MAY_BE_DELETED: &str = "held back: the row may have been deleted since. The change is older than TOMBSTONE_TTL less an hour, so a \
     later deletion's tombstone may be gone, and the view has no older item of the row. Ask the database. If it has the row, change it \
     there and replay again, or replay with force (which does not help a table whose definition has conditions or an expiry). If not, remove the object";

/// The stage at which a record failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From bytes to a change event.
    Decode,
    /// From the main record and the fragments of a split change to the whole.
    Assemble,
    /// From a change event to an item.
    Project,
    /// Writing the item.
    Apply,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode => "decode",
            Self::Assemble => "assemble",
            Self::Project => "project",
            Self::Apply => "apply",
        })
    }
}

impl Disposition {
    /// Whether DynamoDB refused the item because of its content, perhaps only for an index.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Reported(Failure::Refused(_) | Failure::RefusedByIndex(_)))
    }

    /// Ranks the ends of a record that belongs to two split changes. The end with the larger weight demands more.
    pub fn weight(&self) -> u8 {
        match self {
            Self::Kept => 0,
            Self::Filtered => 1,
            Self::Superseded(_) => 2,
            Self::Applied => 3,
            Self::Quarantined(_) => 4,
            // A refused change is quarantined at worst. A record that may be applied another time must come again.
            Self::Reported(Failure::Refused(_)) => 5,
            Self::Reported(_) => 6,
        }
    }
}

impl From<Superseded> for Disposition {
    fn from(how: Superseded) -> Self {
        Self::Superseded(how)
    }
}

impl From<Failure> for Disposition {
    fn from(failure: Failure) -> Self {
        Self::Reported(failure)
    }
}

impl Failure {
    /// Whether no repetition can apply the record. If not, it may be applied when it is delivered again.
    pub fn is_poison(&self) -> bool {
        match self {
            Self::Decode(_) | Self::Assemble(_) | Self::Project(_) | Self::Refused(_) => true,
            Self::RefusedByIndex(_)
            | Self::MayBeDeleted
            | Self::NoBucket
            | Self::Objects(_)
            | Self::Retryable(_)
            | Self::Unavailable(_)
            | Self::NotTried
            | Self::NewerReported
            | Self::OutOfTime => false,
        }
    }

    /// The stage at which the record failed.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Decode(_) => Stage::Decode,
            Self::NoBucket | Self::Assemble(_) | Self::Objects(_) => Stage::Assemble,
            Self::Project(_) => Stage::Project,
            Self::Refused(_)
            | Self::RefusedByIndex(_)
            | Self::MayBeDeleted
            | Self::Retryable(_)
            | Self::Unavailable(_)
            | Self::NotTried
            | Self::NewerReported
            | Self::OutOfTime => Stage::Apply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::OBJECTS_BUCKET;

    #[test]
    fn a_failure_that_may_pass_is_never_poison() {
        for (failure, poison, stage) in [
            (Failure::Decode(DecodeError::UnknownType), true, Stage::Decode),
            (Failure::Project(ProjectionError::KeyTooLong { bytes: 2049, most: 2048 }), true, Stage::Project),
            (Failure::Refused(String::new()), true, Stage::Apply),
            (Failure::NoBucket, false, Stage::Assemble),
            (Failure::Assemble(AssemblyError::Checksum), true, Stage::Assemble),
            (
                Failure::Objects(ServiceError { service: OBJECTS_BUCKET, action: "", reason: String::new() }),
                false,
                Stage::Assemble,
            ),
            (Failure::Retryable(String::new()), false, Stage::Apply),
            (Failure::Unavailable(String::new()), false, Stage::Apply),
            (Failure::NotTried, false, Stage::Apply),
            (Failure::NewerReported, false, Stage::Apply),
            (Failure::OutOfTime, false, Stage::Apply),
        ] {
            assert_eq!((failure.is_poison(), failure.stage()), (poison, stage), "{failure:?}");
        }
    }

    #[test]
    fn a_failure_says_what_is_wrong_and_what_helps() {
        let objects = ServiceError { service: OBJECTS_BUCKET, action: "take an object", reason: "SlowDown".to_owned() };
        for (failure, expected) in [
            (Failure::Decode(DecodeError::UnknownType), "the record's type is not known"),
            (Failure::Project(ProjectionError::KeyTooLong { bytes: 2049, most: 2048 }), "the key has 2049 bytes"),
            (Failure::Refused("too large".to_owned()), "DynamoDB does not take the item: too large"),
            (Failure::NoBucket, "set OBJECTS_BUCKET"),
            (Failure::Assemble(AssemblyError::Checksum), "do not have the CRC32C"),
            (Failure::Objects(objects), "OBJECTS_BUCKET did not take an object: SlowDown"),
            (Failure::Retryable("503".to_owned()), "the view did not confirm the write: 503"),
            (Failure::Unavailable("denied".to_owned()), "the view cannot be written: denied"),
            (Failure::NotTried, "not tried"),
            (Failure::NewerReported, "a newer change of the same row is reported"),
            (Failure::OutOfTime, "time was running out"),
        ] {
            assert!(failure.to_string().contains(expected), "{failure}");
        }
        let stages = [Stage::Decode, Stage::Assemble, Stage::Project, Stage::Apply].map(|stage| stage.to_string());
        assert_eq!(stages, ["decode", "assemble", "project", "apply"]);
    }
}
