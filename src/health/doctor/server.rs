//! Checks each server, and the master's log and daemon.

use super::{Diagnosis, Level, Worker};
use crate::backlog::sql as backlog_sql;
use crate::base::names::{BatchNumber, Side, quote_literal};
use crate::config::settings::Config;
use crate::health::sql;
use crate::pair::sql as pair_sql;
use crate::server::checks;
use crate::server::session::Session;
use crate::server::sql as server_sql;

/// A daemon that waits for its next try is seen. For a moment before and after it is not.
const RETRY_PATIENCE: f64 = 10.0;

/// The newest major version that pyreplica was tested with.
const NEWEST_VERSION: i32 = 18;

const OLDEST_VERSION: i32 = 13;

pub(super) fn examine(report: &mut Diagnosis, config: &Config, session: &mut Session) {
    let side = Some(session.side());
    let asked = session.query_one("look at the server", server_sql::IDENTITY, &[]);
    let Some(row) = report.ok_or_warning(side, "version", asked) else { return };
    let version = row.get::<_, i32>(3) / 10_000;
    let text = format!("PostgreSQL {version}");
    if version < OLDEST_VERSION {
        report.add(Level::Failure, side, "version", format!("{text} is too old")).advise("upgrade it to 13 or later");
    } else if version > NEWEST_VERSION {
        report.add(
            Level::Note,
            side,
            "version",
            format!("{text} is newer than what pyreplica was tested with, 13 to 18"),
        );
    } else {
        report.add(Level::Ok, side, "version", text);
    }
    if row.get::<_, bool>(4) {
        report
            .add(Level::Failure, side, "recovery", "the server is a standby, which is read-only")
            .advise("connect to its primary: target_session_attrs=read-write in the connection string finds it among several hosts");
    } else {
        report.add(Level::Ok, side, "recovery", "the server is not a standby");
    }
    let subjects = [
        ("two-phase commit", if config.two_phase { "transactions can be prepared" } else { "not used" }),
        ("open transactions", "none is older than an hour"),
        ("notify queue", "nearly empty"),
        ("durability", "committed data is on disk"),
    ];
    report.ask(session, &subjects, sql::DOCTOR_SERVER, &[&config.two_phase]);
    if version >= 15 {
        report.ask(
            session,
            &[("collation", "its version has not changed since the database was built")],
            sql::DOCTOR_COLLATION,
            &[],
        );
    }
}

/// Checks the log and returns its origin. None if the log is missing or lacks this slave's column, or if the role lacks
/// rights.
pub(super) fn examine_log(report: &mut Diagnosis, config: &Config, master: &mut Session) -> Option<u64> {
    let log = match checks::log_oid(master) {
        Ok(log) => log,
        Err(error) => {
            let advice = format!("pyreplica install {}", shell_quoted(&config.master.without_password().to_conninfo()));
            report.add_failure("log", &error).advise(advice);
            return None;
        }
    };
    let missing = master.query("look at the rights", server_sql::MISSING_RIGHTS, &[]);
    let missing = report.ok_or_warning(Some(Side::Master), "rights", missing)?;
    if !missing.is_empty() {
        let finding =
            report.add(Level::Failure, Some(Side::Master), "rights", "the role lacks rights on pyreplica's tables");
        finding.fixes = missing.iter().map(|row| row.get(0)).collect();
        finding.advise("run this as their owner");
        return None;
    }
    report.add(Level::Ok, Some(Side::Master), "rights", "the role may read and mark the log");
    let identity = master.query_one("look at the server", server_sql::IDENTITY, &[]);
    let identity: String = report.ok_or_warning(Some(Side::Master), "log", identity)?.get(0);
    let rows = master.query("look at the log's columns", server_sql::SLAVE_FIELDS, &[]);
    let fields: Vec<String> =
        report.ok_or_warning(Some(Side::Master), "log", rows)?.iter().map(|row| row.get(0)).collect();
    let field = &config.slave_field;
    if !fields.contains(field) {
        let text = format!("replica_log has no boolean column for SLAVE_FIELD={field}");
        let add = format!("SELECT public.py_log_add_slave({});", quote_literal(field));
        report.add(Level::Failure, Some(Side::Master), "log", text).fix(add);
        return None;
    }
    report.ask(master, &[("log", "installed, with a column for this slave")], sql::DOCTOR_LOG, &[field]);
    report.ask(master, &[("schema changes", "they travel to the slaves")], sql::DOCTOR_SCHEMA_CHANGES, &[]);
    examine_size(report, config, master, &fields);
    let subjects = [
        ("disabled triggers", "all triggers that log are enabled"),
        ("trigger order", "the triggers that log fire first"),
        ("superfluous triggers", "one trigger logs each change"),
    ];
    report.ask(master, &subjects, sql::DOCTOR_TRIGGERS, &[]);
    Some(checks::origin(&identity, log))
}

