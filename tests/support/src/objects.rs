//! An S3 of the process's own: s3s over a temporary folder, behind its real HTTP interface.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::DisplayErrorContext;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;

use crate::dynamodb::{ACCESS_KEY, SECRET_KEY};
use crate::server::Server;

/// An S3 server with nothing in it.
pub struct LocalS3 {
    server: Server,
    _folder: tempfile::TempDir,
}

impl LocalS3 {
    /// Starts on a free port.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = FileSystem::new(folder.path()).expect("a folder of our own");
        let mut service = S3ServiceBuilder::new(files);
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
        Self { server, _folder: folder }
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The SDK's configuration for it.
    pub fn sdk_config(&self) -> SdkConfig {
        crate::dynamodb::sdk_config(&self.endpoint())
    }

    /// Creates a bucket.
    pub async fn create_bucket(&self, bucket: &str) {
        let request = Client::new(&self.sdk_config()).create_bucket().bucket(bucket);
        request.send().await.unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
    }

    /// Everything in a bucket.
    pub async fn objects(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        let client = Client::new(&self.sdk_config());
        let listed = client.list_objects_v2().bucket(bucket).send().await.expect("a bucket that can be listed");
        let mut objects = BTreeMap::new();
        for key in listed.contents().iter().filter_map(|object| object.key()) {
            let object = client.get_object().bucket(bucket).key(key).send().await.expect("an object that is listed");
            let body = object.body.collect().await.expect("a body").into_bytes();
            objects.insert(key.to_owned(), body.to_vec());
        }
        objects
    }
}
