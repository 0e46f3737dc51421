//! An in-process S3: buckets in memory, behind S3's real HTTP interface (s3s).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use futures_util::TryStreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, DeleteObjectInput, DeleteObjectOutput,
    GetObjectInput, GetObjectOutput, GetObjectTaggingInput, GetObjectTaggingOutput, ListObjectsV2Input,
    ListObjectsV2Output, MetadataDirective, Object, PutObjectInput, PutObjectOutput, StreamingBlob, Tag,
    TaggingDirective,
};
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use crate::cdc::Value;
use crate::dynamodb::{ACCESS_KEY, Items, SECRET_KEY};
use crate::server::Server;

/// The page size of S3's own listings.
const LARGEST_PAGE: usize = 1000;

/// An S3 server with nothing in it.
pub struct LocalS3 {
    server: Server,
    buckets: Buckets,
}

type Buckets = Arc<Mutex<BTreeMap<String, BTreeMap<String, Stored>>>>;

/// An object in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub body: Bytes,
    pub written_at: SystemTime,
    /// The tags in the header's form, such as `a=b&c=d`; empty if there are none.
    pub tags: String,
}

impl LocalS3 {
    /// Starts on a free port.
    pub fn start() -> Self {
        Self::with_pages_of(LARGEST_PAGE)
    }

    /// Starts on a free port; a listing's page has at most this number of objects.
    pub fn with_pages_of(page: usize) -> Self {
        let buckets = Buckets::default();
        let mut service = S3ServiceBuilder::new(Memory { buckets: Arc::clone(&buckets), page });
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let server = Server::start(0, |listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service.clone())
                    .into_owned();
                tokio::spawn(connection);
            }
        })
        .expect("a free loopback port");
        Self { server, buckets }
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Creates a bucket.
    pub fn create_bucket(&self, bucket: &str) {
        self.lock().entry(bucket.to_owned()).or_default();
    }

    /// Everything in a bucket.
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, Stored> {
        self.lock()[bucket].clone()
    }

    /// Puts an object as if it had been there since `written_at`.
    pub fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>, written_at: SystemTime) {
        let stored = Stored { body: body.into(), written_at, tags: String::new() };
        self.lock().get_mut(bucket).expect("a bucket that exists").insert(key.to_owned(), stored);
    }

    /// Removes an object, as a lifecycle rule does.
    pub fn remove(&self, bucket: &str, key: &str) {
        self.lock().get_mut(bucket).expect("a bucket that exists").remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BTreeMap<String, Stored>>> {
        self.buckets.lock().expect("no holder panics")
    }
}

/// The items of a view as a reader sees them who follows `_overflow`: the moved columns are back in the item.
///
/// # Errors
/// An item names an object that is not there, or one that is about to be removed.
pub fn resolved(items: Items, s3: &LocalS3, bucket: &str) -> Result<Items, String> {
    let objects = s3.objects(bucket);
    let mut resolved = Items::new();
    for (key, mut item) in items {
        if let Some(AttributeValue::M(moved)) = item.remove("_overflow") {
            for (column, address) in moved {
                let address = address.as_s().map_err(|_| format!("{key}: an address that is no text"))?;
                let object = address.strip_prefix(&format!("s3://{bucket}/")).and_then(|object| objects.get(object));
                let object = object.ok_or_else(|| format!("{key} names an object that is not there: {address}"))?;
                if !object.tags.is_empty() {
                    return Err(format!("{key} names an object that is about to be removed: {address}"));
                }
                let value = Value::attribute_of_json(&object.body).ok_or("an object that is no JSON value")?;
                item.insert(column, value);
            }
        }
        resolved.insert(key, item);
    }
    Ok(resolved)
}

/// The objects of moved columns that no item of the view names and that would stay forever.
pub fn left_behind(items: &Items, s3: &LocalS3, bucket: &str) -> Vec<String> {
    let moved = items.values().filter_map(|item| item.get("_overflow")?.as_m().ok()).flat_map(HashMap::values);
    let named: HashSet<String> = moved.filter_map(|address| address.as_s().ok().cloned()).collect();
    let objects = s3.objects(bucket).into_iter().filter(|(key, _)| key.starts_with("overflow/"));
    let stays = objects.filter(|(_, object)| object.tags != "dsql-view=unneeded").map(|(key, _)| key);
    stays.filter(|key| !named.contains(&format!("s3://{bucket}/{key}"))).collect()
}

