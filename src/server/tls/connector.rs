//! Makes TLS of a socket: the handshake, ALPN, and the certificate's digest for channel binding.

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, Error};
use std::io;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use x509_cert::Certificate;
use x509_cert::der::Decode;

pub use tokio_rustls::client::TlsStream;

/// The protocol name that both sides have to send if TLS is used from the first byte on. Otherwise a server of another
/// protocol that has the same certificate could be put in the place of PostgreSQL.
const ALPN: &[u8] = b"postgresql";

#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
}

impl Connector {
    /// With `is_direct`, TLS is used from the first byte on.
    pub(super) fn new(mut config: ClientConfig, is_direct: bool) -> Connector {
        if is_direct {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Connector { config: Arc::new(config) }
    }

    pub fn is_direct(&self) -> bool {
        !self.config.alpn_protocols.is_empty()
    }

    /// What does the handshake, and the name that the server's certificate must be for.
    pub fn prepare(&self, host: &str) -> io::Result<(TlsConnector, ServerName<'static>)> {
        let host = ServerName::try_from(host.to_string());
        let host = host.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok((TlsConnector::from(Arc::clone(&self.config)), host))
    }

    /// As in libpq, a server with TLS from the first byte on must have agreed to the protocol's name.
    pub fn check_protocol<S>(&self, stream: &TlsStream<S>) -> io::Result<()> {
        let agreed = stream.get_ref().1.alpn_protocol();
        match self.is_direct() && agreed != Some(ALPN) {
            true => Err(io::Error::other(Error::NoApplicationProtocol)),
            false => Ok(()),
        }
    }
}

/// What `tls-server-end-point` of RFC 5929 calls the endpoint: the digest of the server's certificate, by the algorithm
/// with which it is signed. None if that is none of these algorithms; then a login cannot be bound to the channel.
pub fn endpoint<S>(stream: &TlsStream<S>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    digest_of(certificate)
}

fn digest_of(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let signature = Certificate::from_der(certificate).ok()?.signature_algorithm.oid.to_string();
    let algorithm: &'static Algorithm = match signature.as_str() {
        // SHA-1 and SHA-256, with RSA and with ECDSA. The RFC replaces SHA-1.
        "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" | "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => &SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &SHA512,
        _ => return None,
    };
    Some(digest(algorithm, certificate).as_ref().to_vec())
}
