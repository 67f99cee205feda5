//! TLS as psql does it: what each `sslmode` means, which files it reads, what it checks. The only importer of rustls.
//!
//! As in libpq, the root certificates decide whether the server is verified. If there are any, a server whose
//! certificate they do not verify is refused in every mode. `verify-ca` and `verify-full` only require that there are
//! some, and `verify-full` also compares the host name. `prefer` and `allow` may still connect without TLS then, so
//! they protect from no attacker.

mod connector;
mod diagnosis;
mod files;
mod names;
mod verifier;

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::dsn::Dsn;
use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use verifier::Verifier;

pub use connector::{Connector, endpoint};
pub use diagnosis::{TlsFailure, diagnose};

/// How one attempt to connect uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Never,
    /// TLS if the server offers it, and no encryption otherwise.
    IfOffered,
    Always,
}

/// How to connect to one host.
pub struct Tls {
    /// The attempts to make, in this order. The next one is made only if it may help.
    pub attempts: &'static [Use],
    pub connector: Connector,
    seen_certificate: Arc<AtomicBool>,
}

impl Tls {
    /// Reads the TLS keywords of the connection string of one host, and the files that they name. It reads the files
    /// for every connection, so that renewed certificates are used without a restart.
    pub fn of(side: Side, dsn: &Dsn) -> Result<Tls> {
        let mode = Mode::of(dsn).map_err(|reason| wrong(side, reason))?;
        // TLS from the first byte on (`sslnegotiation=direct`, servers from PostgreSQL 17).
        let is_direct = match dsn.get("sslnegotiation") {
            None | Some("" | "postgres") => false,
            Some("direct") if mode < Mode::Require => {
                let weak = "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full";
                return Err(wrong(side, weak.into()));
            }
            Some("direct") => true,
            Some(_) => return Err(wrong(side, "sslnegotiation must be postgres or direct".into())),
        };
        let seen_certificate = Arc::new(AtomicBool::new(false));
        // libpq ignores sslmode for Unix sockets, because it trusts everybody who may write to their directory.
        if mode == Mode::Disable || is_socket(dsn) {
            let config = configure(None, dsn, Verifier::trusting(Arc::clone(&seen_certificate)));
            let connector = Connector::new(config.map_err(|reason| wrong(side, reason))?, false);
            return Ok(Tls { attempts: &[Use::Never], connector, seen_certificate });
        }
        match prepare(mode, dsn, Arc::clone(&seen_certificate), is_direct) {
            Ok(connector) => Ok(Tls { attempts: mode.attempts(), connector, seen_certificate }),
            Err(reason) if mode < Mode::Require => {
                // libpq goes on without TLS too, but without a warning.
                log::warn!(target: "pyreplica", "{side}: no TLS, because {reason}");
                Tls::of(side, &dsn.clone().with("sslmode", "disable"))
            }
            Err(reason) => Err(wrong(side, reason)),
        }
    }

    /// Whether an attempt received a certificate of the server. Only then did it use TLS.
    pub fn has_seen_certificate(&self) -> bool {
        self.seen_certificate.load(Ordering::Relaxed)
    }
}

/// `sslmode`, from the most lenient to the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    fn of(dsn: &Dsn) -> std::result::Result<Mode, String> {
        let with_system_roots = dsn.get("sslrootcert") == Some(files::SYSTEM);
        let mode = match dsn.get("sslmode").unwrap_or_default() {
            "" if with_system_roots => Mode::VerifyFull,
            "" | "prefer" => Mode::Prefer,
            "disable" => Mode::Disable,
            "allow" => Mode::Allow,
            "require" => Mode::Require,
            "verify-ca" => Mode::VerifyCa,
            "verify-full" => Mode::VerifyFull,
            other => {
                let modes = "disable, allow, prefer, require, verify-ca or verify-full";
                return Err(format!("sslmode \"{other}\" is unknown: use {modes}"));
            }
        };
        // Anybody can get a certificate from a public CA for a name of their own.
        if with_system_roots && mode != Mode::VerifyFull {
            return Err("sslrootcert=system needs sslmode=verify-full".into());
        }
        let is_given = |key| dsn.get(key).is_some_and(|value| !value.is_empty());
        if mode == Mode::VerifyFull && is_given("hostaddr") && !is_given("host") {
            return Err(
                "sslmode=verify-full compares the host name, so host= must be given too, not only hostaddr=".into()
            );
        }
        Ok(mode)
    }

    fn attempts(self) -> &'static [Use] {
        match self {
            Mode::Disable => &[Use::Never],
            Mode::Allow => &[Use::Never, Use::Always],
            Mode::Prefer => &[Use::IfOffered, Use::Never],
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => &[Use::Always],
        }
    }
}

