//! A DynamoDB of the process's own: dynoxide, in memory, behind its real HTTP interface.

use std::collections::BTreeMap;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};

use crate::server::Server;

/// Every AWS call of the local parts goes to this region, with these credentials, which open nothing.
pub const REGION: &str = "us-east-1";
pub const ACCESS_KEY: &str = "local";
pub const SECRET_KEY: &str = "local";

/// The partition key of the tables that [`LocalDynamoDb::create_view`] makes.
pub const KEY: &str = "pk";

/// An item as it is read back.
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

    /// A client of its own, that no proxy stands before.
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

    /// Everything in a view.
    pub async fn items(&self, table: &str) -> Items {
        items(&self.client, table).await
    }
}

/// Everything in a view with the partition key [`KEY`], read with `client`.
pub async fn items(client: &Client, table: &str) -> Items {
    let mut pages = client.scan().table_name(table).consistent_read(true).into_paginator().send();
    let mut items = Items::new();
    while let Some(page) = pages.next().await {
        for item in page.expect("a table that can be read").items.unwrap_or_default() {
            let key = item[KEY].as_s().expect("a key of type S").clone();
            items.insert(key, item.into_iter().collect());
        }
    }
    items
}

/// The SDK's configuration for a local endpoint.
pub fn sdk_config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "local");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// The environment in which the function finds a local endpoint.
pub fn environment(endpoint: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ]
}
