//! Stage 3: the records of a batch, from the plan to the end of each.
//!
//! [`plan`] says what each record asks for, [`ledger`] keeps how each has ended, and [`tally`] counts the ends.

#![deny(clippy::disallowed_methods)]

pub mod coalesce;
pub mod disposition;
pub mod ledger;
pub mod plan;
pub mod poison;
pub mod tally;
