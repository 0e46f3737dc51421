//! The machine, the day and the versions that a run's figures belong to.

use std::process::Command;

use serde_json::Value;

use crate::programs::Programs;

/// The packages of the peers in Python whose versions matter.
const OF_PYTHON: [&str; 2] = ["boto3", "aws_lambda_powertools"];

/// The head of the document.
pub fn heading(programs: &Programs) -> String {
    let processor = read("/proc/cpuinfo");
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("of no known name");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rows = [
        ("day", said_by("date", &["-u", "+%F"])),
        ("commit", said_by("git", &["describe", "--always", "--dirty"])),
        ("processor", Some(format!("{}, {cores} cores", processor.trim_start_matches([' ', '\t', ':'])))),
        ("kernel", Some(read("/proc/sys/kernel/osrelease").trim().to_owned())),
        ("versions", Some(versions(programs).join(", "))),
    ];
    let rows = rows.map(|(name, value)| format!("| {name} | {} |\n", value.unwrap_or_default()));
    format!(
        "# Benchmarks\n\n\
         `make bench` writes this page, so do not edit it. Each turn measures the programs side by side, and a time \
         is the median of several turns. A ratio of times is the median of the turns' own ratios. If two more ratios \
         stand beside it in brackets, a quarter of the turns lies below the first, and a quarter above the \
         second.\n\n\
         Some figures come from a single run: memory (the most that one process had), write units, the storms over a \
         rate, callgrind's instructions, and sizes. criterion has its own statistics. Ratios come first, because \
         times belong to this machine and this day. Other machines have other times.\n\n\
         | | |\n|---|---|\n{}\n\
         CPU is the processor time of the whole process: user and system, all threads. The DynamoDB is a stub on the \
         loopback interface, in a process of its own. It speaks DynamoDB's HTTP, and answers after 0 or 5 ms without \
         storing anything. Functions run behind the real exchange of Lambda's Runtime API.\n\n\
         A change is a record of some 460 bytes with eight columns. No two changes of a batch are of the same row, \
         unless a section says otherwise. The function is the release binary with the default settings. All other \
         Rust programs are built in the same profile.\n",
        rows.concat()
    )
}

fn versions(programs: &Programs) -> Vec<String> {
    let sdk = read(&programs.of_project("Cargo.lock").to_string_lossy());
    let sdk = sdk.split("name = \"aws-sdk-dynamodb\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    let python = read(&programs.of_project("benches/peers/python/requirements.txt").to_string_lossy());
    let python = python.lines().filter_map(|line| line.split_once("==")).filter(|(name, _)| OF_PYTHON.contains(name));
    let node = read(&programs.of_project("benches/peers/node/package.json").to_string_lossy());
    let node: Value = serde_json::from_str(&node).unwrap_or_default();
    let node = node["dependencies"].as_object().into_iter().flatten();
    let node = node.filter_map(|(name, version)| Some(format!("{name} {}", version.as_str()?)));

    let mut versions = Vec::new();
    versions.extend(said_by("rustc", &["--version"]));
    versions.extend(sdk.map(|version| format!("aws-sdk-dynamodb {version}")));
    versions.extend(said_by("python3", &["--version"]));
    versions.extend(python.map(|(name, version)| format!("{name} {version}")));
    versions.extend(said_by("node", &["--version"]).map(|version| format!("Node.js {version}")));
    versions.extend(node);
    versions.extend(said_by("valgrind", &["--version"]));
    versions
}

/// The first line that a command prints, if any.
fn said_by(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
