//! An in-process DynamoDB: dynoxide, in memory, behind its real HTTP interface.

use std::collections::BTreeMap;
use std::error::Error;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider, SharedHttpClient};
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, CreateGlobalSecondaryIndexAction,
    DeleteGlobalSecondaryIndexAction, GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector};

use crate::server::Server;

/// Every AWS call of the local parts goes to this region, with these credentials, which open nothing.
pub const REGION: &str = "us-east-1";
pub const ACCESS_KEY: &str = "local";
pub const SECRET_KEY: &str = "local";

/// The partition key of the tables that [`LocalDynamoDb::create_view`] makes.
pub const KEY: &str = "_key";

/// An item as read from the table.
pub type Item = BTreeMap<String, AttributeValue>;

/// All items of a view, by key.
pub type Items = BTreeMap<String, Item>;

/// A DynamoDB server with nothing in it.
pub struct LocalDynamoDb {
    server: Server,
    client: Client,
}

impl LocalDynamoDb {
    /// Starts on a free port.
    pub fn start() -> Self {
        Self::start_on(0).expect("a free loopback port")
    }

    /// Starts on `port`.
    pub fn start_on(port: u16) -> std::io::Result<Self> {
        let database = dynoxide::Database::memory().map_err(std::io::Error::other)?;
        let server = Server::start(port, |listener| dynoxide::server::serve_on(listener, database))?;
        let client = Client::new(&sdk_config(&format!("http://{}", server.address())));
        Ok(Self { server, client })
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// A client of its own, without a proxy in between.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Creates a table with the partition key [`KEY`] of type S, as a view needs it.
    pub async fn create_view(&self, table: &str) {
        self.create_table(table, &[(KEY, KeyType::Hash, ScalarAttributeType::S)]).await;
    }

    /// Creates a table with this key.
    pub async fn create_table(&self, table: &str, key: &[(&str, KeyType, ScalarAttributeType)]) {
        let mut request = self.client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        for (name, role, of_type) in key {
            let element = KeySchemaElement::builder().attribute_name(*name).key_type(role.clone()).build();
            let definition =
                AttributeDefinition::builder().attribute_name(*name).attribute_type(of_type.clone()).build();
            request =
                request.key_schema(element.expect("complete")).attribute_definitions(definition.expect("complete"));
        }
        request.send().await.expect("a table that does not exist yet");
    }

    /// Adds an index with this key to a table. Attributes of one kind make up the key together.
    pub async fn add_index(&self, table: &str, name: &str, key: &[(&str, KeyType, ScalarAttributeType)]) {
        let mut index = CreateGlobalSecondaryIndexAction::builder()
            .index_name(name)
            .projection(Projection::builder().projection_type(ProjectionType::All).build());
        let mut request = self.client.update_table().table_name(table);
        for (attribute, role, of_type) in key {
            let element = KeySchemaElement::builder().attribute_name(*attribute).key_type(role.clone()).build();
            let definition =
                AttributeDefinition::builder().attribute_name(*attribute).attribute_type(of_type.clone()).build();
            index = index.key_schema(element.expect("complete"));
            request = request.attribute_definitions(definition.expect("complete"));
        }
        let update = GlobalSecondaryIndexUpdate::builder().create(index.build().expect("complete")).build();
        request.global_secondary_index_updates(update).send().await.expect("an index that is not there yet");
    }

    /// Removes an index of a table.
    pub async fn remove_index(&self, table: &str, name: &str) {
        let delete = DeleteGlobalSecondaryIndexAction::builder().index_name(name).build().expect("complete");
        let update = GlobalSecondaryIndexUpdate::builder().delete(delete).build();
        let request = self.client.update_table().table_name(table).global_secondary_index_updates(update);
        request.send().await.expect("an index that is there");
    }

    /// All items of a table with any key, or those that one of its indexes shows.
    pub async fn all(&self, table: &str, index: Option<&str>) -> Vec<Item> {
        let scan = self.client.scan().table_name(table).set_index_name(index.map(str::to_owned));
        let items = scan.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
        let items = items.unwrap_or_else(|error| panic!("the table {table} cannot be read: {error}"));
        items.into_iter().map(|item| item.into_iter().collect()).collect()
    }

    /// Everything in a view.
    pub async fn items(&self, table: &str) -> Items {
        items(&self.client, table).await.unwrap_or_else(|error| panic!("the table {table} cannot be read: {error}"))
    }
}

/// Everything in a view with the partition key [`KEY`], read with `client`.
pub async fn items(client: &Client, table: &str) -> Result<Items, Box<dyn Error>> {
    let mut pages = client.scan().table_name(table).consistent_read(true).into_paginator().send();
    let mut items = Items::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| DisplayErrorContext(error).to_string())?;
        for item in page.items.unwrap_or_default() {
            let key = item.get(KEY).and_then(|key| key.as_s().ok()).ok_or("an item without a key of type S")?;
            items.insert(key.clone(), item.into_iter().collect());
        }
    }
    Ok(items)
}

/// The SDK's configuration for a local endpoint.
pub fn sdk_config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "local");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .http_client(direct_http_client())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// A client that connects to this machine directly, whatever proxy the environment names for the outside world.
fn direct_http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, _| {
        let connector = Connector::builder().proxy_config(ProxyConfig::disabled());
        match settings {
            Some(settings) => connector.connector_settings(settings.clone()).build_http(),
            None => connector.build_http(),
        }
    })
}

/// The environment that points the function to a local endpoint.
pub fn environment(endpoint: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ]
}
