//! The redrive function's binary: wires the settings, the view, the queues and the Lambda runtime together.

use std::process::ExitCode;

use dsql_view::deadline::Deadline;
use dsql_view::lambda::panics;
use dsql_view::lambda::start::{self, BoxError};
use dsql_view::observe::logs;
use dsql_view::redrive::{Invocation, Redrive};
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
    let redrive = start::start(async |config, sdk_config| Ok(Redrive::start(config, &sdk_config).await?)).await?;
    let redrive = &redrive;
    let function = service_fn(|event: LambdaEvent<Invocation>| {
        let LambdaEvent { payload, context, .. } = event;
        let invocation = async move {
            let deadline = Deadline::of_invocation(context.deadline);
            redrive.handle(payload, deadline).await.map_err(|error| {
                tracing::error!(%error, "not done");
                Diagnostic { error_type: "NotDone".to_owned(), error_message: error.to_string() }
            })
        };
        panics::failing(invocation.instrument(logs::invocation(&context.request_id)))
    });
    Runtime::new(function).run().await
}
