//! Checks on both sides what replication needs, and changes nothing. Each finding comes with the statements that fix
//! it.
//!
//! `checks.rs` stops at the first thing that keeps the daemon from starting. This module goes on and checks what it
//! can, also if one server is down, nothing is installed yet, or the role has few rights.

mod copy;
mod in_doubt;
mod lost_rows;
mod pair;
mod roles;
mod sequences;
mod server;
mod whole_rows;
mod tables;

use crate::base::error::{Error, ON_PRIMARY, Result, is_for_primary};
use crate::base::names::Side;
use crate::commit::twophase::pair_key;
use crate::config::settings::Config;
use crate::health::sql;
use crate::server::role::Roles;
use crate::server::session::{Session, ToSql};
use std::fmt;

/// How serious a finding is. A note is worth knowing, but nobody has to do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    Note,
    Warning,
    Failure,
}

/// What is replaying or copying to the slave now.
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
    /// None if it is about both sides.
    pub side: Option<Side>,
    /// What was checked. The names are stable, for programs.
    pub subject: String,
    pub text: String,
    /// Complete statements that fix it, to run on that side.
    pub fixes: Vec<String>,
    /// What else to do or to consider.
    pub advice: Option<String>,
}

/// So many statements of a finding are kept where memory counts.
const MOST_FIXES: usize = 5;

/// The findings so far.
#[derive(Default)]
pub struct Diagnosis {
    findings: Vec<Finding>,
}

/// Checks everything that can be checked. `source` names the pair on a command line.
pub fn diagnose(
    config: &Config,
    source: &str,
    roles: Option<&Roles>,
    master: Result<Session>,
    slave: Result<Session>,
) -> Vec<Finding> {
    let mut report = Diagnosis::default();
    let mut master = report.opened(Side::Master, master);
    let mut slave = report.opened(Side::Slave, slave);
    for session in [&mut master, &mut slave].into_iter().flatten() {
        server::examine(&mut report, config, session);
        let is_slave = session.side() == Side::Slave;
        report.ask(session, &[("locks", "no other session makes pyreplica wait")], sql::DOCTOR_LOCKS, &[&is_slave]);
        let subjects = [
            ("owners", "pyreplica's own objects belong to the right roles"),
            ("grants", "only their owner and the daemon may use them"),
        ];
        report.ask(session, &subjects, &sql::DOCTOR_OWNERS, &[]);
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
    tables::examine(&mut report, &config.tables, log.is_some(), master.as_mut(), slave.as_mut());
    roles::examine(&mut report, config, source, roles, master.as_mut(), slave.as_mut());
    if let (Some(master), Some(slave)) = (&mut master, &mut slave) {
        if pair::examine(&mut report, master, slave) {
            sequences::examine(&mut report, config, master, slave);
        }
    }
    for standby in [&master, &slave].into_iter().flatten().filter(|session| session.is_standby()) {
        let findings = report.findings.iter_mut().filter(|finding| finding.side == Some(standby.side()));
        findings.for_each(Finding::move_to_primary);
    }
    report.findings
}

impl Diagnosis {
    /// Adds a finding. The caller adds the statements that fix it.
    fn add(&mut self, level: Level, side: Option<Side>, subject: &str, text: impl fmt::Display) -> &mut Finding {
        self.findings.push(Finding {
            level,
            side,
            subject: subject.to_string(),
            text: text.to_string(),
            fixes: Vec::new(),
            advice: None,
        });
        self.findings.last_mut().expect("it was pushed")
    }

    /// Adds the findings that a query returns. It adds "ok" for each of its subjects that has no finding.
    fn ask(&mut self, session: &mut Session, subjects: &[(&str, &str)], sql: &str, params: &[&(dyn ToSql + Sync)]) {
        let (side, operation) = (session.side(), format!("check {}", subjects[0].0));
        let Some(rows) = self.ok_or_warning(Some(side), subjects[0].0, session.query(&operation, sql, params)) else {
            return;
        };
        for row in &rows {
            let level = match row.get("level") {
                "note" => Level::Note,
                "warning" => Level::Warning,
                _ => Level::Failure,
            };
            let finding = self.add(level, Some(side), row.get("subject"), row.get::<_, String>("text"));
            finding.fixes = row.get::<_, Option<Vec<String>>>("fixes").unwrap_or_default();
            finding.advice = row.get("advice");
        }
        for (subject, fine) in subjects {
            if !rows.iter().any(|row| row.get::<_, &str>("subject") == *subject) {
                self.add(Level::Ok, Some(side), subject, fine);
            }
        }
    }

    /// Returns the value. An error becomes a finding, which says that the check could not be made.
    fn ok_or_warning<T>(&mut self, side: Option<Side>, subject: &str, outcome: Result<T>) -> Option<T> {
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

    fn add_failure(&mut self, subject: &str, error: &Error) -> &mut Finding {
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
            session.message("set the session up", sql::READ_ONLY)?;
            Ok(session)
        });
        match opened {
            Ok(session) => Some(session),
            // About both sides: the other one has the same error, or none.
            Err(error) if error.side().is_none() => {
                if !self.findings.iter().any(|finding| finding.subject == "databases") {
                    self.add_failure("databases", &error);
                }
                None
            }
            Err(error) => {
                self.add_failure("connection", &error).side = Some(side);
                None
            }
        }
    }
}

impl Finding {
    /// Cuts what is long. A statement that would be cut is left out.
    pub fn cut(&mut self, longest: usize) {
        let cut = |text: &mut String| {
            if let Some((end, _)) = text.char_indices().nth(longest) {
                text.truncate(end);
                text.push_str(" ...");
            }
        };
        cut(&mut self.text);
        self.advice.iter_mut().for_each(cut);
        self.fixes.retain(|fix| fix.len() <= longest);
        self.fixes.truncate(MOST_FIXES);
    }

    fn fix(&mut self, statement: impl Into<String>) -> &mut Finding {
        self.fixes.push(statement.into());
        self
    }

    /// Says of statements that a standby does not run where they are to be run.
    fn move_to_primary(&mut self) {
        if self.fixes.iter().chain(&self.advice).any(|text| is_for_primary(text)) {
            let alone = ON_PRIMARY.trim_matches(['(', ')']).to_string();
            self.advice = Some(self.advice.take().map_or(alone, |advice| format!("{advice} {ON_PRIMARY}")));
        }
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
