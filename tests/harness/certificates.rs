//! Certificate authorities and certificates made at test time, by the openssl command line.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate authority in a directory of its own, which goes with it.
pub struct Authority {
    dir: PathBuf,
    name: &'static str,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub file: PathBuf,
    pub key: PathBuf,
}

/// What to put into a certificate besides its name.
#[derive(Clone, Copy)]
pub struct Contents {
    /// `subjectAltName` as openssl writes it, e.g. `DNS:db.test,IP:127.0.0.1`; empty for none.
    pub names: &'static str,
    pub is_authority: bool,
    /// `nameConstraints` as openssl writes it, e.g. `permitted;DNS:example.test`; empty for none.
    pub constraints: &'static str,
    /// Negative for one that has expired.
    pub days: i32,
}

/// A certificate for everyday use.
pub const ORDINARY: Contents = Contents { names: "", is_authority: false, constraints: "", days: 30 };

impl Authority {
    #[track_caller]
    pub fn new(name: &'static str) -> Authority {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ca_{}_{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("create the authority's directory");
        let authority = Authority { dir, name };
        authority.self_signed("root", name, Contents { is_authority: true, ..ORDINARY });
        authority
    }

    /// The certificate that others trust.
    pub fn root(&self) -> PathBuf {
        self.file("root.crt")
    }

    /// A file of this authority's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A certificate that this authority signs; `common_name` is whom it is for.
    #[track_caller]
    pub fn issue(&self, label: &str, common_name: &str, contents: Contents) -> Certificate {
        self.issue_by("root", label, common_name, contents)
    }

    /// The same, signed by a certificate of this directory instead of the root's.
    #[track_caller]
    pub fn issue_by(&self, issuer: &str, label: &str, common_name: &str, contents: Contents) -> Certificate {
        let made = self.certificate(label);
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={common_name} \
             -keyout {label}.key -out {label}.csr"
        ));
        let mut extensions = format!("basicConstraints=critical,CA:{}\n", contents.is_authority);
        if !contents.names.is_empty() {
            extensions.push_str(&format!("subjectAltName={}\n", contents.names));
        }
        if !contents.constraints.is_empty() {
            extensions.push_str(&format!("nameConstraints=critical,{}\n", contents.constraints));
        }
        // A file for each certificate: several tests may have one issued at the same time.
        fs::write(self.file(&format!("{label}.extensions")), extensions).expect("write the extensions");
        self.openssl(&format!(
            "x509 -req -in {label}.csr -CA {issuer}.crt -CAkey {issuer}.key -set_serial 0x{} -days {} -sha256 \
             -extfile {label}.extensions -out {label}.crt",
            hex(label),
            contents.days
        ));
        restrict(&made.key, 0o600);
        made
    }

    /// A certificate that nobody else vouches for, as PostgreSQL's manual makes it.
    #[track_caller]
    pub fn self_signed(&self, label: &str, common_name: &str, contents: Contents) -> Certificate {
        let names = if contents.names.is_empty() {
            String::new()
        } else {
            format!("-addext subjectAltName={}", contents.names)
        };
        let constraints = if contents.constraints.is_empty() {
            String::new()
        } else {
            format!("-addext nameConstraints=critical,{}", contents.constraints)
        };
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={common_name} -sha256 {names} {constraints} \
             -days {} -keyout {label}.key -out {label}.crt",
            contents.days
        ));
        let made = self.certificate(label);
        restrict(&made.key, 0o600);
        made
    }

    /// A list that revokes one certificate.
    #[track_caller]
    pub fn revoke(&self, certificate: &Certificate) -> PathBuf {
        let settings = "[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=30\n\
                        crlnumber=number\ncrl_extensions=more\n[more]\nauthorityKeyIdentifier=keyid\n";
        fs::write(self.file("ca.cnf"), settings).expect("write the authority's settings");
        fs::write(self.file("index.txt"), "").expect("write the authority's index");
        fs::write(self.file("number"), "01\n").expect("write the list's number");
        let common = "ca -config ca.cnf -cert root.crt -keyfile root.key";
        self.openssl(&format!("{common} -revoke {}", certificate.file.display()));
        self.openssl(&format!("{common} -gencrl -out root.crl"));
        self.file("root.crl")
    }

    /// The key once more, under a passphrase.
    #[track_caller]
    pub fn encrypted_key(&self, certificate: &Certificate) -> PathBuf {
        let key = certificate.key.display();
        self.openssl(&format!("pkcs8 -topk8 -in {key} -passout pass:secret -out encrypted.key"));
        restrict(&self.file("encrypted.key"), 0o600);
        self.file("encrypted.key")
    }

    fn certificate(&self, label: &str) -> Certificate {
        Certificate { file: self.file(&format!("{label}.crt")), key: self.file(&format!("{label}.key")) }
    }

    #[track_caller]
    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let made = command.args(arguments.split_whitespace()).current_dir(&self.dir).output();
        let made = made.expect("openssl starts: tests/run.sh installs it");
        assert!(
            made.status.success(),
            "openssl {arguments} ({}):\n{}",
            self.name,
            String::from_utf8_lossy(&made.stderr)
        );
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // Leftovers in target/tmp are cargo's to clean.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Certificate {
    /// The same certificate followed by those that vouch for it, as a server sends them.
    #[track_caller]
    pub fn with_chain(&self, others: &[&Certificate]) -> Certificate {
        let texts = std::iter::once(&self.file).chain(others.iter().map(|other| &other.file));
        let chain: Vec<String> = texts.map(|file| fs::read_to_string(file).expect("a certificate")).collect();
        let file = self.file.with_extension("chain.crt");
        fs::write(&file, chain.concat()).expect("write the chain");
        Certificate { file, key: self.key.clone() }
    }
}

/// Sets a file's permissions.
#[track_caller]
pub fn restrict(file: &Path, mode: u32) {
    fs::set_permissions(file, Permissions::from_mode(mode)).expect("set the file's permissions");
}

/// A serial number from a label.
fn hex(label: &str) -> String {
    label.bytes().map(|byte| format!("{byte:02x}")).collect()
}
