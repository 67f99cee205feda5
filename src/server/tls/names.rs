//! Checks that a certificate is for the host's name. The alternative names decide; if none of them is of the host's
//! kind (DNS name or IP address), the CN decides.
//!
//! A CA can be constrained to names of one domain. webpki holds the alternative names against such constraints, and
//! OpenSSL the CN too. Here a CN counts for nothing if a certificate that may be in the chain has constraints.

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, OtherError};
use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");

/// `authorities` are the certificates that may have signed this one, or each other.
pub(super) fn check<'a>(
    certificate: &CertificateDer<'_>,
    authorities: impl Iterator<Item = &'a CertificateDer<'a>>,
    host: &ServerName<'_>,
) -> Result<(), Error> {
    let refusal = match verify_server_name(&ParsedCertificate::try_from(certificate)?, host) {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    let Ok(certificate) = Certificate::from_der(certificate) else { return Err(refusal) };
    let names = Names::of(&certificate);
    let is_named = names.common_name.as_ref().is_some_and(|name| matches(name, host));
    if is_named && names.allow_common_name(host) {
        return match is_constrained(&certificate, authorities) {
            true => Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(OnlyCommonName))))),
            false => Ok(()),
        };
    }
    let presented = names.all();
    Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected: host.to_owned(), presented }))
}

/// The certificate names the host by its CN alone, and a CA of it has name constraints.
#[derive(Debug)]
pub(super) struct OnlyCommonName;

impl fmt::Display for OnlyCommonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the CN does not count under name constraints")
    }
}

impl StdError for OnlyCommonName {}

#[derive(Default)]
struct Names {
    dns: Vec<String>,
    addresses: Vec<String>,
    common_name: Option<String>,
}

impl Names {
    fn of(certificate: &Certificate) -> Names {
        let mut names = Names { common_name: common_name(certificate), ..Names::default() };
        let alternatives = certificate.tbs_certificate.get::<SubjectAltName>().ok().flatten();
        for name in alternatives.map(|(_, names)| names.0).unwrap_or_default() {
            match name {
                GeneralName::DnsName(name) => names.dns.push(name.to_string()),
                GeneralName::IpAddress(bytes) => names.addresses.push(address(bytes.as_bytes())),
                _ => {}
            }
        }
        names
    }

    /// As in libpq: if there is an alternative name of the host's kind, matching or not, the CN is not used.
    fn allow_common_name(&self, host: &ServerName<'_>) -> bool {
        match host {
            ServerName::IpAddress(_) => self.addresses.is_empty(),
            _ => self.dns.is_empty(),
        }
    }

    fn all(self) -> Vec<String> {
        let common_name = self.common_name.filter(|name| !self.dns.contains(name)).map(|name| format!("CN={name}"));
        self.dns.into_iter().chain(self.addresses).chain(common_name).collect()
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let attributes = certificate.tbs_certificate.subject.0.iter().flat_map(|names| names.0.iter());
    let value = attributes.filter(|attribute| attribute.oid == COMMON_NAME).map(|attribute| &attribute.value).next()?;
    let is_text = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString);
    is_text.then(|| String::from_utf8(value.value().to_vec()).ok()).flatten()
}

fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).map_or_else(|_| "a malformed address".into(), |address| address.to_string())
}

/// Whether a certificate that may be in the chain has name constraints. webpki does not say which certificates it used,
/// so all that could be are asked. One that cannot be read might have constraints.
fn is_constrained<'a>(leaf: &Certificate, authorities: impl Iterator<Item = &'a CertificateDer<'a>>) -> bool {
    let Ok(mut others) = authorities.map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>() else {
        return true;
    };
    let mut issuers = vec![leaf.tbs_certificate.issuer.clone()];
    while let Some(issuer) = issuers.pop() {
        let (found, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|other| other.tbs_certificate.subject == issuer);
        let extensions = found.iter().filter_map(|found| found.tbs_certificate.extensions.as_ref()).flatten();
        if extensions.into_iter().any(|extension| extension.extn_id == NAME_CONSTRAINTS) {
            return true;
        }
        issuers.extend(found.into_iter().map(|found| found.tbs_certificate.issuer));
        others = rest;
    }
    false
}

/// Whether a CN matches the host. If its first part is `*`, that matches one part of the host's name.
fn matches(pattern: &str, host: &ServerName<'_>) -> bool {
    let is_address = matches!(host, ServerName::IpAddress(_));
    let host = host.to_str();
    if pattern.eq_ignore_ascii_case(&host) {
        return true;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(rest), Some((first, domain))) if !is_address => {
            !rest.is_empty() && !first.is_empty() && rest.eq_ignore_ascii_case(domain)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, host: &str) -> bool {
        super::matches(pattern, &ServerName::try_from(host).unwrap())
    }

    #[test]
    fn a_star_matches_exactly_the_first_part() {
        assert!(matches("DB.example", "db.EXAMPLE"));
        assert!(matches("*.example", "db.example"));
        assert!(!matches("*.example", "a.db.example"));
        assert!(!matches("*.example", "example"));
        assert!(!matches("d*.example", "db.example"));
        assert!(!matches("*", "db"));
    }

    #[test]
    fn a_star_matches_no_part_of_an_address_and_a_nul_ends_no_name() {
        assert!(matches("10.0.0.1", "10.0.0.1"));
        assert!(!matches("*.0.0.1", "10.0.0.1"));
        assert!(!matches("db\0.evil", "db"));
    }

    #[test]
    fn the_common_name_is_not_used_if_there_is_a_name_of_the_hosts_kind() {
        let dns = ServerName::try_from("db").unwrap();
        let ip = ServerName::try_from("10.0.0.1").unwrap();
        let names = Names { dns: vec!["x".into()], common_name: Some("db".into()), ..Names::default() };
        assert!(!names.allow_common_name(&dns));
        assert!(names.allow_common_name(&ip));
        assert_eq!(names.all(), ["x", "CN=db"]);
    }

    #[test]
    fn addresses_are_printed_as_text() {
        assert_eq!(address(&[10, 0, 0, 1]), "10.0.0.1");
        assert_eq!(address(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "::1");
        assert_eq!(address(&[1]), "a malformed address");
    }
}
