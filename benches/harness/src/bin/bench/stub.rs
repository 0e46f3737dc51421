//! The DynamoDB stub's process, and how it is told what to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use dynamodb_stub::Counts;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::BoxError;
use crate::programs::Programs;

/// The certificates of this system, for clients that must read as many beside the stub's own.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const CERTIFICATE: &str = "stub.pem";
const ALL_ROOTS: &str = "roots.pem";

/// A stub. It ends when this is dropped, because its standard input ends then.
pub struct StubProcess {
    process: Child,
    address: String,
    tls_address: String,
    folder: TempDir,
}

impl StubProcess {
    pub fn start(programs: &Programs) -> Result<Self, BoxError> {
        let folder = TempDir::new()?;
        let certificate = folder.path().join(CERTIFICATE);
        let mut process = Command::new(programs.beside("dynamodb-stub"))
            .arg("--tls")
            .arg(&certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().ok_or("the stub has no output")?).lines();
        let mut line = || lines.next().ok_or("the stub has ended")?.map_err(BoxError::from);
        let tls_address = line()?;
        let address = line()?.trim_start_matches("http://").to_owned();
        let mut roots = std::fs::read(&certificate)?;
        roots.extend(std::fs::read(SYSTEM_ROOTS).unwrap_or_default());
        std::fs::write(folder.path().join(ALL_ROOTS), roots)?;
        Ok(Self { process, address, tls_address, folder })
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens with TLS, as a URL.
    pub fn tls_endpoint(&self) -> String {
        self.tls_address.clone()
    }

    /// The file with its certificate alone.
    pub fn certificate(&self) -> String {
        self.file(CERTIFICATE)
    }

    /// The file with its certificate and all those of this system.
    pub fn all_roots(&self) -> String {
        self.file(ALL_ROOTS)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// Changes its behaviour.
    pub fn set(&self, settings: &Value) -> Result<(), BoxError> {
        self.ask("POST", "/settings", &settings.to_string()).map(drop)
    }

    /// Sets the milliseconds after which it answers.
    pub fn set_latency(&self, milliseconds: u32) -> Result<(), BoxError> {
        self.set(&json!({ "latency_ms": milliseconds }))
    }

    /// Makes it forget counts and items.
    pub fn reset(&self) -> Result<(), BoxError> {
        self.ask("POST", "/reset", "").map(drop)
    }

    /// Its counts since its last reset.
    pub fn counts(&self) -> Result<Counts, BoxError> {
        Ok(serde_json::from_str(&self.ask("GET", "/counts", "")?)?)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String, BoxError> {
        let mut stream = TcpStream::connect(&self.address)?;
        let (host, length) = (&self.address, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
        if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(format!("the stub: {body}").into()) }
    }
}

impl Drop for StubProcess {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
