//! The code around Lambda's runtime that the binaries share: the environment, the start, and how Lambda learns that the
//! start failed.

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::{BehaviorVersion, SdkConfig};
use http::{Method, Request};
use lambda_runtime_api_client::PooledClient;
use lambda_runtime_api_client::body::Body;

use crate::aws::https;
use crate::config::Config;
use crate::definitions::source_tables::SourceTables;
use crate::lambda::panics;
use crate::observe::{logs, metrics};

/// Any error with which a start can fail.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A variable of the environment.
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The exit code of a binary whose function ended like this.
pub fn exit_code(function: Result<(), BoxError>) -> ExitCode {
    match function {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the function stops");
            ExitCode::FAILURE
        }
    }
}

/// Starts the log and the metrics, and calls `start` with the settings. Without Lambda, it explains that and ends the
/// process.
///
/// # Errors
/// The settings are wrong, or `start` failed. Lambda has been told.
pub async fn start<T, F>(start: impl FnOnce(Config, SdkConfig) -> F) -> Result<T, BoxError>
where
    F: Future<Output = Result<T, BoxError>>,
{
    logs::init(variable);
    panics::log_places_alone();
    metrics::init(variable);
    if variable("AWS_LAMBDA_RUNTIME_API").is_none() {
        eprintln!(
            "This is a function for AWS Lambda: it takes its events from Lambda's Runtime API, and AWS_LAMBDA_RUNTIME_API is not \
             set.\nTo run it on this machine, see `make demo`, or `make watch` and `make invoke`."
        );
        std::process::exit(1);
    }
    let started = async {
        let config = Config::from_variables(variable)?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let source_tables = named(&config.source_tables);
        let view_tables: Vec<String> = config.view_tables.iter().map(|table| table.name.clone()).collect();
        let definitions = config.definitions.clone();
        let started = start(config, sdk_config().await?).await?;
        let view_table = view_tables.join(", ");
        if let Some((definitions, digest)) = definitions {
            tracing::info!(view_table, source_tables, definitions, digest, "ready");
        } else {
            tracing::info!(view_table, source_tables, "ready");
        }
        Ok(started)
    };
    let started: Result<T, BoxError> = started.await;
    if let Err(error) = &started {
        tell_lambda(error.as_ref()).await;
    }
    started
}

/// The names of the tables for the log, and how many more there are.
fn named(tables: &SourceTables) -> String {
    const MOST: usize = 100;
    let names: Vec<String> = tables.iter().take(MOST).map(ToString::to_string).collect();
    let more = tables.iter().skip(MOST).count();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// The configuration that the SDK's clients share. Lambda gives a function its region and its credentials in the
/// environment. Only if they are missing, the SDK's whole usual chain is prepared, which takes longer than the rest of
/// a start.
async fn sdk_config() -> Result<SdkConfig, BoxError> {
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(https::client()?);
    let given = ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        .iter()
        .all(|name| variable(name).is_some_and(|value| !value.trim().is_empty()));
    let loader = if given {
        loader
            .region(EnvironmentVariableRegionProvider::new())
            .credentials_provider(EnvironmentVariableCredentialsProvider::new())
    } else {
        loader
    };
    Ok(loader.load().await)
}

/// Tells Lambda why the function cannot start, so that the reason is in the invocation's error and not only in the log.
async fn tell_lambda(error: &dyn Error) {
    let body = serde_json::json!({ "errorType": "Runtime.InitError", "errorMessage": error.to_string() });
    let request = Request::builder()
        .method(Method::POST)
        .uri("/2018-06-01/runtime/init/error")
        .header("Lambda-Runtime-Function-Error-Type", "Runtime.InitError")
        .body(Body::from(body.to_string()));
    // The process ends with the error in any case. If Lambda cannot be told, the log has the error.
    if let Ok(request) = request
        && let Err(error) = PooledClient::builder().build().call(request).await
    {
        tracing::warn!(%error, "Lambda could not be told why the function cannot start");
    }
}
