//! Records the daemon's failures on the master, so that `pyreplica status` can show them from any machine. It uses a
//! session of its own, because the failure may have ended the pair's sessions. If it cannot record a failure, it does
//! not try again: the log file has all of them.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::settings::Config;
use crate::daemon::sql;
use crate::pair::failure;
use crate::server::connect;
use crate::server::session::{Session, ToSql};
use crate::server::sql as server_sql;
use std::time::Duration;

/// Longer messages, such as a statement with a large value, are cut.
const LONGEST_TEXT: usize = 4000;

/// How long a server may take to answer a short question: to record a failure, or to say what a session does.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(15);

const TOO_MANY_CONNECTIONS: &str = "53300";

/// Records that an attempt has failed, or, without an error, that the failure is over. If another process replicates the pair, the
/// failure is none of the pair's, only of whoever has started this process.
pub fn record(config: &Config, control: &Control, error: Option<&Error>) {
    let attempt = || match error {
        Some(error) if must_be_recorded(error) => record_error(config, control, error),
        Some(_) => Ok(()),
        None => with_master(config, |master| {
            failure::is_over(&config.name, &config.slave_field, master);
            Ok(())
        }),
    };
    if let Err(error) = attempt() {
        log::debug!(target: &config.name, "{error}");
    }
}

/// Whether the master cannot be reached. A master that lacks a resource, such as slots for prepared transactions, can
/// be reached.
pub fn is_master_away(error: &Error) -> bool {
    let lacks_resource = error.code().is_some_and(|code| code.starts_with("53") && code != TOO_MANY_CONNECTIONS);
    error.side() == Some(Side::Master) && matches!(error.kind(), Kind::Connection | Kind::Login) && !lacks_resource
}

/// A failure to reach the master need not be recorded: `pyreplica status` notices it itself.
fn must_be_recorded(error: &Error) -> bool {
    !is_master_away(error) && !matches!(error.kind(), Kind::Stopped | Kind::Busy)
}

fn record_error(config: &Config, control: &Control, error: &Error) -> Result<()> {
    let side = error.side().map(|side| side.to_string());
    let (message, hint) = (cut(&error.to_string()), error.hint().map(cut));
    let change = error.change().map(|(id, _)| id.0);
    with_master(config, |master| {
        let params: [&(dyn ToSql + Sync); 6] = [&config.slave_field, &config.name, &side, &message, &hint, &change];
        if failure::may_record(master)? && !is_anothers(config, control, master)? {
            master.execute("record the error", sql::RECORD_ERROR, &params)?;
        }
        Ok(())
    })
}

/// Whether another process replicates to this slave.
fn is_anothers(config: &Config, control: &Control, master: &mut Session) -> Result<bool> {
    let daemons = master.query("look for the daemon", server_sql::DAEMON, &[&config.slave_field])?;
    Ok(daemons.iter().any(|row| row.get("replicates") && !control.is_own(row.get("pid"))))
}

fn with_master(config: &Config, work: impl Fn(&mut Session) -> Result<()>) -> Result<()> {
    let mut master = connect::connect(Side::Master, &config.master, &format!("{} report", config.name))?;
    master.limit_waits(ANSWER_LIMIT);
    work(&mut master)
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}
