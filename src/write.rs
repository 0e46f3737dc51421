//! Stage 4: writing the items to DynamoDB.
//!
//! [`apply`](mod@apply) writes the rows of a batch through a [`view::View`]. Three views wrap one another: [`memory`]
//! remembers confirmed commits, [`large_rows`] keeps moved columns, and [`dynamodb`] makes the requests.

pub mod apply;
pub mod attempts;
pub mod creates;
pub mod dynamodb;
pub mod large_rows;
pub mod memory;
pub mod pace;
pub mod view;
