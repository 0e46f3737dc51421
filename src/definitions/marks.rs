//! The names of the view's own attributes, which no column of an item can have.

/// The prefix of the names, unless the definitions give another.
pub const PREFIX: &str = "_";

/// The names of the view's own attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// The commit timestamp in nanoseconds, an N.
    pub ts_ns: String,
    /// The transaction, an S.
    pub tx_id: String,
    /// `true` on a tombstone, else absent.
    pub deleted: String,
    /// When DynamoDB may remove the item, an N of epoch seconds. Every tombstone has it.
    pub expires_at: String,
    /// The addresses of the columns that moved to objects, an M of S; absent if none moved.
    pub overflow: String,
}

impl Marks {
    /// The marks whose names begin with this prefix.
    pub fn with_prefix(prefix: &str) -> Self {
        let name = |name| format!("{prefix}{name}");
        Self {
            ts_ns: name("ts_ns"),
            tx_id: name("tx_id"),
            deleted: name("deleted"),
            expires_at: name("expires_at"),
            overflow: name("overflow"),
        }
    }

    /// The names that no column can have in any view.
    pub fn reserved(&self) -> [&str; 4] {
        [&self.ts_ns, &self.tx_id, &self.deleted, &self.expires_at]
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::with_prefix(PREFIX)
    }
}
