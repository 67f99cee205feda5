//! The fence: a trigger that keeps writers off the replicated tables of a database that is not the master.
//!
//! It is a statement trigger, also on each partition, and stops every role. A daemon writes in the replica role and does not meet
//! it. Putting it up and taking it down needs the same lock, which lets readers go on; so the trigger is made beforehand, disabled.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, create_trigger, quote_ident, quote_literal};
use crate::base::shown::listed;
use crate::server::checks;
use crate::server::session::{Row, Session};
use crate::server::sql;
use std::time::{Duration, Instant};

/// How long to wait for a table whose fence is to be taken down, and how long in all before the waits become short.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(10);

/// SQLSTATE of a statement that was cancelled.
const CANCELLED: &str = "57014";

/// A table that has the trigger, or is to have it.
#[derive(Clone, Debug)]
pub struct Fenced {
    /// Qualified and quoted.
    pub relation: String,
    /// The trigger is there, and enabled.
    pub is_up: bool,
    is_there: bool,
    is_ours: bool,
    /// It is one of the tables that were asked for.
    pub is_named: bool,
    is_owner: bool,
    /// Its owner is a role that could have installed pyreplica.
    is_trusted: bool,
    owner: String,
    arguments: Vec<String>,
}

impl Fenced {
    /// It is one of the tables that were asked for, or another one that a role owns which is somebody: everybody may give a table of
    /// his own the trigger, and lock it.
    pub fn is_put_up(&self) -> bool {
        self.is_up && (self.is_named || self.is_trusted && self.is_owner)
    }
}

