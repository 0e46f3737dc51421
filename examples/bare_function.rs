//! A Lambda function that does nothing: what `make bench` measures the start of the real one against.

use lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    Runtime::new(service_fn(async |event: LambdaEvent<Value>| Ok::<Value, lambda_runtime::Error>(event.payload)))
        .run()
        .await
}
