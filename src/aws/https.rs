//! The HTTPS client of all calls to AWS: the SDK's own, with one pool of connections, certificates that cost the start
//! next to nothing, and a proxy if the environment names one.
//!
//! AWS's certificates come from Amazon's own authorities, which are built in. A server may have another certificate: in
//! another partition, at an endpoint of the user's own, or behind a proxy that opens the TLS. The client asks such a
//! server again with the system's authorities, and reads these only then. That takes a handshake and some milliseconds.
//! If `SSL_CERT_FILE` or `SSL_CERT_DIR` says whom to trust, nobody else is trusted.
//!
//! A connection must be open within two seconds, whichever client asks for it. The clients share the connections, so
//! their own `connect_timeout` and `read_timeout` have no effect. They limit their attempts instead.
//!
//! What may happen between any two steps:
//! - The first request to a server is sent a second time only if the first attempt failed in the TLS handshake, so the
//!   server has seen nothing of it.
//! - A server changes its certificate later: the request fails like one without a connection. The server is then no
//!   longer known, and the next attempt begins with Amazon's authorities.
//!
//! Invariants: no certificate is accepted unless Amazon's authorities or the system's vouch for it; a request without
//! an answer ends as an I/O error or a time-out, and the SDK's clients retry these as often as they are told.

mod authorities;
mod names;

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Connector, HttpClientError};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;

use self::names::{Names, System};
use crate::lock::lock;

/// The time from the look-up of the name to the end of the TLS handshake. It is the same for all clients, because they
/// share the connections.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

const NO_AUTHORITIES: &str = "no certificates of authorities are found: install the system's package ca-certificates, or name a file \
    that has them in SSL_CERT_FILE";

/// A client for all of the SDK's clients, with the proxy and the authorities that the environment names.
///
/// # Errors
/// The client cannot be configured for TLS.
pub fn client() -> Result<SharedHttpClient, HttpClientError> {
    let names_authorities = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    let built_in = (!names_authorities).then_some(authorities::AMAZON);
    let https = SharedHttpConnector::new(Https::new(built_in, authorities::system, ProxyConfig::from_env())?);
    Ok(http_client_fn(move |_, _| https.clone()))
}

/// Asks each server with the authorities that vouch for it.
#[derive(Debug, Clone)]
struct Https(Arc<Connectors>);

#[derive(Debug)]
struct Connectors {
    /// For endpoints without TLS. They go through no proxy, because a proxy would see the requests.
    plain: Connector,
    /// Trusts the authorities that are built in. `None` if only the system's authorities are trusted.
    built_in: Option<Connector>,
    /// Trusts the system's authorities. It is made when a server needs them. `true` if the system has any.
    system: OnceLock<Result<(Connector, bool), HttpClientError>>,
    read_system: fn() -> String,
    proxies: ProxyConfig,
    /// The servers that have answered, and who vouches for them.
    known: Mutex<HashMap<String, Vouching>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Vouching {
    BuiltIn,
    System,
}

impl Https {
    fn new(built_in: Option<&str>, read_system: fn() -> String, proxies: ProxyConfig) -> Result<Self, HttpClientError> {
        let plain = connector("", &ProxyConfig::disabled())?;
        let built_in = built_in.map(|pem| connector(pem, &proxies)).transpose()?;
        let (system, known) = (OnceLock::new(), Mutex::default());
        Ok(Self(Arc::new(Connectors { plain, built_in, system, read_system, proxies, known })))
    }
}

impl HttpConnector for Https {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connectors = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move { connectors.answer(request).await.map_err(without_an_answer) })
    }
}

impl Connectors {
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        if request.uri().starts_with("http://") {
            return self.plain.call(request).await;
        }
        let server = request.uri().split('/').nth(2).unwrap_or_default().to_owned();
        let known = lock(&self.known).get(&server).copied();
        let first = if self.built_in.is_some() { Vouching::BuiltIn } else { Vouching::System };
        let mut by = known.unwrap_or(first);
        let again = if known.is_none() && by == Vouching::BuiltIn { request.try_clone() } else { None };
        let mut answer = self.ask(by, request).await;
        if let (Err(error), Some(again)) = (&answer, again)
            && is_of_a_certificate(error)
        {
            by = Vouching::System;
            answer = self.ask(by, again).await;
        }
        match &answer {
            Ok(_) if known.is_none() => drop(lock(&self.known).insert(server, by)),
            Err(error) if is_of_a_certificate(error) => drop(lock(&self.known).remove(&server)),
            _ => {}
        }
        answer
    }

    async fn ask(&self, by: Vouching, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        if let (Some(built_in), Vouching::BuiltIn) = (&self.built_in, by) {
            return built_in.call(request).await;
        }
        let system = self.system.get_or_init(|| {
            let pem = (self.read_system)();
            Ok((connector(&pem, &self.proxies)?, !pem.is_empty()))
        });
        let (system, any) = system.as_ref().map_err(|error| ConnectorError::user(error.to_string().into()))?;
        let answer = system.call(request).await;
        let told = |error| {
            if *any || !is_of_a_certificate(&error) { error } else { ConnectorError::io(NO_AUTHORITIES.into()) }
        };
        answer.map_err(told)
    }
}

/// A connector that trusts the authorities in `pem`.
fn connector(pem: &str, proxies: &ProxyConfig) -> Result<Connector, HttpClientError> {
    let trusted = TrustStore::empty().with_pem_certificate(pem);
    let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build();
    let connector = Connector::builder().connector_settings(settings).proxy_config(proxies.clone());
    let connector = connector
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(TlsContext::builder().with_trust_store(trusted).build()?);
    Ok(connector.build_with_resolver(Names::new(System)))
}

