//! The local AWS, with the template deployed to it. A process starts it, and ends it when
//! the process's standard input ends.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dsql_view_support::cdc::CLUSTER;
use dsql_view_support::dynamodb::{ACCESS_KEY, SECRET_KEY};
use dsql_view_support::mapping;
use dsql_view_support::proxy::{Fault, FaultProxy};
use dsql_view_support::random::Random;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Failure;
use crate::workload::SOURCE_TABLES;

const ACCOUNT: &str = "123456789012";

/// Killed processes and their temporary files are gone soon. After this time, no waiting helps.
const LONGEST_END: Duration = Duration::from_secs(20);

/// A local AWS. It ends when this is dropped.
pub struct LocalAws {
    pub stack: Stack,
    _faults: FaultProxy,
    _process: Process,
}

/// The resources that the deployment of the template has made.
#[derive(Debug, Deserialize)]
pub struct Stack {
    pub endpoint: String,
    pub stream_arn: String,
    /// The name of the function that keeps the view.
    pub function: String,
    timeout_seconds: u64,
    /// The table.
    pub view: String,
    pub bucket: String,
    /// The URLs of the queues.
    pub on_failure_queue: String,
    pub dead_letter_queue: String,
    mapping: MappingSettings,
}

/// The settings of the stream's mapping.
#[derive(Debug, Deserialize)]
struct MappingSettings {
    batch_size: usize,
    window_seconds: u64,
    parallelization: u32,
    maximum_retries: i64,
    maximum_age_seconds: u64,
    bisects: bool,
    reports_failures: bool,
}

impl Stack {
    /// The time that the function has for an invocation.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// The settings of the stream's mapping. -1 retries mean any number of them.
    pub fn mapping(&self) -> mapping::Settings {
        let deployed = &self.mapping;
        mapping::Settings {
            batch_size: deployed.batch_size,
            window: Duration::from_secs(deployed.window_seconds),
            parallelization: deployed.parallelization,
            maximum_retries: u32::try_from(deployed.maximum_retries).ok(),
            maximum_age: Some(Duration::from_secs(deployed.maximum_age_seconds)),
            bisect: deployed.bisects,
            report_failures: deployed.reports_failures,
            ..mapping::Settings::default()
        }
    }
}

impl LocalAws {
    /// Starts the local AWS, and deploys the template to it with these binaries. Of a hundred writes of the function
    /// that keeps the view, DynamoDB refuses as many as `faults` says.
    pub async fn start(python: &Path, function: &Path, redrive: &Path, faults: u64) -> Result<Self, Failure> {
        // The port was free a moment ago. Another process that asks now gets another port.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let faults = faults_before_dynamodb(&format!("http://127.0.0.1:{port}"), faults);
        let settings = json!({
            "port": port,
            "dynamodb": faults.endpoint(),
            "account": ACCOUNT,
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "binaries": { "ViewFunction": function, "RedriveFunction": redrive },
            // With the cluster, the template makes the role for its changes too.
            "parameters": { "ClusterId": CLUSTER, "SourceTables": SOURCE_TABLES, "Architecture": architecture() },
        });
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(python);
        command.arg(here.join("local/aws.py")).arg(here.join("../template.yaml")).arg(settings.to_string());
        // The process has a group of its own, because Ctrl-C is for this program, which ends that process.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|error| {
            format!("expected a Python with ministack at {}: {error}; run `make local`", python.display())
        })?;
        let told = process.stdout.take().ok_or("a piped output")?;
        let process = Process(process);
        let line = BufReader::new(told).lines().next_line().await?;
        let line = line.ok_or("the local AWS did not start; what it said stands above")?;
        let stack: Stack = serde_json::from_str(&line)?;
        Ok(Self { stack, _faults: faults, _process: process })
    }
}

/// A process that ends when its standard input does.
struct Process(Child);

impl Drop for Process {
    /// Waits until the process is gone, with all that it has started.
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let started = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && started.elapsed() < LONGEST_END {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A proxy that refuses writes with an error that nobody has seen before. Such a record is reported, and comes again.
fn faults_before_dynamodb(endpoint: &str, percent: u64) -> FaultProxy {
    let random = Mutex::new(Random::new(1));
    FaultProxy::start(endpoint, move |_| {
        if random.lock().expect("no holder panics").percent(percent) {
            Fault::Error { status: 400, code: "NewInAnotherYearException" }
        } else {
            Fault::None
        }
    })
}

/// This machine's architecture, as the template names it.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_has_the_settings_of_the_deployed_one() {
        let deployed = |retries: i64| {
            let stack: Stack = serde_json::from_value(json!({
                "endpoint": "http://127.0.0.1:1", "stream_arn": "a:stream/s", "function": "f", "timeout_seconds": 60, "view": "v",
                "bucket": "b", "on_failure_queue": "q", "dead_letter_queue": "d",
                "mapping": {
                    "batch_size": 1000, "window_seconds": 1, "parallelization": 3, "maximum_retries": retries,
                    "maximum_age_seconds": 60, "bisects": false, "reports_failures": true,
                },
            }))
            .unwrap();
            stack.mapping()
        };
        let mapping = deployed(100);
        assert_eq!((mapping.batch_size, mapping.parallelization, mapping.maximum_retries), (1000, 3, Some(100)));
        assert_eq!((mapping.window, mapping.maximum_age), (Duration::from_secs(1), Some(Duration::from_secs(60))));
        assert!(!mapping.bisect && mapping.report_failures);
        assert_eq!(deployed(-1).maximum_retries, None);
    }
}
