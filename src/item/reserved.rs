//! The names of the view's own attributes, which no column can have.

/// The commit timestamp in nanoseconds, an N.
pub const TS_NS: &str = "_ts_ns";
/// The transaction, an S.
pub const TX_ID: &str = "_tx_id";
/// `true` on a tombstone, else absent.
pub const DELETED: &str = "_deleted";
/// On a tombstone: when DynamoDB may remove it, an N of epoch seconds.
pub const EXPIRES_AT: &str = "_expires_at";

/// The addresses of the columns that moved to objects, an M of S; absent if none moved.
pub const OVERFLOW: &str = "_overflow";

/// The names of the view's own attributes, which no column can have.
pub const RESERVED_COLUMNS: [&str; 4] = [TS_NS, TX_ID, DELETED, EXPIRES_AT];