/// Whether the server's certificate is refused. Any reason counts: a chain can hold an expired certificate beside one that
/// the system trusts.
fn is_of_a_certificate(error: &(dyn Error + 'static)) -> bool {
    // `source` of an I/O error skips the error that it carries.
    let inner = match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|error| error as &(dyn Error + 'static)),
        None => error.source(),
    };
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) || inner.is_some_and(is_of_a_certificate)
}

/// A request without an answer that can be read may be sent again, whatever came instead of the answer.
fn without_an_answer(error: ConnectorError) -> ConnectorError {
    let is_unknown = error.is_other() && error.as_other().is_none();
    if is_unknown { ConnectorError::io(error.into_source()) } else { error }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
    use dsql_view_support::tls::TlsFront;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    /// Trusts the given authority as if it were built in, and uses no proxy.
    fn https(built_in: &str, read_system: fn() -> String) -> Https {
        Https::new(Some(built_in), read_system, ProxyConfig::disabled()).unwrap()
    }

    fn nobody() -> String {
        String::new()
    }

    /// A server that answers, with its URL and the number of connections that it has had.
    async fn server() -> (JoinHandle<()>, String, Arc<AtomicUsize>) {
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
        (server, endpoint, opened)
    }

    /// Asks a server twice, and returns how many connections it saw.
    async fn connections(poisoned: bool) -> usize {
        let (server, endpoint, opened) = server().await;
        let https = https("", nobody);
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

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_waited_for_as_long_as_is_said_here() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let request = HttpRequest::get(format!("https://{}", listener.local_addr().unwrap())).unwrap();
        let begun = tokio::time::Instant::now();
        let error = https("", nobody).call(request).await.unwrap_err();
        assert!(error.is_timeout() && format!("{error:?}").contains("connect"), "{error:?}");
        assert_eq!(begun.elapsed().as_secs(), 2);
    }

    fn certificate(front: &TlsFront) -> String {
        std::fs::read_to_string(front.certificate()).unwrap()
    }

    async fn ask(https: &Https, endpoint: &str) -> Result<(), ConnectorError> {
        https.call(HttpRequest::get(endpoint).unwrap()).await.map(drop)
    }

    #[tokio::test]
    async fn the_systems_authorities_are_read_once_and_only_for_who_is_not_known() {
        static SYSTEM: OnceLock<String> = OnceLock::new();
        static READ: AtomicUsize = AtomicUsize::new(0);
        fn system() -> String {
            READ.fetch_add(1, Ordering::Relaxed);
            SYSTEM.get().unwrap().clone()
        }
        let (_server, endpoint, _) = server().await;
        let [built_in, of_system, of_nobody] = [(); 3].map(|()| TlsFront::before(&endpoint));
        SYSTEM.set(certificate(&of_system)).unwrap();
        let https = https(&certificate(&built_in), system);
        ask(&https, &built_in.endpoint()).await.unwrap();
        assert_eq!(READ.load(Ordering::Relaxed), 0);
        for _ in 0..2 {
            ask(&https, &of_system.endpoint()).await.unwrap();
            ask(&https, &built_in.endpoint()).await.unwrap();
            let error = ask(&https, &of_nobody.endpoint()).await.unwrap_err();
            assert!(is_of_a_certificate(&error) && error.is_io(), "{error:?}");
        }
        assert_eq!(READ.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_server_whose_certificate_changes_is_asked_anew() {
        static SYSTEM: OnceLock<String> = OnceLock::new();
        fn system() -> String {
            SYSTEM.get().unwrap().clone()
        }
        let (_server, endpoint, _) = server().await;
        let front = TlsFront::before(&endpoint);
        SYSTEM.set(certificate(&front)).unwrap();
        let https = https(authorities::AMAZON, system);
        let server = front.endpoint().trim_start_matches("https://").to_owned();
        lock(&https.0.known).insert(server.clone(), Vouching::BuiltIn);
        assert!(ask(&https, &front.endpoint()).await.unwrap_err().is_io());
        ask(&https, &front.endpoint()).await.unwrap();
        assert_eq!(lock(&https.0.known).get(&server), Some(&Vouching::System));
    }

    #[tokio::test]
    async fn where_nobody_is_trusted_the_message_says_what_to_do() {
        let (_server, endpoint, _) = server().await;
        let front = TlsFront::before(&endpoint);
        for built_in in [None, Some(authorities::AMAZON)] {
            let https = Https::new(built_in, nobody, ProxyConfig::disabled()).unwrap();
            let error = format!("{:?}", ask(&https, &front.endpoint()).await.unwrap_err());
            assert!(error.contains("ca-certificates") && error.contains("SSL_CERT_FILE"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_may_come_another_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"no HTTP\r\n\r\n").await.unwrap();
        });
        let error = ask(&https("", nobody), &endpoint).await.unwrap_err();
        assert!(error.is_io(), "{error:?}");
    }

    #[tokio::test]
    async fn no_proxy_sees_a_request_without_tls() {
        let (_server, endpoint, _) = server().await;
        let proxies = ProxyConfig::all("http://127.0.0.1:9").unwrap();
        let https = Https::new(Some(""), nobody, proxies).unwrap();
        ask(&https, &endpoint).await.unwrap();
        assert!(ask(&https, &endpoint.replace("http:", "https:")).await.unwrap_err().is_io());
    }
}
