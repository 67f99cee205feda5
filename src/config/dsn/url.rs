//! The URL form: `postgresql://user:password@host:port,host:port/dbname?key=value&...`, parsed as libpq does.

use super::{Dsn, DsnError, KEYWORDS, Params, unknown_keyword};

/// The text after the scheme. None if this is not a URL.
pub(super) fn strip_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"))
}

pub(super) fn parse(rest: &str) -> Result<Params, DsnError> {
    // libpq takes everything up to an `@` before the first slash as the login, so a password may contain a `?`.
    let (login, rest) = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => (&rest[..at], &rest[at + 1..]),
        _ => ("", rest),
    };
    let (rest, query) = split_off(rest, '?');
    // A password with a bare `@` or `/` ends earlier than was meant. Its rest must not be shown as a host or a database.
    if rest.contains('@') || query.split('&').any(|word| word.contains('@') && !may_have_at(word)) {
        return Err(DsnError(
            "the URL has a \"@\" too many: in a name or a password write %40 for \"@\" and %2F for \"/\"".into(),
        ));
    }
    let (hosts, dbname) = split_off(rest, '/');
    let (user, password) = split_off(login, ':');
    let (host, port) = parse_hosts(hosts)?;
    if port.contains(|c: char| c != ',' && !c.is_ascii_digit()) {
        return Err(DsnError(
            "what follows a \":\" in the URL is not a port number (a login ends with \"@\", and in a password \"/\" is %2F)"
                .into(),
        ));
    }

    let mut params = Params::new();
    let parts = [("user", user), ("password", password), ("host", &host), ("port", &port), ("dbname", dbname)];
    for (key, value) in parts {
        if !value.is_empty() {
            params.push((key.to_string(), decode(key, value)?));
        }
    }
    for word in query.split('&').filter(|word| !word.is_empty()) {
        params.push(parse_param(word)?);
    }
    Ok(params)
}

/// Whether a parameter is a login's, so that its value may have an `@`.
fn may_have_at(word: &str) -> bool {
    word.split_once('=').is_some_and(|(key, value)| {
        !key.contains('@') && (key == "user" || Dsn::is_secret(key)) && !value.contains('/')
    })
}

/// The text before and after the separator. Without a separator, the second part is empty.
fn split_off(text: &str, separator: char) -> (&str, &str) {
    text.split_once(separator).unwrap_or((text, ""))
}

/// `a:1,[::1]:2,c` becomes the two lists that libpq keeps: `a,::1,c` and `1,2,`.
fn parse_hosts(text: &str) -> Result<(String, String), DsnError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for entry in text.split(',') {
        let (host, port) = match entry.strip_prefix('[') {
            Some(bracketed) => parse_bracketed(bracketed)?,
            None => split_off(entry, ':'),
        };
        hosts.push(host);
        ports.push(port);
    }
    let port = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    let host = if hosts.iter().all(|host| host.is_empty()) { String::new() } else { hosts.join(",") };
    Ok((host, port))
}

fn parse_bracketed(text: &str) -> Result<(&str, &str), DsnError> {
    let (host, rest) = text
        .split_once(']')
        .filter(|(host, _)| !host.is_empty())
        .ok_or_else(|| DsnError("the URL has an IPv6 address without \"]\"".into()))?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, port)),
        None if rest.is_empty() => Ok((host, "")),
        None => Err(DsnError("the URL has something other than a port behind an IPv6 address".into())),
    }
}

fn parse_param(word: &str) -> Result<(String, String), DsnError> {
    let (key, value) = word.split_once('=').ok_or_else(|| {
        DsnError(
            "a parameter of the URL has no \"=\" (\"?\", \"&\" and \"%\" in a value are written in percent code)"
                .into(),
        )
    })?;
    let key = decode("a parameter's name", key)?;
    // libpq accepts this spelling of JDBC too.
    if (key.as_str(), value) == ("ssl", "true") {
        return Ok(("sslmode".into(), "require".into()));
    }
    if !KEYWORDS.contains(&key.as_str()) {
        return Err(unknown_keyword(&key));
    }
    let value = decode(&key, value)?;
    Ok((key, value))
}

fn decode(what: &str, text: &str) -> Result<String, DsnError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) if high + low > 0 => bytes.push((high * 16 + low) as u8),
            _ => return Err(DsnError(format!("{what} in the URL has a \"%\" without the code of a character"))),
        }
    }
    String::from_utf8(bytes).map_err(|_| DsnError(format!("{what} in the URL is not UTF-8 text")))
}

