//! The writes alone: PutItem requests that are ready before the clock runs, with the given number of writes in flight.
//!
//! `puts <client> <writes in flight>`, with the environment that the AWS SDK reads. Each line on standard input,
//! `<first row> <count>`, makes this number of puts. The answer is a line of JSON: the time, the processor time, and
//! how many failed. With `prepare` before the line, the requests are made but not sent, so that the cost of making them
//! can be subtracted. The clients:
//!
//! | `sdk` | the SDK's, with its defaults |
//! |---|---|
//! | `own` | dsql-view's; with its allocator too as `puts_with_mimalloc` |
//! | `hand-made` | no SDK: ready-made JSON, `aws-sigv4`, one HTTP client |

use std::error::Error;
use std::io::{BufRead, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view::aws::https;
use dsql_view::write::dynamodb::client;
use dsql_view_bench::clock::own_cpu_time;
use dsql_view_bench::workload::{VIEW, change, item};
use dsql_view_support::cdc::Change;
use futures_util::stream::{self, StreamExt};
use serde_json::json;

mod hand_made;

use hand_made::HandMade;

/// An error that ends the program.
pub type BoxError = Box<dyn Error + Send + Sync>;

const CONDITION: &str = "attribute_not_exists(#ts) OR #ts < :ts";

/// A client that puts items.
trait Writer {
    type Request;

    /// Makes the request for a change's item.
    fn prepare(&self, change: &Change) -> Self::Request;

    /// Sends the request; true if it was done or its condition was not met.
    fn send(&self, request: Self::Request) -> impl Future<Output = bool>;
}

/// Makes the puts that standard input asks for.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [client, in_flight] = arguments.as_slice() else {
        return Err("usage: puts <client> <writes in flight>".into());
    };
    let in_flight: NonZeroUsize = in_flight.parse()?;
    let sdk_config = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
    match client.as_str() {
        "sdk" => serve(&Client::new(&sdk_config), in_flight).await,
        "own" => serve(&client::new(&own_https(&sdk_config)?), in_flight).await,
        "hand-made" => serve(&HandMade::new(&sdk_config)?, in_flight).await,
        other => Err(format!("expected the client sdk, own or hand-made, found {other}").into()),
    }
}

/// With dsql-view's HTTPS client in place of the default one.
fn own_https(sdk_config: &SdkConfig) -> Result<SdkConfig, BoxError> {
    Ok(sdk_config.clone().into_builder().http_client(https::client()?).build())
}

/// Performs the lines of standard input.
async fn serve<W: Writer>(writer: &W, in_flight: NonZeroUsize) -> Result<(), BoxError> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let sends = !line.starts_with("prepare ");
        let (first, count) =
            line.trim_start_matches("prepare ").split_once(' ').ok_or("expected <first row> <count>")?;
        let (first, count): (u64, u64) = (first.parse()?, count.parse()?);
        let requests: Vec<W::Request> = (first..first + count).map(|row| writer.prepare(&change(row, row))).collect();
        let (started, spent) = (Instant::now(), own_cpu_time()?);
        let mut failed = 0;
        if sends {
            let mut puts = stream::iter(requests).map(|request| writer.send(request)).buffer_unordered(in_flight.get());
            while let Some(is_done) = puts.next().await {
                failed += u32::from(!is_done);
            }
        }
        let (wall, cpu) = (started.elapsed(), own_cpu_time()?.saturating_sub(spent));
        println!("{}", json!({ "wall": wall, "cpu": cpu, "failed": failed }));
        std::io::stdout().flush()?;
    }
    Ok(())
}

impl Writer for Client {
    type Request = PutItemFluentBuilder;

    fn prepare(&self, change: &Change) -> Self::Request {
        self.put_item()
            .table_name(VIEW)
            .set_item(Some(item(change)))
            .condition_expression(CONDITION)
            .expression_attribute_names("#ts", "_ts_ns")
            .expression_attribute_values(":ts", AttributeValue::N(change.committed.to_string()))
    }

    async fn send(&self, request: Self::Request) -> bool {
        match request.send().await {
            Ok(_) => true,
            Err(error) => error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception),
        }
    }
}