/// Finds out whether a daemon or a copy is connected.
pub(super) fn examine_daemon(report: &mut Diagnosis, config: &Config, source: &str, master: &mut Session) -> Worker {
    let side = Some(Side::Master);
    let field = &config.slave_field;
    examine_error(report, field, master);
    let rows = master.query("look for the daemon", server_sql::DAEMON, &[field]);
    let Some(rows) = report.ok_or_warning(side, "daemon", rows) else { return Worker::None };
    if let Some(row) = rows.iter().find(|row| row.get("replicates") && row.get("copies")) {
        let pid: i32 = row.get("pid");
        let text = format!("none: a copy to the slave is in progress (server process {pid})");
        report
            .add(Level::Note, side, "daemon", text)
            .advise(format!("when it has ended, start the daemon: pyreplica {source}"));
        return Worker::Copy;
    }
    if let Some(row) = rows.iter().find(|row| row.get("replicates")) {
        let (pid, application, client): (i32, &str, &str) = (row.get("pid"), row.get("application"), row.get("client"));
        let since = row.get::<_, Option<&str>>("since").map(|since| format!(" since {since}")).unwrap_or_default();
        let from = if client.is_empty() { String::new() } else { format!(" from {client}") };
        report.add(
            Level::Ok,
            side,
            "daemon",
            format!("connected{since}{from} as {application:?} (server process {pid})"),
        );
        return Worker::Daemon;
    }
    let batch = master.query("read the last batch", sql::LAST_BATCH, &[field]);
    let Some(rows) = report.ok_or_warning(side, "daemon", batch) else { return Worker::None };
    let last = rows.first().filter(|row| BatchNumber(row.get(0)) > BatchNumber(0));
    let waiting = master.query_one("look for a daemon that waits", sql::WAITING_DAEMON, &[&config.name]);
    let waits = report.ok_or_warning(side, "daemon", waiting).is_some_and(|row| row.get(0));
    let failed = failed_ago(field, master).filter(|idle| waits || *idle < RETRY_PATIENCE);
    if waits || failed.is_some() {
        let ago = failed.map_or(String::new(), |idle| format!(": its last try failed {idle:.0} s ago"));
        let text = format!("{}{ago}", if waits { "it waits for its next try" } else { "not connected at this moment" });
        report.add(Level::Note, side, "daemon", text).advise("\"last error\" says why it fails");
        return Worker::None;
    }
    let level = if last.is_some() { Level::Warning } else { Level::Note };
    let since = last.map(|row| format!("; the last batch was committed at {}", row.get::<_, &str>("ts")));
    report
        .add(level, side, "daemon", format!("no daemon replicates this pair now{}", since.unwrap_or_default()))
        .advise(format!("start it: pyreplica {source}"));
    Worker::None
}

/// How long ago the daemon's last try failed, if it has not succeeded since.
fn failed_ago(field: &String, master: &mut Session) -> Option<f64> {
    if !master.query_one("look for errors", sql::MAY_READ_ERRORS, &[]).ok()?.get::<_, bool>(0) {
        return None;
    }
    let rows = master.query("look for errors", sql::LAST_ERROR, &[field]).ok()?;
    rows.first().filter(|row| row.get::<_, Option<&str>>("recovered").is_none()).map(|row| row.get("idle"))
}

/// Adds the error with which the daemon fails, if it does.
fn examine_error(report: &mut Diagnosis, field: &String, master: &mut Session) {
    let may = master.query_one("look for errors", sql::MAY_READ_ERRORS, &[]).map(|row| row.get::<_, bool>(0));
    let Some(true) = report.ok_or_warning(Some(Side::Master), "last error", may) else { return };
    let rows = master.query("look for errors", sql::LAST_ERROR, &[field]);
    let Some(rows) = report.ok_or_warning(Some(Side::Master), "last error", rows) else { return };
    match rows.first().filter(|row| row.get::<_, Option<&str>>("recovered").is_none()) {
        Some(row) => {
            let (since, message): (&str, &str) = (row.get("since"), row.get("message"));
            let finding = report.add(Level::Failure, None, "last error", format!("failing since {since}: {message}"));
            finding.advice = row.get("hint");
        }
        None => drop(report.add(Level::Ok, None, "last error", "the daemon does not fail now")),
    }
}

fn examine_size(report: &mut Diagnosis, config: &Config, master: &mut Session, fields: &[String]) {
    let side = Some(Side::Master);
    let asked = master.query_one("look at the size of the log", pair_sql::LOG_SIZE, &[]);
    let Some(row) = report.ok_or_warning(side, "log size", asked) else { return };
    let size = row.get::<_, i64>(0) as u64;
    let text = format!("{} MiB", size >> 20);
    if size <= config.log_warning {
        report.add(Level::Ok, side, "log size", text);
        return;
    }
    let mut holders = Vec::new();
    for field in fields {
        let asked = master.query("look for the oldest change", &backlog_sql::waiting(field), &[field]);
        let Some(rows) = report.ok_or_warning(side, "log size", asked) else { continue };
        holders.extend(
            rows.first().map(|row| format!("{field} has not replayed changes since {}", row.get::<_, String>(0))),
        );
    }
    let (why, advice) = if holders.is_empty() {
        let why = "no slave has anything to replay, and what is replayed stays for RETENTION".to_string();
        (why, "shorten RETENTION in the config files, or raise LOG_WARNING")
    } else {
        (holders.join(", "), "start that slave's daemon, or remove the slave: SELECT py_log_remove_slave('...')")
    };
    report.add(Level::Warning, side, "log size", format!("{text}, more than LOG_WARNING: {why}")).advise(advice);
}

/// Quotes a text as one word for a shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
