//! The time to the stub and back: a connection, and one DescribeTable over it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dsql_view_bench::workload::VIEW;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::BoxError;

/// Over HTTP.
pub async fn over_http(endpoint: &str) -> Result<Duration, BoxError> {
    let authority = endpoint.trim_start_matches("http://");
    let started = Instant::now();
    describe(TcpStream::connect(authority).await?, authority).await?;
    Ok(started.elapsed())
}

/// Over TLS, with its own handshake, for a client that trusts the certificate in this file.
pub async fn over_tls(endpoint: &str, certificate: &str) -> Result<Duration, BoxError> {
    let authority = endpoint.trim_start_matches("https://");
    let host = authority.split(':').next().unwrap_or_default().to_owned();
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_file(certificate)?)?;
    // A new configuration knows no session that it could resume.
    let tls = Arc::new(ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth());
    let started = Instant::now();
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(tls).connect(ServerName::try_from(host)?, stream).await?;
    describe(stream, authority).await?;
    Ok(started.elapsed())
}

async fn describe(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, host: &str) -> Result<(), BoxError> {
    let body = json!({ "TableName": VIEW }).to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\nx-amz-target: DynamoDB_20120810.DescribeTable\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).await?;
    let is_answer = answer[..length].starts_with(b"HTTP/1.1 200 ");
    if is_answer { Ok(()) } else { Err("the stub has not answered DescribeTable".into()) }
}
