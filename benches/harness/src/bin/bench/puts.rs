//! The process of the binary `puts`, which only writes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use dsql_view_support::dynamodb::environment;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::BoxError;
use crate::programs::Programs;
use crate::subject::Spent;

/// A process that writes when it is told to.
pub struct Puts {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

#[derive(Deserialize)]
struct Answer {
    wall: Duration,
    cpu: Duration,
    failed: u64,
}

/// The command that starts it.
pub fn command(programs: &Programs, client: &str, endpoint: &str, in_flight: usize) -> Command {
    wrapped(Command::new(binary(programs, client)), client, endpoint, in_flight)
}

/// The binary that has the client, with the allocator that belongs to it.
pub fn binary(programs: &Programs, client: &str) -> PathBuf {
    programs.beside(if client == "own" { "puts_with_mimalloc" } else { "puts" })
}

/// The command that starts it within another one, which gets it as its last arguments.
pub fn wrapped(mut command: Command, client: &str, endpoint: &str, in_flight: usize) -> Command {
    command
        .arg(client)
        .arg(in_flight.to_string())
        .env_clear()
        .envs(environment(endpoint))
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Puts {
    pub fn start(programs: &Programs, client: &str, endpoint: &str, in_flight: usize) -> Result<Self, BoxError> {
        let mut process = command(programs, client, endpoint, in_flight).spawn()?;
        let input = process.stdin.take().ok_or("no input")?;
        let output = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        Ok(Self { input, output, _process: process })
    }

    /// Puts a number of rows.
    pub async fn put(&mut self, first: u64, count: u64) -> Result<Spent, BoxError> {
        self.input.write_all(format!("{first} {count}\n").as_bytes()).await?;
        let line = self.output.next_line().await?.ok_or("puts has ended")?;
        let answer: Answer = serde_json::from_str(&line)?;
        if answer.failed > 0 {
            return Err(format!("{} puts of {count} failed", answer.failed).into());
        }
        Ok(Spent { wall: answer.wall, cpu: answer.cpu, reported: 0 })
    }
}
