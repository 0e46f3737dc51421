//! Stage 2: from a change to the item that the view shall hold.
//!
//! [`projection`] makes the item. It takes the key from [`key`], the values from [`attributes`], and moves large columns
//! to objects by [`overflow`].

#![deny(clippy::disallowed_methods)]

pub mod attributes;
pub mod indexes;
pub mod key;
pub mod overflow;
pub mod projection;
pub mod reserved;
