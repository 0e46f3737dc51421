//! Stage 2: from a change to the item that the view must hold.
//!
//! [`projection`] makes the item. It takes the key from [`key`] and the values from [`values`]. It moves large
//! columns to objects with [`large_rows`]. [`schema`] and [`indexes`] tell what the view's tables take. Where a
//! definitions file gives the table a shape, `shaped` draws the row: the values come from [`typed`], keys and index
//! attributes from [`templates`], and [`filter`] says whether the view shows the row.

#![deny(clippy::disallowed_methods)]

pub mod filter;
pub mod indexes;
pub mod key;
pub mod large_rows;
pub mod notes;
pub mod projection;
pub mod schema;
mod shaped;
pub mod templates;
pub mod typed;
pub mod values;
