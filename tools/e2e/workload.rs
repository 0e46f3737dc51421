//! The workload: random transactions of several sessions at once, a session that changes a table's columns, and one
//! with large rows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dsql_view_support::random::Random;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::tables::{Column, DOCUMENTS, EVOLVING, Table, Type, quoted};
use crate::{Failure, told};
use crate::{literals, statements};

/// How often a table's columns change.
const SCHEMA_CHANGES: u64 = 40;

/// Counts of what the sessions have done so far.
#[derive(Debug, Default)]
pub struct Progress {
    pub committed: AtomicU64,
    pub rolled_back: AtomicU64,
    /// Transactions that ran again, after a deadlock or a lost race.
    pub retried: AtomicU64,
    /// Rows that statements of committed transactions changed. One row can count several times.
    pub changes: AtomicU64,
    pub schema_changes: AtomicU64,
}

/// The state that the sessions share.
#[derive(Debug)]
pub struct Workload {
    pub tables: Vec<Table>,
    pub progress: Progress,
    /// How many changes the sessions have to make.
    pub changes: u64,
}

/// How a transaction ended.
enum End {
    Committed(u64),
    RolledBack,
    /// The server ended it, because other transactions came in between.
    LostRace,
}

impl Workload {
    /// Whether all changes are made.
    pub fn is_done(&self) -> bool {
        self.progress.changes.load(Ordering::Relaxed) >= self.changes
    }

    fn table(&self, name: &str) -> &Table {
        self.tables.iter().find(|table| table.name == name).expect("a table of the workload")
    }

    /// Runs random transactions until all changes are made.
    pub async fn session(&self, client: Client, mut random: Random) -> Result<(), Failure> {
        client.batch_execute("SET deadlock_timeout = '20ms'").await?;
        while !self.is_done() {
            let statements = statements::transaction(&self.tables, &mut random);
            self.run(&client, &statements).await?;
        }
        Ok(())
    }

    /// Changes a table's columns while its rows change.
    pub async fn evolution(&self, client: Client, mut random: Random) -> Result<(), Failure> {
        client.batch_execute("SET deadlock_timeout = '20ms'").await?;
        let table = self.table(EVOLVING);
        let (mut number, mut changed) = (0, 0);
        while !self.is_done() {
            self.reach(changed, SCHEMA_CHANGES).await;
            let before = table.columns().clone();
            let mut after = before.clone();
            let place = 1 + random.below(before.len() - 1);
            let change = random.below(3);
            let statement = if before.len() <= 3 || (change == 0 && before.len() < 8) {
                number += 1;
                let of_type = Type::ALL[random.below(Type::ALL.len())];
                let name =
                    [format!("c{number}"), format!("C {number} é"), format!("c.{number}#%")][random.below(3)].clone();
                after.push(Column::new(name.clone(), of_type));
                format!("ADD COLUMN {} {}", quoted(&name), of_type.sql())
            } else if change == 1 {
                let dropped = after.remove(place);
                format!("DROP COLUMN {}", quoted(&dropped.name))
            } else {
                number += 1;
                after[place].name = format!("renamed {number}");
                format!("RENAME COLUMN {} TO {}", quoted(&before[place].name), quoted(&after[place].name))
            };
            if !self.run(&client, &[format!("ALTER TABLE {} {statement}", table.sql())]).await? {
                continue;
            }
            self.progress.schema_changes.fetch_add(1, Ordering::Relaxed);
            *table.columns() = after;
            // A change of the columns makes no record, so the view has the rows as they last were. They have a column
            // that no longer exists, or one under its old name. A new column is null in those rows. The view does not
            // tell that from a column that is missing.
            if !statement.starts_with("ADD") {
                let touch = format!("UPDATE {} SET counter = coalesce(counter, 0) % 1000 + 1", table.sql());
                while !self.run(&client, std::slice::from_ref(&touch)).await? {}
            }
            changed += 1;
        }
        Ok(())
    }

