//! Facts about an item that are counted and told.

/// Facts that are counted, but do not prevent the change from being applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// See [`crate::record::change::ChangeEvent::clock_behind`].
    pub clock_behind: bool,
    /// The number of columns that became text, or hold a value that did, because DynamoDB or its clients cannot hold
    /// them as they are.
    pub as_text: usize,
    /// The attributes that the item lacks because an index does not take them, or because a value cannot stand in them.
    pub left_out: Vec<String>,
    /// The columns whose values do not fit their types, and so stand as in the record.
    pub unfit: Vec<String>,
    /// The columns that the definition does not list.
    pub unlisted: Vec<String>,
    /// Whether the conditions of the definition hide the row, so that a tombstone stands there.
    pub hidden: bool,
}
