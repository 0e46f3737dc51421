//! TLS in front of a server that has none, and a proxy that tunnels.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::server::Server;

/// Terminates TLS in front of a server of this machine. Only clients that read [`TlsFront::certificate`] trust its
/// certificate.
pub struct TlsFront {
    server: Server,
    certificate: PathBuf,
    _folder: TempDir,
}

impl TlsFront {
    /// Starts in front of the server at `url`, which has no TLS.
    pub fn before(url: &str) -> Self {
        let behind: SocketAddr = url.trim_start_matches("http://").parse().expect("a server of this machine");
        let names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).expect("two names");
        let folder = TempDir::new().expect("a folder for the certificate");
        let certificate = folder.path().join("certificate.pem");
        std::fs::write(&certificate, cert.pem()).expect("a new file");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key just made");
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![cert.der().clone()], key).expect("a certificate with its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = Server::start(0, move |listener| serve(listener, acceptor, behind)).expect("a free loopback port");
        Self { server, certificate, _folder: folder }
    }

    /// Where it listens, as a URL with this machine's name.
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.server.address().port())
    }

    /// The file with its certificate, as PEM.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, behind: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust the certificate hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if let Ok(mut server) = TcpStream::connect(behind).await {
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            }
        });
    }
}

/// A proxy that opens tunnels, and remembers the requests for them.
pub struct TunnelProxy {
    server: Server,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TunnelProxy {
    /// Starts on a free port.
    pub fn start() -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let server = Server::start(0, move |listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(stream, Arc::clone(&log)));
            }
        });
        Self { server: server.expect("a free loopback port"), asked }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The lines of the requests for tunnels.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").clone()
    }
}

async fn tunnel(stream: TcpStream, log: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut to = None;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(name) = line.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) {
            to = Some(name.to_owned());
        }
        log.lock().expect("no holder panics").push(line.to_owned());
    }
    let mut server = TcpStream::connect(to.ok_or(std::io::Error::other("no CONNECT"))?).await?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut server).await.map(drop)
}
