//! The view in a DynamoDB table: one conditional PutItem a row, or many creates in a BatchExecuteStatement.
//!
//! Invariant: no write is without a condition, and none takes the view back in commit time.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_execute_statement::BatchExecuteStatementOutput;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::put_item::{PutItemError, PutItemOutput};
use aws_sdk_dynamodb::types::{
    AttributeValue, BatchStatementErrorCodeEnum, BatchStatementRequest, BatchStatementResponse, MultiRegionConsistency,
    ReturnValue, ReturnValuesOnConditionCheckFailure, TableDescription,
};
use tokio::time::Instant;

use self::errors::{classify, of_read, of_statements};
use self::retry::{OPENING_TIMEOUT, OPERATION_TIMEOUT, Sender};
use crate::batch::disposition::Superseded;
use crate::definitions::marks::Marks;
use crate::definitions::source_tables::SourceTables;
use crate::item::projection::{Guard, ViewItem};
use crate::item::schema::TableSchema;
use crate::record::order::CommitTimestamp;
use crate::write::view::{Put, View};

pub mod client;
mod errors;
mod insert_statement;
pub mod retry;
pub mod sample;

/// Tells DynamoDB the rule of [`crate::record::order::CommitTimestamp::supersedes`]. A row that is not there is older
/// than any commit.
pub const NEWER_THAN_THE_VIEW: &str = "attribute_not_exists(#ts) OR #ts < :ts";

/// As [`NEWER_THAN_THE_VIEW`], but an item must stand there, and it must not be a tombstone that was written late. See
/// [`Guard`].
const NEWER_THAN_WHAT_STANDS_THERE: &str = "#ts < :ts AND (attribute_not_exists(#deleted) OR #expires < :late)";

/// In addition: the item there has no moved columns, whose objects would be left behind.
const NOTHING_MOVED: &str = "attribute_not_exists(#overflow)";

/// No item meets it, so DynamoDB answers with the item that stands there. A role that may only write can see the item
/// in no other way.
const NEVER: &str = "attribute_exists(#ts) AND attribute_not_exists(#ts)";

/// The item there shows this commit.
const THIS_COMMIT: &str = "#ts = :ts";

/// A DynamoDB table of the view.
#[derive(Debug, Clone)]
pub struct DynamoDbView {
    client: Client,
    sender: Sender,
    table: String,
    /// The setting that names the table, for messages.
    setting: &'static str,
    marks: Arc<Marks>,
    rows: Rows,
    /// As DynamoDB described it last; `None` until it did, or while it does not fit. All clones share it.
    schema: Arc<RwLock<Option<Arc<TableSchema>>>>,
}

/// The rows that a table of the view takes.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// All source tables.
    pub tables: Arc<SourceTables>,
    /// The place of the table among those of the function, which tells the source tables that are its own.
    pub place: usize,
    /// The name of the mark for moved columns, if columns can move.
    pub overflow: Option<String>,
}

/// The condition on which a write takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The item is newer than the one that stands there.
    Newer,
    /// The item is newer than the one that stands there, which has no moved columns.
    NewerAndNothingMoved,
    /// The item that stands there shows the same commit.
    ThisCommit,
    /// Never. The write only serves to learn which item stands there, and costs a write unit.
    Never,
}

/// The result of a write that also tells of the item that it found.
#[derive(Debug)]
pub enum Written {
    /// The view shows the item. Holds the item that stood there before, if the write was [`Condition::Newer`] and there
    /// was one.
    Done(Option<Standing>),
    /// The condition was not met. Holds the item that stands there, if DynamoDB told it.
    NotMet(Option<Standing>),
}

/// The item that stood at a key.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its commit. `None` if it is no item of the view.
    pub committed: Option<CommitTimestamp>,
    /// The addresses of its moved columns. `None` if it does not have that attribute, which may also be empty.
    pub moved: Option<Vec<String>>,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// When it expires, in seconds since the epoch. `None` if it does not tell.
    pub expires: Option<u64>,
}

impl Standing {
    /// Whether an item with this guard may take its place, as far as the commits allow. `NEWER_THAN_WHAT_STANDS_THERE`
    /// tells DynamoDB the same.
    pub fn lets(&self, guard: Guard) -> bool {
        self.committed.is_some() && (!self.deleted || self.expires.is_some_and(|expires| expires < guard.late_expiry))
    }
}

