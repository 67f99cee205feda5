//! The `[SMTP]` section: who gets mails, about what, and through which mail server.

use super::faults::Faults;
use super::{ConfigError, Section};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

pub(super) const KEYS: &[&str] = &[
    "SERVER",
    "SECURITY",
    "CA_FILE",
    "USERNAME",
    "PASSWORD",
    "START_SUBJECT",
    "STOP_SUBJECT",
    "ERROR_SUBJECT",
    "WARNING_SUBJECT",
    "FROM_ADDR",
    "TO_ADDRS",
];

/// The port on which mail servers accept mail from each other. The original used no other.
const PORT: u16 = 25;

/// The port on which mail servers speak TLS from the first byte on.
const TLS_PORT: u16 = 465;

const PORTS: RangeInclusive<u16> = 1..=u16::MAX;

/// The parsed section.
#[derive(Clone, PartialEq, Eq)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub protection: Protection,
    /// The certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    pub login: Option<Login>,
    pub start_subject: Option<String>,
    pub stop_subject: Option<String>,
    pub error_subject: Option<String>,
    pub warning_subject: Option<String>,
    pub from_addr: String,
    pub to_addrs: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: String,
}

/// How the connection to the mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Not at all. The login is sent in clear text too.
    Clear,
    /// Encrypted if the server offers it, with any certificate. That protects from somebody who only listens, but not
    /// from an attacker between the two machines, who can hide the offer.
    IfOffered,
    /// Encrypted with STARTTLS. Without a trusted certificate, no mail is sent.
    Starttls,
    /// Encrypted from the first byte on. Without a trusted certificate, no mail is sent.
    Tls,
}

impl Smtp {
    /// Returns None also for a section in which every value is empty.
    pub(super) fn from_section(section: &Section<'_>, faults: &mut Faults) -> Option<Smtp> {
        if KEYS.iter().all(|key| section.find(key).is_none()) {
            return None;
        }
        for key in KEYS {
            if section.text(key).is_some_and(|value| value.contains(char::is_control)) {
                faults.add(section.error(key, "must not contain control characters"));
            }
        }
        let (host, port) = faults.or(server(section), (String::new(), None));
        let login = faults.or(login(section), None);
        let ca_file = section.text("CA_FILE").map(PathBuf::from);
        let needs_trust = ca_file.is_some() || login.is_some() && !is_this_machine(&host);
        let protection = faults.or(protection(section, port, needs_trust), Protection::Clear);
        Some(Smtp {
            port: port.unwrap_or(if protection == Protection::Tls { TLS_PORT } else { PORT }),
            host,
            protection,
            ca_file,
            login,
            start_subject: section.text("START_SUBJECT"),
            stop_subject: section.text("STOP_SUBJECT"),
            error_subject: section.text("ERROR_SUBJECT"),
            warning_subject: section.text("WARNING_SUBJECT"),
            from_addr: faults.or(addresses(section, "FROM_ADDR").map(|mut one| one.remove(0)), String::new()),
            to_addrs: faults.or(addresses(section, "TO_ADDRS"), Vec::new()),
        })
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("protection", &self.protection)
            .field("from_addr", &self.from_addr)
            .field("to_addrs", &self.to_addrs)
            .finish_non_exhaustive()
    }
}

/// `host`, `host:port`, `[::1]:port`; a bare IPv6 address has no port.
fn server(section: &Section<'_>) -> Result<(String, Option<u16>), ConfigError> {
    let text = section.required("SERVER")?;
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(section.error("SERVER", "must be a host name, or host:port"));
    }
    let port = port.map(|digits| match digits.parse() {
        Ok(port) if PORTS.contains(&port) => Ok(port),
        _ => Err(section.error("SERVER", format!("the port must be {} to {}", PORTS.start(), PORTS.end()))),
    });
    Ok((host.to_string(), port.transpose()?))
}

fn login(section: &Section<'_>) -> Result<Option<Login>, ConfigError> {
    match (section.text("USERNAME"), section.text("PASSWORD")) {
        (Some(username), Some(password)) => Ok(Some(Login { username, password })),
        (Some(_), None) => Err(section.error("USERNAME", "needs a PASSWORD")),
        (None, _) => Ok(None),
    }
}

/// Reads SECURITY. With `auto`, `needs_trust` decides: a login is sent only to a server with a trusted certificate.
fn protection(section: &Section<'_>, port: Option<u16>, needs_trust: bool) -> Result<Protection, ConfigError> {
    match section.text("SECURITY").unwrap_or_default().to_lowercase().as_str() {
        "" | "auto" if port == Some(TLS_PORT) => Ok(Protection::Tls),
        "" | "auto" if needs_trust => Ok(Protection::Starttls),
        "" | "auto" => Ok(Protection::IfOffered),
        "none" => Ok(Protection::Clear),
        "starttls" => Ok(Protection::Starttls),
        "tls" => Ok(Protection::Tls),
        _ => Err(section.error("SECURITY", "must be auto, none, starttls or tls")),
    }
}

