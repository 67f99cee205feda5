//! Creates the schema on an empty slave, by PostgreSQL's own pg_dump and pg_restore.
//!
//! pyreplica's own objects on the master are left out: with them, the slave would log what is replayed there, and nobody
//! would read that log.
//!
//! Owners and privileges come along if the slave has the roles and DSN1's role is a superuser. Otherwise everything belongs to
//! DSN1's role. Then a function, a view or the expression of an index that a tenant of the master has made would run with the
//! rights of DSN1's role. So the copy refuses this, unless the operator asks for it.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_ident};
use crate::base::shown::listed;
use crate::config::dsn::Dsn;
use crate::config::settings::Config;
use crate::copy::not_valid;
use crate::copy::plan::Captured;
use crate::copy::sql;
use crate::server::session::Session;
use crate::server::sql as server_sql;
use std::collections::HashSet;
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
const POLL: Duration = Duration::from_millis(50);

/// The oid of the catalog of constraints.
const PG_CONSTRAINT: u32 = 2606;

/// Lines of a program's error message that are shown.
const MESSAGE_LINES: usize = 3;

/// pg_dump and pg_restore, both of the same version.
#[derive(Debug)]
struct Programs {
    dump: PathBuf,
    restore: PathBuf,
    version: u32,
}

/// A private directory, which is removed when this value is dropped.
struct Scratch(PathBuf);

/// Creates the schema if the slave has none of the tables, and returns what was done. `parts`: only these tables, not
/// everything. `no_owner`: without owners and privileges, although tenants own some of it.
pub fn create(
    config: &Config,
    (master, slave): (&mut Session, &mut Session),
    tables: &[Captured],
    (parts, no_owner): (bool, bool),
    control: &Control,
) -> Result<Vec<String>> {
    let relations: Vec<&str> = tables.iter().map(|table| table.relation.as_str()).collect();
    let existing = slave.query("look at the tables", sql::TARGET, &[&relations])?;
    let existing: Vec<String> = existing.iter().map(|row| row.get("relation")).collect();
    let missing: Vec<&Captured> = tables.iter().filter(|table| !existing.contains(&table.relation)).collect();
    if missing.is_empty() {
        return Ok(vec!["the slave has all tables already: the schema is left as it is".to_string()]);
    }
    if !parts && !existing.is_empty() {
        let detail = format!("the slave has some of the tables already: {}", listed(&existing));
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "create the schema", detail)
            .with_hint("drop them, or create the others by hand and run the copy without --schema"));
    }
    let without_owners: &[&str] =
        if !has_owners(master, slave, no_owner)? { &["--no-owner", "--no-privileges"] } else { &[] };
    let missing: Vec<&str> = missing.iter().map(|table| table.relation.as_str()).collect();
    let lacks_tablespaces = without_tablespaces(master, slave, parts.then_some(&missing))?;
    let version: i32 = master.query_one("look at the server", server_sql::IDENTITY, &[])?.get(3);
    let programs = find(version as u32 / 10_000)?;
    let not_valid = not_valid::read(master)?;
    let mut own: HashSet<(u32, u32)> = master
        .query("look for pyreplica's own", &sql::OWN_OBJECTS, &[])?
        .iter()
        .map(|row| (row.get("catalog"), row.get("oid")))
        .collect();
    own.extend(not_valid.iter().map(|check| (PG_CONSTRAINT, check.oid)));
    let scratch = Scratch::new()?;
    let (dump, list, chosen) = (scratch.0.join("schema"), scratch.0.join("list"), scratch.0.join("chosen"));

    let mut command = Command::new(&programs.dump);
    command.args(["--format=custom", "--schema-only"]);
    command.args(without_owners);
    command.args(["--no-publications", "--no-subscriptions", "--exclude-schema=pyreplica"]);
    if parts {
        let names = master.query("look for partitions", sql::WITH_PARTITIONS, &[&missing])?;
        command.args(names.iter().map(|row| format!("--table={}", row.get::<_, &str>(0))));
    }
    command.arg("--file").arg(&dump);
    run(Side::Master, "read the schema", command, Some(&config.master), control, &scratch)?;

    let mut command = Command::new(&programs.restore);
    command.arg("--list").arg("--file").arg(&list).arg(&dump);
    run(Side::Master, "read the schema", command, None, control, &scratch)?;
    let text = fs::read(&list).map_err(|e| local("read the schema", &e))?;
    let (kept, objects) = without_own(&String::from_utf8_lossy(&text), &own);
    let is_comment = |line: &&str| not_valid.iter().any(|check| line.contains(&check.comment));
    let kept: String = kept.lines().filter(|line| !is_comment(line)).map(|line| format!("{line}\n")).collect();
    fs::write(&chosen, kept).map_err(|e| local("write the schema", &e))?;

    let mut command = Command::new(&programs.restore);
    command.args(["--exit-on-error", "--single-transaction"]).args(without_owners);
    command.args(lacks_tablespaces.as_ref().map(|_| "--no-tablespaces"));
    command.arg("--use-list").arg(&chosen).arg(&dump);
    run(Side::Slave, "write the schema", command, Some(&config.slave), control, &scratch)?;
    let belongs = if without_owners.is_empty() { "with" } else { "without" };
    let created = format!(
        "created the schema: {objects} objects, by pg_dump {}, {belongs} owners and privileges",
        programs.version
    );
    Ok([Some(created), lacks_tablespaces].into_iter().flatten().collect())
}