/// Why a table cannot hold rows of the view.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum OpenError {
    #[error(
        "{setting}: there is no table {table} in this account and region: create it, or correct {setting} or AWS_REGION"
    )]
    NoTable { setting: &'static str, table: String },
    #[error(
        "{setting}: the table {table} may not be described: {message}; allow the function dynamodb:DescribeTable on it"
    )]
    Denied { setting: &'static str, table: String, message: String },
    #[error(
        "{setting}: DynamoDB refused to describe the table {table}: {code} (HTTP {status}); check AWS_REGION and the credentials, and \
         what answers at AWS_ENDPOINT_URL_DYNAMODB where it is set"
    )]
    Refused { setting: &'static str, table: String, code: String, status: u16 },
    #[error(
        "{setting}: no answer on the table {table}: {reason}; check that DynamoDB can be reached from here (network, AWS_REGION, \
         credentials, AWS_ENDPOINT_URL_DYNAMODB where it is set)"
    )]
    NoAnswer { setting: &'static str, table: String, reason: String },
    #[error("{setting}: the table {table} does not fit: {problem}")]
    DoesNotFit { setting: &'static str, table: String, problem: String },
    #[error(
        "{setting}: an index of the table {table} has the key attribute {attribute} of type {wanted}. The view writes that attribute in \
         another type, so DynamoDB would refuse each item that has it: remove the index"
    )]
    IndexDoesNotFit { setting: &'static str, table: String, attribute: String, wanted: String },
}

impl OpenError {
    /// Whether DynamoDB described the table, and the view's rows do not fit into it.
    pub fn is_misfit(&self) -> bool {
        matches!(self, Self::DoesNotFit { .. } | Self::IndexDoesNotFit { .. })
    }
}

impl DynamoDbView {
    /// A table of the view that DynamoDB has not described yet. It has this name, which this setting gives. `rows` must
    /// fit into it.
    pub fn new(
        client: Client,
        sender: Sender,
        (setting, table): (&'static str, String),
        marks: Arc<Marks>,
        rows: Rows,
    ) -> Self {
        Self { client, sender, table, setting, marks, rows, schema: Arc::default() }
    }

    /// Learns the table's schema, checks that it fits, and leaves a connection open.
    ///
    /// # Errors
    /// The table is missing or does not fit, or DynamoDB does not describe it.
    pub async fn open(&self) -> Result<(), OpenError> {
        self.learn(OPENING_TIMEOUT).await.map(|_| ())
    }

    async fn learn(&self, limit: Duration) -> Result<Arc<TableSchema>, OpenError> {
        let (setting, table) = (self.setting, || self.table.clone());
        let attempt = || self.client.describe_table().table_name(&self.table).send();
        let described = match self.sender.send(limit, of_read, attempt).await {
            Ok(output) => output.table.unwrap_or_else(|| TableDescription::builder().build()),
            Err(error) => return Err(not_described(setting, table(), &error)),
        };
        let schema = TableSchema::of(&described).map_err(|found| {
            format!("expected key attributes of type S or N, found {found}; create a table with such a key")
        });
        let Rows { tables, place, overflow } = &self.rows;
        let schema = schema.and_then(|schema| {
            schema.takes_all(tables.of_view(*place), overflow.as_deref())?;
            Ok(Arc::new(schema))
        });
        let schema = schema.map_err(|problem| OpenError::DoesNotFit { setting, table: table(), problem })?;
        if let Some((attribute, wanted)) = schema.indexes.impossible(&self.marks).first() {
            let (attribute, wanted) = ((*attribute).to_owned(), (*wanted).to_owned());
            return Err(OpenError::IndexDoesNotFit { setting, table: table(), attribute, wanted });
        }
        if self.schema().is_none()
            && let Some(warning) = replicated_without_order(&described)
        {
            tracing::warn!(table = self.table, "{warning}");
        }
        *self.schema.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&schema));
        Ok(schema)
    }

    /// The names of the view's own attributes.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The name of the table.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The request that puts an item, if it is newer than the one that stands there.
    pub fn request(&self, item: ViewItem) -> PutItemFluentBuilder {
        self.request_if(Condition::Newer, item)
    }

    fn request_if(&self, condition: Condition, item: ViewItem) -> PutItemFluentBuilder {
        let mut attributes = item.attributes;
        if let Some(schema) = self.schema() {
            attributes.extend(schema.key_values(item.key).map(|(name, value)| (name.to_owned(), value)));
        }
        let guard = item.guard.filter(|_| !matches!(condition, Condition::ThisCommit | Condition::Never));
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(attributes))
            .expression_attribute_names("#ts", &self.marks.ts_ns)
            .expression_attribute_values(":ts", AttributeValue::N(item.committed.to_string()));
        let (newer, request) = match guard {
            None => (NEWER_THAN_THE_VIEW, request),
            Some(Guard { late_expiry }) => (
                NEWER_THAN_WHAT_STANDS_THERE,
                request
                    .expression_attribute_names("#deleted", &self.marks.deleted)
                    .expression_attribute_names("#expires", &self.marks.expires_at)
                    .expression_attribute_values(":late", AttributeValue::N(late_expiry.to_string())),
            ),
        };
        match condition {
            Condition::Newer => request.condition_expression(newer),
            Condition::NewerAndNothingMoved => request
                .condition_expression(format!("({newer}) AND {NOTHING_MOVED}"))
                .expression_attribute_names("#overflow", &self.marks.overflow),
            Condition::ThisCommit => request.condition_expression(THIS_COMMIT),
            Condition::Never => request.condition_expression(NEVER).set_expression_attribute_values(None),
        }
    }

    /// Writes an item, and tells which item stood at its key.
    ///
    /// # Errors
    /// The write is refused, or not confirmed.
    pub async fn write(&self, item: ViewItem, condition: Condition) -> Result<Written, Put> {
        // If the condition is not met, the old item costs nothing more. If the write is done, only large rows ask for
        // it.
        let request = self.request_if(condition, item);
        let request = request.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let before = (condition == Condition::Newer).then_some(ReturnValue::AllOld);
        match self.send(request.set_return_values(before)).await {
            Ok(done) => Ok(Written::Done(done.attributes().map(|item| standing(&self.marks, item)))),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(Written::NotMet(failed.item().map(|item| standing(&self.marks, item))))
                }
                _ => Err(self.ended(&error)),
            },
        }
    }

    /// How a put has ended with this error. Of a table that cannot be written, the reason names the table.
    fn ended(&self, error: &SdkError<PutItemError>) -> Put {
        match classify(error).1 {
            Put::Unavailable(reason) => Put::Unavailable(format!("the table {}: {reason}", self.table)),
            other => other,
        }
    }

    async fn send(&self, request: PutItemFluentBuilder) -> Result<PutItemOutput, SdkError<PutItemError>> {
        self.sender.send(OPERATION_TIMEOUT, |error| classify(error).0, || request.clone().send()).await
    }
}

