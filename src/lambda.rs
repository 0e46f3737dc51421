//! The code around Lambda's runtime that both functions share: their [`start`](mod@start), and their [`panics`].

pub mod panics;
pub mod start;
