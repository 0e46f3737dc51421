//! Stage 2: from a change to the item that the view must hold.
//!
//! [`projection`] makes the item. It takes the key from [`key`] and the values from [`values`]. It moves large
//! columns to objects with [`large_rows`]. [`schema`] and [`indexes`] tell what the view's tables take.

#![deny(clippy::disallowed_methods)]

pub mod indexes;
pub mod key;
pub mod large_rows;
pub mod projection;
pub mod schema;
pub mod values;
