//! A local DynamoDB for `make watch` and `make invoke`: serves until it is interrupted, or shows the contents of the
//! view.
//!
//!     cargo run --example dynamodb -- serve 8000 dsql-view
//!     cargo run --example dynamodb -- show 8000 dsql-view

use std::error::Error;

use aws_sdk_dynamodb::Client;
use dsql_view_support::dynamodb::{LocalDynamoDb, items, sdk_config};
use dsql_view_support::table;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, port, view] = arguments.as_slice() else {
        return Err("expected: serve or show, a port, the view table's name".into());
    };
    let port: u16 = port.parse().map_err(|_| format!("expected a port from 1 to 65535, found {port}"))?;
    match command.as_str() {
        "serve" => serve(port, view).await,
        "show" => {
            let client = Client::new(&sdk_config(&format!("http://127.0.0.1:{port}")));
            let items = items(&client, view).await.map_err(|error| {
                format!("the view on port {port} cannot be read; is `make dynamodb` running? {error}")
            })?;
            println!("{}", table::render(&items));
            Ok(())
        }
        other => Err(format!("expected serve or show, found {other}").into()),
    }
}

async fn serve(port: u16, view: &str) -> Result<(), Box<dyn Error>> {
    let db = LocalDynamoDb::start_on(port)
        .map_err(|error| format!("port {port} of this machine: {error}; is a local DynamoDB running already?"))?;
    db.create_view(view).await;
    println!("DynamoDB listens on {}, with an empty view in the table {view}. Ctrl-C ends it.", db.endpoint());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
