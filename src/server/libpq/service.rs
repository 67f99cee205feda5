//! Service files: sections `[name]` with `key=value` lines. The keyword `service` or the variable PGSERVICE names the
//! section.

use crate::base::error::{Error, Kind, Result};
use crate::config::dsn::Dsn;
use std::fs;
use std::path::{Path, PathBuf};

/// The directories of the system's file without PGSYSCONFDIR: first Debian's, then that of PostgreSQL's own build.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/postgresql-common", "/usr/local/pgsql/etc"];

const FILE_NAME: &str = "pg_service.conf";

/// The files to read, in this order.
pub(super) struct Files {
    /// A file that the operator has named. It must exist, and it replaces the user's file.
    pub(super) named: Option<PathBuf>,
    pub(super) user: Option<PathBuf>,
    pub(super) system_directory: Option<PathBuf>,
}

/// Fills in the service's keywords that the connection string does not have.
pub(super) fn fill(dsn: Dsn, service: &str, files: &Files) -> Result<Dsn> {
    let mut candidates = Vec::new();
    match (&files.named, &files.user) {
        (Some(named), _) => candidates.push(named.clone()),
        (None, Some(user)) if user.exists() => candidates.push(user.clone()),
        _ => {}
    }
    let directories = match &files.system_directory {
        Some(directory) => vec![directory.clone()],
        None => SYSTEM_DIRECTORIES.iter().map(PathBuf::from).collect(),
    };
    candidates.extend(directories.iter().map(|directory| directory.join(FILE_NAME)).find(|file| file.exists()));
    for file in &candidates {
        if let Some(lines) = find_section(file, service)? {
            return lines.into_iter().try_fold(dsn, |dsn, line| take(dsn, &line, file));
        }
    }
    let looked: Vec<String> = candidates.iter().map(|file| file.display().to_string()).collect();
    let places = if looked.is_empty() { "there is no service file".into() } else { looked.join(", ") };
    Err(problem(format!("service \"{service}\" is not defined ({places})"))
        .with_hint("service files are PGSERVICEFILE or ~/.pg_service.conf, then pg_service.conf in PGSYSCONFDIR"))
}

/// A line of a section. Errors show its number.
struct Line {
    number: usize,
    text: String,
}

/// The lines of the first section of that name.
fn find_section(file: &Path, service: &str) -> Result<Option<Vec<Line>>> {
    let text = fs::read_to_string(file)
        .map_err(|e| problem(format!("service file {} cannot be read: {e}", file.display())))?;
    let is_head = |line: &str| line.starts_with('[');
    let lines = text.lines().enumerate().map(|(index, line)| Line { number: index + 1, text: line.trim().to_string() });
    let mut rest = lines.filter(|line| !line.text.is_empty() && !line.text.starts_with('#'));
    let wanted = |line: &Line| {
        line.text.strip_prefix('[').is_some_and(|rest| rest.split_once(']').is_some_and(|(name, _)| name == service))
    };
    if !rest.any(|line| wanted(&line)) {
        return Ok(None);
    }
    Ok(Some(rest.take_while(|line| !is_head(&line.text)).collect()))
}

/// Applies one line. The connection string and earlier lines take precedence.
fn take(dsn: Dsn, line: &Line, file: &Path) -> Result<Dsn> {
    let wrong = |why: String| problem(format!("{}:{}: {why}", file.display(), line.number));
    let (key, value) = line.text.split_once('=').ok_or_else(|| wrong("a line has no \"=\"".into()))?;
    if ["service", "servicefile"].contains(&key) {
        return Err(wrong("a service cannot name another service".into()));
    }
    if !Dsn::is_keyword(key) {
        return Err(wrong(format!("unknown keyword \"{key}\" (no blanks around \"=\")")));
    }
    Ok(if dsn.get(key).is_some() { dsn } else { dsn.with(key, value) })
}

fn problem(detail: String) -> Error {
    Error::new(Kind::Config, None, "complete the connection string", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn directory(test: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("pyreplica-service-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn filled(dsn: &str, service: &str, files: &Files) -> Result<String> {
        fill(Dsn::parse(dsn).unwrap(), service, files).map(|dsn| dsn.to_conninfo())
    }

    fn write(directory: &Directory, name: &str, text: &str) -> PathBuf {
        let file = directory.0.join(name);
        fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_service_fills_in_what_the_string_leaves_out() {
        let dir = directory("fills");
        let text = "[other]\nhost=x\n\n[shop]\n# the shop\nhost=db\nport=5433\nhost=second\n[shop2]\nuser=y\n";
        let files = Files { named: Some(write(&dir, "f", text)), user: None, system_directory: Some(dir.0.clone()) };
        assert_eq!(filled("port=1", "shop", &files).unwrap(), "port=1 host=db");
        assert_eq!(filled("", "shop2", &files).unwrap(), "user=y");
    }

    #[test]
    fn the_systems_file_comes_after_the_users() {
        let dir = directory("system");
        let user = Some(write(&dir, "user", "[a]\nhost=user\n"));
        write(&dir, FILE_NAME, "[a]\nhost=system\n[b]\nhost=system\n");
        let files = Files { named: None, user, system_directory: Some(dir.0.clone()) };
        assert_eq!(filled("", "a", &files).unwrap(), "host=user");
        assert_eq!(filled("", "b", &files).unwrap(), "host=system");
        assert!(filled("", "c", &files).unwrap_err().detail().contains("service \"c\" is not defined"));
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let dir = directory("errors");
        let text = "[a]\nhost = x\n[b]\nhost\n[c]\nservice=a\n";
        let files = Files { named: Some(write(&dir, "f", text)), user: None, system_directory: Some(dir.0.clone()) };
        for (service, says) in [("a", "f:2: unknown"), ("b", "f:4: a line has no"), ("c", "f:6: a service cannot")] {
            let error = filled("", service, &files).unwrap_err();
            assert!(error.detail().contains(says), "{error}");
        }
        let gone = Files { named: Some(dir.0.join("gone")), user: None, system_directory: None };
        assert!(filled("", "a", &gone).unwrap_err().detail().contains("cannot be read"));
    }
}
