//! The password file. Each line is `host:port:database:user:password`, and the first line that matches wins.

use super::{DEFAULT_PORT, is_default_socket};
use crate::config::dsn::Dsn;
use crate::config::files::is_open_to_others;
use std::fs;
use std::path::Path;

/// The password for a completed connection string. A missing file is no error. A file that others can read is ignored
/// with a warning, as in libpq.
pub(super) fn look_up(path: &Path, dsn: &Dsn) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    if !meta.is_file() {
        log::warn!(target: "pyreplica", "password file {} is not a plain file: ignored", path.display());
        return None;
    }
    if is_open_to_others(&meta) {
        log::warn!(
            target: "pyreplica",
            "password file {} has group or world access: ignored; permissions should be u=rw (0600) or less",
            path.display()
        );
        return None;
    }
    match fs::read_to_string(path) {
        Ok(text) => find(&text, dsn),
        Err(e) => {
            log::warn!(target: "pyreplica", "password file {} cannot be read: {e}", path.display());
            None
        }
    }
}

fn find(text: &str, dsn: &Dsn) -> Option<String> {
    let given = |key| dsn.get(key).filter(|value| !value.is_empty());
    let host = given("host").or(given("hostaddr")).unwrap_or_default();
    let host = if host.is_empty() || is_default_socket(host) { "localhost" } else { host };
    let port = given("port").unwrap_or(DEFAULT_PORT);
    let wanted = [host, port, dsn.get("dbname").unwrap_or_default(), dsn.get("user").unwrap_or_default()];
    text.lines().find_map(|line| match_line(line, &wanted))
}

/// The password of a line, if its four fields match.
fn match_line(line: &str, wanted: &[&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for value in wanted {
        let (field, is_any, behind) = take_field(rest);
        if !is_any && field != *value {
            return None;
        }
        rest = behind?;
    }
    let (password, _, _) = take_field(rest);
    Some(password)
}

/// The field up to the next colon without a backslash, whether it is a `*` without a backslash, and what follows the
/// colon.
fn take_field(text: &str) -> (String, bool, Option<&str>) {
    let mut field = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' => return (field, &text[..at] == "*", Some(&text[at + 1..])),
            '\\' => field.push(chars.next().map_or('\\', |(_, escaped)| escaped)),
            _ => field.push(c),
        }
    }
    (field, false, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(file: &str, dsn: &str) -> Option<String> {
        find(file, &Dsn::parse(dsn).unwrap())
    }

    const DSN: &str = "host=db port=5432 dbname=shop user=joe";

    #[test]
    fn the_first_line_that_matches_wins() {
        let file = "# db:5432:shop:joe:comment\nother:5432:shop:joe:a\ndb:*:shop:joe:b\n*:*:*:*:c\n";
        assert_eq!(password(file, DSN).as_deref(), Some("b"));
        assert_eq!(password(file, "host=x port=1 dbname=y user=z").as_deref(), Some("c"));
        assert_eq!(password("other:*:*:*:a", DSN), None);
        assert_eq!(password("db:5432:shop", DSN), None);
    }

    #[test]
    fn backslashes_escape_colons_and_backslashes() {
        assert_eq!(password(r"\:\:1:*:*:*:a\:b\\c", "host=::1 port=1 dbname=d user=u").as_deref(), Some(r"a:b\c"));
        assert_eq!(password(r"\*:*:*:*:a", DSN), None);
    }

    #[cfg(unix)]
    #[test]
    fn localhost_matches_the_default_socket_directories_and_no_other() {
        let at = |host| password("localhost:*:*:*:a", &format!("host={host} port=5432 dbname=d user=u"));
        assert!(at("/tmp").is_some());
        assert!(at("/var/run/postgresql").is_some());
        assert!(at("/srv/sockets").is_none());
    }

    #[test]
    fn without_a_host_its_address_is_looked_up() {
        assert!(password("10.0.0.1:*:*:*:x", "hostaddr=10.0.0.1 port=5432 dbname=d user=u").is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("pyreplica-pgpass-{}", std::process::id()));
        fs::write(&path, "*:*:*:*:a\n").unwrap();
        let dsn = Dsn::parse(DSN).unwrap();
        let with_mode = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            look_up(&path, &dsn)
        };
        assert_eq!(with_mode(0o640), None);
        assert_eq!(with_mode(0o600).as_deref(), Some("a"));
        fs::remove_file(&path).unwrap();
        assert_eq!(look_up(&path, &dsn), None);
    }
}
