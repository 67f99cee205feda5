//! Checks what replication needs before it starts. Each check that fails gives one line: what is wrong, on which side,
//! and what to do.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_ident, quote_literal};
use crate::config::settings::Config;
use crate::server::session::{Row, Session};
use crate::server::sql;

/// What the checks have found out about the pair.
#[derive(Debug)]
pub struct Findings {
    /// `system identifier/database oid`.
    pub master_identity: String,
    pub slave_identity: String,
    pub master_encoding: String,
    pub slave_encoding: String,
    /// Identifies the log: a digest of its server, its database and its installation.
    pub origin: u64,
    /// The columns of `replica_log` that belong to slaves, in order. This pair's column is one of them.
    pub fields: Vec<String>,
    /// The schema of the extension hstore on the master.
    pub hstore_schema: String,
}

/// So many numbers are drawn for a lock. There are a million, far more than a server has room for locks.
const NUMBERS: u32 = 100;

struct Server {
    identity: String,
    encoding: String,
    max_prepared: i32,
}

/// `former` are server processes of this pair on the master whose connections the daemon has closed itself.
pub fn check(config: &Config, master: &mut Session, slave: &mut Session, former: &[i32]) -> Result<Findings> {
    let (on_master, on_slave) = (server(master)?, server(slave)?);
    if on_master.identity == on_slave.identity {
        return Err(same_database());
    }
    let log = log_oid(master)?;
    let fields = slave_fields(config, master)?;
    rights(master)?;
    if config.two_phase {
        prepared_transactions(Side::Master, &on_master)?;
        prepared_transactions(Side::Slave, &on_slave)?;
    }
    progress_table(slave)?;
    exclude_others(config, master, former)?;
    master.execute("register the slave", sql::SLAVE_ROW, &[&config.slave_field])?;
    Ok(Findings {
        origin: origin(&on_master.identity, log),
        master_identity: on_master.identity,
        slave_identity: on_slave.identity,
        master_encoding: on_master.encoding,
        slave_encoding: on_slave.encoding,
        fields,
        hstore_schema: master.query_one("look for hstore", sql::HSTORE_SCHEMA, &[])?.get(0),
    })
}

/// What `check` will ask that can be asked of servers without pyreplica. It writes nothing.
pub fn before_install(config: &Config, master: &mut Session, slave: &mut Session) -> Result<()> {
    let (on_master, on_slave) = (server(master)?, server(slave)?);
    if on_master.identity == on_slave.identity {
        return Err(same_database());
    }
    if config.two_phase {
        prepared_transactions(Side::Master, &on_master)?;
        prepared_transactions(Side::Slave, &on_slave)?;
    }
    let may_create = slave.query_one("look at the rights", sql::MAY_CREATE, &[])?.get(0);
    if may_create { Ok(()) } else { progress_rights(slave) }
}

/// The error if both connection strings name the same database.
pub fn same_database() -> Error {
    setup(None, "replicate", "DSN0 and DSN1 are the same database")
        .with_hint("DSN0 is the master, DSN1 the slave; they may be two databases of one server, but not one database")
}

/// The master's identity, and the number that identifies its log in tables such as `replica_progress`.
pub fn identity_and_origin(master: &mut Session) -> Result<(String, u64)> {
    let identity = server(master)?.identity;
    let origin = origin(&identity, log_oid(master)?);
    Ok((identity, origin))
}

/// Identifies a log by a number that fits into gids and progress rows. `identity` is `system identifier/database oid`,
/// `log` is the oid of `replica_log`.
pub fn origin(identity: &str, log: u32) -> u64 {
    digest(&format!("{identity}/{log}"))
}

/// What helps where the slave's triggers would fire.
pub const REPLICA_ROLE_HINT: &str = "let DSN1's role set session_replication_role: GRANT SET ON PARAMETER \
     session_replication_role TO it (PostgreSQL 15), or use a superuser";

