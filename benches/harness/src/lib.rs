//! The tools of `make bench`. The binary `bench` is the driver; `puts` makes the same writes without a function around
//! them.
//!
//! | module | |
//! |---|---|
//! | [`workload`] | the changes, as events and as the items that they become |
//! | [`clock`] | the processor time of a process |

pub mod clock;
pub mod workload;
