//! Connection strings in libpq's two forms, `key=value` lists and URLs. `Display` and `Debug` never print a password.

mod url;
mod values;

use crate::base::phrases::did_you_mean;
use std::fmt;
use std::iter::Peekable;
use std::str::CharIndices;

/// A parsed connection string: libpq keywords and values in the order given.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Dsn {
    pub(crate) params: Vec<(String, String)>,
}

/// Why a connection string cannot be parsed. The message names keywords, never values, because a value may be a
/// password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DsnError(String);

/// Every keyword of libpq up to PostgreSQL 18. So a keyword that pyreplica does not use is not taken for a typing
/// error.
const KEYWORDS: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "passfile",
    "password",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Keywords whose values must not appear in a log or in the process list.
const SECRETS: &[&str] = &["oauth_client_secret", "password", "scram_client_key", "scram_server_key", "sslpassword"];

impl Dsn {
    /// Reads a URL (`postgresql://...`, `postgres://...`) or a list of `key=value`.
    pub fn parse(text: &str) -> Result<Dsn, DsnError> {
        let params = match url::strip_scheme(text.trim()) {
            Some(rest) => url::parse(rest)?,
            None => parse_list(text)?,
        };
        // With `;` between them, all words after the first `=` are one value, which would be shown.
        for (key, value) in params.iter().filter(|(key, _)| !Self::is_secret(key)) {
            let value = value.to_lowercase();
            if let Some(secret) = SECRETS.iter().find(|secret| value.contains(&format!("{secret}="))) {
                return Err(DsnError(format!(
                    "the value of \"{key}\" contains \"{secret}=\": write key=value words with blanks between them"
                )));
            }
        }
        Ok(Dsn { params })
    }

    /// Whether a word of the command line is a connection string and not the name of a file. So is a wrong one that has a
    /// login: errors show the names of files.
    pub fn looks_like(word: &str) -> bool {
        let has_login = |(_, rest): (&str, &str)| rest.contains('@') && !rest.starts_with('\\');
        word.contains("://") || word.contains('=') || word.split_once(':').is_some_and(has_login)
    }

    /// Keywords and values in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a keyword, e.g. `dsn.get("host")`. If it is given twice, the last value wins, as in libpq.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The same connection string with this keyword set. It replaces former values.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Dsn {
        debug_assert!(KEYWORDS.contains(&key), "{key} is no keyword of libpq");
        self.params.retain(|(k, _)| k != key);
        self.params.push((key.to_string(), value.into()));
        self
    }

    /// The same connection string without this keyword.
    #[must_use]
    pub fn without(&self, key: &str) -> Dsn {
        self.filtered(|k| k != key)
    }

    /// Whether libpq knows the keyword.
    pub fn is_keyword(key: &str) -> bool {
        KEYWORDS.contains(&key)
    }

    /// Whether the value of this keyword must not be shown.
    pub fn is_secret(key: &str) -> bool {
        SECRETS.contains(&key)
    }

    /// The same connection string without secrets: the password, and the secrets for keys and tokens.
    #[must_use]
    pub fn without_password(&self) -> Dsn {
        self.filtered(|key| !Self::is_secret(key))
    }

    /// Only the secrets, which `without_password` removes.
    #[must_use]
    pub fn only_password(&self) -> Dsn {
        self.filtered(Self::is_secret)
    }

    /// The same connection string with the keywords of `other`, which replace former values.
    #[must_use]
    pub fn merged(self, other: &Dsn) -> Dsn {
        other.params.iter().fold(self, |dsn, (key, value)| dsn.with(key, value))
    }

    /// A `key=value` list from which `parse` reads the same again. It includes the password, so it is for servers and
    /// processes, not for people.
    pub fn to_conninfo(&self) -> String {
        let words: Vec<String> = self.params.iter().map(|(key, value)| format!("{key}={}", quote(value))).collect();
        words.join(" ")
    }

    fn filtered(&self, keep: impl Fn(&str) -> bool) -> Dsn {
        Dsn { params: self.params.iter().filter(|(key, _)| keep(key)).cloned().collect() }
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_password().to_conninfo())
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({self})")
    }
}

impl fmt::Display for DsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DsnError {}

