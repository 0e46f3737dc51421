//! The HTTPS client of all calls to AWS: one pool of connections, certificates that cost the start next to nothing, a proxy where
//! `HTTPS_PROXY` names one.
//!
//! AWS's certificates come from Amazon's own authorities, which are known here. Those of the system are read only for a certificate
//! that is none of these (another partition, an endpoint of one's own, a proxy that opens the TLS): that takes milliseconds. Where
//! `SSL_CERT_FILE` or `SSL_CERT_DIR` says whom to trust, nobody else is trusted.
//!
//! A connection comes about within two seconds, whichever client asks for it: it is for all of them, so that their
//! `connect_timeout` says nothing here. Their `read_timeout` counts, from the call to the head of the answer.
//!
//! Invariants: no certificate is taken that neither Amazon's authorities nor the system's vouch for; what is no answer is an
//! I/O error or a time-out, which the SDK's clients try again as often as they are told.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector as TcpConnector, capture_connection};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

/// From the look-up of the name to the end of the TLS handshake; the time-outs of the calls go on from there. It is the
/// same for all clients, since the connections are theirs together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// An answer to the question for a name is shared by the connections that are opened together.
const ANSWER_SHARED_FOR: Duration = Duration::from_secs(1);

/// What names Amazon's authorities in the subjects of their certificates.
const OF_AMAZON: [&[u8]; 2] = [b"Amazon Root CA", b"Starfield Services Root Certificate Authority"];

const UNKNOWN: rustls::Error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
const NO_AUTHORITIES: &str = "no certificates of authorities are found: install the system's package ca-certificates, or name a file \
    that has them in SSL_CERT_FILE";

/// A client for all of the SDK's clients, with the proxy and the authorities that the environment names.
///
/// # Errors
/// TLS cannot be had with the cryptography that this was built with.
pub fn client() -> Result<SharedHttpClient, rustls::Error> {
    let names_authorities = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    let known = if names_authorities { RootCertStore::empty() } else { amazon() };
    let tls = Authorities::new(known, system).into_config()?;
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

type Tcp = TcpConnector<Names<GaiResolver>>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, BoxError>> + Send>>;

/// Connects in time, with TLS where the URI says so.
#[derive(Clone)]
struct Connector(HttpsConnector<Way>);

impl Connector {
    fn new(proxies: Matcher, tls: Arc<ClientConfig>) -> Self {
        let mut tcp = TcpConnector::new_with_resolver(Names::new(GaiResolver::new()));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let to_proxy = HttpsConnector::from((tcp.clone(), Arc::clone(&tls)));
        Self(HttpsConnector::from((Way { tcp, to_proxy, proxies: Arc::new(proxies) }, tls)))
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Stream>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async {
            let in_time = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            in_time.unwrap_or_else(|_| Err(format!("no connection within {CONNECT_TIMEOUT:?}").into()))
        })
    }
}

/// The way to a server: through a proxy's tunnel, where one stands before an HTTPS endpoint, or straight.
#[derive(Clone)]
struct Way {
    tcp: Tcp,
    to_proxy: HttpsConnector<Tcp>,
    proxies: Arc<Matcher>,
}

