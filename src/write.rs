//! Stage 4: the items into DynamoDB.
//!
//! [`apply`](mod@apply) writes the rows of a batch through a [`view::View`]. Three views stand before each other:
//! [`memory`] remembers what was written, [`large_rows`] keeps moved columns, [`dynamodb`] makes the requests.

pub mod apply;
pub mod attempts;
pub mod creates;
pub mod dynamodb;
pub mod large_rows;
pub mod memory;
pub mod pace;
pub mod view;
