//! The functions' output for people: [`logs`], [`metrics`](mod@metrics), and [`notices`] of things that they should
//! look at.

pub mod logs;
pub mod metrics;
pub mod notices;
