//! The HTTPS client of all calls to AWS: one pool of connections, certificates that cost the start next to nothing, a
//! proxy where `HTTPS_PROXY` names one.
//!
//! AWS's certificates come from Amazon's own authorities, which are known here. Those of the system are read only for a
//! certificate that is none of these (another partition, an endpoint of one's own, a proxy that opens the TLS): that
//! takes milliseconds. Where `SSL_CERT_FILE` or `SSL_CERT_DIR` says whom to trust, nobody else is trusted.
//!
//! A connection comes about within two seconds, whichever client asks for it: it is for all of them, so that their
//! `connect_timeout` says nothing here. Their `read_timeout` counts, from the call to the head of the answer.
//!
//! Invariants: no certificate is taken that neither Amazon's authorities nor the system's vouch for; what is no answer
//! is an I/O error or a time-out, which the SDK's clients try again as often as they are told.

mod authorities;
mod names;
mod way;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use self::authorities::Authorities;
use self::way::Connector;

/// A client for all of the SDK's clients, with the proxy and the authorities that the environment names.
///
/// # Errors
/// TLS cannot be had with the cryptography that this was built with.
pub fn client() -> Result<SharedHttpClient, rustls::Error> {
    let names_authorities = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    let known = if names_authorities { RootCertStore::empty() } else { authorities::amazon() };
    let tls = Authorities::new(known, authorities::system).into_config()?;
    let https = Https::new(Matcher::from_env(), tls);
    Ok(http_client_fn(move |settings, _| SharedHttpConnector::new(https.with(settings))))
}

/// A pool of connections, which is asked for answers.
struct Https {
    pool: Arc<Client<Connector, SdkBody>>,
    /// How long the head of an answer may take.
    within: Option<Duration>,
}

impl Https {
    fn new(proxies: Matcher, tls: ClientConfig) -> Self {
        let mut pool = Client::builder(TokioExecutor::new());
        pool.pool_timer(TokioTimer::new());
        Self { pool: Arc::new(pool.build(Connector::new(proxies, Arc::new(tls)))), within: None }
    }

    /// The same pool, for a client with these settings.
    fn with(&self, settings: &HttpConnectorSettings) -> Self {
        Self { pool: Arc::clone(&self.pool), within: settings.read_timeout() }
    }
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Https")
    }
}

impl HttpConnector for Https {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let connection = capture_connection(&mut request);
        // The SDK's client says when it is not to be used again.
        if let Some(capture) = request.extensions().get::<CaptureSmithyConnection>() {
            capture.set_connection_retriever(move || metadata(&connection));
        }
        let answer = self.pool.request(request);
        let within = self.within;
        HttpConnectorFuture::new(async move {
            let answer = match within {
                None => answer.await,
                Some(within) => tokio::time::timeout(within, answer)
                    .await
                    .map_err(|_| ConnectorError::timeout(format!("no answer within {within:?}").into()))?,
            };
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The connection of a request, as the SDK sees it.
fn metadata(connection: &CaptureConnection) -> Option<ConnectionMetadata> {
    let proxied = connection.connection_metadata().as_ref()?.is_proxied();
    let connection = connection.clone();
    let poison = move || {
        if let Some(connection) = connection.connection_metadata().as_ref() {
            connection.poison();
        }
    };
    Some(ConnectionMetadata::builder().proxied(proxied).poison_fn(poison).build())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A client that trusts nobody.
    fn https() -> Https {
        let tls = Authorities::new(RootCertStore::empty(), RootCertStore::empty).into_config().unwrap();
        Https::new(Matcher::builder().build(), tls)
    }

    /// Asks a server twice: how many connections it saw.
    async fn connections(poisoned: bool) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        let https = https();
        for _ in 0..2 {
            let mut request = HttpRequest::get(&endpoint).unwrap();
            let capture = CaptureSmithyConnection::new();
            request.add_extension(capture.clone());
            https.call(request).await.unwrap();
            if poisoned {
                capture.get().unwrap().poison();
            }
            // The pool has the connection back when its task has run.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        server.abort();
        opened.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_connection_is_used_again_unless_the_sdk_says_no() {
        assert_eq!((connections(false).await, connections(true).await), (1, 2));
    }

    /// What becomes of a call by a client with these settings to a server that takes connections and says nothing.
    async fn unanswered(scheme: &str, settings: HttpConnectorSettings) -> ConnectorError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let request = HttpRequest::get(format!("{scheme}://{}", listener.local_addr().unwrap())).unwrap();
        https().with(&settings).call(request).await.unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_as_long_as_the_client_says() {
        let settings = HttpConnectorSettings::builder().read_timeout(Duration::from_secs(1)).build();
        let error = unanswered("http", settings).await;
        assert!(error.is_timeout(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_waited_for_as_long_as_is_said_here() {
        let settings = HttpConnectorSettings::builder().connect_timeout(Duration::from_secs(3600)).build();
        let begun = tokio::time::Instant::now();
        let error = unanswered("https", settings).await;
        assert!(error.is_io() && format!("{error:?}").contains("no connection within 2s"), "{error:?}");
        assert_eq!(begun.elapsed().as_secs(), 2);
    }
}