#[cfg(test)]
mod tests {
    use super::super::Dsn;

    fn conninfo(url: &str) -> String {
        Dsn::parse(url).unwrap().to_conninfo()
    }

    fn error(url: &str) -> String {
        Dsn::parse(url).unwrap_err().to_string()
    }

    #[test]
    fn every_part_of_a_url_finds_its_keyword() {
        assert_eq!(
            conninfo("postgresql://me:p%40ss@db.example:5433/shop?sslmode=disable&connect_timeout=5"),
            "user=me password=p@ss host=db.example port=5433 dbname=shop sslmode=disable connect_timeout=5"
        );
    }

    #[test]
    fn what_a_url_leaves_out_stays_out() {
        assert_eq!(conninfo("postgres://"), "");
        assert_eq!(conninfo("postgres:///shop"), "dbname=shop");
        assert_eq!(conninfo("postgres://localhost"), "host=localhost");
        assert_eq!(conninfo("postgres://me@"), "user=me");
    }

    #[test]
    fn several_hosts_keep_their_ports_in_step() {
        assert_eq!(conninfo("postgres://a:1,b,[::1]:3/d"), "host=a,b,::1 port=1,,3 dbname=d");
        assert_eq!(conninfo("postgres://a,b/d"), "host=a,b dbname=d");
    }

    #[test]
    fn a_socket_directory_comes_in_percent_code_or_as_a_parameter() {
        assert_eq!(conninfo("postgres://%2Fvar%2Frun/d"), "host=/var/run dbname=d");
        assert_eq!(conninfo("postgres:///d?host=/var/run"), "dbname=d host=/var/run");
    }

    #[test]
    fn a_parameter_overrides_what_stands_before_it() {
        assert_eq!(Dsn::parse("postgres://a/d?host=b").unwrap().get("host"), Some("b"));
    }

    #[test]
    fn a_question_mark_in_a_password_stays_in_it() {
        assert_eq!(conninfo("postgres://u:hunter2?x=1@a"), "user=u password=hunter2?x=1 host=a");
    }

    #[test]
    fn what_may_be_the_rest_of_a_password_is_refused_and_not_repeated() {
        for url in [
            "u:a@hunter2@h/d",
            "u:a@b@hunter2@h/d",
            "u:a@hunter2@/d",
            "u:a@hunter2/x@h/d",
            "u:a/hunter2@h/d",
            "u:1/hunter2@h/d",
            "u:hunter2/a@h/d",
            "u:a/b?hunter2=c@h/d",
            "u:a@b?hunter2=c@h/d",
            "u:a@b?host=hunter2@h/d",
            "u:hunter2",
            "u:hunter2/d",
            "u:hunter2?sslmode=disable",
        ] {
            for scheme in ["postgres://", "postgresql://", "POSTGRES://", "jdbc:postgresql://"] {
                let error = error(&format!("{scheme}{url}"));
                assert!(!error.contains("hunter2"), "{url}: {error}");
            }
        }
        assert_eq!(conninfo("postgres://u:a%40b%2Fc@h/d%40e"), "user=u password=a@b/c host=h dbname=d@e");
        assert_eq!(conninfo("postgres://h/d?user=a@b&password=c@d"), "host=h dbname=d user=a@b password=c@d");
    }

    #[test]
    fn ssl_true_of_jdbc_is_understood() {
        assert_eq!(conninfo("postgres://a?ssl=true"), "host=a sslmode=require");
    }

    #[test]
    fn a_bad_url_says_which_part_is_bad_and_no_value() {
        assert_eq!(error("postgres://a?databse=x"), "unknown keyword \"databse\"");
        assert_eq!(error("postgres://u:%zz@a"), "password in the URL has a \"%\" without the code of a character");
        assert_eq!(error("postgres://u:%00@a"), "password in the URL has a \"%\" without the code of a character");
        assert_eq!(error("postgres://u:%ff@a"), "password in the URL is not UTF-8 text");
        assert_eq!(error("postgres://[::1/d"), "the URL has an IPv6 address without \"]\"");
        assert_eq!(error("postgres://[::1]x/d"), "the URL has something other than a port behind an IPv6 address");
    }
}
