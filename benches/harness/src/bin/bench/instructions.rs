//! Instructions, counted by valgrind's callgrind. No other process on the machine changes them.
//!
//! The cost of a batch is the difference of two runs, one with it and one without.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use dsql_view_support::runtime_api::Function;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::programs::{Program, Programs};
use crate::{BoxError, PLENTY, puts};

const CALLGRIND: [&str; 2] = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];

/// After 320 answers a process has 64 writes in flight, and so all the connections that it will have.
pub const WARM_UP: u64 = 400;

/// Callgrind, if it is installed.
pub struct Callgrind(PathBuf);

impl Callgrind {
    /// The callgrind on the path.
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("valgrind")).find(|file| file.exists()).map(Self)
    }

    /// The instructions of a batch, in a function that had some others before.
    pub async fn of_function(&self, program: &Program, before: &[&Bytes], batch: &Bytes) -> Result<u64, BoxError> {
        let without = self.function(program, before).await?;
        let with = self.function(program, &[before, &[batch]].concat()).await?;
        Ok(with.saturating_sub(without))
    }

    /// The instructions for sending a number of ready-made requests.
    pub async fn of_puts(
        &self,
        programs: &Programs,
        client: &str,
        endpoint: &str,
        count: u64,
    ) -> Result<u64, BoxError> {
        let without = self.puts(programs, client, endpoint, &format!("0 {WARM_UP}\nprepare 0 {count}\n")).await?;
        let with = self.puts(programs, client, endpoint, &format!("0 {WARM_UP}\n0 {count}\n")).await?;
        Ok(with.saturating_sub(without))
    }

    async fn function(&self, program: &Program, events: &[&Bytes]) -> Result<u64, BoxError> {
        let folder = TempDir::new()?;
        let wrapper = self.wrapper(folder.path(), &program.binary)?;
        let environment = program.environment.iter().map(|(name, value)| (name, value));
        let mut running = Function::start(&wrapper, environment)?;
        running.ready_or_ended().await;
        for event in events {
            running.invoke(Bytes::clone(event), PLENTY).await.response();
        }
        // Callgrind prints its count if the process ends by itself, or by a signal that callgrind sees.
        let process = running.id().ok_or_else(|| running.lines().join("\n"))?;
        kill(Pid::from_raw(i32::try_from(process)?), Signal::SIGTERM)?;
        running.ended().await?;
        // The last lines come through their own pipe, a little later.
        tokio::time::sleep(Duration::from_millis(100)).await;
        collected(&running.lines().join("\n"))
    }

    async fn puts(&self, programs: &Programs, client: &str, endpoint: &str, input: &str) -> Result<u64, BoxError> {
        let mut valgrind = Command::new(&self.0);
        valgrind.args(CALLGRIND).arg(puts::binary(programs, client));
        let mut process = puts::wrapped(valgrind, client, endpoint, 64).stderr(Stdio::piped()).spawn()?;
        process.stdin.take().ok_or("no input")?.write_all(input.as_bytes()).await?;
        collected(&String::from_utf8_lossy(&process.wait_with_output().await?.stderr))
    }

    /// A script that starts the binary under callgrind, because the test kit starts a binary without arguments.
    fn wrapper(&self, folder: &Path, binary: &Path) -> Result<PathBuf, BoxError> {
        let wrapper = folder.join("callgrind");
        let script = format!("#!/bin/sh\nexec '{}' {} '{}'\n", self.0.display(), CALLGRIND.join(" "), binary.display());
        std::fs::write(&wrapper, script)?;
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
        Ok(wrapper)
    }
}

fn collected(output: &str) -> Result<u64, BoxError> {
    let line = output.lines().find_map(|line| line.split_once("Collected : "));
    Ok(line.ok_or_else(|| format!("callgrind gave no count: {output}"))?.1.trim().parse()?)
}