/// None if the slave has all tablespaces that are needed. Otherwise what to do about those that it lacks. `only`: these tables, not all.
fn without_tablespaces(master: &mut Session, slave: &mut Session, only: Option<&Vec<&str>>) -> Result<Option<String>> {
    let operation = "look at the tablespaces";
    let rows = master.query(operation, &sql::TABLESPACES, &[&only])?;
    let needed: Vec<(&str, Vec<String>)> = rows.iter().map(|row| (row.get("name"), row.get("relations"))).collect();
    let names: Vec<&str> = needed.iter().map(|(name, _)| *name).collect();
    let missing: Vec<String> = slave.query_one(operation, sql::MISSING_TABLESPACES, &[&names])?.get(0);
    let told = needed.iter().filter(|(name, _)| missing.iter().any(|lacking| lacking == name));
    let told: Vec<String> =
        told.map(|(name, relations)| format!("{} (of {})", quote_ident(name), listed(relations))).collect();
    Ok((!told.is_empty()).then(|| {
        format!(
            "the slave lacks tablespaces, or DSN1's role may not use them: {}. So all tables and indexes are in the slave's default \
             tablespace. hint: if they are to be elsewhere: CREATE TABLESPACE there, GRANT CREATE ON TABLESPACE to DSN1's role, and \
             ALTER TABLE, INDEX or MATERIALIZED VIEW ... SET TABLESPACE, best while the tables are empty",
            told.join(", ")
        )
    }))
}

fn create_role(role: &str) -> String {
    format!("CREATE ROLE {} NOLOGIN;", quote_ident(role))
}

/// Whether owners and privileges can come along. An error if they can't, and a role that is not trusted owns something.
fn has_owners(master: &mut Session, slave: &mut Session, no_owner: bool) -> Result<bool> {
    let rows = master.query("look at the owners", &sql::OWNERS, &[])?;
    let roles: Vec<&str> = rows.iter().map(|row| row.get("role")).collect();
    let row = slave.query_one("look for the roles", sql::MISSING_ROLES, &[&roles])?;
    let (missing, is_superuser): (Vec<String>, bool) = (row.get(0), row.get(1));
    if missing.is_empty() && is_superuser && !no_owner {
        return Ok(true);
    }
    let in_policies = rows.iter().filter(|row| row.get("in_policy")).map(|row| row.get::<_, String>("role"));
    let lacking: Vec<String> = in_policies.filter(|role| missing.contains(role)).collect();
    if !lacking.is_empty() {
        let detail = format!("policies of the master are for roles that the slave lacks: {}", listed(&lacking));
        let create: Vec<String> = lacking.iter().map(|role| create_role(role)).collect();
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "create the schema", detail)
            .with_hint(format!("on the slave: {}", listed(&create))));
    }
    let matter: Vec<String> =
        rows.iter().filter(|row| row.get("matters")).map(|row| row.get::<_, String>("role")).collect();
    if matter.is_empty() || no_owner {
        return Ok(false);
    }
    let detail = format!(
        "objects of the master belong to {}, and on the slave they would belong to DSN1's role",
        listed(&matter)
    );
    let create: Vec<String> = missing.iter().map(|role| create_role(role)).collect();
    let first = match (create.is_empty(), is_superuser) {
        (false, true) => format!("on the slave: {}", listed(&create)),
        (false, false) => format!("on the slave: {} and let DSN1's role be a superuser for the copy", listed(&create)),
        (true, _) => "let DSN1's role be a superuser for the copy".to_string(),
    };
    Err(Error::new(Kind::Setup, Some(Side::Slave), "create the schema", detail).with_hint(format!(
        "{first}. If you trust these roles with the rights of DSN1's role: pyreplica copy --schema --no-owner"
    )))
}

