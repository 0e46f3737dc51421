//! What both functions share around Lambda's runtime: how they [`start`](mod@start), and what is told of [`panics`].

pub mod panics;
pub mod start;
