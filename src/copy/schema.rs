//! Creates the schema on an empty slave, by PostgreSQL's own pg_dump and pg_restore: first what the rows need, and nothing that
//! slows their load down. The rest is noted on the slave, and made when the rows are there (`remaining.rs`).
//!
//! pyreplica's own objects on the master are left out: with them, the slave would log what is replayed there, and nobody
//! would read that log.
//!
//! Owners and privileges come along if the slave has the roles and DSN1's role is a superuser. Otherwise everything belongs to
//! DSN1's role. Then a function, a view or the expression of an index that a tenant of the master has made would run with the
//! rights of DSN1's role. So the copy refuses this, unless the operator asks for it.

mod list;
mod programs;

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_ident};
use crate::base::shown::listed;
use crate::config::settings::Config;
use crate::copy::plan::Captured;
use crate::copy::remaining::{self, Remaining, Stage};
use crate::copy::script;
use crate::copy::sql;
use crate::server::session::Session;
use crate::server::sql as server_sql;
use list::without_own;
use programs::{Programs, Scratch, find, local, run};
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// pg_dump waits so long, in milliseconds, for somebody who changes a table. He may wait for the copy's own locks.
const LONGEST_LOCK_WAIT: &str = "--lock-wait-timeout=60000";

/// What to create, and how.
pub struct Wish<'a> {
    pub tables: &'a [Captured],
    /// Only these tables, not everything.
    pub parts: bool,
    /// They make up a copy of all of the pair's tables, and so are all at the same position.
    pub is_whole: bool,
    /// Without owners and privileges, although tenants own some of it.
    pub no_owner: bool,
    /// The name of the snapshot that the rows are read from, if there is one already.
    pub snapshot: Option<&'a str>,
}

/// What pg_dump has read, and how pg_restore is to write it.
struct Dump {
    programs: Programs,
    scratch: Scratch,
    file: PathBuf,
    /// What is not pyreplica's own, for `--use-list`.
    chosen: PathBuf,
    objects: usize,
    options: Vec<&'static str>,
}

/// A schema that has been read, and nothing of it created.
pub struct Prepared {
    /// None if the slave has the tables already.
    read: Option<(Dump, Vec<Remaining>)>,
    has_owners: bool,
    is_whole: bool,
    notes: Vec<String>,
}

/// Reads the schema, if the slave has none of the tables. What stands in the way is said here.
pub fn prepare(
    config: &Config,
    (master, slave): (&mut Session, &mut Session),
    wish: &Wish,
    control: &Control,
) -> Result<Prepared> {
    let relations: Vec<&str> = wish.tables.iter().map(|table| table.relation.as_str()).collect();
    let existing = slave.query("look at the tables", sql::TARGET, &[&relations])?;
    let existing: Vec<String> = existing.iter().map(|row| row.get("relation")).collect();
    let there: HashSet<&String> = existing.iter().collect();
    let missing: Vec<&Captured> = wish.tables.iter().filter(|table| !there.contains(&table.relation)).collect();
    if missing.is_empty() {
        let notes = vec!["the slave has all tables already: the schema is left as it is".to_string()];
        return Ok(Prepared { read: None, has_owners: false, is_whole: wish.is_whole, notes });
    }
    if !wish.parts && !existing.is_empty() {
        let detail = format!("the slave has some of the tables already: {}", listed(&existing));
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "create the schema", detail)
            .with_hint("drop them, or create the others by hand and run the copy without --schema"));
    }
    let has_owners = has_owners(master, slave, wish.no_owner)?;
    let missing: Vec<&str> = missing.iter().map(|table| table.relation.as_str()).collect();
    let lacks_tablespaces = without_tablespaces(master, slave, wish.parts.then_some(&missing))?;
    let mut options = Vec::new();
    if !has_owners {
        options.extend(["--no-owner", "--no-privileges"]);
    }
    if lacks_tablespaces.is_some() {
        options.push("--no-tablespaces");
    }
    let dump = Dump::read(config, master, wish, &missing, options, control)?;
    let remaining = dump.remaining(master, wish, &relations, control)?;
    let notes = lacks_tablespaces.into_iter().collect();
    Ok(Prepared { read: Some((dump, remaining)), has_owners, is_whole: wish.is_whole, notes })
}

/// Are there programs that can read this master's schema?
pub fn check_programs(master: &mut Session) -> Result<()> {
    let server = master.query_one("look at the server", server_sql::IDENTITY, &[])?;
    find(server.get::<_, i32>(3) as u32 / 10_000).map(drop)
}

impl Prepared {
    pub fn is_needed(&self) -> bool {
        self.read.is_some()
    }