fn wrong(side: Side, reason: String) -> Error {
    Error::new(Kind::Config, Some(side), "set up TLS", reason)
}

/// Whether the connection string is about a Unix socket.
pub fn is_socket(dsn: &Dsn) -> bool {
    dsn.get("hostaddr").is_none_or(str::is_empty) && dsn.get("host").is_some_and(|host| host.starts_with(['/', '@']))
}

fn prepare(mode: Mode, dsn: &Dsn, seen: Arc<AtomicBool>, is_direct: bool) -> std::result::Result<Connector, String> {
    let trust = files::trust(dsn, mode >= Mode::VerifyCa)?;
    let verifier = match trust {
        Some(trust) => Verifier::checking(trust, mode == Mode::VerifyFull, seen)?,
        None => Verifier::trusting(seen),
    };
    Ok(Connector::new(configure(files::identity(dsn)?, dsn, verifier)?, is_direct))
}

fn configure(
    identity: Option<files::Identity>,
    dsn: &Dsn,
    verifier: Verifier,
) -> std::result::Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&protocol_versions(dsn)?)
        .map_err(|e| format!("these protocol versions cannot be used: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(files::Identity { chain, key, source }) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| format!("the client certificate and key of {source} cannot be used: {e}"))?,
    };
    config.enable_sni = dsn.get("sslsni") != Some("0");
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The TLS versions between both bounds. Versions before 1.2, which libpq can use, are not supported.
fn protocol_versions(dsn: &Dsn) -> std::result::Result<Vec<&'static SupportedProtocolVersion>, String> {
    let rank = |key: &str, default: u8| match dsn.get(key).unwrap_or_default() {
        "" => Ok(default),
        value => ["tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3"]
            .iter()
            .position(|name| value.eq_ignore_ascii_case(name))
            .map(|position| position as u8)
            .ok_or_else(|| format!("{key} \"{value}\" is unknown: use TLSv1.2 or TLSv1.3")),
    };
    let (lowest, highest) = (rank("ssl_min_protocol_version", 2)?, rank("ssl_max_protocol_version", 3)?);
    if lowest > highest {
        return Err("ssl_min_protocol_version is above ssl_max_protocol_version".into());
    }
    if highest < 2 {
        return Err("ssl_max_protocol_version is below TLSv1.2, the oldest version that is supported".into());
    }
    let versions = [(2, &TLS12), (3, &TLS13)];
    Ok(versions.into_iter().filter(|(rank, _)| (lowest..=highest).contains(rank)).map(|(_, version)| version).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(dsn: &str) -> std::result::Result<Mode, String> {
        Mode::of(&Dsn::parse(dsn).unwrap())
    }

    fn versions(dsn: &str) -> std::result::Result<usize, String> {
        protocol_versions(&Dsn::parse(dsn).unwrap()).map(|versions| versions.len())
    }

    #[test]
    fn the_default_is_prefer_and_with_the_systems_roots_verify_full() {
        assert_eq!(mode("host=a"), Ok(Mode::Prefer));
        assert_eq!(mode("host=a sslrootcert=system"), Ok(Mode::VerifyFull));
        assert!(mode("host=a sslrootcert=system sslmode=verify-ca").unwrap_err().contains("needs sslmode=verify-full"));
        assert!(mode("sslmode=full").unwrap_err().contains("verify-full"));
    }

    #[test]
    fn verify_full_needs_a_host_name_to_compare() {
        assert!(mode("hostaddr=::1 sslmode=verify-full").unwrap_err().contains("host= must be given"));
        assert_eq!(mode("hostaddr=::1 sslmode=verify-ca"), Ok(Mode::VerifyCa));
    }

    #[test]
    fn protocol_bounds_have_the_same_meaning_as_in_libpq() {
        assert_eq!(versions(""), Ok(2));
        assert_eq!(versions("ssl_min_protocol_version=TLSv1"), Ok(2));
        assert_eq!(versions("ssl_min_protocol_version=TLSv1.3"), Ok(1));
        assert_eq!(versions("ssl_max_protocol_version=tlsv1.2"), Ok(1));
        assert!(versions("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2").is_err());
        assert!(versions("ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1").is_err());
        assert!(versions("ssl_min_protocol_version=3").is_err());
    }

    #[test]
    fn a_socket_is_never_encrypted_and_direct_tls_needs_a_strict_mode() {
        let of = |text: &str| Tls::of(Side::Master, &Dsn::parse(text).unwrap());
        assert_eq!(of("host=/tmp sslmode=verify-full").unwrap().attempts, [Use::Never]);
        assert!(of("host=a sslnegotiation=direct").is_err());
        assert!(of("host=a sslmode=require sslnegotiation=direct").is_ok());
    }
}
