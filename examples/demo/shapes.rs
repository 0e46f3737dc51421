//! The last step of the demo: one row, first as its columns stand in the record, then in the shape of view definitions.

use std::error::Error;
use std::path::Path;

use dsql_view_support::dynamodb::{self, LocalDynamoDb};
use dsql_view_support::kinesis;
use dsql_view_support::runtime_api::{Function, Outcome};
use dsql_view_support::table;

use crate::{TIMEOUT, wrapped};

const DEFINITIONS: &str = include_str!("views.toml");
const DEFINITIONS_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/views.toml");

const ABOUT: &str = "The same record goes to two functions. The first has SOURCE_TABLES alone, so the item has the columns \
                     as they stand in the record. The second has the view definitions below: keys and index attributes for \
                     the queries, the types and names that readers want, an address in one document, and no drafts.";

/// The changes of one order: how it stands, and the draft that it was before.
fn record(status: &str, committed: u64) -> String {
    format!(
        r#"{{"type":"full","op":"u","before":null,"after":{{"id":17,"customer":"C-7","status":"{status}","total":"129.90","placed_at":1773843841048727,"street":"12 Long Lane","city":"York","extras":"{{\"gift\":true,\"weight\":1.250}}","note":"call first"}},"source":{{"version":"1.0","schema":"public","table":"orders","ts_ns":{committed}}},"ts_ns":{committed}}}"#
    )
}

/// Shows the row in both forms.
pub async fn run(binaries: &Path) -> Result<(), Box<dyn Error>> {
    println!("\n━━ View definitions: one row as it is, and in the shape that its readers want ━━");
    println!("{}\n", wrapped(ABOUT));
    let (draft, placed) = (record("draft", 1_773_843_850_000_000_000), record("placed", 1_773_843_851_000_000_000));
    println!("  record  {placed}");
    let db = LocalDynamoDb::start();
    for (view, setting) in [
        ("raw", ("SOURCE_TABLES", "orders(id)".to_owned())),
        ("shaped", ("VIEW_DEFINITIONS", DEFINITIONS_FILE.to_owned())),
    ] {
        db.create_view(view).await;
        let mut environment = dynamodb::environment(&db.endpoint());
        environment.extend([("VIEW_TABLE", view.to_owned()), setting]);
        let binary = binaries.join(format!("dsql-view{}", std::env::consts::EXE_SUFFIX));
        let mut function = Function::start(&binary, environment)?;
        if view == "shaped" {
            println!("\n  The view definitions:\n");
            DEFINITIONS.lines().for_each(|line| println!("{}", format!("  {line}").trim_end()));
            deliver(&mut function, &draft).await?;
            println!("\n  As a draft, the order is hidden:\n{}", table::render(&db.items(view).await));
            println!("\n  Once it is placed:");
        } else {
            println!("\n  Without view definitions:");
        }
        deliver(&mut function, &placed).await?;
        println!("{}", table::render(&db.items(view).await));
    }
    Ok(())
}

async fn deliver(function: &mut Function, record: &str) -> Result<(), Box<dyn Error>> {
    let event = kinesis::event_of([record]).to_string();
    match function.invoke(event.into_bytes(), TIMEOUT).await {
        Outcome::Response(answer) if kinesis::reported(&answer).is_empty() => Ok(()),
        other => Err(format!("the order was not applied: {other:?}\n{}", function.lines().join("\n")).into()),
    }
}
