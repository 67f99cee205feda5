//! What replication needs, checked on both sides without changing anything: each finding with the statements that mend it.
//!
//! Unlike `checks.rs`, which stops at the first thing that keeps the daemon from starting, this goes on as far as it can: with
//! one side down, with nothing installed, with few rights.

mod copy;
mod in_doubt;
mod pair;
mod server;
mod tables;

use crate::base::error::{Error, Result};
use crate::base::names::Side;
use crate::commit::twophase::pair_key;
use crate::config::settings::Config;
use crate::health::sql;
use crate::server::checks;
use crate::server::session::{Session, ToSql};
use std::fmt;

/// How bad a finding is. A note is worth knowing and needs no hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    Note,
    Warning,
    Failure,
}

/// Who is at work on the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    None,
    Daemon,
    /// An initial copy, of all tables or of some.
    Copy,
}

#[derive(Debug)]
pub struct Finding {
    pub level: Level,
    /// None: it is about both.
    pub side: Option<Side>,
    /// What was checked: stable, for programs.
    pub subject: String,
    pub text: String,
    /// Statements to run on that side, as they stand.
    pub mends: Vec<String>,
    /// What else to do, or to bear in mind.
    pub advice: Option<String>,
}

/// What has been found so far.
#[derive(Default)]
pub struct Diagnosis {
    findings: Vec<Finding>,
}

/// Looks at everything that can be looked at. `source` names the pair on a command line.
pub fn diagnose(config: &Config, source: &str, master: Result<Session>, slave: Result<Session>) -> Vec<Finding> {
    let mut report = Diagnosis::default();
    let mut master = report.opened(Side::Master, master);
    let mut slave = report.opened(Side::Slave, slave);
    for session in [&mut master, &mut slave].into_iter().flatten() {
        server::examine(&mut report, config, session);
        let is_slave = session.side() == Side::Slave;
        report.ask(session, &[("locks", "nobody keeps pyreplica waiting")], sql::DOCTOR_LOCKS, &[&is_slave]);
        let subjects = [
            ("owners", "what is pyreplica's own belongs to whom it should"),
            ("grants", "nobody but its owner and the daemon may use it"),
        ];
        report.ask(session, &subjects, sql::DOCTOR_OWNERS, &[]);
    }
    let log = master.as_mut().and_then(|master| server::examine_log(&mut report, config, master));
    let worker = match (&log, &mut master) {
        (Some(_), Some(master)) => server::examine_daemon(&mut report, config, source, master),
        _ => Worker::None,
    };
    let sessions = [&mut master, &mut slave].into_iter().flatten();
    in_doubt::examine(&mut report, config, log, worker == Worker::Daemon, sessions);
    if let (Some(origin), Some(slave)) = (log, &mut slave) {
        copy::examine(&mut report, &pair_key(origin, &config.slave_field), source, worker, slave);
    }
    tables::examine(&mut report, config, log.is_some(), master.as_mut(), slave.as_mut());
    if let (Some(master), Some(slave)) = (&mut master, &mut slave) {
        pair::examine(&mut report, master, slave);
    }
    report.findings
}

impl Diagnosis {
    /// Adds a finding; what mends it is added by the caller.
    fn add(&mut self, level: Level, side: Option<Side>, subject: &str, text: impl fmt::Display) -> &mut Finding {
        self.findings.push(Finding {
            level,
            side,
            subject: subject.to_string(),
            text: text.to_string(),
            mends: Vec::new(),
            advice: None,
        });
        self.findings.last_mut().expect("it was pushed")
    }

    /// What a query has found; what it looked at and found nothing about is in order.
    fn ask(&mut self, session: &mut Session, subjects: &[(&str, &str)], sql: &str, params: &[&(dyn ToSql + Sync)]) {
        let (side, operation) = (session.side(), format!("check {}", subjects[0].0));
        let Some(rows) = self.tried(Some(side), subjects[0].0, session.query(&operation, sql, params)) else { return };
        for row in &rows {
            let level = match row.get("level") {
                "note" => Level::Note,
                "warning" => Level::Warning,
                _ => Level::Failure,
            };
            let finding = self.add(level, Some(side), row.get("subject"), row.get::<_, String>("text"));
            finding.mends = row.get::<_, Option<Vec<String>>>("mends").unwrap_or_default();
            finding.advice = row.get("advice");
        }
        for (subject, fine) in subjects {
            if !rows.iter().any(|row| row.get::<_, &str>("subject") == *subject) {
                self.add(Level::Ok, Some(side), subject, fine);
            }
        }
    }

    /// A check that can't be made is a finding too.
    fn tried<T>(&mut self, side: Option<Side>, subject: &str, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                let finding = self.add(
                    Level::Warning,
                    side,
                    subject,
                    format!("cannot {}: {}", error.operation(), error.detail()),
                );
                finding.advice = error.hint().map(str::to_string);
                None
            }
        }
    }

    fn failed(&mut self, subject: &str, error: &Error) -> &mut Finding {
        let finding = self.add(
            Level::Failure,
            error.side(),
            subject,
            format!("cannot {}: {}", error.operation(), error.detail()),
        );
        finding.advice = error.hint().map(str::to_string);
        finding
    }

    fn opened(&mut self, side: Side, session: Result<Session>) -> Option<Session> {
        let opened = session.and_then(|mut session| {
            session.message("set the session up", sql::LOOK_ONLY)?;
            Ok(session)
        });
        match opened {
            Ok(session) => Some(session),
            Err(error) => {
                self.failed("connection", &error).side = Some(side);
                None
            }
        }
    }
}

impl Finding {
    fn mend(&mut self, statement: impl Into<String>) -> &mut Finding {
        self.mends.push(statement.into());
        self
    }

    fn advise(&mut self, advice: impl Into<String>) -> &mut Finding {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Failure => "failure",
        })
    }
}

/// May the daemon keep the slave's triggers from running? The session is as before.
fn takes_replica_role(slave: &mut Session) -> Result<bool> {
    let takes = checks::take_replica_role(slave)?;
    if takes {
        slave.message("leave the replica role", "reset session_replication_role")?;
    }
    Ok(takes)
}
