//! What people see of the functions: [`logs`], [`metrics`](mod@metrics), and [`notices`] of what they should look at.

pub mod logs;
pub mod metrics;
pub mod notices;
