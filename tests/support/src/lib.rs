//! What the tests, the benches and the demo run on. It knows the documented contract and nothing of the function's
//! code, so that both are checked against each other.
//!
//! | module | |
//! |---|---|
//! | [`dynamodb`] | a DynamoDB of the process's own, and how to read a view in it |
//! | [`objects`] | an S3 of the process's own |
//! | [`shards`] | what a reader of Kinesis shards sees, in the process |
//! | [`queues`] | what a function behind an SQS queue calls, in the process |
//! | [`services`] | all of these, and one endpoint for them |
//! | [`proxy`] | faults between the function and the services |
//! | [`runtime_api`] | Lambda's Runtime API around the real binary |
//! | [`lambda`] | a function of as many processes as are needed at a time |
//! | [`events`] | the sample events, and what they are made of |
//! | [`kinesis`] | Lambda events as Kinesis mappings deliver them |
//! | [`mapping`] | Lambda's event source mapping: what is delivered, when, how often |
//! | [`random`] | random numbers that a seed repeats |
//! | [`cdc`] | change records as Aurora DSQL writes them, with the attribute values that they shall become |
//! | [`model`] | the reference model: what a view must hold after a history |
//! | [`progress`] | a sign of life of what runs long |
//! | [`tls`] | TLS before a server, and a proxy that tunnels |
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
pub mod progress;
pub mod proxy;
pub mod queues;
pub mod random;
pub mod runtime_api;
mod server;
pub mod services;
pub mod shards;
pub mod table;
pub mod tls;