/// The tables whose changes this database logs, or has logged as a master, qualified and quoted.
pub fn replicated(session: &mut Session) -> Result<Vec<String>> {
    let rows = session.query("look at the replicated tables", sql::WITH_TRIGGER, &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A table that had another name when its triggers were created. Its owner may give it any name, also that of somebody else's table on
/// the slave. So its changes are not replayed, and nothing is done with the slave's table.
pub struct Renamed {
    pub relation: String,
    /// Makes this name known.
    statement: String,
}

impl Renamed {
    pub fn listed(tables: &[Renamed]) -> String {
        listed(&tables.iter().map(|table| table.relation.clone()).collect::<Vec<_>>())
    }

    pub fn help(tables: &[Renamed]) -> String {
        let statements: Vec<&str> = tables.iter().map(|table| table.statement.as_str()).collect();
        format!(
            "if the slave's table of this name is the same table, as the owner of the log on the master: {}",
            statements.join(" ")
        )
    }
}

/// The replicated tables of a master, for what is done with the slave's tables of these names; and those that were renamed.
pub fn known(master: &mut Session) -> Result<(Vec<String>, Vec<Renamed>)> {
    if replicated(master)?.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    checks::log_oid(master)?;
    let rows = master.query("look at the replicated tables", &sql::KNOWN_BY_NAME, &[])?;
    let (known, renamed): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.get::<_, bool>("known"));
    let statement = |row: &Row| create_trigger(row.get("schema"), row.get("name"));
    let renamed = renamed.into_iter().map(|row| Renamed { relation: row.get("relation"), statement: statement(row) });
    Ok((known.into_iter().map(|row| row.get("relation")).collect(), renamed.collect()))
}

/// The state of the fence on these tables and their partitions.
pub fn look(session: &mut Session, relations: &[String]) -> Result<Vec<Fenced>> {
    let rows = session.query("look at the fence", sql::FENCE, &[&relations])?;
    let fenced = rows.iter().map(|row| Fenced {
        relation: row.get("relation"),
        is_up: row.get("is_up"),
        is_there: row.get("is_there"),
        is_ours: row.get("is_ours"),
        is_named: row.get("is_named"),
        is_owner: row.get("is_owner"),
        is_trusted: row.get("is_trusted"),
        owner: row.get("owner"),
        arguments: row.get("arguments"),
    });
    Ok(fenced.collect())
}

/// Makes the table of roles and the fence's function.
pub fn install(session: &mut Session) -> Result<()> {
    session.script("install the fence", sql::ROLES_INSTALL).map_err(|error| match error.code() {
        Some("42501") if error.hint().is_none() => error.with_hint(
            "run sql/roles-install.sql there as the owner of the database, or use the owner's connection string",
        ),
        _ => error,
    })
}

/// Makes the trigger, disabled, on each of the tables that lack it. `master_at` says where the master is while the fence is up;
/// `passes` is a role that it lets pass, or empty. Each table has a transaction of its own and is locked for a moment.
pub fn prepare(session: &mut Session, tables: &[Fenced], master_at: &str, passes: &str) -> Result<()> {
    let arguments = [master_at.to_string(), passes.to_string()];
    for table in tables.iter().filter(|table| table.is_named) {
        if table.is_there && table.is_ours && table.arguments == arguments {
            continue;
        }
        if !table.is_owner {
            return Err(not_owner(session.side(), table));
        }
        let drop_former = if table.is_there { drop(&table.relation) } else { String::new() };
        let state = if table.is_up { "" } else { "DISABLE" };
        let disable = if state.is_empty() { String::new() } else { switch(&table.relation, state) };
        let create = format!(
            "BEGIN; {drop_former} CREATE TRIGGER \"!replica_fence\" BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {} \
             FOR EACH STATEMENT EXECUTE FUNCTION public.py_log_fence({}, {}); {disable} COMMIT",
            table.relation,
            quote_literal(master_at),
            quote_literal(passes)
        );
        session.script(&format!("make the fence of {}", table.relation), &create)?;
    }
    Ok(())
}

/// The statements that put the fence up on these tables, on which `prepare` has made it.
pub fn up(tables: &[Fenced]) -> String {
    tables.iter().filter(|table| table.is_named).map(|table| switch(&table.relation, "ENABLE")).collect()
}

/// The statements that take it down where it was put up.
pub fn down(tables: &[Fenced]) -> String {
    tables.iter().filter(|table| table.is_put_up()).map(|table| switch(&table.relation, "DISABLE")).collect()
}

/// Lets everybody write to this database again, in an open transaction. `first` has statements that belong to a table, `writable` is what
/// `read_only` says. Returns a note for what is left.
pub fn lift(session: &mut Session, first: &[(String, String)], writable: &str) -> Result<Vec<String>> {
    let left = take_down(session, first)?;
    session.message("let sessions write", &format!("SET LOCAL lock_timeout = '5s'; {writable}"))?;
    Ok(left)
}

/// Takes the fence down wherever it is, in an open transaction, where nobody says which tables are replicated. A table whose owner keeps
/// the lock must not keep the others fenced. Returns a note for what is left.
fn take_down(session: &mut Session, first: &[(String, String)]) -> Result<Vec<String>> {
    let (own, of_others): (Vec<Fenced>, Vec<Fenced>) =
        look(session, &[])?.into_iter().filter(|table| table.is_up).partition(|table| table.is_owner);
    let mut statements = first.to_vec();
    statements.extend(own.iter().map(|table| (table.relation.clone(), switch(&table.relation, "DISABLE"))));
    let mut left: Vec<String> = of_others
        .iter()
        .map(|table| format!("{} is still fenced: it belongs to {}", table.relation, table.owner))
        .collect();
    let all: String = statements.iter().map(|(_, statement)| statement.as_str()).collect();
    if statements.is_empty() || attempt(session, LONGEST_WAIT, &all)?.is_none() {
        return Ok(left);
    }
    let since = Instant::now();
    for (relation, statement) in statements {
        let wait = if since.elapsed() < PATIENCE { LONGEST_WAIT } else { SHORTEST_WAIT };
        if let Some(error) = attempt(session, wait, &statement)? {
            left.push(format!("{relation} is still fenced, or not logged: {}", error.detail()));
        }
    }
    Ok(left)
}

/// Runs statements behind a savepoint. Returns what the server has against them.
fn attempt(session: &mut Session, wait: Duration, statements: &str) -> Result<Option<Error>> {
    let limit = wait.as_millis();
    let text = format!("SAVEPOINT fence; SET LOCAL lock_timeout = {limit}; {statements} RELEASE fence");
    match session.message("take the fence down", &text) {
        Ok(_) => Ok(None),
        Err(error) if error.code().is_some_and(|code| code != CANCELLED) => {
            session.message("go back", "ROLLBACK TO fence; RELEASE fence")?;
            Ok(Some(error))
        }
        Err(error) => Err(error),
    }
}

/// The role that the fence has to let pass: the daemon's, if it may not take the replica role. Empty otherwise.
pub fn passes(session: &mut Session) -> Result<String> {
    match checks::may_take_replica_role(session)? {
        true => Ok(String::new()),
        false => Ok(session.query_one("ask for the role", "select session_user::text", &[])?.get(0)),
    }
}

/// The statement that makes the database's next sessions read-only, so that clients with several hosts and
/// target_session_attrs=read-write go to the other one. `on`: whether it is; the role must own the database.
pub fn read_only(session: &mut Session, on: bool) -> Result<Option<String>> {
    let row = session.query_one("look at the database", sql::OWNS_DATABASE, &[])?;
    let (name, owns): (String, bool) = (row.get(0), row.get(1));
    let database = quote_ident(&name);
    Ok(owns.then(|| match on {
        true => format!("ALTER DATABASE {database} SET default_transaction_read_only = on;"),
        false => format!("ALTER DATABASE {database} RESET default_transaction_read_only;"),
    }))
}

/// The statements that somebody can run by hand to let others write to these tables again, each by itself: his session is read-only as
/// long as the database is.
pub fn by_hand(session: &mut Session, relations: &[String]) -> Result<Vec<String>> {
    let in_full = |statement: String| format!("BEGIN READ WRITE; {statement} COMMIT;");
    let mut statements: Vec<String> = relations.iter().map(|table| in_full(switch(table, "DISABLE"))).collect();
    let row = session.query_one("look at the database", sql::IS_READ_ONLY, &[])?;
    let (name, is_read_only): (String, bool) = (row.get(0), row.get(1));
    if is_read_only {
        let reset = format!("ALTER DATABASE {} RESET default_transaction_read_only;", quote_ident(&name));
        statements.push(in_full(reset));
    }
    Ok(statements)
}

/// The statements that enable or disable the triggers that log, where they are not so. Those that fire for replayed changes too
/// (ENABLE ALWAYS) stay as they are.
pub fn switch_triggers(session: &mut Session, relations: &[String], enable: bool) -> Result<String> {
    Ok(trigger_switches(session, relations, enable)?.into_iter().map(|(_, statement)| statement).collect())
}

/// The same, each with its table.
pub fn trigger_switches(session: &mut Session, relations: &[String], enable: bool) -> Result<Vec<(String, String)>> {
    let (state, word) = if enable { ("O", "ENABLE") } else { ("D", "DISABLE") };
    let rows = session.query("look at the triggers", sql::TRIGGERS, &[&relations])?;
    let statements = rows.iter().filter(|row| row.get::<_, &str>("state") != state).map(|row| {
        let (relation, trigger): (&str, &str) = (row.get("relation"), row.get("trigger"));
        (relation.to_string(), format!("ALTER TABLE ONLY {relation} {word} TRIGGER {};", quote_ident(trigger)))
    });
    Ok(statements.collect())
}

fn switch(relation: &str, state: &str) -> String {
    format!("ALTER TABLE ONLY {relation} {state} TRIGGER \"!replica_fence\";")
}

fn drop(relation: &str) -> String {
    format!("DROP TRIGGER \"!replica_fence\" ON {relation};")
}

fn not_owner(side: Side, table: &Fenced) -> Error {
    let detail = format!("{} belongs to {}, and only its owner may put up the fence", table.relation, table.owner);
    Error::new(Kind::Setup, Some(side), "make the fence", detail).with_hint(format!(
        "GRANT {} TO the role that connects there; or use connection strings of that role",
        quote_ident(&table.owner)
    ))
}
