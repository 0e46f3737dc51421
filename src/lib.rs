//! Keeps a DynamoDB table equal to the newest committed rows of an Aurora DSQL database, fed by its change stream.
//!
//! A batch of records passes through these stages, in this order:
//!
//! | stage | folder | |
//! |---|---|---|
//! | 1 | [`record`] | from the bytes of a record to a change of one row |
//! | 2 | [`item`] | from a change to the item that the view must hold |
//! | 3 | [`batch`] | the records of a batch, from the plan to the end of each |
//! | 4 | [`write`](mod@write) | the items into DynamoDB |
//!
//! [`handler`] runs the stages. Two detours start there: [`split_changes`] puts split changes together, and
//! [`quarantine`] keeps records that can never be applied. Both keep objects in a [`bucket`]. [`redrive`] is the second
//! function: it brings back the records that Lambda could not deliver. [`observe`] logs and counts, [`aws`] reaches
//! AWS, [`lambda`] starts both functions, and [`config`] reads their settings.
//!
//! Invariants: `record`, `item` and `batch` do no I/O and read no clock;
//! [`record::order::CommitTimestamp::supersedes`] alone decides which of two changes wins; no row's value reaches a
//! log or an error.

#![cfg_attr(not(test), warn(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used))]

pub mod aws;
pub mod batch;
pub mod bucket;
pub mod config;
pub mod deadline;
pub mod definitions;
pub mod handler;
pub(crate) mod hash;
pub mod item;
pub mod lambda;
pub(crate) mod lock;
pub mod observe;
pub mod quarantine;
pub mod record;
pub mod redrive;
pub mod split_changes;
pub mod write;
