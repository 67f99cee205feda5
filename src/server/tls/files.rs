//! The files that libpq reads for TLS: root certificates, revocation lists, the client's certificate and key.

use crate::config::dsn::Dsn;
use crate::config::files::shows_secrets;
use crate::server::libpq;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The value of `sslrootcert` that means the CAs that the operating system trusts.
pub(super) const SYSTEM: &str = "system";

/// The certificates that verify a server.
pub(super) struct Trust {
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) revocation_lists: Vec<CertificateRevocationListDer<'static>>,
    /// Where the roots come from, for error messages.
    pub(super) source: String,
}

/// The certificate that the client sends if the server asks for one.
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// The files, for error messages.
    pub(super) source: String,
}

/// None if there is no root certificate and none is needed.
pub(super) fn trust(dsn: &Dsn, is_needed: bool) -> Result<Option<Trust>, String> {
    let revocation_lists = revocation_lists(dsn)?;
    if dsn.get("sslrootcert") == Some(SYSTEM) {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err("sslrootcert=system, but the operating system has no root certificates (in Debian they come \
                        with the package ca-certificates; SSL_CERT_FILE can name a file)"
                .into());
        }
        let source = "the operating system".into();
        return Ok(Some(Trust { roots: found.certs, revocation_lists, source }));
    }
    match find(dsn, "sslrootcert", "root.crt") {
        Some(path) if path.exists() => {
            let source = path.display().to_string();
            let roots = certificates(&path).map_err(|why| format!("root certificate file {source} {why}"))?;
            Ok(Some(Trust { roots, revocation_lists, source }))
        }
        found if is_needed => {
            let why = match found {
                Some(path) => format!("root certificate file {} does not exist", path.display()),
                None => "there is no home directory to look for root.crt in".into(),
            };
            Err(format!(
                "{why}: put the certificate of the CA that signed the server's there, or name its file by \
                 sslrootcert= (or sslrootcert=system for the CAs that the operating system trusts)"
            ))
        }
        _ => Ok(None),
    }
}

/// None if there is no client certificate. Then the server decides whether it needs one.
pub(super) fn identity(dsn: &Dsn) -> Result<Option<Identity>, String> {
    if dsn.get("sslcertmode") == Some("disable") {
        return Ok(None);
    }
    let Some(path) = find(dsn, "sslcert", "postgresql.crt") else { return Ok(None) };
    let shown = path.display().to_string();
    match fs::metadata(&path) {
        Ok(_) => {}
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            if is_given(dsn, "sslcert") {
                log::warn!(target: "pyreplica", "client certificate file {shown} does not exist: none is sent");
            }
            return Ok(None);
        }
        Err(e) => return Err(format!("client certificate file {shown} cannot be opened: {e}")),
    }
    let chain = certificates(&path).map_err(|why| format!("client certificate file {shown} {why}"))?;
    let key_path = find(dsn, "sslkey", "postgresql.key")
        .ok_or_else(|| format!("there is a client certificate ({shown}), but no private key"))?;
    let key = private_key(&key_path)?;
    Ok(Some(Identity { chain, key, source: format!("{shown} and {}", key_path.display()) }))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let wrong = |why: &str| format!("private key file {} {why}", path.display());
    let meta = fs::metadata(path).map_err(|e| wrong(&format!("cannot be opened: {e}")))?;
    if !meta.is_file() {
        return Err(wrong("is not a regular file"));
    }
    if shows_secrets(&meta) {
        return Err(wrong(
            "has group or world access: it must have permissions u=rw (0600) or less if owned by the current user, or \
             u=rw,g=r (0640) or less if owned by root",
        ));
    }
    let text = fs::read(path).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
    if text.windows(9).any(|window| window == b"ENCRYPTED") {
        return Err(wrong(
            "is encrypted, and passphrases (sslpassword) are not supported: remove the passphrase with openssl pkey",
        ));
    }
    PrivateKeyDer::from_pem_slice(&text)
        .or_else(|_| PrivateKeyDer::try_from(text))
        .map_err(|_| wrong("holds no private key in PEM or DER form"))
}

/// A file that the connection string names must exist. The default file in the home directory is used if it exists.
fn revocation_lists(dsn: &Dsn) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let Some(path) = find(dsn, "sslcrl", "root.crl").filter(|path| is_given(dsn, "sslcrl") || path.exists()) else {
        return Ok(Vec::new());
    };
    let wrong = |why: String| format!("certificate revocation list file {} {why}", path.display());
    let text = fs::read(&path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        _ => Err(wrong("holds no revocation list in PEM form".into())),
    }
}

/// The error text continues a sentence that begins with the file's name.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("holds no certificate in PEM form".into()),
        Err(e) => Err(format!("cannot be understood: {e}")),
    }
}

fn is_given(dsn: &Dsn, key: &str) -> bool {
    dsn.get(key).is_some_and(|value| !value.is_empty())
}

fn find(dsn: &Dsn, key: &str, default: &str) -> Option<PathBuf> {
    match dsn.get(key).filter(|value| !value.is_empty()) {
        Some(path) => Some(PathBuf::from(path)),
        None => libpq::user_file(default),
    }
}
