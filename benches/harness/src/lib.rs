//! What `make bench` measures the function with. The binary `bench` is the driver, `puts` the same writes without a
//! function around them.
//!
//! | module | |
//! |---|---|
//! | [`workload`] | the changes, as events and as the items that they become |
//! | [`clock`] | the processor's time of a process |

pub mod clock;
pub mod workload;