    /// Creates what the rows need, and notes the rest. Returns what was done.
    pub fn create(self, config: &Config, slave: &mut Session, key: &str, control: &Control) -> Result<Vec<String>> {
        let Some((dump, remaining)) = self.read else { return Ok(self.notes) };
        let first = remaining::write(slave, key, &remaining, !self.is_whole)?;
        if let Err(error) = dump.create_tables(config, control) {
            // If this fails too, the first error says more, and the next copy with --schema forgets it.
            let _ = remaining::forget(slave, key, first);
            return Err(error);
        }
        let belongs = if self.has_owners { "with" } else { "without" };
        let (objects, version) = (dump.objects, dump.programs.version);
        let created =
            format!("created the schema: {objects} objects, by pg_dump {version}, {belongs} owners and privileges");
        Ok([created].into_iter().chain(self.notes).collect())
    }
}

impl Dump {
    fn read(
        config: &Config,
        master: &mut Session,
        wish: &Wish,
        missing: &[&str],
        options: Vec<&'static str>,
        control: &Control,
    ) -> Result<Dump> {
        let server = master.query_one("look at the server", server_sql::IDENTITY, &[])?;
        let programs = find(server.get::<_, i32>(3) as u32 / 10_000)?;
        let own = master.query("look for pyreplica's own", &sql::OWN_OBJECTS, &[])?;
        let own: HashSet<(u32, u32)> = own.iter().map(|row| (row.get("catalog"), row.get("oid"))).collect();
        let scratch = Scratch::new()?;
        let (file, list, chosen) = (scratch.0.join("schema"), scratch.0.join("list"), scratch.0.join("chosen"));
        let mut command = Command::new(&programs.dump);
        command.args(["--format=custom", "--schema-only", LONGEST_LOCK_WAIT]);
        command.args(["--no-publications", "--no-subscriptions", "--exclude-schema=pyreplica"]);
        // Nobody knows the encoding of names in the other case.
        if server.get::<_, &str>(1) != "SQL_ASCII" {
            command.arg("--encoding=UTF8");
        }
        command.args(options.iter().filter(|option| **option != "--no-tablespaces"));
        command.args(wish.snapshot.map(|name| format!("--snapshot={name}")));
        if wish.parts {
            let names = master.query("look for partitions", sql::WITH_PARTITIONS, &[&missing])?;
            command.args(names.iter().map(|row| format!("--table={}", row.get::<_, &str>(0))));
        }
        command.arg("--file").arg(&file);
        run(Side::Master, "read the schema", command, Some(&config.master), control, &scratch)?;
        let mut command = Command::new(&programs.restore);
        command.arg("--list").arg("--file").arg(&list).arg(&file);
        run(Side::Master, "read the schema", command, None, control, &scratch)?;
        let text = fs::read(&list).map_err(|e| local("read the schema", &e))?;
        let (kept, objects) = without_own(&String::from_utf8_lossy(&text), &own);
        fs::write(&chosen, kept).map_err(|e| local("write the schema", &e))?;
        Ok(Dump { programs, scratch, file, chosen, objects, options })
    }

    fn restore(&self, section: &str) -> Command {
        let mut command = Command::new(&self.programs.restore);
        command.arg(format!("--section={section}")).args(&self.options);
        command.arg("--use-list").arg(&self.chosen);
        command
    }

    /// What is to be made when the rows are there.
    fn remaining(
        &self,
        master: &mut Session,
        wish: &Wish,
        relations: &[&str],
        control: &Control,
    ) -> Result<Vec<Remaining>> {
        let file = self.scratch.0.join("script");
        let mut command = self.restore("post-data");
        command.arg("--verbose").arg("--file").arg(&file).arg(&self.file);
        run(Side::Master, "read the schema", command, None, control, &self.scratch)?;
        let text = fs::read_to_string(&file).map_err(|e| local("read the schema", &e))?;
        let catalog = master.query("look at the indexes", sql::POST_DATA, &[&relations])?;
        let mut remaining = remaining::arrange(&script::entries(&text)?, &catalog, !wish.is_whole);
        if !wish.parts {
            let views = master.query("look for materialized views", sql::MATERIALIZED, &[])?;
            for row in &views {
                remaining.push(Remaining {
                    place: remaining.len() as i64,
                    stage: Stage::Refresh,
                    name: row.get(0),
                    relations: Vec::new(),
                    is_alone: true,
                    size: 0,
                    statement: format!("REFRESH MATERIALIZED VIEW {}", row.get::<_, &str>(0)),
                });
            }
        }
        Ok(remaining)
    }

    fn create_tables(&self, config: &Config, control: &Control) -> Result<()> {
        let mut command = self.restore("pre-data");
        command.args(["--exit-on-error", "--single-transaction"]).arg(&self.file);
        run(Side::Slave, "write the schema", command, Some(&config.slave), control, &self.scratch)
    }
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
