//! The test kit of the tests, the benches and the demo. It knows the documented contract and nothing of the function's
//! code, so that each checks the other.
//!
//! | module | |
//! |---|---|
//! | [`dynamodb`] | an in-process DynamoDB, and how to read a view in it |
//! | [`objects`] | an in-process S3 |
//! | [`shards`] | the part of Kinesis that a reader of shards sees, in the process |
//! | [`queues`] | the part of SQS that a function behind a queue calls, in the process |
//! | [`services`] | all of these, and one endpoint for them |
//! | [`proxy`] | faults between the function and the services |
//! | [`runtime_api`] | Lambda's Runtime API around the real binary |
//! | [`lambda`] | a function with as many processes as are needed at a time |
//! | [`events`] | the sample events and their sources |
//! | [`kinesis`] | Lambda events as Kinesis mappings deliver them |
//! | [`mapping`] | Lambda's event source mapping: which records are delivered, when, how often |
//! | [`random`] | random numbers that a seed repeats |
//! | [`cdc`] | change records as Aurora DSQL writes them, with the attribute values that they must become |
//! | [`model`] | the reference model: the contents that a view must have after a history |
//! | [`progress`] | a sign of life for long runs |
//! | [`tls`] | TLS in front of a server, and a proxy that tunnels |
//! | [`table`](mod@table) | a view as a table for people |
//!
//! Every server listens on a free port of the loopback interface and ends when it is dropped.

pub mod cdc;
pub mod dynamodb;
pub mod events;
pub mod kinesis;
pub mod lambda;
pub mod mapping;
pub mod model;
pub mod objects;
pub mod pages;
pub mod progress;
pub mod proxy;
pub mod queues;
pub mod random;
pub mod runtime_api;
pub mod secrets;
mod server;
pub mod services;
pub mod shards;
pub mod table;
pub mod tls;
