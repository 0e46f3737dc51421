//! The checks of the fuzz targets, as plain functions: they must hold for every input.
//!
//! `cargo fuzz` runs them over inputs that it makes up; `tests/corpus.rs` runs them over the committed corpus, without
//! a fuzzer.
//!
//! | module | checks |
//! |---|---|
//! | [`record`] | the bytes of records, up to the items to write |
//! | [`definitions`] | the definitions file, up to the items of its tables' rows |
//! | [`source_tables`] | the setting `SOURCE_TABLES` |
//! | [`fragments`] | the members of sets, up to the changes that they make |
//! | [`on_failure`] | the redrive function's inputs |
//!
//! They compare the library with a second view of the contract: [`contract`] says what each record must become,
//! [`storage`] what DynamoDB accepts, [`json`] what a text says. [`world`] is a view and a bucket in memory.

pub mod contract;
pub mod definitions;
pub mod fragments;
pub mod json;
pub mod on_failure;
pub mod record;
pub mod source_tables;
pub mod storage;
pub mod world;
