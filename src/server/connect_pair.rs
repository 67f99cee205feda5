//! Connects to both servers of a pair, for a verb. It takes neither the daemon's locks nor the replica role, and the
//! verb can report a server that is down.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::settings::Config;
use crate::server::connect;
use crate::server::session::Session;
use std::thread;

/// The session on each side, or why there is none.
pub struct BothSides {
    pub master: Result<Session>,
    pub slave: Result<Session>,
}

/// Connects to both at the same time, so that two servers that are down take no longer than one. `verb` becomes part of
/// `application_name`. `control` can cancel the sessions' statements from then on.
pub fn open(config: &Config, verb: &str, control: &Control) -> BothSides {
    let label = format!("{} {verb}", config.name);
    let connect = |side, dsn| connect::connect(side, dsn, &label);
    let (master, slave) = thread::scope(|scope| {
        let master = thread::Builder::new()
            .name("master".into())
            .spawn_scoped(scope, || connect(Side::Master, &config.master))
            .map_err(|e| failed(Side::Master, &e.to_string()));
        let slave = connect(Side::Slave, &config.slave);
        let joined = |thread: thread::ScopedJoinHandle<'_, Result<Session>>| {
            thread.join().unwrap_or_else(|_| Err(failed(Side::Master, "the thread panicked")))
        };
        (master.and_then(joined), slave)
    });
    let sides = BothSides { master, slave };
    control.set_cancellers([&sides.master, &sides.slave].into_iter().flatten().map(Session::canceller).collect());
    sides
}

/// The same for a verb that needs both servers.
pub fn open_both(config: &Config, verb: &str, control: &Control) -> Result<(Session, Session)> {
    let BothSides { master, slave } = open(config, verb, control);
    Ok((master?, slave?))
}

fn failed(side: Side, why: &str) -> Error {
    Error::new(Kind::Internal, Some(side), "connect", why)
}
