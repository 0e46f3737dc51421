//! Stage 3: the records of a batch, from the plan to the end of each.
//!
//! [`plan`] decides how to handle each record, [`ledger`] keeps the end of each, and [`tally`] counts the
//! ends. [`answer`](mod@answer) reports to Lambda what must come again.

#![deny(clippy::disallowed_methods)]

pub mod answer;
pub mod coalesce;
pub mod disposition;
pub mod ledger;
pub mod plan;
pub mod poison;
pub mod tally;
