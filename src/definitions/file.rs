//! stub
use crate::definitions::marks::Marks;
use crate::definitions::source_tables::SourceTables;
/// stub
pub struct Definitions {
    /// stub
    pub tables: SourceTables,
    /// stub
    pub marks: Marks,
    /// stub
    pub warnings: Vec<String>,
}
/// stub
pub fn read(_name: &str, _bytes: &[u8]) -> Result<Definitions, String> {
    Err(String::new())
}