struct Memory {
    buckets: Buckets,
    page: usize,
}

impl Memory {
    fn with<T>(&self, bucket: &str, act: impl FnOnce(&mut BTreeMap<String, Stored>) -> S3Result<T>) -> S3Result<T> {
        let mut buckets = self.buckets.lock().expect("no holder panics");
        act(buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?)
    }
}

fn found<'a>(bucket: &'a BTreeMap<String, Stored>, key: &str) -> S3Result<&'a Stored> {
    bucket.get(key).ok_or_else(|| s3_error!(NoSuchKey))
}

#[async_trait]
impl S3 for Memory {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let PutObjectInput { bucket, key, body, tagging, .. } = request.input;
        let chunks: Vec<Bytes> = match body {
            Some(body) => body.try_collect().await.map_err(|_| s3_error!(IncompleteBody))?,
            None => Vec::new(),
        };
        let stored =
            Stored { body: chunks.concat().into(), written_at: SystemTime::now(), tags: tagging.unwrap_or_default() };
        self.with(&bucket, |objects| {
            objects.insert(key, stored);
            Ok(S3Response::new(PutObjectOutput::default()))
        })
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput { bucket, key, .. } = request.input;
        let stored = self.with(&bucket, |objects| found(objects, &key).cloned())?;
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(stored.body.len()).ok(),
            body: Some(StreamingBlob::from(Body::from(stored.body))),
            last_modified: Some(stored.written_at.into()),
            ..GetObjectOutput::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput { bucket, key, .. } = request.input;
        self.with(&bucket, |objects| {
            objects.remove(&key);
            Ok(S3Response::new(DeleteObjectOutput::default()))
        })
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        let CopySource::Bucket { bucket: source, key: from, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        let replaces = |directive: Option<&str>| directive == Some(MetadataDirective::REPLACE);
        let onto_itself = (&**source, &**from) == (input.bucket.as_str(), input.key.as_str());
        if onto_itself && !replaces(input.metadata_directive.as_ref().map(MetadataDirective::as_str)) {
            return Err(s3_error!(InvalidRequest, "the object is copied to itself without a change"));
        }
        let mut stored = self.with(source, |objects| found(objects, from).cloned())?;
        if input.tagging_directive.as_ref().map(TaggingDirective::as_str) == Some(TaggingDirective::REPLACE) {
            stored.tags = input.tagging.unwrap_or_default();
        }
        stored.written_at = SystemTime::now();
        let copied = CopyObjectResult { last_modified: Some(stored.written_at.into()), ..CopyObjectResult::default() };
        self.with(&input.bucket, |objects| {
            objects.insert(input.key, stored);
            Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(copied), ..CopyObjectOutput::default() }))
        })
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let GetObjectTaggingInput { bucket, key, .. } = request.input;
        let tags = self.with(&bucket, |objects| Ok(found(objects, &key)?.tags.clone()))?;
        let tag_set = tags.split('&').filter_map(|tag| {
            let (key, value) = tag.split_once('=')?;
            Some(Tag { key: Some(key.to_owned()), value: Some(value.to_owned()) })
        });
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set: tag_set.collect(), version_id: None }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let ListObjectsV2Input { bucket, prefix, start_after, continuation_token, max_keys, .. } = request.input;
        let prefix = prefix.unwrap_or_default();
        let after = continuation_token.or(start_after).unwrap_or_default();
        let page = max_keys.and_then(|keys| usize::try_from(keys).ok()).unwrap_or(LARGEST_PAGE).min(self.page);
        let mut contents: Vec<Object> = self.with(&bucket, |objects| {
            let listed = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).take(page + 1);
            let object = |(key, stored): (&String, &Stored)| Object {
                key: Some(key.clone()),
                size: i64::try_from(stored.body.len()).ok(),
                last_modified: Some(stored.written_at.into()),
                ..Object::default()
            };
            Ok(listed.map(object).collect())
        })?;
        let more = contents.len() > page;
        contents.truncate(page);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(bucket),
            prefix: Some(prefix),
            is_truncated: Some(more),
            next_continuation_token: contents.last().filter(|_| more).and_then(|object| object.key.clone()),
            key_count: i32::try_from(contents.len()).ok(),
            contents: Some(contents),
            ..ListObjectsV2Output::default()
        }))
    }
}