/// Whether the mail server is on this machine, so that no network carries the login.
fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// At least one address, also in the form `Name <user@host>`. A name without a host, such as root, is a user of the
/// mail server's machine.
fn addresses(section: &Section<'_>, key: &str) -> Result<Vec<String>, ConfigError> {
    let list = section.required(key)?.split(';').map(str::trim).filter(|text| !text.is_empty());
    let addresses: Option<Vec<String>> = list.map(address).collect();
    match addresses {
        Some(addresses) if key == "FROM_ADDR" && addresses.len() == 1 => Ok(addresses),
        _ if key == "FROM_ADDR" => Err(section.error(key, "must be an address, such as user@example.com")),
        Some(addresses) if !addresses.is_empty() => Ok(addresses),
        _ => Err(section.error(key, "must be addresses, such as user@example.com, with a ; between them")),
    }
}

fn address(text: &str) -> Option<String> {
    let bare = text.rsplit_once('<').map_or(text, |(_, rest)| rest.trim_end_matches('>')).trim();
    let (user, host) = bare.rsplit_once('@').unwrap_or((bare, "localhost"));
    let is_one = !user.is_empty() && !host.is_empty() && !bare.contains([' ', ',']);
    is_one.then(|| if bare.contains('@') { text.to_string() } else { format!("{user}@{host}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Config;

    fn parse(lines: &str) -> Result<Smtp, String> {
        let main = "[MAIN]\nNAME=a\nDSN0=host=x\nDSN1=host=y\n[SMTP]\n";
        let parsed = Config::parse(&format!("{main}{lines}\n")).map_err(|errors| errors.to_string());
        parsed.map(|config| config.smtp.expect("it is filled in"))
    }

    const ADDRESSES: &str = "FROM_ADDR=a@b.c\nTO_ADDRS=d@e.f";

    fn with(lines: &str) -> Smtp {
        parse(&format!("{ADDRESSES}\n{lines}")).unwrap()
    }

    fn error(lines: &str) -> String {
        parse(lines).unwrap_err()
    }

    #[test]
    fn a_server_is_a_host_and_perhaps_a_port() {
        let place = |text: &str| {
            let smtp = with(&format!("SERVER={text}"));
            (smtp.host, smtp.port)
        };
        assert_eq!(place("mail.example.com"), ("mail.example.com".into(), 25));
        assert_eq!(place("mail.example.com:587"), ("mail.example.com".into(), 587));
        assert_eq!(place("[::1]:2525"), ("::1".into(), 2525));
        assert_eq!(place("fe80::1"), ("fe80::1".into(), 25));
        assert_eq!(with("SERVER=x\nSECURITY=tls").port, 465);
        assert!(error(&format!("{ADDRESSES}\nSERVER=x:0")).contains("SERVER: the port must be 1 to 65535"));
        assert!(error(&format!("{ADDRESSES}\nSERVER=:25")).contains("SERVER: must be a host name"));
    }

    #[test]
    fn by_default_a_login_leaves_this_machine_only_encrypted_and_for_a_trusted_server() {
        let login = "USERNAME=joe\nPASSWORD=secret";
        assert_eq!(with("SERVER=x").protection, Protection::IfOffered);
        assert_eq!(with("SERVER=x:465").protection, Protection::Tls);
        assert_eq!(with("SERVER=x\nCA_FILE=/c").protection, Protection::Starttls);
        assert_eq!(with(&format!("SERVER=x\n{login}")).protection, Protection::Starttls);
        assert_eq!(with(&format!("SERVER=x\n{login}\nSECURITY=none")).protection, Protection::Clear);
        for server in ["localhost", "127.0.0.1:2525", "[::1]:25"] {
            assert_eq!(with(&format!("SERVER={server}\n{login}")).protection, Protection::IfOffered);
        }
    }

    #[test]
    fn security_is_one_of_four_words() {
        assert_eq!(with("SERVER=x:465\nSECURITY=STARTTLS").protection, Protection::Starttls);
        assert_eq!(with("SERVER=x:26\nSECURITY=tls").protection, Protection::Tls);
        assert_eq!(
            error(&format!("{ADDRESSES}\nSERVER=x\nSECURITY=ssl")),
            "9: SECURITY: must be auto, none, starttls or tls"
        );
    }

    #[test]
    fn semicolons_separate_recipients_and_a_local_user_is_one() {
        let smtp = parse("SERVER=x\nFROM_ADDR=The daemon <d@e.f>\nTO_ADDRS= a@b.c; root ;").unwrap();
        assert_eq!(smtp.from_addr, "The daemon <d@e.f>");
        assert_eq!(smtp.to_addrs, ["a@b.c", "root@localhost"]);
    }

    #[test]
    fn what_is_no_address_is_named_with_its_line() {
        assert_eq!(error("SERVER=x\nTO_ADDRS=a@b.c"), "1: FROM_ADDR: missing in [SMTP]");
        for wrong in ["a@b.c, d@e.f", "a@b.c;@b.c", "a b@c", ";"] {
            let error = error(&format!("SERVER=x\nFROM_ADDR=a@b.c\nTO_ADDRS={wrong}"));
            assert!(error.starts_with("8: TO_ADDRS: must be addresses"), "{error}");
        }
        for wrong in ["a@b.c;d@e.f", "a@"] {
            let error = error(&format!("SERVER=x\nFROM_ADDR={wrong}\nTO_ADDRS=a@b.c"));
            assert!(error.starts_with("7: FROM_ADDR: must be an address"), "{error}");
        }
    }

    #[test]
    fn half_a_login_is_an_error() {
        assert_eq!(error(&format!("{ADDRESSES}\nSERVER=x\nUSERNAME=joe")), "9: USERNAME: needs a PASSWORD");
    }
}
