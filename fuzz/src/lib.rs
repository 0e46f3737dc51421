//! What must hold whatever comes: the checks of the fuzz targets, as plain functions.
//!
//! `cargo fuzz` runs them over what it makes up; `tests/corpus.rs` runs them over the committed corpus, without a
//! fuzzer.
//!
//! | module | checks |
//! |---|---|
//! | [`record`] | the bytes of records, to what has to be written |
//! | [`source_tables`] | the setting `SOURCE_TABLES` |
//! | [`fragments`] | the parts of split changes, to the changes that they make |
//! | [`on_failure`] | what the redrive function is given |
//!
//! They hold the library against a second view of the contract: [`contract`] says what a record must become,
//! [`storage`] what DynamoDB takes, [`json`] what a text says; [`world`] is a view and a bucket in memory.

pub mod contract;
pub mod fragments;
pub mod json;
pub mod on_failure;
pub mod record;
pub mod source_tables;
pub mod storage;
pub mod world;
