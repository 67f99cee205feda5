//! Verifies the server's certificate. It follows libpq's rules where those accept more than the rules of web browsers.

use super::files::Trust;
use super::{names, provider};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(super) struct Verifier {
    /// None: there are no root certificates, so any certificate is accepted.
    chain: Option<Chain>,
    checks_name: bool,
    seen: Arc<AtomicBool>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Chain {
    verifier: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
    has_revocation_lists: bool,
}

impl Verifier {
    pub(super) fn trusting(seen: Arc<AtomicBool>) -> Verifier {
        let algorithms = provider().signature_verification_algorithms;
        Verifier { chain: None, checks_name: false, seen, algorithms }
    }

    pub(super) fn checking(trust: Trust, checks_name: bool, seen: Arc<AtomicBool>) -> Result<Verifier, String> {
        let mut store = RootCertStore::empty();
        for root in &trust.roots {
            if let Err(error) = store.add(root.clone()) {
                log::debug!(target: "pyreplica", "a root certificate of {} cannot be used: {error}", trust.source);
            }
        }
        if store.is_empty() {
            return Err(format!("{} has no root certificate that can be used", trust.source));
        }
        let has_revocation_lists = !trust.revocation_lists.is_empty();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .with_crls(trust.revocation_lists)
            .enforce_revocation_expiration()
            .build()
            .map_err(|e| format!("the revocation lists cannot be used: {e} (they must be version 2, with a number)"))?;
        let chain = Some(Chain { verifier, roots: trust.roots, has_revocation_lists });
        Ok(Verifier { chain, checks_name, ..Verifier::trusting(seen) })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.seen.store(true, Ordering::Relaxed);
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let checked = chain.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            Ok(_) => return checked,
            // The name is checked last, if everything else is valid.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) if chain.is_its_own_root(end_entity, &error) => {}
            Err(error) => return Err(error),
        }
        if self.checks_name {
            let authorities = intermediates.iter().chain(&chain.roots);
            names::check(end_entity, authorities, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Chain {
    /// PostgreSQL's manual shows how to make a self-signed certificate, which is a CA by default, and copies it to the
    /// clients as their root. webpki refuses a CA as a server's certificate, but only after it has checked the dates.
    /// The same certificate is among the trusted roots, so nothing else has to be checked.
    fn is_its_own_root(&self, end_entity: &CertificateDer<'_>, error: &Error) -> bool {
        let Error::InvalidCertificate(CertificateError::Other(reason)) = error else { return false };
        !self.has_revocation_lists
            && reason.to_string().contains("CaUsedAsEndEntity")
            && self.roots.iter().any(|root| root == end_entity)
    }
}