/// Takes the replica role, in which triggers, cascades and foreign key checks do not run on the slave. Returns false if
/// the database role has no right to do that.
pub fn take_replica_role(slave: &mut Session) -> Result<bool> {
    match slave.message("take the replica role", sql::REPLICA_ROLE) {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some("42501") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the role may take the replica role. Afterwards the session has its former role again.
pub fn may_take_replica_role(session: &mut Session) -> Result<bool> {
    let may_take = take_replica_role(session)?;
    if may_take {
        session.message("leave the replica role", "reset session_replication_role")?;
    }
    Ok(may_take)
}

/// The oid of the log. An error if there is no log, or if another version made it.
pub fn log_oid(master: &mut Session) -> Result<u32> {
    let row = master.query_one("look for the log", sql::LOG, &[])?;
    let (log, slaves): (Option<u32>, Option<u32>) = (row.get(0), row.get(1));
    let missing = |what| setup(Some(Side::Master), "read the log", what).of_standby(master.is_standby());
    match (log, slaves) {
        (Some(log), Some(_)) => Ok(log),
        (None, _) => Err(missing("there is no table replica_log")
            .with_hint("install it with: psql ... -f sql/master-install.sql, or: pyreplica install DSN0")),
        (_, None) => Err(missing("replica_log was made by another version of pyreplica")
            .with_hint("run this version's sql/master-install.sql there, or: pyreplica install DSN0")),
    }
}

/// Makes the slave's tables, if they are missing and the role may, and looks at the one for the last batch.
pub fn progress_table(slave: &mut Session) -> Result<()> {
    if !has_progress(slave)? {
        match slave.script("create the slave's tables", sql::SLAVE_INSTALL) {
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => log::debug!(target: "pyreplica", "{error}"),
            Ok(()) => {}
        }
    }
    progress_rights(slave)
}

/// Has the slave a table for the last batch, of this version?
pub fn has_progress(slave: &mut Session) -> Result<bool> {
    Ok(slave.query_one("look for the progress row", sql::HAS_PROGRESS, &[])?.get(0))
}

/// Is it there, and may the role write to it?
fn progress_rights(slave: &mut Session) -> Result<()> {
    if !has_progress(slave)? {
        let detail = "there is no table replica_progress of this version, and the role may not create it";
        return Err(setup(Some(Side::Slave), "keep the progress", detail)
            .with_hint("install it on the slave, as the owner of the database: psql ... -f sql/slave-install.sql"));
    }
    match missing_progress_rights(slave)? {
        None => Ok(()),
        Some(missing) => {
            Err(setup(Some(Side::Slave), "keep the progress", "the role lacks rights on replica_progress")
                .with_hint(format!("as its owner: {missing}")))
        }
    }
}

/// The statements that grant what the role lacks on replica_progress.
pub fn missing_progress_rights(slave: &mut Session) -> Result<Option<String>> {
    let missing: String = slave.query_one("look at the rights", sql::MISSING_PROGRESS_RIGHTS, &[])?.get(0);
    Ok(Some(missing).filter(|missing| !missing.is_empty()))
}

fn server(session: &mut Session) -> Result<Server> {
    let row = session.query_one("look at the server", sql::IDENTITY, &[])?;
    if row.get::<_, i32>(3) < 130_000 {
        return Err(
            setup(Some(session.side()), "replicate", "the server is older than PostgreSQL 13").with_hint("upgrade it")
        );
    }
    if row.get::<_, bool>(4) {
        return Err(setup(Some(session.side()), "replicate", "the server is a read-only standby")
            .with_hint("connect to its primary: pyreplica has to write on both servers"));
    }
    Ok(Server { identity: row.get(0), encoding: row.get(1), max_prepared: row.get(2) })
}

/// The columns of `replica_log` that belong to slaves. An error if the pair's column is missing.
pub fn slave_fields(config: &Config, master: &mut Session) -> Result<Vec<String>> {
    let rows = master.query("look at the log's columns", sql::SLAVE_FIELDS, &[])?;
    let fields: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let field = &config.slave_field;
    if !fields.contains(field) {
        let own = quote_ident(field);
        let what = format!("replica_log has no boolean column {own}, which SLAVE_FIELD names");
        return Err(setup(Some(Side::Master), "read the log", &what)
            .with_hint(format!("add it on the master: SELECT py_log_add_slave({});", quote_literal(field))));
    }
    if !master.query_one("look for the log's index", sql::HAS_INDEX, &[])?.get::<_, bool>(0) {
        log::warn!(
            target: &config.name,
            "master: replica_log has no index on id, so every look reads the whole log: CREATE INDEX ON replica_log (id);"
        );
    }
    Ok(fields)
}

fn rights(master: &mut Session) -> Result<()> {
    let missing = master.query("look at the rights", sql::MISSING_RIGHTS, &[])?;
    if missing.is_empty() {
        return Ok(());
    }
    let grants: Vec<String> = missing.iter().map(|row| row.get(0)).collect();
    Err(setup(Some(Side::Master), "read and mark the log", "the role lacks rights on pyreplica's tables")
        .with_hint(format!("as their owner: {}", grants.join(" "))))
}

fn prepared_transactions(side: Side, server: &Server) -> Result<()> {
    if server.max_prepared > 0 {
        return Ok(());
    }
    Err(setup(Some(side), "use two-phase commit", "max_prepared_transactions is 0").with_hint(format!(
        "on the {side}: ALTER SYSTEM SET max_prepared_transactions = 10; and restart that server. \
         Without two-phase commit: TWO_PHASE=false in the config file"
    )))
}

fn exclude_others(config: &Config, master: &mut Session, former: &[i32]) -> Result<()> {
    let Some(other) = take_slave(master, &config.slave_field, former)? else { return Ok(()) };
    let field = quote_literal(&config.slave_field);
    let OtherDaemon { pid, client, application } = other;
    let from = if client.is_empty() { "the master's own machine" } else { &client };
    let detail = format!(
        "another daemon replicates this master's {field} already (server process {pid}, from {from}, as {application:?})"
    );
    let hint = format!(
        "stop the other one, or give this slave a SLAVE_FIELD of its own. If its machine is gone: SELECT \
         pg_terminate_backend({pid}); on the master"
    );
    Err(Error::new(Kind::Busy, Some(Side::Master), "replicate", detail).with_hint(hint))
}

/// Another session that replicates to the same slave.
pub struct OtherDaemon {
    pub pid: i32,
    pub client: String,
    pub application: String,
}

/// Makes this session the one that replicates to a slave, until it ends; or returns the session that does already, if that is none
/// of the `former` ones of the same daemon.
pub fn take_slave(master: &mut Session, field: &String, former: &[i32]) -> Result<Option<OtherDaemon>> {
    master.transaction(sql::BEGIN_TAKING, |master| {
        // To plan that query takes longer than all else here.
        let rows = match master.query_one("look for the daemon", sql::MAY_HAVE_DAEMON, &[])?.get(0) {
            true => master.query("look for the daemon", sql::DAEMON, &[field])?,
            false => Vec::new(),
        };
        let is_other = |row: &&Row| row.get("replicates") && !former.contains(&row.get("pid"));
        let other = rows.iter().find(is_other).map(|row| OtherDaemon {
            pid: row.get("pid"),
            client: row.get("client"),
            application: row.get("application"),
        });
        if other.is_none() {
            show(master, &sql::SHOW_DAEMON, field)?;
        }
        Ok(other)
    })
}

/// Lets others see that this session copies to a slave.
pub fn show_copy(master: &mut Session, field: &String) -> Result<()> {
    show(master, &sql::SHOW_COPY, field)
}

/// Takes an advisory lock with a number that nobody has taken before.
fn show(master: &mut Session, lock: &str, field: &String) -> Result<()> {
    for _ in 0..NUMBERS {
        if master.query_one("lock the pair", lock, &[field])?.get(0) {
            return Ok(());
        }
    }
    let detail = format!("{NUMBERS} advisory locks of numbers drawn by chance are all held by others");
    Err(Error::new(Kind::Contention, Some(Side::Master), "lock the pair", detail)
        .with_hint("SELECT pid, count(*) FROM pg_locks WHERE locktype = 'advisory' GROUP BY pid; shows who takes them"))
}

fn setup(side: Option<Side>, operation: &str, detail: &str) -> Error {
    Error::new(Kind::Setup, side, operation, detail)
}

/// FNV-1a. Its result is the same on every machine and in every version, which `std`'s hashes do not guarantee.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
