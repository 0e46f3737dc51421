//! A PutItem with as little around it as possible: the lower limit that the others are compared with.

use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use dsql_view_bench::workload::{VIEW, item};
use dsql_view_support::cdc::Change;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::{BoxError, CONDITION, Writer};

const TARGET: &str = "x-amz-target";
const CONDITION_FAILED: &str = "ConditionalCheckFailedException";
const PUT_ITEM: &str = "DynamoDB_20120810.PutItem";
const JSON: &str = "application/x-amz-json-1.0";

/// A signer and an HTTP client.
pub struct HandMade {
    http: Client<HttpConnector, Full<Bytes>>,
    endpoint: Uri,
    host: String,
    region: String,
    credentials: Credentials,
}

impl HandMade {
    pub fn new(sdk_config: &SdkConfig) -> Result<Self, BoxError> {
        let endpoint: Uri = std::env::var("AWS_ENDPOINT_URL_DYNAMODB")?.parse()?;
        let host = endpoint.authority().ok_or("the endpoint has no host")?.to_string();
        let variable = |name| std::env::var(name).map_err(|_| format!("{name} is not set"));
        let credentials = Credentials::new(
            variable("AWS_ACCESS_KEY_ID")?,
            variable("AWS_SECRET_ACCESS_KEY")?,
            None,
            None,
            "environment",
        );
        let region = sdk_config.region().ok_or("AWS_REGION is not set")?.to_string();
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, endpoint, host, region, credentials })
    }

    async fn answer(&self, body: Bytes) -> Result<bool, BoxError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.clone())
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, JSON)
            .header(TARGET, PUT_ITEM)
            .body(Full::new(body.clone()))?;
        self.sign(&mut request, &body)?;
        let response = self.http.request(request).await?;
        let is_done = response.status().is_success();
        let answer = response.into_body().collect().await?.to_bytes();
        Ok(is_done || answer.windows(CONDITION_FAILED.len()).any(|text| text == CONDITION_FAILED.as_bytes()))
    }

    fn sign(&self, request: &mut Request<Full<Bytes>>, body: &[u8]) -> Result<(), BoxError> {
        let identity = self.credentials.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("dynamodb")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?;
        let uri = self.endpoint.to_string();
        let headers = [(HOST.as_str(), self.host.as_str()), (CONTENT_TYPE.as_str(), JSON), (TARGET, PUT_ITEM)];
        let signable = SignableRequest::new("POST", &uri, headers.into_iter(), SignableBody::Bytes(body))?;
        let (instructions, _) = sign(signable, &params.into())?.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }
}

impl Writer for HandMade {
    type Request = Bytes;

    fn prepare(&self, change: &Change) -> Bytes {
        let item: serde_json::Map<String, Value> =
            item(change).iter().map(|(name, value)| (name.clone(), attribute(value))).collect();
        let body = json!({
            "TableName": VIEW,
            "Item": item,
            "ConditionExpression": CONDITION,
            "ExpressionAttributeNames": { "#ts": "_ts_ns" },
            "ExpressionAttributeValues": { ":ts": { "N": change.committed.to_string() } },
        });
        body.to_string().into()
    }

    async fn send(&self, body: Bytes) -> bool {
        self.answer(body).await.unwrap_or(false)
    }
}

fn attribute(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(number) => json!({ "N": number }),
        AttributeValue::Bool(value) => json!({ "BOOL": value }),
        other => panic!("no row of the workload has {other:?}"),
    }
}