fn quote(value: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && c != '\'' && c != '\\';
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_string();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

type Params = Vec<(String, String)>;

/// libpq's rules: blanks are allowed around `=`, a value is in single quotes or ends at the next blank, and `\` takes
/// the next character as it is.
fn parse_list(text: &str) -> Result<Params, DsnError> {
    let mut params = Params::new();
    let mut chars = text.char_indices().peekable();
    loop {
        skip_blanks(&mut chars);
        let Some(&(start, _)) = chars.peek() else {
            return Ok(params);
        };
        while chars.next_if(|(_, c)| *c != '=' && !c.is_ascii_whitespace()).is_some() {}
        let end = chars.peek().map_or(text.len(), |(at, _)| *at);
        let key = &text[start..end];
        skip_blanks(&mut chars);
        let has_value = chars.next_if(|(_, c)| *c == '=').is_some();
        check_word(key, has_value, params.last().map(|(k, _)| k.as_str()))?;
        skip_blanks(&mut chars);
        let value = parse_value(&mut chars)
            .ok_or_else(|| DsnError(format!("the quoted value of \"{key}\" has no closing quote")))?;
        params.push((key.to_string(), value));
    }
}

/// A word that is no keyword may be the rest of a password that has a blank in it. Then the error does not repeat it.
fn check_word(key: &str, has_value: bool, previous: Option<&str>) -> Result<(), DsnError> {
    if has_value && KEYWORDS.contains(&key) {
        return Ok(());
    }
    match previous {
        Some(previous) if Dsn::is_secret(previous) => Err(DsnError(format!(
            "what follows the value of \"{previous}\" is not a keyword (a value with blanks needs single quotes)"
        ))),
        Some(previous) if !has_value => Err(DsnError(format!(
            "missing \"=\" after the value of \"{previous}\" (a value with blanks needs single quotes)"
        ))),
        None if !has_value => Err(DsnError("missing \"=\": expected key=value words or a postgresql:// URL".into())),
        _ => Err(unknown_keyword(key)),
    }
}

/// What is not a word at all may be a piece of anything, of a URL with a password perhaps.
fn unknown_keyword(key: &str) -> DsnError {
    let is_word = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    DsnError(match is_word {
        true => format!("unknown keyword \"{key}\"{}", did_you_mean(key, KEYWORDS.iter().copied())),
        false => "what stands before a \"=\" is not a keyword: expected key=value words or a postgresql:// URL".into(),
    })
}

/// None if the closing quote is missing.
fn parse_value(chars: &mut Peekable<CharIndices<'_>>) -> Option<String> {
    let quoted = chars.next_if(|(_, c)| *c == '\'').is_some();
    let mut value = String::new();
    loop {
        match chars.peek().map(|(_, c)| *c) {
            None if quoted => return None,
            None => return Some(value),
            Some('\'') if quoted => {
                chars.next();
                return Some(value);
            }
            Some(c) if !quoted && c.is_ascii_whitespace() => return Some(value),
            Some('\\') => {
                chars.next();
                value.extend(chars.next().map(|(_, c)| c));
            }
            Some(c) => {
                chars.next();
                value.push(c);
            }
        }
    }
}

fn skip_blanks(chars: &mut Peekable<CharIndices<'_>>) {
    while chars.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Dsn {
        Dsn::parse(text).unwrap()
    }

    fn error(text: &str) -> String {
        Dsn::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn words_quotes_backslashes_and_blanks_around_the_equals_sign_read_as_in_libpq() {
        let dsn = parse(r"  host = a  user='it\'s me' password=p\ w\\ dbname='' port= 5433 ");
        assert_eq!(dsn.get("host"), Some("a"));
        assert_eq!(dsn.get("user"), Some("it's me"));
        assert_eq!(dsn.get("password"), Some(r"p w\"));
        assert_eq!(dsn.get("dbname"), Some(""));
        assert_eq!(dsn.get("port"), Some("5433"));
    }

    #[test]
    fn the_last_of_two_equal_keywords_wins() {
        assert_eq!(parse("host=a host=b").get("host"), Some("b"));
    }

    #[test]
    fn an_empty_string_leaves_everything_to_the_defaults() {
        assert_eq!(parse(" "), Dsn::default());
    }

    #[test]
    fn an_unknown_keyword_is_named() {
        assert_eq!(error("host=a databse=b"), "unknown keyword \"databse\"");
        assert_eq!(error("=b"), "unknown keyword \"\"");
    }

    #[test]
    fn an_open_quote_names_its_keyword() {
        assert_eq!(error("user='a"), "the quoted value of \"user\" has no closing quote");
    }

    #[test]
    fn no_error_repeats_a_piece_of_a_password() {
        for text in [
            "password=my hunter2",
            "password=my hunter2=x host=a",
            "password='my hunter2",
            "password='my'hunter2=x",
            "password=\"my hunter2=x\"",
            "user='me password='hunter2' dbname=d",
            "host=a;password=hunter2;dbname=d",
            "host=a&PASSWORD=hunter2",
            "dbname='d password=hunter2'",
            "me:hunter2@host/d?sslmode=require",
            "hunter2",
        ] {
            assert!(!error(text).contains("hunter2"), "{}", error(text));
        }
        assert!(error("password=my hunter2").contains("single quotes"));
    }

    #[test]
    fn display_and_debug_leave_every_secret_out() {
        let dsn = parse("host=a password=hunter2 sslpassword=hunter2 oauth_client_secret=hunter2 dbname=d");
        assert_eq!(dsn.to_string(), "host=a dbname=d");
        assert_eq!(format!("{dsn:?}"), "Dsn(host=a dbname=d)");
    }

    #[test]
    fn the_secret_part_put_back_gives_the_same_again() {
        let dsn = parse("host=a dbname=d password='hun ter2' sslpassword=x");
        assert_eq!(dsn.without_password().merged(&dsn.only_password()), dsn);
    }

    #[test]
    fn a_conninfo_string_reads_back_to_the_same() {
        let dsn = Dsn::default().with("user", "it's").with("password", r"a \ b").with("dbname", "");
        assert_eq!(parse(&dsn.to_conninfo()), dsn);
    }

    #[test]
    fn setting_a_keyword_replaces_all_its_former_values() {
        assert_eq!(parse("host=a host=b").with("host", "c").to_conninfo(), "host=c");
    }

    #[test]
    fn connection_strings_are_distinguished_from_files() {
        assert!(Dsn::looks_like("dbname=x"));
        assert!(Dsn::looks_like("postgres://"));
        assert!(Dsn::looks_like("POSTGRES://me:secret@host/d"));
        assert!(Dsn::looks_like("me:secret@host"));
        assert!(!Dsn::looks_like("/etc/pyreplica/x.conf"));
        assert!(!Dsn::looks_like("C:\\pyreplica@home\\x.conf"));
    }
}
