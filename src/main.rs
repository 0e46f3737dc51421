//! The function's binary: wires the settings, the view and the Lambda runtime together.

use std::process::ExitCode;

use dsql_view::deadline::Deadline;
use dsql_view::handler::Handler;
use dsql_view::lambda::panics;
use dsql_view::lambda::start::{self, BoxError};
use dsql_view::observe::logs;
use dsql_view::record::delivery::Delivery;
use lambda_runtime::{Diagnostic, LambdaEvent, Runtime, service_fn};
use mimalloc::MiMalloc;
use tracing::Instrument;

/// A fast allocator matters, because a write takes hundreds of allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    start::exit_code(run().await)
}

async fn run() -> Result<(), BoxError> {
    let handler = start::start(async |config, sdk_config| Ok(Handler::start(config, &sdk_config).await?)).await?;
    let handler = &handler;
    let function = service_fn(|event: LambdaEvent<Delivery>| {
        let LambdaEvent { payload, context, .. } = event;
        let invocation = async move {
            let deadline = Deadline::of_invocation(context.deadline);
            match payload.into_batch() {
                Ok(batch) => Ok(handler.handle(&batch, deadline).await),
                Err(error) => {
                    tracing::error!(%error, "no batch");
                    Err(Diagnostic { error_type: "NoKinesisEvent".to_owned(), error_message: error.to_string() })
                }
            }
        };
        panics::failing(invocation.instrument(logs::invocation(&context.request_id)))
    });
    Runtime::new(function).run().await
}
