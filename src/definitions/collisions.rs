//! stub
use crate::definitions::source_tables::SourceTables;
/// stub
pub fn collisions(_tables: &SourceTables) -> Vec<String> {
    Vec::new()
}
