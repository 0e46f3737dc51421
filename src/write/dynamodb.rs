//! The view in a DynamoDB table: one conditional PutItem a row, or many creates in a BatchExecuteStatement.
//!
//! Invariant: no write is without a condition, and none takes the view back in commit time.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_execute_statement::BatchExecuteStatementOutput;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::put_item::{PutItemError, PutItemOutput};
use aws_sdk_dynamodb::types::{
    AttributeValue, BatchStatementErrorCodeEnum, BatchStatementRequest, BatchStatementResponse, KeySchemaElement,
    KeyType, MultiRegionConsistency, ReturnValue, ReturnValuesOnConditionCheckFailure, ScalarAttributeType,
    TableDescription,
};
use tokio::time::Instant;

use self::errors::{classify, of_read, of_statements};
use self::retry::{OPENING_TIMEOUT, OPERATION_TIMEOUT, Sender};
use crate::batch::disposition::Superseded;
use crate::definitions::marks::{DELETED, EXPIRES_AT, OVERFLOW, TS_NS};
use crate::item::indexes::Indexes;
use crate::item::projection::{Guard, ViewItem};
use crate::record::order::CommitTimestamp;
use crate::write::view::{Put, View};

pub mod client;
mod errors;
mod insert_statement;
pub mod retry;

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

/// A DynamoDB table that fits the view.
#[derive(Debug, Clone)]
pub struct DynamoDbView {
    client: Client,
    sender: Sender,
    table: String,
    key_attribute: String,
    /// As DynamoDB described them last. All clones share them.
    indexes: Arc<RwLock<Arc<Indexes>>>,
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

/// Why a table cannot hold the view.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum OpenError {
    #[error(
        "VIEW_TABLE: there is no table {table} in this account and region: create it, or correct VIEW_TABLE or AWS_REGION"
    )]
    NoTable { table: String },
    #[error(
        "VIEW_TABLE: the table {table} may not be described: {message}; allow the function dynamodb:DescribeTable on it"
    )]
    Denied { table: String, message: String },
    #[error(
        "VIEW_TABLE: DynamoDB refused to describe the table {table}: {code} (HTTP {status}); check AWS_REGION and the credentials, and \
         what answers at AWS_ENDPOINT_URL_DYNAMODB where it is set"
    )]
    Refused { table: String, code: String, status: u16 },
    #[error(
        "VIEW_TABLE: no answer on the table {table}: {reason}; check that DynamoDB can be reached from here (network, AWS_REGION, \
         credentials, AWS_ENDPOINT_URL_DYNAMODB where it is set)"
    )]
    NoAnswer { table: String, reason: String },
    #[error(
        "VIEW_TABLE: the table {table} does not fit: expected a partition key of type S and no sort key, found {found}; create a table \
         with such a key"
    )]
    KeyDoesNotFit { table: String, found: String },
    #[error(
        "VIEW_TABLE: an index of the table {table} has the key attribute {attribute} of type {wanted}. The view writes that attribute in \
         another type, so DynamoDB would refuse each item that has it: remove the index"
    )]
    IndexDoesNotFit { table: String, attribute: &'static str, wanted: String },
}

impl DynamoDbView {
    /// Opens the view: learns the name of the table's partition key, checks that it fits, and leaves a connection open.
    ///
    /// # Errors
    /// The table is missing or does not fit, or DynamoDB does not describe it.
    pub async fn open(client: Client, sender: Sender, table: String) -> Result<Self, OpenError> {
        let attempt = || client.describe_table().table_name(&table).send();
        let described = match sender.send(OPENING_TIMEOUT, of_read, attempt).await {
            Ok(output) => output.table.unwrap_or_else(|| TableDescription::builder().build()),
            Err(error) => return Err(not_described(table, &error)),
        };
        let key_attribute = string_partition_key(&described)
            .map_err(|found| OpenError::KeyDoesNotFit { table: table.clone(), found })?;
        let indexes = Indexes::of(&described);
        if let Some((attribute, wanted)) = indexes.impossible().first() {
            return Err(OpenError::IndexDoesNotFit { table, attribute, wanted: (*wanted).to_owned() });
        }
        if let Some(warning) = replicated_without_order(&described) {
            tracing::warn!(table, "{warning}");
        }
        Ok(Self { client, sender, table, key_attribute, indexes: Arc::new(RwLock::new(Arc::new(indexes))) })
    }

    /// The name of the table's partition key.
    pub fn key_attribute(&self) -> &str {
        &self.key_attribute
    }

    /// The request that puts an item, if it is newer than the one that stands there.
    pub fn request(&self, item: ViewItem) -> PutItemFluentBuilder {
        self.request_if(Condition::Newer, item)
    }

