//! The programs pg_dump and pg_restore, and a private directory for what they write.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::dsn::Dsn;
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// Where packages install the programs of several versions: Debian's, and those of postgresql.org for Red Hat.
const DIRECTORIES: [(&str, &str); 2] = [("/usr/lib/postgresql", "bin"), ("/usr", "pgsql-")];

/// How often to check whether a program has ended.
const POLL: Duration = Duration::from_millis(10);

/// Lines of a program's error message that are shown.
const MESSAGE_LINES: usize = 3;

/// pg_dump and pg_restore, both of the same version.
#[derive(Debug)]
pub(super) struct Programs {
    pub dump: PathBuf,
    pub restore: PathBuf,
    pub version: u32,
}

/// A private directory, which is removed when this value is dropped.
pub(super) struct Scratch(pub PathBuf);

/// The oldest programs that can read this master: an older slave is most likely to accept what they write.
pub(super) fn find(wanted: u32) -> Result<Programs> {
    let mut directories: Vec<PathBuf> = Vec::new();
    for (parent, part) in DIRECTORIES {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_version = entry.file_name().to_string_lossy().starts_with(part);
            directories.push(if is_version { entry.path().join("bin") } else { entry.path().join(part) });
        }
    }
    let of = |directory: &PathBuf| {
        let (dump, restore) = (directory.join("pg_dump"), directory.join("pg_restore"));
        let version = version(&dump)?;
        version_fits(version, self::version(&restore)).then_some(Programs { dump, restore, version })
    };
    let mut found: Vec<Programs> = directories.iter().filter_map(of).collect();
    // Debian's programs in the path are scripts that look for these, and take longer than these do.
    if !found.iter().any(|programs| programs.version >= wanted) {
        found.extend(of(&PathBuf::new()));
    }
    let newest = found.iter().map(|programs| programs.version).max();
    let fit = found.into_iter().filter(|programs| programs.version >= wanted).min_by_key(|programs| programs.version);
    fit.ok_or_else(|| {
        let detail = match newest {
            Some(newest) => format!("pg_dump is of version {newest}, and the master of version {wanted}"),
            None => "there are no pg_dump and pg_restore on this machine".to_string(),
        };
        Error::new(Kind::Setup, None, "create the schema", detail).with_hint(format!(
            "install PostgreSQL's client programs, version {wanted} or later (Debian: postgresql-client-{wanted}), or \
             create the tables on the slave by hand and run the copy without --schema"
        ))
    })
}

fn version_fits(dump: u32, restore: Option<u32>) -> bool {
    restore == Some(dump)
}

/// `pg_dump (PostgreSQL) 15.4 (Debian ...)`.
fn version(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digits = text.split_once("(PostgreSQL) ")?.1;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Runs one of the programs until it ends, or until the operator stops the copy. The password is in the environment, which
/// only the same user can see.
pub(super) fn run(
    side: Side,
    operation: &str,
    mut command: Command,
    dsn: Option<&Dsn>,
    control: &Control,
    scratch: &Scratch,
) -> Result<()> {
    let messages = scratch.0.join("said");
    if let Some(dsn) = dsn {
        command.arg(format!("--dbname={}", dsn.without_password().to_conninfo()));
        if let Some(password) = dsn.get("password") {
            command.env("PGPASSWORD", password);
        }
    }
    let stderr = File::create(&messages).map_err(|e| local(operation, &e))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let mut child = command.spawn().map_err(|e| local(operation, &e))?;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| local(operation, &e))? {
            if status.success() {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&fs::read(&messages).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).take(MESSAGE_LINES).collect();
            return Err(Error::new(Kind::Setup, Some(side), operation, lines.join(" / ")));
        }
        if control.is_stopping() {
            // This fails if the program has just ended.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(Kind::Stopped, None, operation, "stopped by a signal"));
        }
        thread::sleep(POLL);
    }
}

impl Scratch {
    pub(super) fn new() -> Result<Scratch> {
        // A name that others cannot guess, so that nobody can take it first. Creating a directory fails if there is
        // anything of that name, also a link.
        let name = format!("pyreplica-schema-{:016x}", RandomState::new().hash_one(std::process::id()));
        let path = std::env::temp_dir().join(name);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt;
            builder.mode(0o700);
        }
        let made = builder.create(&path);
        made.map_err(|e| local("make a directory for the schema", &format!("{}: {e}", path.display())))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If this fails, what is left holds no data and no password.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn local(operation: &str, error: &dyn fmt::Display) -> Error {
    Error::new(Kind::Config, None, operation, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn the_directory_for_the_schema_has_a_name_that_nobody_can_guess_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let (one, other) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        assert_ne!(one.0, other.0);
        assert!(!one.0.ends_with(format!("pyreplica-schema-{}", std::process::id())), "{}", one.0.display());
        assert_eq!(fs::metadata(&one.0).unwrap().permissions().mode() & 0o777, 0o700);
        let path = one.0.clone();
        drop(one);
        assert!(!path.exists());
    }
}