    /// Writes rows that are over DynamoDB's limit, over Lambda's, and over that of a record.
    pub async fn large_rows(&self, client: Client) -> Result<(), Failure> {
        let table = self.table(DOCUMENTS).sql();
        // Characters that PostgreSQL cannot compress away, and characters that take six bytes each in JSON.
        let noise = |bytes: u32| {
            format!("(SELECT string_agg(md5(n::text || random()), '') FROM generate_series(1, {}) n)", bytes / 32)
        };
        let control = |bytes: u32| format!("repeat(chr(1), {bytes})");
        let put = |id: u32, title: &str, body: String, scan: &str| {
            let title = literals::text(title);
            format!(
                "INSERT INTO {table} VALUES ({id}, {title}, {body}, {scan}) ON CONFLICT (id) DO UPDATE \
                 SET title = EXCLUDED.title, body = EXCLUDED.body, scan = EXCLUDED.scan"
            )
        };
        let steps = [
            put(1, "over 400 KB", noise(450_000), "NULL"),
            put(2, "two large columns", noise(300_000), "decode(repeat('00ff10', 60000), 'hex')"),
            put(3, "small at first", "'x'".to_owned(), "NULL"),
            // The large column is not in the change: PostgreSQL leaves it where it is.
            format!("UPDATE {table} SET title = 'over 400 KB still' WHERE id = 1"),
            put(4, "over what Lambda delivers", control(790_000), "NULL"),
            put(3, "large later", noise(410_000), "NULL"),
            put(5, "over a record's limit", control(1_575_000), "NULL"),
            put(2, "small again", "'x'".to_owned(), "NULL"),
            format!("DELETE FROM {table} WHERE id = 3"),
            put(3, "large, deleted, and here again", noise(410_000), "NULL"),
        ];
        let parts = steps.len() as u64;
        for (part, step) in (0..).zip(steps) {
            self.reach(part, parts).await;
            while !self.run(&client, std::slice::from_ref(&step)).await? {}
        }
        Ok(())
    }

    /// Waits until `part` of `parts` of all changes are made.
    async fn reach(&self, part: u64, parts: u64) {
        while self.progress.changes.load(Ordering::Relaxed) < self.changes * part / parts {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs a transaction, and runs it again as long as others come in between. Returns whether it committed.
    async fn run(&self, client: &Client, statements: &[String]) -> Result<bool, Failure> {
        loop {
            match attempt(client, statements).await? {
                End::Committed(changes) => {
                    self.progress.committed.fetch_add(1, Ordering::Relaxed);
                    self.progress.changes.fetch_add(changes, Ordering::Relaxed);
                    return Ok(true);
                }
                End::RolledBack => {
                    self.progress.rolled_back.fetch_add(1, Ordering::Relaxed);
                    return Ok(false);
                }
                End::LostRace => self.progress.retried.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
}

/// Runs a transaction once. A statement that breaks a rule of the tables within a savepoint is rolled back to it.
async fn attempt(client: &Client, statements: &[String]) -> Result<End, Failure> {
    client.batch_execute("BEGIN").await?;
    let mut changes = 0;
    let mut in_savepoint = false;
    for statement in statements {
        match client.simple_query(statement).await {
            Ok(messages) => {
                in_savepoint = match statement.as_str() {
                    "ROLLBACK" => return Ok(End::RolledBack),
                    "SAVEPOINT s" => true,
                    "RELEASE SAVEPOINT s" => false,
                    _ => in_savepoint,
                };
                changes += messages
                    .iter()
                    .map(|message| match message {
                        SimpleQueryMessage::CommandComplete(rows) => *rows,
                        _ => 0,
                    })
                    .sum::<u64>();
            }
            Err(error) => match error.code() {
                Some(&(SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED)) => {
                    client.batch_execute("ROLLBACK").await?;
                    return Ok(End::LostRace);
                }
                Some(&(SqlState::UNIQUE_VIOLATION | SqlState::FOREIGN_KEY_VIOLATION)) if in_savepoint => {
                    client.batch_execute("ROLLBACK TO SAVEPOINT s").await?;
                }
                // A column may have gone since the statement was made.
                Some(&(SqlState::UNIQUE_VIOLATION | SqlState::UNDEFINED_COLUMN)) => {
                    client.batch_execute("ROLLBACK").await?;
                    return Ok(End::RolledBack);
                }
                _ => {
                    return Err(told(&error, statement));
                }
            },
        }
    }
    match client.batch_execute("COMMIT").await {
        Ok(()) => Ok(End::Committed(changes)),
        Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => Ok(End::LostRace),
        Err(error) => Err(error.into()),
    }
}
