//! Keeps a DynamoDB table equal to the newest committed rows of an Aurora DSQL database, fed by its change stream.
//!
//! The way of a record, in reading order:
//!
//! | step | module | |
//! |---|---|---|
//! | settings | [`config`] | read once from the environment |
//! | take in | [`delivery`] | Lambda's event to a batch |
//! | decode | [`envelope`] | record bytes to a [`change::ChangeEvent`] |
//! | route | [`plan`] | tables that are not configured are filtered |
//! | project | [`projection`], [`key`], [`view::attributes`], [`overflow`] | change to item or tombstone that fits |
//! | coalesce | [`coalesce`](mod@coalesce) | one write a row: the newest |
//! | apply | [`apply`](mod@apply), [`pace`], [`view`] | conditional puts, as many at once as DynamoDB takes, in time |
//! | assemble | [`assembly`], [`fragments`] | parts of split changes wait in `OBJECTS_BUCKET`; the last applies all |
//! | quarantine | [`quarantine`], [`objects`] | poison records to `OBJECTS_BUCKET`, so that they hold no shard |
//! | report | [`report`](mod@report) | the sequence numbers to deliver again |
//!
//! [`disposition`] says how a record's way can end, [`handler`] runs the steps, [`telemetry`] logs them, [`tally`] and
//! [`attempts`] count them for [`metrics`](mod@metrics). [`redrive`] is the second function, which brings back what did
//! not come this way; [`lambda`] is what the two binaries share, [`https`] how they reach AWS, [`panics`] what is told
//! of a panic.
//!
//! Invariants: only [`apply`](mod@apply), [`assembly`], [`pace`], [`quarantine`], [`view`]'s adapters,
//! [`objects::s3`], [`handler`], [`https`], [`metrics`](mod@metrics) and [`redrive`] do I/O or read a clock; the order
//! of changes stands in [`change::CommitTimestamp::supersedes`] alone; no row's value reaches a log or an error.

#![cfg_attr(not(test), warn(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used))]

pub mod apply;
pub mod assembly;
pub mod attempts;
pub mod change;
pub mod coalesce;
pub mod config;
pub mod creates;
pub mod delivery;
pub mod disposition;
pub mod envelope;
pub mod fragments;
pub mod handler;
pub mod https;
pub mod key;
pub mod lambda;
pub mod metrics;
pub mod notices;
pub mod objects;
pub mod overflow;
pub mod pace;
pub mod panics;
pub mod plan;
pub mod projection;
pub mod quarantine;
pub mod redrive;
pub mod report;
pub mod sdk_error;
pub mod tally;
pub mod telemetry;
pub mod view;