impl View for DynamoDbView {
    async fn put(&self, item: ViewItem) -> Put {
        if item.guard.is_some() {
            let committed = item.committed;
            return match self.write(item, Condition::Newer).await {
                Ok(Written::Done(_)) => Put::Applied,
                Ok(Written::NotMet(standing)) => match standing.and_then(|standing| standing.committed) {
                    Some(newer) if newer.supersedes(committed) => Put::Superseded(Superseded::Told),
                    Some(same) if same == committed => Put::Superseded(Superseded::Same),
                    Some(_) | None => Put::NothingToReplace,
                },
                Err(not_done) => not_done,
            };
        }
        self.send(self.request(item)).await.map_or_else(|error| self.ended(&error), |_| Put::Applied)
    }

    fn schema(&self) -> Option<Arc<TableSchema>> {
        self.schema.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn learn_schema(&self, known: Option<&TableSchema>) -> bool {
        match self.learn(OPERATION_TIMEOUT).await {
            Ok(schema) => known != Some(&schema),
            Err(error) => {
                tracing::warn!(table = self.table, %error, "the view's table could not be described");
                false
            }
        }
    }

    fn may_create(&self, item: &ViewItem) -> bool {
        item.creates
            && item.guard.is_none()
            && self
                .schema()
                .is_some_and(|schema| insert_statement::is_possible(&self.table, schema.key_names(), &item.attributes))
    }

    async fn create(&self, items: Vec<ViewItem>) -> Vec<bool> {
        let asked = items.len();
        let Some(schema) = self.schema() else { return vec![false; asked] };
        let inserts = items.into_iter().map(|item| {
            let key = schema.key_values(item.key);
            let (text, parameters) = insert_statement::insert(&self.table, key, item.attributes);
            BatchStatementRequest::builder().statement(text).set_parameters(Some(parameters)).build()
        });
        // Each statement has its text, so the builder misses nothing.
        let Ok(inserts) = inserts.collect() else { return vec![false; asked] };
        // One attempt: a create that fails is put row by row, with all the repetitions of a put.
        let began = Instant::now();
        let answered = self.client.batch_execute_statement().set_statements(Some(inserts)).send().await;
        let (end, created, problem) = match answered.as_ref().map(BatchExecuteStatementOutput::responses) {
            Ok(responses) => (of_statements(responses), created(asked, responses), problem(responses)),
            Err(error) => {
                let code = error.code().unwrap_or("no answer that can be read");
                (classify(error).0, vec![false; asked], Some(code))
            }
        };
        self.sender.ended(began, end);
        if let Some(code) = problem {
            tracing::warn!(code, "creates that were sent together were not all done: the others are put row by row");
        }
        created
    }

    /// A put that was not done leaves nothing in a table.
    async fn clear(&self, _superseded: &ViewItem) -> Result<(), String> {
        Ok(())
    }
}

/// Which of the creates that were sent together were done. All count as not done if DynamoDB did not answer each of
/// them.
fn created(asked: usize, responses: &[BatchStatementResponse]) -> Vec<bool> {
    let answered = responses.len() == asked;
    (0..asked).map(|place| answered && responses[place].error().is_none()).collect()
}

/// The code of the first error that does not just say that an item stands at the key. The error's message is left out,
/// because it can quote the row.
fn problem(responses: &[BatchStatementResponse]) -> Option<&str> {
    let errors = responses.iter().filter_map(BatchStatementResponse::error);
    let mut codes =
        errors.map(|error| error.code().map_or("an error without a code", BatchStatementErrorCodeEnum::as_str));
    codes.find(|code| *code != BatchStatementErrorCodeEnum::DuplicateItem.as_str())
}

fn standing(marks: &Marks, item: &HashMap<String, AttributeValue>) -> Standing {
    let committed = item.get(&marks.ts_ns).and_then(|commit| commit.as_n().ok()?.parse().ok());
    let addresses = |moved: &AttributeValue| match moved {
        AttributeValue::M(moved) => moved.values().filter_map(|address| address.as_s().ok().cloned()).collect(),
        _ => Vec::new(),
    };
    Standing {
        committed: committed.and_then(CommitTimestamp::from_nanoseconds),
        moved: item.get(&marks.overflow).map(addresses),
        deleted: item.contains_key(&marks.deleted),
        expires: item.get(&marks.expires_at).and_then(|expires| expires.as_n().ok()?.parse().ok()),
    }
}

fn not_described(setting: &'static str, table: String, error: &SdkError<DescribeTableError>) -> OpenError {
    let SdkError::ServiceError(answer) = error else {
        // The table's description holds no rows, so the whole error may be shown.
        return OpenError::NoAnswer { setting, table, reason: DisplayErrorContext(error).to_string() };
    };
    let message = answer.err().message().unwrap_or("no message").to_owned();
    match answer.err().code() {
        Some("ResourceNotFoundException") => OpenError::NoTable { setting, table },
        Some("AccessDeniedException") => OpenError::Denied { setting, table, message },
        // A signature's error can quote the request with its session token, so only the code is shown.
        code => {
            let code = code.unwrap_or("an answer without DynamoDB's error code").to_owned();
            OpenError::Refused { setting, table, code, status: answer.raw().status().as_u16() }
        }
    }
}

/// A warning if DynamoDB replicates the view to other Regions without strong consistency.
fn replicated_without_order(table: &TableDescription) -> Option<&'static str> {
    let replicated = !table.replicas().is_empty();
    let is_strong = table.multi_region_consistency() == Some(&MultiRegionConsistency::Strong);
    (replicated && !is_strong).then_some(
        "the view's table is a global table without strong consistency: DynamoDB checks a write's condition in one Region only, and a \
         later write of an older commit in another Region can win; write the view in one Region only, or make a global table with \
         multi-Region strong consistency",
    )
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{BatchStatementError, ReplicaDescription};

