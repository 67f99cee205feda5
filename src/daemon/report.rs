//! What the daemon leaves on the master about its failures, so that `pyreplica status` tells them from anywhere. A session of
//! its own: those of the pair are lost with the failure. Best effort; the log file has it all.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::settings::Config;
use crate::daemon::sql;
use crate::health::sql as health_sql;
use crate::server::connect;
use crate::server::session::{Session, ToSql};

/// Longer messages, such as a statement with a large value, are cut.
const LONGEST_TEXT: usize = 4000;

const TOO_MANY_CONNECTIONS: &str = "53300";

/// An attempt has failed, or everything that was pending has been replayed.
pub fn leave(config: &Config, error: Option<&Error>) {
    let attempt = || match error {
        Some(error) if is_worth_telling(error) => note(config, error),
        Some(_) => Ok(()),
        None => with_master(config, |master| {
            master.execute("leave the recovery", sql::NOTE_RECOVERY, &[&config.slave_field])
        }),
    };
    if let Err(error) = attempt() {
        log::debug!(target: &config.name, "{error}");
    }
}

/// Whether it is the master that cannot be had. One that is short of something, such as slots for prepared transactions, is
/// there all the same.
pub fn is_master_away(error: &Error) -> bool {
    let is_short = error.code().is_some_and(|code| code.starts_with("53") && code != TOO_MANY_CONNECTIONS);
    error.side() == Some(Side::Master) && matches!(error.kind(), Kind::Connection | Kind::Login) && !is_short
}

/// Where the master itself is what fails, whoever asks finds that out.
fn is_worth_telling(error: &Error) -> bool {
    !is_master_away(error) && !matches!(error.kind(), Kind::Stopped | Kind::Busy)
}

fn note(config: &Config, error: &Error) -> Result<()> {
    let side = error.side().map(|side| side.to_string());
    let (message, hint) = (cut(&error.to_string()), error.hint().map(cut));
    let change = error.change().map(|(id, _)| id.0);
    with_master(config, |master| {
        let params: [&(dyn ToSql + Sync); 6] = [&config.slave_field, &config.name, &side, &message, &hint, &change];
        master.execute("leave the error", sql::NOTE_ERROR, &params)
    })
}

fn with_master(config: &Config, note: impl Fn(&mut Session) -> Result<u64>) -> Result<()> {
    let mut master = connect::connect(Side::Master, &config.master, &format!("{} report", config.name))?;
    if master.query_one("look for errors", health_sql::MAY_NOTE_ERRORS, &[])?.get(0) {
        note(&mut master)?;
    }
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}
