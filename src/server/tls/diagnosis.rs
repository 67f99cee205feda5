//! Explains a failed handshake to the operator: whose certificate is wrong, what is wrong with it, what to do.

use super::names::OnlyCommonName;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error};
use std::error::Error as StdError;
use std::io;

/// Why TLS failed, and what to do about it.
#[derive(Debug)]
pub struct TlsFailure {
    pub detail: String,
    pub hint: String,
}

/// None if the failure has nothing to do with TLS.
pub fn diagnose(error: &(dyn StdError + 'static)) -> Option<TlsFailure> {
    let causes = causes(error);
    if let Some(found) = causes.iter().find_map(|cause| cause.downcast_ref::<Error>()) {
        return Some(explain(found));
    }
    let not_offered = causes.iter().any(|cause| cause.to_string().contains("server does not support TLS"));
    not_offered.then(|| TlsFailure {
        detail: "the server does not offer TLS, and sslmode requires it".into(),
        hint: "switch TLS on there (ssl = on, ssl_cert_file, ssl_key_file), or connect without it: sslmode=prefer"
            .into(),
    })
}

/// The error and all errors that it wraps.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = vec![error];
    let mut last = error;
    loop {
        // io::Error::source() returns the source of the error that it wraps, which would skip the wrapped error itself.
        let wrapped = last.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let next: Option<&'a (dyn StdError + 'static)> = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => last.source(),
        };
        match next {
            Some(next) => causes.push(next),
            None => return causes,
        }
        last = causes[causes.len() - 1];
    }
}

fn explain(error: &Error) -> TlsFailure {
    let (detail, hint) = match error {
        Error::InvalidCertificate(error) => explain_certificate(error),
        Error::AlertReceived(alert) => explain_alert(*alert),
        Error::PeerIncompatible(why) => (
            format!("client and server have no protocol or cipher in common ({why:?})"),
            "TLS 1.2 and 1.3 are supported: look at ssl_min_protocol_version and ssl_max_protocol_version on both sides"
                .into(),
        ),
        Error::NoApplicationProtocol => explain_direct(),
        other => (format!("the TLS handshake failed: {other}"), "is this a PostgreSQL server with TLS?".into()),
    };
    TlsFailure { detail, hint }
}

fn explain_certificate(error: &CertificateError) -> (String, String) {
    use CertificateError as E;
    let clocks = "renew the certificate on the server, and compare the clocks of both machines";
    match error {
        E::UnknownIssuer => (
            "the server's certificate is not signed by a CA that is trusted here".into(),
            "put the certificate of the CA that signed the server's into the file that sslrootcert names \
             (~/.postgresql/root.crt by default); the server must send the intermediate certificates"
                .into(),
        ),
        E::Expired => ("the server's certificate has expired".into(), clocks.into()),
        E::ExpiredContext { not_after, .. } => {
            (format!("the server's certificate has expired {} ago", age(*not_after)), clocks.into())
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            ("the server's certificate is not valid yet".into(), clocks.into())
        }
        E::NotValidForNameContext { expected, presented } => explain_name(expected, presented),
        E::NotValidForName => ("the server's certificate is for another host name".into(), NAME_HINT.into()),
        E::Revoked => ("the server's certificate has been revoked".into(), "give the server a new one".into()),
        E::UnknownRevocationStatus => (
            "the revocation list says nothing about the CA of the server's certificate".into(),
            "the file that sslcrl names needs a list of every CA in the chain".into(),
        ),
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            ("the revocation list has expired".into(), "renew the file that sslcrl names".into())
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => (
            "the server's certificate is not meant for servers".into(),
            "it needs the extended key usage serverAuth, or none at all".into(),
        ),
        E::Other(reason) if reason.0.is::<OnlyCommonName>() => (
            "the server's certificate names the host only by its CN, and a CA of it has name constraints".into(),
            "give the server a certificate with the name as an alternative name (subjectAltName=DNS:...)".into(),
        ),
        E::Other(reason) if reason.to_string().contains("CaUsedAsEndEntity") => (
            "the server's certificate is that of a CA".into(),
            "sign one for the server (basicConstraints = CA:FALSE), or put this certificate itself into sslrootcert"
                .into(),
        ),
        other => (
            format!("the server's certificate cannot be verified: {other}"),
            "supported are RSA keys from 2048 bits on, the curves P-256 and P-384, and Ed25519".into(),
        ),
    }
}

const NAME_HINT: &str = "connect by a name that the certificate carries (host=; hostaddr= may give the address), \
                         give the server a certificate with this name, or use sslmode=verify-ca";

fn explain_name(expected: &ServerName<'_>, presented: &[String]) -> (String, String) {
    let names = if presented.is_empty() { "no name at all".to_string() } else { presented.join(", ") };
    (format!("the server's certificate is for {names}, not for {}", expected.to_str()), NAME_HINT.into())
}

/// Explains an alert, with which the server ends a handshake because of what the client sent.
fn explain_alert(alert: AlertDescription) -> (String, String) {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired | A::NoCertificate => (
            "the server requires a client certificate, and none was sent".into(),
            "name it and its key with sslcert= and sslkey= (~/.postgresql/postgresql.crt and .key by default)".into(),
        ),
        A::UnknownCA | A::BadCertificate | A::DecryptError | A::UnsupportedCertificate => (
            format!("the server refuses the client certificate ({alert:?})"),
            "is it signed by a CA in the server's ssl_ca_file?".into(),
        ),
        A::CertificateExpired => ("the client certificate has expired".into(), "renew the file of sslcert".into()),
        A::CertificateRevoked => ("the client certificate has been revoked".into(), "renew the file of sslcert".into()),
        A::ProtocolVersion | A::HandshakeFailure | A::InsufficientSecurity => (
            format!("the server ended the TLS handshake ({alert:?})"),
            "look at ssl_min_protocol_version, ssl_max_protocol_version and ssl_ciphers on the server".into(),
        ),
        A::NoApplicationProtocol => explain_direct(),
        other => (format!("the server ended the TLS handshake ({other:?})"), "its log says why".into()),
    }
}

fn explain_direct() -> (String, String) {
    let detail = "the server does not support TLS from the first byte on";
    (detail.into(), "sslnegotiation=direct needs PostgreSQL 17 or later on the server".into())
}

/// The time since then in words, in the largest unit that gives at least 2.
fn age(since: UnixTime) -> String {
    let seconds = UnixTime::now().as_secs().saturating_sub(since.as_secs());
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds")];
    let (size, name) = units.into_iter().find(|(size, _)| seconds >= 2 * size).unwrap_or((1, "seconds"));
    format!("{} {name}", seconds / size)
}
