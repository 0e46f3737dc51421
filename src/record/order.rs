//! The order among changes: which of two changes of a row wins.
//!
//! Invariants: only [`CommitTimestamp::supersedes`] says which of two changes wins; nothing here knows JSON's envelope,
//! DynamoDB or Kinesis.

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

/// When a change was committed, in exact nanoseconds since 1970-01-01 UTC.
///
/// Current values have 19 digits. A floating-point number cannot hold them, so the value stays an integer throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitTimestamp(NonZeroU64);

impl CommitTimestamp {
    /// The timestamp of `nanoseconds` since the epoch, or `None` for zero, which no commit has.
    pub fn from_nanoseconds(nanoseconds: u64) -> Option<Self> {
        NonZeroU64::new(nanoseconds).map(Self)
    }

    /// Whether a change committed at `self` replaces one of the same row committed at `other`.
    ///
    /// True only if `self` is strictly later. A row has one change record per transaction, so equal timestamps are the
    /// same change again. The write's condition, `write::dynamodb::NEWER_THAN_THE_VIEW`, says the same to DynamoDB.
    pub fn supersedes(self, other: Self) -> bool {
        self > other
    }

    /// The time since 1970-01-01 UTC.
    pub fn since_epoch(self) -> Duration {
        Duration::from_nanos(self.0.get())
    }

    /// How long before `now` the commit was; zero if the clock is behind the database's.
    pub fn age(self, now: SystemTime) -> Duration {
        let committed = SystemTime::UNIX_EPOCH + self.since_epoch();
        now.duration_since(committed).unwrap_or_default()
    }
}

impl fmt::Display for CommitTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of a record's two timestamps is the commit timestamp.
///
/// DSQL has published two layouts. A record of the general availability has a `type`, and the documentation calls its
/// `source.ts_ns` the total order of commits. A preview record has no `type`, and its root `ts_ns` is the commit
/// timestamp. In both layouts, the other timestamp says when the change stream made the record. It is later, unless the
/// stream's clock is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampPlace {
    /// `source.ts_ns` if the record has a `type`, else the earlier of the two.
    #[default]
    Auto,
    /// The earlier of the two, whatever the layout.
    Earliest,
    /// `source.ts_ns`.
    Source,
    /// The root's `ts_ns`.
    Root,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_strictly_later_commit_supersedes() {
        let at = |ns| CommitTimestamp::from_nanoseconds(ns).unwrap();
        for (change, other, supersedes) in [
            (1_773_843_841_076_494_566, 1_773_843_841_076_494_565, true),
            (1_773_843_841_076_494_565, 1_773_843_841_076_494_565, false),
            (1_773_843_841_076_494_564, 1_773_843_841_076_494_565, false),
        ] {
            assert_eq!(at(change).supersedes(at(other)), supersedes, "{change} over {other}");
        }
    }

    #[test]
    fn the_epoch_itself_is_no_commit_timestamp() {
        assert_eq!(CommitTimestamp::from_nanoseconds(0), None);
    }
}