impl Service<Uri> for Way {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let proxy = if to.scheme() == Some(&Scheme::HTTPS) { self.proxies.intercept(&to) } else { None };
        let Some(proxy) = proxy else {
            let connecting = self.tcp.call(to);
            return Box::pin(async { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        let connecting = tunnel.call(to);
        Box::pin(async { Ok(connecting.await?) })
    }
}

/// Looks a name up once for all connections that are opened together: each question takes a thread of its own, and its memory.
#[derive(Debug, Clone)]
struct Names<R> {
    resolver: R,
    known: Arc<Mutex<HashMap<Name, Known>>>,
}

/// The last answer for a name, and when it came. Who finds it locked waits for the next one.
type Known = Arc<tokio::sync::Mutex<Option<(Instant, Vec<SocketAddr>)>>>;

impl<R> Names<R> {
    fn new(resolver: R) -> Self {
        Self { resolver, known: Arc::default() }
    }
}

impl<R> Service<Name> for Names<R>
where
    R: Service<Name, Response: Iterator<Item = SocketAddr>, Error = io::Error, Future: Send> + Clone + Send + 'static,
{
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let known =
            Arc::clone(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default());
        let mut resolver = self.resolver.clone();
        Box::pin(async move {
            let mut known = known.lock().await;
            if let Some((at, addresses)) = &mut *known
                && at.elapsed() < ANSWER_SHARED_FOR
            {
                rotate(addresses);
                return Ok(addresses.clone().into_iter());
            }
            let addresses = by_family(resolver.call(name).await?.collect());
            *known = Some((Instant::now(), addresses.clone()));
            Ok(addresses.into_iter())
        })
    }
}

/// The addresses of the first one's family, and then those of the other, each in their order.
fn by_family(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    addresses.sort_by_key(|address| address.is_ipv6() != first_is_ipv6);
    addresses
}

/// Lets each connection begin with another address, of the same family: hyper tries that of the first one before the other.
fn rotate(addresses: &mut [SocketAddr]) {
    for family in addresses.chunk_by_mut(|a, b| a.is_ipv6() == b.is_ipv6()) {
        family.rotate_left(1);
    }
}

/// Who vouches for a server: authorities that are known, or else the system's, which are read when they are needed.
#[derive(Debug)]
struct Authorities {
    provider: Arc<CryptoProvider>,
    known: Option<Arc<WebPkiServerVerifier>>,
    read_system: fn() -> RootCertStore,
    system: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
}

impl Authorities {
    fn new(known: RootCertStore, read_system: fn() -> RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let known = verifier(known, &provider);
        Self { provider, known, read_system, system: OnceLock::new() }
    }

    fn into_config(self) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_safe_default_protocol_versions()?.dangerous();
        Ok(builder.with_custom_certificate_verifier(Arc::new(self)).with_no_client_auth())
    }
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |by: &WebPkiServerVerifier| by.verify_server_cert(certificate, intermediates, server, ocsp, now);
        let by_known = self.known.as_deref().map(verify);
        if let Some(Ok(verified)) = by_known {
            return Ok(verified);
        }
        match (self.system.get_or_init(|| verifier((self.read_system)(), &self.provider)).as_deref(), by_known) {
            (Some(system), _) => verify(system),
            (None, Some(Err(error))) if error != UNKNOWN => Err(error),
            (None, _) => Err(rustls::Error::General(NO_AUTHORITIES.to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What verifies by these authorities; nothing, where there are none.
fn verifier(authorities: RootCertStore, provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider)).build().ok()
}

/// Amazon's own authorities.
fn amazon() -> RootCertStore {
    let is_of_amazon =
        |subject: &[u8]| OF_AMAZON.iter().any(|name| subject.windows(name.len()).any(|part| part == *name));
    webpki_roots::TLS_SERVER_ROOTS.iter().filter(|authority| is_of_amazon(&authority.subject)).cloned().collect()
}

/// The authorities that this system trusts, or `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
fn system() -> RootCertStore {
    let read = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    let (_, unusable) = authorities.add_parsable_certificates(read.certs);
    if unusable > 0 || !read.errors.is_empty() {
        tracing::warn!(unusable, errors = ?read.errors, "not all certificates of authorities can be read");
    }
    authorities
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn store(authority: &Authority) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(authority.der().clone()).unwrap();
        store
    }

    /// A server's certificate by this authority.
    fn issued_by(authority: &Authority) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.signed_by(&KeyPair::generate().unwrap(), authority).unwrap().into()
    }

