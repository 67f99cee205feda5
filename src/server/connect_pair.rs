//! Connects to both servers of a pair, for a verb, in the direction in force. It takes neither the daemon's locks nor the
//! replica role, and the verb can report a server that is down.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::settings::Config;
use crate::server::connect;
use crate::server::role::{self, Roles, Said};
use crate::server::session::Session;
use std::thread;

/// The session on each side, or why there is none.
pub struct BothSides {
    pub master: Result<Session>,
    pub slave: Result<Session>,
    /// The settings, with the connection strings in the direction in force.
    pub config: Config,
    /// Who is the master. None if a side can't be asked, or if the two contradict each other.
    pub roles: Option<Roles>,
}

/// Connects to both at the same time, so that two servers that are down take no longer than one. `verb` becomes part of
/// `application_name`. `control` can cancel the sessions' statements from then on.
pub fn open(config: &Config, verb: &str, control: &Control) -> BothSides {
    let mut sides = connect_both(config, verb);
    let field = &config.slave_field;
    let mut said = [&mut sides.0, &mut sides.1].map(|side| {
        let asked = side.as_mut().ok().map(|session| role::said(session, field));
        match asked {
            Some(Ok(said)) => Some(said),
            Some(Err(error)) => {
                *side = Err(error);
                None
            }
            None => None,
        }
    });
    let roles = match (&said[0], &said[1]) {
        (Some(first), Some(second)) => Some(role::decide(first, second)),
        _ => None,
    };
    let alone = |said: &mut Option<Said>, is_second| said.take().is_some_and(|said| role::guess(&said, is_second));
    let is_reversed = match &roles {
        Some(Ok(roles)) => roles.is_reversed,
        Some(Err(_)) => false,
        None => alone(&mut said[0], false) || alone(&mut said[1], true),
    };
    let config = config.directed(is_reversed);
    if is_reversed {
        // Each session is set up for its side.
        drop(sides);
        sides = connect_both(&config, verb);
    }
    let (mut master, slave) = sides;
    let roles = match roles {
        Some(Err(error)) => {
            master = Err(error);
            None
        }
        other => other.and_then(Result::ok),
    };
    let sides = BothSides { master, slave, config, roles };
    control.set_reversed(is_reversed);
    control.set_cancellers([&sides.master, &sides.slave].into_iter().flatten().map(Session::canceller).collect());
    sides
}

/// The same for a verb that needs both servers.
pub fn open_both(config: &Config, verb: &str, control: &Control) -> Result<(Session, Session)> {
    let BothSides { master, slave, .. } = open(config, verb, control);
    Ok((master?, slave?))
}

fn connect_both(config: &Config, verb: &str) -> (Result<Session>, Result<Session>) {
    let label = format!("{} {verb}", config.name);
    let connect = |side, dsn| connect::connect(side, dsn, &label);
    thread::scope(|scope| {
        let master = thread::Builder::new()
            .name("master".into())
            .spawn_scoped(scope, || connect(Side::Master, &config.master))
            .map_err(|e| failed(Side::Master, &e.to_string()));
        let slave = connect(Side::Slave, &config.slave);
        let joined = |thread: thread::ScopedJoinHandle<'_, Result<Session>>| {
            thread.join().unwrap_or_else(|_| Err(failed(Side::Master, "the thread panicked")))
        };
        (master.and_then(joined), slave)
    })
}

fn failed(side: Side, why: &str) -> Error {
    Error::new(Kind::Internal, Some(side), "connect", why)
}
