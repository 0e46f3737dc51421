//! Who vouches for a server: Amazon's own authorities, which are known here, or else the system's, which are read when
//! they are needed.
//!
//! Invariant: no certificate is taken that neither of them vouch for.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What names Amazon's authorities in the subjects of their certificates.
const OF_AMAZON: [&[u8]; 2] = [b"Amazon Root CA", b"Starfield Services Root Certificate Authority"];

const UNKNOWN: rustls::Error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
const NO_AUTHORITIES: &str = "no certificates of authorities are found: install the system's package ca-certificates, or name a file \
    that has them in SSL_CERT_FILE";

/// Who vouches for a server: authorities that are known, or else the system's, which are read when they are needed.
#[derive(Debug)]
pub(super) struct Authorities {
    provider: Arc<CryptoProvider>,
    known: Option<Arc<WebPkiServerVerifier>>,
    read_system: fn() -> RootCertStore,
    system: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
}

impl Authorities {
    pub(super) fn new(known: RootCertStore, read_system: fn() -> RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let known = verifier(known, &provider);
        Self { provider, known, read_system, system: OnceLock::new() }
    }

    pub(super) fn into_config(self) -> Result<ClientConfig, rustls::Error> {
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
pub(super) fn amazon() -> RootCertStore {
    let is_of_amazon =
        |subject: &[u8]| OF_AMAZON.iter().any(|name| subject.windows(name.len()).any(|part| part == *name));
    webpki_roots::TLS_SERVER_ROOTS.iter().filter(|authority| is_of_amazon(&authority.subject)).cloned().collect()
}

/// The authorities that this system trusts, or `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
pub(super) fn system() -> RootCertStore {
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

    #[test]
    fn amazon_has_five_authorities() {
        assert_eq!(amazon().len(), 5);
    }
}
