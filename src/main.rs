//! The function's binary: wires the settings, the view and the Lambda runtime together.

use std::error::Error;
use std::process::ExitCode;

use aws_config::BehaviorVersion;
use dsql_view::apply::Deadline;
use dsql_view::config::Config;
use dsql_view::delivery::Delivery;
use dsql_view::handler::Handler;
use dsql_view::objects::s3::S3Objects;
use dsql_view::telemetry;
use dsql_view::view::overflow::OverflowView;
use lambda_runtime::{Diagnostic, LambdaEvent, Runtime, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::init(variable);
    if variable("AWS_LAMBDA_RUNTIME_API").is_none() {
        eprintln!(
            "This is a function for AWS Lambda: it takes its batches from Lambda's Runtime API, and AWS_LAMBDA_RUNTIME_API is not \
             set.\nTo run it on this machine, see `make demo`, or `make watch` and `make invoke`."
        );
        return ExitCode::FAILURE;
    }
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the function stops");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let handler = match start().await {
        Ok(handler) => handler,
        Err(error) => {
            init_error::report(error.as_ref()).await;
            return Err(error);
        }
    };
    let handler = &handler;
    let function = service_fn(|event: LambdaEvent<Delivery>| async move {
        let LambdaEvent { payload, context, .. } = event;
        let deadline = Deadline::of_invocation(context.deadline);
        match payload.into_batch() {
            Ok(batch) => Ok(handler.handle(&batch, &context.request_id, deadline).await),
            Err(error) => {
                tracing::error!(request_id = context.request_id, %error, "no batch");
                Err(Diagnostic { error_type: "NoKinesisEvent".to_owned(), error_message: error.to_string() })
            }
        }
    });
    Runtime::new(function).run().await
}

async fn start() -> Result<Handler<OverflowView<S3Objects>, S3Objects>, Box<dyn Error + Send + Sync>> {
    let config = Config::from_variables(variable)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let tables: Vec<String> = config.source_tables.iter().map(ToString::to_string).collect();
    let view_table = config.view_table.clone();
    let sdk_config = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
    let handler = Handler::start(config, &sdk_config).await?;
    tracing::info!(view_table, source_tables = tables.join(", "), "ready");
    Ok(handler)
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

mod init_error {
    //! Tells Lambda why the function cannot start, so that the reason stands in the invocation's error and not in the log alone.

    use std::error::Error;

    use http::{Method, Request};
    use lambda_runtime_api_client::PooledClient;
    use lambda_runtime_api_client::body::Body;

    pub async fn report(error: &dyn Error) {
        let body = serde_json::json!({ "errorType": "Runtime.InitError", "errorMessage": error.to_string() });
        let request = Request::builder()
            .method(Method::POST)
            .uri("/2018-06-01/runtime/init/error")
            .header("Lambda-Runtime-Function-Error-Type", "Runtime.InitError")
            .body(Body::from(body.to_string()));
        // The process ends with the error in any case: where Lambda cannot be told, the log has it.
        if let Ok(request) = request
            && let Err(error) = PooledClient::builder().build().call(request).await
        {
            tracing::warn!(%error, "Lambda could not be told why the function cannot start");
        }
    }
}
