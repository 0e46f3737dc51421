//! Objects in an S3 bucket.
//!
//! Invariants: the client is made for the first object, so that a function that never needs it pays nothing; an error's
//! text holds codes and problems on the way to S3, never the contents of an object.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{MetadataDirective, TaggingDirective};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::aws::service_error::ServiceError;
use crate::bucket::{OBJECTS_BUCKET, Objects, Page, StoredObject};

/// The tag of an object to which nothing refers any more. `template.yaml` has the bucket's lifecycle rule for it.
pub const RETIRED: (&str, &str) = ("dsql-view", "unneeded");

const NO_SUCH_KEY: &str = "NoSuchKey";

/// S3 takes some megabytes in well under a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(25);
const MOST_ATTEMPTS: u32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// A bucket. Clones share their connections.
#[derive(Debug, Clone)]
pub struct S3Objects(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sdk_config: SdkConfig,
    bucket: String,
    client: OnceLock<Client>,
}

impl S3Objects {
    /// The bucket of this name.
    pub fn new(sdk_config: SdkConfig, bucket: String) -> Self {
        Self(Arc::new(Shared { sdk_config, bucket, client: OnceLock::new() }))
    }

    fn client(&self) -> &Client {
        self.0.client.get_or_init(|| {
            let timeouts = TimeoutConfig::builder()
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build();
            let retry = RetryConfig::standard().with_max_attempts(MOST_ATTEMPTS).with_initial_backoff(FIRST_BACKOFF);
            let config = aws_sdk_s3::config::Builder::from(&self.0.sdk_config);
            Client::from_conf(config.timeout_config(timeouts).retry_config(retry).build())
        })
    }
}

impl Objects for S3Objects {
    fn bucket(&self) -> &str {
        &self.0.bucket
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), ServiceError> {
        let request = self.client().put_object().bucket(self.bucket()).key(key).body(ByteStream::from(body));
        let put = request.content_type("application/json").send().await;
        put.map(|_| ()).map_err(|error| ServiceError::of(OBJECTS_BUCKET, "take an object", &error))
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        const ACTION: &str = "give an object";
        let object = match self.client().get_object().bucket(self.bucket()).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.code() == Some(NO_SUCH_KEY) => return Ok(None),
            Err(error) => return Err(ServiceError::of(OBJECTS_BUCKET, ACTION, &error)),
        };
        let failed = |reason: &str| ServiceError { service: OBJECTS_BUCKET, action: ACTION, reason: reason.to_owned() };
        let body = tokio::time::timeout(OPERATION_TIMEOUT, object.body.collect()).await;
        let body = body.map_err(|_| failed("it came too slowly"))?.map_err(|_| failed("it was cut off"))?;
        Ok(Some(body.to_vec()))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, ServiceError> {
        let request = self.client().list_objects_v2().bucket(self.bucket()).prefix(prefix);
        let listed = request.set_start_after(after.map(str::to_owned)).send().await;
        let listed = listed.map_err(|error| ServiceError::of(OBJECTS_BUCKET, "list its objects", &error))?;
        let object = |object: aws_sdk_s3::types::Object| StoredObject {
            size: object.size().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
            written_at: object.last_modified().and_then(|at| (*at).try_into().ok()).unwrap_or(SystemTime::UNIX_EPOCH),
            key: object.key.unwrap_or_default(),
        };
        let more = listed.is_truncated().unwrap_or_default();
        Ok(Page { objects: listed.contents.unwrap_or_default().into_iter().map(object).collect(), more })
    }

    /// A lifecycle rule counts from the time at which an object was written, so a tag alone would remove an old object
    /// within hours. Copying the object onto itself writes it anew, with the tag.
    async fn retire(&self, key: &str) -> Result<(), ServiceError> {
        let source = format!("{}/{}", self.bucket(), utf8_percent_encode(key, NON_ALPHANUMERIC));
        let request = self.client().copy_object().bucket(self.bucket()).key(key).copy_source(source);
        // S3 copies an object onto itself only if something about it changes.
        let request = request.metadata_directive(MetadataDirective::Replace).content_type("application/json");
        let request = request.tagging_directive(TaggingDirective::Replace);
        match request.tagging(format!("{}={}", RETIRED.0, RETIRED.1)).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(NO_SUCH_KEY) => Ok(()),
            Err(error) => Err(ServiceError::of(OBJECTS_BUCKET, "tag an object", &error)),
        }
    }

    async fn is_retired(&self, key: &str) -> Result<bool, ServiceError> {
        match self.client().get_object_tagging().bucket(self.bucket()).key(key).send().await {
            Ok(tags) => Ok(tags.tag_set().iter().any(|tag| (tag.key(), tag.value()) == RETIRED)),
            Err(error) if error.code() == Some(NO_SUCH_KEY) => Ok(true),
            Err(error) => Err(ServiceError::of(OBJECTS_BUCKET, "tell an object's tags", &error)),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), ServiceError> {
        let deleted = self.client().delete_object().bucket(self.bucket()).key(key).send().await;
        deleted.map(|_| ()).map_err(|error| ServiceError::of(OBJECTS_BUCKET, "remove an object", &error))
    }
}
