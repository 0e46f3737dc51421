//! The variables that a run gets from the environment, and its exit code.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// The value of a variable. An empty variable counts as not set.
///
/// # Errors
/// The variable holds something other than the `expected` value.
pub fn variable<T: FromStr>(name: &str, expected: &str) -> Result<Option<T>, String> {
    let value = std::env::var(name).unwrap_or_default();
    let parsed = (!value.is_empty()).then(|| value.parse());
    parsed.transpose().map_err(|_| format!("{name}: expected {expected}, found {value:?}"))
}

/// The file that a variable names. Without the variable, it is the binary of this name in cargo's folder for `profile`.
///
/// # Errors
/// There is no such file.
pub fn binary(variable: &str, profile: &str, name: &str) -> Result<PathBuf, String> {
    let given = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = match given {
        Some(path) => path,
        None => beside_this(profile, name).ok_or("expected this program to stand in a folder of cargo's")?,
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("{variable}: expected a file at {}, found none: build it, or name another", path.display()))
}

/// This program stands in `debug` or `release`. The folder of each profile stands beside that folder.
fn beside_this(profile: &str, name: &str) -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?;
    Some(this.parent()?.parent()?.join(profile).join(name))
}

/// The exit code of a run that went well or not. If the run could not be made, this also says so.
pub fn exit_code(ended: Result<bool, impl Display>, failed: &str) -> ExitCode {
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\n{failed}: {error}");
            ExitCode::FAILURE
        }
    }
}