    use super::*;

    #[test]
    fn a_create_counts_as_done_where_all_were_answered_and_it_has_no_error() {
        use BatchStatementErrorCodeEnum::{DuplicateItem, ThrottlingError};
        let done = || BatchStatementResponse::builder().table_name("view").build();
        let failed = |code: Option<BatchStatementErrorCodeEnum>| {
            let error = BatchStatementError::builder().set_code(code).message("secret").build();
            BatchStatementResponse::builder().error(error).build()
        };
        let responses = [done(), failed(Some(DuplicateItem)), failed(None), done(), failed(Some(ThrottlingError))];
        assert_eq!(created(5, &responses), [true, false, false, true, false]);
        for asked in [0, 2, 4, 6] {
            assert_eq!(created(asked, &responses), vec![false; asked]);
        }
        assert_eq!(problem(&responses[..2]), None);
        assert_eq!(problem(&responses), Some("an error without a code"));
        assert_eq!(problem(&responses[3..]), Some("ThrottlingError"));
    }

    #[test]
    fn a_view_that_is_replicated_without_strong_consistency_is_warned_of() {
        use MultiRegionConsistency::{Eventual, Strong};
        let replica = || ReplicaDescription::builder().region_name("eu-west-1").build();
        for (replicas, consistency, warns) in [
            (vec![], None, false),
            (vec![replica()], None, true),
            (vec![replica()], Some(Eventual), true),
            (vec![replica()], Some(Strong), false),
        ] {
            let table =
                TableDescription::builder().set_replicas(Some(replicas)).set_multi_region_consistency(consistency);
            let warning = replicated_without_order(&table.build());
            assert_eq!(warning.is_some_and(|warning| warning.contains("write the view in one Region only")), warns);
        }
    }
}
