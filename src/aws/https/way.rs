//! The way to a server: through a proxy's tunnel, where one stands before an HTTPS endpoint, or straight; with TLS
//! where the URI says so; in time, or not at all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::names::Names;

/// From the look-up of the name to the end of the TLS handshake; the time-outs of the calls go on from there. It is the
/// same for all clients, since the connections are theirs together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

type Tcp = TcpConnector<Names<GaiResolver>>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, BoxError>> + Send>>;

/// Connects in time, with TLS where the URI says so.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<Way>);

impl Connector {
    pub(super) fn new(proxies: Matcher, tls: Arc<ClientConfig>) -> Self {
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

/// The way without the TLS of the server at its end.
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
