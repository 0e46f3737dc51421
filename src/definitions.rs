//! What the view makes of each source table: which columns, types and keys an item has, which rows it shows, and in
//! which DynamoDB table it stands. `SOURCE_TABLES` and a definitions file (`views.toml`) are two forms of it.
//!
//! Invariants: pure; everything is checked once, at the start; nothing behind this folder knows TOML or the text of a
//! template.

pub mod collisions;
pub mod conditions;
pub mod file;
pub mod marks;
pub mod numbers;
pub mod shape;
pub mod source_tables;
pub mod template;
pub mod types;
