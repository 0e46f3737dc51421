//! An in-process Secrets Manager with one secret.

use crate::server::{Server, json, serve_http};

/// A server that gives the same secret for each name.
pub struct LocalSecrets(Server);

impl LocalSecrets {
    /// Starts on a free port. `secret` stands in a JSON text as it is.
    pub fn start(secret: &'static str) -> Self {
        let server = Server::start(0, move |listener| {
            serve_http(listener, move |request| async move {
                let asks = request.headers().get("x-amz-target")? == "secretsmanager.GetSecretValue";
                let answer = format!(r#"{{"Name":"secret","SecretString":"{secret}","VersionId":"1"}}"#);
                Some(if asks { json(200, answer) } else { json(400, "{}") })
            })
        });
        Self(server.expect("a free loopback port"))
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address())
    }
}
