//! Stage 1: from the bytes of a record to a change of one row.
//!
//! [`delivery`] reads Lambda's event, and [`decode`] each record's bytes. [`crate::definitions`] names the tables that
//! the view keeps.

#![deny(clippy::disallowed_methods)]

pub mod change;
pub mod chunked;
pub mod decode;
pub mod delivery;
pub mod envelope;
pub mod fragments;
pub(crate) mod json;
pub mod order;
pub mod sequence;
