//! Locks the replicated tables of the master, so that writers wait and readers go on.
//!
//! Who waits for such a lock makes those wait that come after it. So it is tried for less than a second at a time, and given back
//! in between; PostgreSQL looks for deadlocks after a second, so no writer ends because of us. The first lock conflicts with no
//! writer, only with VACUUM, ANALYZE, CREATE INDEX CONCURRENTLY and DDL, and an autovacuum gives way to it.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::roles::sql;
use crate::server::session::Session;
use std::time::{Duration, Instant};

/// How long one attempt may take, at first and at last.
const SHORTEST_TRY: Duration = Duration::from_millis(50);
const LONGEST_TRY: Duration = Duration::from_millis(800);

/// Writers work between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

const LOG: &str = "public.replica_log";

/// Who holds the lock looks at the time itself. If the slave hangs then, or this process, others see to it that writers go on, so long after
/// the time was over.
const SLAVE_GRACE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(5);

/// SQLSTATEs of a lock that was not granted in time, of a statement that took too long, and of a deadlock.
const NOT_YET: [&str; 3] = ["55P03", "57014", "40P01"];

/// How long the slave may take for an answer if writers wait until then.
pub fn patience(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()) + SLAVE_GRACE
}

/// A statement by which the master gives the lock back if the session does nothing until then.
pub fn give_back(until: Instant) -> String {
    let idle = until.saturating_duration_since(Instant::now()) + GRACE;
    format!("SET LOCAL idle_in_transaction_session_timeout = {}", idle.as_millis().min(i32::MAX as u128))
}

/// Begins a transaction that holds the lock. Returns since when writers wait.
pub fn lock(master: &mut Session, tables: &[String], wait: Duration, control: &Control) -> Result<Instant> {
    if tables.is_empty() {
        master.message("begin a transaction", &format!("BEGIN; {}", give_back(Instant::now() + wait)))?;
        return Ok(Instant::now());
    }
    let list: String = tables.iter().map(|table| format!("ONLY {table}")).collect::<Vec<_>>().join(", ");
    let end = Instant::now() + wait;
    // The log is locked at last, when writers wait already.
    let quiet = format!(
        "BEGIN; {}; SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = {}; \
         LOCK TABLE {list}, {LOG} IN SHARE UPDATE EXCLUSIVE MODE; SET LOCAL statement_timeout = 0",
        give_back(Instant::now() + wait),
        wait.as_millis().max(1)
    );
    if let Err(error) = master.message("lock the tables", &quiet) {
        return Err(match error.code() {
            Some(code) if NOT_YET.contains(&code) => {
                control.check()?;
                master.roll_back();
                let tables = &[tables, &[LOG.to_string()]].concat();
                blocked(master, tables, "vacuum, create indexes or change tables")?
            }
            _ => error,
        });
    }
    let mut length = SHORTEST_TRY;
    loop {
        let since = Instant::now();
        let attempt = format!(
            "SAVEPOINT attempt; SET LOCAL statement_timeout = {}; LOCK TABLE {list} IN SHARE ROW EXCLUSIVE MODE; \
             SET LOCAL statement_timeout = 0",
            length.as_millis()
        );
        match master.message("lock the tables", &attempt) {
            Ok(_) => return Ok(since),
            Err(error) if error.code().is_some_and(|code| NOT_YET.contains(&code)) => {
                control.check()?;
                master.message("give the lock back", "ROLLBACK TO attempt")?;
            }
            Err(error) => return Err(error),
        }
        if Instant::now() + PAUSE >= end {
            return Err(blocked(master, tables, "write to the tables")?);
        }
        control.pause(PAUSE);
        control.check()?;
        length = (length * 2).min(LONGEST_TRY);
    }
}

/// Does something that needs such a lock for a moment, in transactions of its own. It is tried for a moment only, too, and again
/// until `wait` has passed. `tables` are those of which one is locked.
pub fn briefly(
    master: &mut Session,
    tables: &[String],
    wait: Duration,
    control: &Control,
    attempt: &mut dyn FnMut(&mut Session) -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + wait;
    let former: String = master.query_one("set the session up", sql::LOCK_BRIEFLY, &[])?.get(0);
    let done = loop {
        match attempt(master) {
            Err(error) if error.code().is_some_and(|code| NOT_YET.contains(&code)) => {
                master.roll_back();
                if Instant::now() + PAUSE >= end {
                    break Err(blocked(master, tables, "write to the tables")?);
                }
                control.pause(PAUSE);
                control.check()?;
            }
            done => break done,
        }
    };
    if done.is_ok() {
        master.query("set the session up", sql::LOCK_TIMEOUT, &[&former])?;
    }
    done
}

/// The error that names who is in the way.
fn blocked(master: &mut Session, tables: &[String], what: &str) -> Result<Error> {
    let rows = master.query(
        "look who is in the way",
        &sql::BLOCKERS.replace("any ($1)", "any ($1::text[]::regclass[]::oid[])"),
        &[&tables],
    )?;
    let shown = rows.iter().map(|row| {
        let (pid, gid): (Option<i32>, String) = (row.get("pid"), row.get("gid"));
        let (role, tables): (&str, &str) = (row.get("role"), row.get("tables"));
        let seconds: f64 = row.get("seconds");
        match pid {
            Some(pid) => format!(
                "server process {pid} ({}, {role}, {}, for {seconds:.0} s, on {tables}): {}",
                row.get::<_, &str>("kind"),
                row.get::<_, &str>("state"),
                row.get::<_, &str>("query")
            ),
            None => format!("the prepared transaction '{gid}' ({role}, for {seconds:.0} s, on {tables})"),
        }
    });
    let shown: Vec<String> = shown.collect();
    let who = if shown.is_empty() { "they have ended meanwhile".to_string() } else { shown.join("; ") };
    let detail = format!("others {what} and did not give way in time: {who}");
    Ok(Error::new(Kind::Contention, Some(Side::Master), "lock the tables", detail).with_hint(
        "nothing was changed. Wait until they have ended, or end them: SELECT pg_terminate_backend(...); or give more time: --wait",
    ))
}