    fn request_if(&self, condition: Condition, item: ViewItem) -> PutItemFluentBuilder {
        let mut attributes = item.attributes;
        attributes.insert(self.key_attribute.clone(), AttributeValue::S(item.key));
        let guard = item.guard.filter(|_| !matches!(condition, Condition::ThisCommit | Condition::Never));
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(attributes))
            .expression_attribute_names("#ts", TS_NS)
            .expression_attribute_values(":ts", AttributeValue::N(item.committed.to_string()));
        let (newer, request) = match guard {
            None => (NEWER_THAN_THE_VIEW, request),
            Some(Guard { late_expiry }) => (
                NEWER_THAN_WHAT_STANDS_THERE,
                request
                    .expression_attribute_names("#deleted", DELETED)
                    .expression_attribute_names("#expires", EXPIRES_AT)
                    .expression_attribute_values(":late", AttributeValue::N(late_expiry.to_string())),
            ),
        };
        match condition {
            Condition::Newer => request.condition_expression(newer),
            Condition::NewerAndNothingMoved => request
                .condition_expression(format!("({newer}) AND {NOTHING_MOVED}"))
                .expression_attribute_names("#overflow", OVERFLOW),
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
            Ok(done) => Ok(Written::Done(done.attributes().map(standing))),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(Written::NotMet(failed.item().map(standing)))
                }
                _ => Err(classify(&error).1),
            },
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
        self.send(self.request(item)).await.map_or_else(|error| classify(&error).1, |_| Put::Applied)
    }

    fn indexes(&self) -> Arc<Indexes> {
        Arc::clone(&self.indexes.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn learn_indexes(&self, known: &Indexes) -> bool {
        let attempt = || self.client.describe_table().table_name(&self.table).send();
        match self.sender.send(OPERATION_TIMEOUT, of_read, attempt).await {
            Ok(output) => {
                let indexes = output.table.as_ref().map(Indexes::of).unwrap_or_default();
                let is_new = indexes != *known;
                if is_new {
                    *self.indexes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(indexes);
                }
                is_new
            }
            Err(error) => {
                let code = error.code().unwrap_or("no answer that can be read");
                tracing::warn!(code, "the indexes of the view's table could not be read");
                false
            }
        }
    }

    fn may_create(&self, item: &ViewItem) -> bool {
        item.creates
            && item.guard.is_none()
            && insert_statement::is_possible(&self.table, &self.key_attribute, &item.attributes)
    }

    async fn create(&self, items: Vec<ViewItem>) -> Vec<bool> {
        let asked = items.len();
        let inserts = items.into_iter().map(|item| {
            let (text, parameters) =
                insert_statement::insert(&self.table, &self.key_attribute, item.key, item.attributes);
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

fn standing(item: &HashMap<String, AttributeValue>) -> Standing {
    let committed = item.get(TS_NS).and_then(|commit| commit.as_n().ok()?.parse().ok());
    let addresses = |moved: &AttributeValue| match moved {
        AttributeValue::M(moved) => moved.values().filter_map(|address| address.as_s().ok().cloned()).collect(),
        _ => Vec::new(),
    };
    Standing {
        committed: committed.and_then(CommitTimestamp::from_nanoseconds),
        moved: item.get(OVERFLOW).map(addresses),
        deleted: item.contains_key(DELETED),
        expires: item.get(EXPIRES_AT).and_then(|expires| expires.as_n().ok()?.parse().ok()),
    }
}

fn not_described(table: String, error: &SdkError<DescribeTableError>) -> OpenError {
    let SdkError::ServiceError(answer) = error else {
        // The table's description holds no rows, so the whole error may be shown.
        return OpenError::NoAnswer { table, reason: DisplayErrorContext(error).to_string() };
    };
    let message = answer.err().message().unwrap_or("no message").to_owned();
    match answer.err().code() {
        Some("ResourceNotFoundException") => OpenError::NoTable { table },
        Some("AccessDeniedException") => OpenError::Denied { table, message },
        // A signature's error can quote the request with its session token, so only the code is shown.
        code => {
            let code = code.unwrap_or("an answer without DynamoDB's error code").to_owned();
            OpenError::Refused { table, code, status: answer.raw().status().as_u16() }
        }
    }
}

/// The name of the partition key. If the table has anything but a partition key of type S alone, the error describes
/// what was found.
fn string_partition_key(table: &TableDescription) -> Result<String, String> {
    let defined = table.attribute_definitions().iter();
    let types: HashMap<_, _> = defined.map(|defined| (defined.attribute_name(), defined.attribute_type())).collect();
    let is_text = |key: &KeySchemaElement| types.get(key.attribute_name()) == Some(&&ScalarAttributeType::S);
    match table.key_schema() {
        [key] if *key.key_type() == KeyType::Hash && is_text(key) => Ok(key.attribute_name().to_owned()),
        [] => Err("no key".to_owned()),
        keys => {
            let found = keys.iter().map(|key| {
                let role = if *key.key_type() == KeyType::Hash { "partition key" } else { "sort key" };
                let of_type = types.get(key.attribute_name()).map_or("an unknown type", |found| found.as_str());
                format!("the {role} {} of type {of_type}", key.attribute_name())
            });
            Err(found.collect::<Vec<_>>().join(" and "))
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
    use aws_sdk_dynamodb::types::{AttributeDefinition, BatchStatementError, KeySchemaElement, ReplicaDescription};

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

    #[test]
    fn only_a_partition_key_of_type_s_alone_fits() {
        use KeyType::{Hash, Range};
        use ScalarAttributeType::{N, S};
        for (keys, expected) in [
            (vec![("pk", Hash, S)], Ok("pk")),
            (vec![("row", Hash, S)], Ok("row")),
            (vec![("id", Hash, N)], Err("the partition key id of type N")),
            (
                vec![("pk", Hash, S), ("sk", Range, S)],
                Err("the partition key pk of type S and the sort key sk of type S"),
            ),
            (vec![], Err("no key")),
        ] {
            let mut table = TableDescription::builder();
            for (name, role, of_type) in keys {
                table = table
                    .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(role).build().unwrap())
                    .attribute_definitions(
                        AttributeDefinition::builder().attribute_name(name).attribute_type(of_type).build().unwrap(),
                    );
            }
            let found = string_partition_key(&table.build());
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
        }
    }
}
