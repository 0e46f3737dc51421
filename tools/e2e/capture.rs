//! Change data capture as Aurora DSQL does it, out of a PostgreSQL. The messages of the replication slot become
//! records, transaction by transaction, while the workload runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dsql_view_support::random::Random;
use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::Failure;
use crate::changes::{CommitClock, Kind, net_effect};
use crate::comparison::Recorded;
use crate::decoding::{Decoder, Transaction};
use crate::records::{Commit, Form, records};
use crate::tables::Table;
use crate::values;

const SLOT: &str = "capture";

/// The captured transactions, with counts of their records.
#[derive(Debug, Default)]
pub struct Captured {
    /// The transactions, by PostgreSQL's number.
    pub transactions: HashMap<u32, Recorded>,
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Operations without a record of their own, because another one of the same transaction on the same row has one.
    pub folded: u64,
    pub split: u64,
    pub fragments: u64,
    /// The size in bytes of the largest record, fragments left out.
    pub largest: usize,
}

/// Lets the slot keep everything that is committed from now on.
pub async fn start(client: &Client) -> Result<(), Failure> {
    client.batch_execute("CREATE PUBLICATION capture FOR ALL TABLES").await?;
    client.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&SLOT]).await?;
    Ok(())
}

/// Turns everything that is committed into records, until the workload is over.
pub async fn run(
    client: &Client,
    tables: &[Table],
    is_over: &AtomicBool,
    to: mpsc::Sender<String>,
    mut random: Random,
) -> Result<Captured, Failure> {
    client.batch_execute(values::SETTINGS).await?;
    let statement = "SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, 500, 'proto_version', '1', 'publication_names', $2)";
    let mut captured = Captured::default();
    let mut clock = CommitClock::default();
    let mut decoder = Decoder::default();
    loop {
        let is_last = is_over.load(Ordering::Acquire);
        let messages = client.query(statement, &[&SLOT, &"capture"]).await?;
        for message in &messages {
            let Some(transaction) = decoder.message(message.get(0))? else { continue };
            for record in captured.records(&transaction, tables, &mut clock, &mut random)? {
                to.send(record).await?;
            }
        }
        if messages.is_empty() {
            if is_last {
                return Ok(captured);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Captured {
    fn records(
        &mut self,
        transaction: &Transaction,
        tables: &[Table],
        clock: &mut CommitClock,
        random: &mut Random,
    ) -> Result<Vec<String>, Failure> {
        let primary_key = |schema: &str, name: &str| {
            let table = tables.iter().find(|table| (table.schema, table.name) == (schema, name));
            table.map(|table| table.key.iter().map(|(column, _)| column.name.as_str()).collect()).unwrap_or_default()
        };
        let commit = Commit {
            timestamp: clock.tick(transaction.committed),
            transaction: format!("tx{:06x}{:012x}", transaction.id, random.number() >> 16),
        };
        let recorded = Recorded { commit: commit.clone(), committed: transaction.committed };
        self.transactions.insert(transaction.id, recorded);
        let changes = net_effect(transaction, primary_key);
        self.folded += (transaction.operations.len().saturating_sub(changes.len())) as u64;
        let mut all = Vec::new();
        for change in changes {
            match change.kind {
                Kind::Create => self.created += 1,
                Kind::Update => self.updated += 1,
                Kind::Delete => self.deleted += 1,
            }
            let records = records(&change, &commit, &Form::any(random))?;
            if let fragments @ 1.. = records.len() - 1 {
                self.split += 1;
                self.fragments += fragments as u64;
            }
            self.largest = self.largest.max(records[0].len());
            all.extend(records);
        }
        Ok(all)
    }
}