/// The lines of a list that are not about pyreplica's own objects, and how many. A line: `215; 1259 16385 TABLE public t joe`,
/// and if it is about a comment or about privileges: `3470; 0 0 COMMENT public TABLE t joe`.
fn without_own(list: &str, own: &HashSet<(u32, u32)>) -> (String, usize) {
    let lines = list.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    let is_own = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |place: usize| words.get(place).and_then(|word: &&str| word.parse::<u32>().ok());
        number(1).zip(number(2)).is_some_and(|object| own.contains(&object))
    };
    let (own, others): (Vec<&str>, Vec<&str>) = lines.partition(is_own);
    // The name without the arguments of a function, or the column of a table.
    fn bare(name: &str) -> &str {
        name.split(['(', '.']).next().unwrap_or(name)
    }
    // The line of a trigger or a constraint names its table there.
    let named = |line: &&str| {
        let mut words = line.split(' ').skip(3);
        let kind = words.next()?;
        let is_named = matches!(kind, "TABLE" | "VIEW" | "SEQUENCE" | "FUNCTION" | "EXTENSION");
        is_named.then(|| Some(bare(words.nth(1)?).to_string()))?
    };
    let names: HashSet<String> = own.iter().filter_map(named).collect();
    let is_others = |line: &&str| {
        // SEQUENCE OWNED BY is not an object and has no number, so it is recognized by its name.
        let is_owned_by = line.contains(" SEQUENCE OWNED BY public ")
            && line.split(' ').any(|word| word.starts_with("replica_log_") || word.starts_with("py_log_"));
        let words: Vec<&str> = line.split(' ').skip(3).collect();
        let is_about_own =
            matches!(words[..], ["COMMENT" | "ACL", "public" | "-", _, name, ..] if names.contains(bare(name)));
        !is_owned_by && !is_about_own
    };
    let kept: Vec<&str> = others.into_iter().filter(is_others).collect();
    (kept.iter().map(|line| format!("{line}\n")).collect(), kept.len())
}

/// The oldest programs that can read this master: an older slave is most likely to accept what they write.
fn find(wanted: u32) -> Result<Programs> {
    let mut directories: Vec<PathBuf> = Vec::new();
    for (parent, part) in DIRECTORIES {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_version = entry.file_name().to_string_lossy().starts_with(part);
            directories.push(if is_version { entry.path().join("bin") } else { entry.path().join(part) });
        }
    }
    let in_path = [PathBuf::new()];
    let found = in_path.iter().chain(&directories).filter_map(|directory| {
        let (dump, restore) = (directory.join("pg_dump"), directory.join("pg_restore"));
        let version = version(&dump)?;
        version_fits(version, self::version(&restore)).then_some(Programs { dump, restore, version })
    });
    let found: Vec<Programs> = found.collect();
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
fn run(
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
    fn new() -> Result<Scratch> {
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

fn local(operation: &str, error: &dyn fmt::Display) -> Error {
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

    #[test]
    fn what_is_pyreplicas_own_is_left_out_of_a_schema() {
        let list = "; comment\n;\n215; 1259 16385 TABLE public replica_log joe\n216; 1259 16390 TABLE public t joe\n\
                    3461; 0 0 SEQUENCE OWNED BY public replica_log_id_seq joe\n\
                    3462; 0 0 SEQUENCE OWNED BY public t_id_seq joe\n3470; 2620 16400 TRIGGER public t !replica_tg joe\n\
                    2; 3079 16500 EXTENSION - plpython3u \n3471; 0 0 COMMENT - EXTENSION plpython3u \n\
                    3472; 0 0 COMMENT public TABLE replica_log joe\n3473; 0 0 COMMENT public TABLE t joe\n\
                    3474; 0 0 ACL public TABLE replica_log joe\n3475; 0 0 ACL public COLUMN replica_log.sql joe\n\
                    3476; 0 0 ACL public TABLE t joe\n";
        let own = HashSet::from([(1259, 16385), (2620, 16400), (3079, 16500)]);
        let (kept, count) = without_own(list, &own);
        let expected = "216; 1259 16390 TABLE public t joe\n3462; 0 0 SEQUENCE OWNED BY public t_id_seq joe\n\
                        3473; 0 0 COMMENT public TABLE t joe\n3476; 0 0 ACL public TABLE t joe\n";
        assert_eq!((kept.as_str(), count), (expected, 4));
    }
}
