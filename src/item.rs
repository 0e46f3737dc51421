//! Stage 2: from a change to the item that the view must hold.
//!
//! [`projection`] makes the item. It takes the key from [`key`] and the values from [`attributes`]. It moves large
//! columns to objects with [`overflow`].

#![deny(clippy::disallowed_methods)]

pub mod attributes;
pub mod indexes;
pub mod key;
pub mod overflow;
pub mod projection;
pub mod reserved;