    fn verify(authorities: &Authorities, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let server = ServerName::try_from("localhost").unwrap();
        authorities.verify_server_cert(certificate, &[], &server, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn the_systems_authorities_are_read_once_and_only_for_who_is_not_known() {
        static SYSTEM: OnceLock<Authority> = OnceLock::new();
        static READ: AtomicUsize = AtomicUsize::new(0);
        fn system() -> RootCertStore {
            READ.fetch_add(1, Ordering::Relaxed);
            store(SYSTEM.get_or_init(authority))
        }
        let known = authority();
        let authorities = Authorities::new(store(&known), system);
        verify(&authorities, &issued_by(&known)).unwrap();
        assert_eq!(READ.load(Ordering::Relaxed), 0);
        verify(&authorities, &issued_by(SYSTEM.get_or_init(authority))).unwrap();
        let error = verify(&authorities, &issued_by(&authority())).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
        assert_eq!(READ.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn where_nobody_is_trusted_the_message_says_what_to_do() {
        for known in [RootCertStore::empty(), amazon()] {
            let authorities = Authorities::new(known, RootCertStore::empty);
            let error = verify(&authorities, &issued_by(&authority())).unwrap_err().to_string();
            assert!(error.contains("ca-certificates") && error.contains("SSL_CERT_FILE"), "{error}");
        }

        let known = authority();
        let authorities = Authorities::new(store(&known), RootCertStore::empty);
        let server = ServerName::try_from("elsewhere").unwrap();
        let error = authorities.verify_server_cert(&issued_by(&known), &[], &server, &[], UnixTime::now()).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }

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
            tokio::time::sleep(Duration::from_millis(20)).await;
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

    /// Answers with two addresses after a moment, and counts the questions; the first one fails.
    #[derive(Clone, Default)]
    struct Slow(Arc<AtomicUsize>);

    impl Service<Name> for Slow {
        type Response = std::array::IntoIter<SocketAddr, 2>;
        type Error = io::Error;
        type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Name) -> Self::Future {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if count == 0 { Err(io::Error::other("no answer")) } else { Ok(addresses().into_iter()) }
            })
        }
    }

    fn addresses() -> [SocketAddr; 2] {
        [([127, 0, 0, 1], 1).into(), ([127, 0, 0, 2], 1).into()]
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_are_opened_together_ask_once_and_share_the_addresses() {
        let resolver = Slow::default();
        let mut names = Names::new(resolver.clone());
        let name: Name = "dynamodb.us-east-1.amazonaws.com".parse().unwrap();
        assert!(names.call(name.clone()).await.is_err());
        let asked = futures_util::future::join_all((0..50).map(|_| names.call(name.clone()))).await;
        let firsts: Vec<SocketAddr> = asked.into_iter().map(|found| found.unwrap().next().unwrap()).collect();
        for address in addresses() {
            assert_eq!(firsts.iter().filter(|first| **first == address).count(), 25);
        }
        assert_eq!(resolver.0.load(Ordering::Relaxed), 2);
        tokio::time::advance(ANSWER_SHARED_FOR).await;
        names.call(name).await.unwrap();
        names.call("localhost".parse().unwrap()).await.unwrap();
        assert_eq!(resolver.0.load(Ordering::Relaxed), 4);
    }

    /// The addresses that so many connections are told, one after the other, where this is the system's answer.
    async fn told(connections: usize, answer: &'static [&'static str]) -> Vec<Vec<SocketAddr>> {
        let mut names = Names::new(Fixed(answer));
        let mut told = Vec::new();
        for _ in 0..connections {
            told.push(names.call("localhost".parse().unwrap()).await.unwrap().collect());
        }
        told
    }

    #[derive(Clone)]
    struct Fixed(&'static [&'static str]);

    impl Service<Name> for Fixed {
        type Response = std::vec::IntoIter<SocketAddr>;
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<Self::Response>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Name) -> Self::Future {
            std::future::ready(Ok(parsed(self.0).into_iter()))
        }
    }

    fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_connection_begins_with_the_family_that_the_system_put_first() {
        const V4: [&str; 3] = ["10.0.0.1:0", "10.0.0.2:0", "10.0.0.3:0"];
        const V6: [&str; 2] = ["[fd00::1]:0", "[fd00::2]:0"];
        let expected = [
            [V4[0], V4[1], V4[2], V6[0], V6[1]],
            [V4[1], V4[2], V4[0], V6[1], V6[0]],
            [V4[2], V4[0], V4[1], V6[0], V6[1]],
        ];
        let expected = expected.map(|addresses| parsed(&addresses));
        assert_eq!(told(3, &[V4[0], V4[1], V4[2], V6[0], V6[1]]).await, expected);
        assert_eq!(told(3, &[V4[0], V6[0], V4[1], V6[1], V4[2]]).await, expected, "mixed");
        let expected = [[V6[0], V6[1], V4[0]], [V6[1], V6[0], V4[0]]].map(|addresses| parsed(&addresses));
        assert_eq!(told(2, &[V6[0], V4[0], V6[1]]).await, expected, "IPv6 first");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_addresses_is_an_answer() {
        assert_eq!(told(2, &[]).await, [vec![], vec![]]);
    }

    #[test]
    fn amazon_has_five_authorities() {
        assert_eq!(amazon().len(), 5);
    }
}
