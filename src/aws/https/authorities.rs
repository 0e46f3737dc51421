//! The authorities that vouch for a server, as PEM: Amazon's own, which are built in, or else the system's.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::RootCertStore;

/// Amazon's own authorities: Amazon Root CA 1 to 4, and Starfield Services G2.
pub(super) const AMAZON: &str = include_str!("amazon.pem");

/// The authorities that this system trusts, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
pub(super) fn system() -> String {
    let read = rustls_native_certs::load_native_certs();
    let (mut pem, mut unusable) = (String::new(), 0);
    for certificate in read.certs {
        let text = BASE64_STANDARD.encode(&certificate);
        // The client takes only authorities that it can use.
        if RootCertStore::empty().add(certificate).is_ok() {
            pem.extend(["-----BEGIN CERTIFICATE-----\n", &text, "\n-----END CERTIFICATE-----\n"]);
        } else {
            unusable += 1;
        }
    }
    if unusable > 0 || !read.errors.is_empty() {
        tracing::warn!(unusable, errors = ?read.errors, "not all certificates of authorities can be read");
    }
    pem
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn amazon_has_five_authorities() {
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(AMAZON.as_bytes()) {
            authorities.add(certificate.unwrap()).unwrap();
        }
        assert_eq!(authorities.len(), 5);
        let of_amazon = |subject: &[u8]| {
            [&b"Amazon Root CA"[..], b"Starfield Services Root Certificate Authority"]
                .iter()
                .any(|name| subject.windows(name.len()).any(|part| part == *name))
        };
        assert!(authorities.roots.iter().all(|authority| of_amazon(&authority.subject)));
    }
}
