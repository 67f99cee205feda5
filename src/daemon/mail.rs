//! Sends a mail to the mail server. Every step has a timeout. The only importer of lettre.

mod starttls;

use crate::base::shown::shown;
use crate::config::settings::{Protection, Smtp};
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Category;
use lettre::transport::smtp::{Error, SmtpTransport};
use lettre::{Address, Transport};
use starttls::{Failure, Way};
use std::error::Error as _;
use std::fmt;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time limit for connecting to the mail server, and then for each of its answers. Some servers check for spam
/// before they answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A mail to send. Its recipients are in the `[SMTP]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    pub subject: String,
    pub body: String,
}

/// Why a mail was not sent.
#[derive(Debug)]
pub struct SendError {
    reason: String,
    is_final: bool,
}

/// Sends mails according to one `[SMTP]` section.
pub struct Mailer {
    smtp: Smtp,
    host: String,
}

impl Mailer {
    pub fn new(smtp: Smtp) -> Mailer {
        Mailer { smtp, host: host_name() }
    }

    /// Sends a mail to all recipients. Returns the recipients that the server refuses, with its reasons. If it refuses
    /// all of them, that is an error.
    pub fn send(&self, mail: &Mail) -> Result<Vec<String>, SendError> {
        let (message, envelope) = self.compose(mail)?;
        let text = message.formatted();
        let error = match self.hand_over(&envelope, &text)? {
            Ok(()) => return Ok(Vec::new()),
            Err(error) => error,
        };
        if envelope.to().len() == 1 || !refuses_mailbox(&error) {
            return Err(SendError::from(error));
        }
        // If the server refuses one recipient, it has accepted the mail for none. So send it to each one separately.
        let mut refused = Vec::new();
        for address in envelope.to() {
            let alone = Envelope::new(envelope.from().cloned(), vec![address.clone()]).map_err(SendError::own_fault)?;
            if let Err(error) = self.hand_over(&alone, &text)? {
                refused.push(format!("{address}: {}", SendError::from(error)));
            }
        }
        if refused.len() == envelope.to().len() {
            return Err(SendError::new(refused.join("; "), true));
        }
        Ok(refused)
    }

    fn compose(&self, mail: &Mail) -> Result<(Message, Envelope), SendError> {
        let mailbox = |text: &String| text.parse::<Mailbox>().map_err(|e| SendError::own_fault(format!("{text}: {e}")));
        let from = mailbox(&self.smtp.from_addr)?;
        let to: Vec<Mailbox> = self.smtp.to_addrs.iter().map(mailbox).collect::<Result<_, _>>()?;
        let addresses: Vec<Address> = to.iter().map(|mailbox| mailbox.email.clone()).collect();
        let envelope = Envelope::new(Some(from.email.clone()), addresses).map_err(SendError::own_fault)?;
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let mut builder = Message::builder().from(from).subject(&*mail.subject).message_id(Some(self.message_id()));
        for mailbox in to {
            builder = builder.to(mailbox);
        }
        let message = builder
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_string()))
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body.clone())
            .map_err(SendError::own_fault)?;
        Ok((message, envelope))
    }

    fn message_id(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let host: String = self.host.chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).collect();
        format!("<{:x}.{:x}@{host}>", now.as_nanos(), std::process::id())
    }

    /// Sends a mail to the mail server. An outer error is on our side. It reads the certificate file for each mail, because
    /// it may have been replaced since the last one.
    fn hand_over(&self, envelope: &Envelope, text: &[u8]) -> Result<Result<(), Failure>, SendError> {
        let smtp = &self.smtp;
        let login = smtp.login.as_ref();
        let login = login.map(|login| Credentials::new(login.username.clone(), login.password.clone()));
        let hello = match self.host.contains('.') {
            true => ClientId::Domain(self.host.clone()),
            false => ClientId::default(),
        };
        let tls = match smtp.protection {
            Protection::Clear => Tls::None,
            Protection::Tls => Tls::Wrapper(self.tls_parameters()?),
            Protection::Starttls | Protection::IfOffered => {
                let needs_tls = smtp.protection == Protection::Starttls;
                let (server, tls) = ((&*smtp.host, smtp.port), self.tls_parameters()?);
                return Ok(starttls::send(Way { server, tls, needs_tls, hello, login }, envelope, text));
            }
        };
        let mut builder = SmtpTransport::builder_dangerous(&smtp.host).port(smtp.port).tls(tls).timeout(Some(TIMEOUT));
        if let Some(login) = login {
            builder = builder.credentials(login);
        }
        let sent = builder.hello_name(hello).build().send_raw(envelope, text);
        Ok(sent.map(drop).map_err(Failure::Smtp))
    }

    fn tls_parameters(&self) -> Result<TlsParameters, SendError> {
        let mut builder = TlsParameters::builder(self.smtp.host.clone());
        if self.smtp.protection == Protection::IfOffered {
            builder = builder
                .certificate_store(CertificateStore::None)
                .dangerous_accept_invalid_certs(true)
                .dangerous_accept_invalid_hostnames(true);
        } else if let Some(path) = &self.smtp.ca_file {
            let wrong = |e: &dyn fmt::Display| SendError::own_fault(format!("CA_FILE {}: {e}", path.display()));
            let pem = std::fs::read(path).map_err(|e| wrong(&e))?;
            builder = builder
                .certificate_store(CertificateStore::None)
                .add_root_certificate(Certificate::from_pem(&pem).map_err(|e| wrong(&e))?);
        }
        builder.build().map_err(SendError::from)
    }
}

impl SendError {
    /// Whether another try would fail too.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    pub fn new(reason: impl Into<String>, is_final: bool) -> SendError {
        SendError { reason: shown(&reason.into()).into_owned(), is_final }
    }

    /// An error on our side. It is not final, because the operator may correct it while the mail waits.
    fn own_fault(reason: impl fmt::Display) -> SendError {
        SendError::new(reason.to_string(), false)
    }
}

impl From<Error> for SendError {
    fn from(error: Error) -> SendError {
        let mut sources = std::iter::successors(error.source(), |source| (*source).source());
        let is_timeout = sources.any(|source| {
            let io = source.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| matches!(io.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock))
        });
        let reason = match is_timeout {
            true => no_answer(),
            false => error.to_string(),
        };
        SendError::new(reason, error.is_permanent())
    }
}

impl From<Failure> for SendError {
    fn from(failure: Failure) -> SendError {
        match failure {
            Failure::Smtp(error) => SendError::from(error),
            Failure::Network(error) if error.kind() == ErrorKind::TimedOut => SendError::new(no_answer(), false),
            Failure::Network(error) => SendError::new(format!("Connection error: {error}"), false),
        }
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", TIMEOUT.as_secs())
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The host name of this machine.
pub fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let variable = |name: &str| std::env::var(name).ok();
    let name = kernel.or_else(|| variable("HOSTNAME")).or_else(|| variable("COMPUTERNAME"));
    name.map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_string())
}

/// Whether the server refuses a recipient, the sender or the mail for good (a code x5x). A refused login has another
/// code, and must not be repeated for each recipient.
fn refuses_mailbox(failure: &Failure) -> bool {
    let Failure::Smtp(error) = failure else { return false };
    error.is_permanent() && error.status().is_some_and(|code| code.category == Category::MailSystem)
}
