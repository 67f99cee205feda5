//! Connects to both servers of a pair, for a verb, in the direction in force. It takes neither the daemon's locks nor the
//! replica role, and the verb can report a server that is down.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::dsn::Dsn;
use crate::config::settings::Config;
use crate::server::checks::same_database;
use crate::server::connect;
use crate::server::ours::refuse_untrusted_tables;
use crate::server::role::{self, Roles, Said};
use crate::server::session::Session;
use std::thread;
use std::time::Duration;

/// The session on each side, or why there is none.
pub struct BothSides {
    pub master: Result<Session>,
    pub slave: Result<Session>,
    /// The settings, with the connection strings in the direction in force.
    pub config: Config,
    /// Who is the master. None if a side can't be asked, or if the two contradict each other.
    pub roles: Option<Roles>,
}

/// Sessions that a caller keeps for its next question.
#[derive(Default)]
pub struct Kept {
    /// The master's, and the slave's.
    pub sessions: [Option<Session>; 2],
    pub is_reversed: bool,
}

/// What one side says when it is connected.
type Asked = (Result<Session>, Option<Said>);

/// Connects to both at the same time, so that two servers that are down take no longer than one. `verb` becomes part of
/// `application_name`. `control` can cancel the sessions' statements from then on.
pub fn open(config: &Config, verb: &str, control: &Control) -> BothSides {
    let sides = open_again(config, verb, Kept::default(), None);
    control.set_reversed(sides.is_reversed);
    let sessions = [&sides.both.master, &sides.both.slave];
    control.set_cancellers(sessions.into_iter().flatten().map(Session::canceller).collect());
    sides.both
}

/// Both sides, and whether DSN1 is the master, as far as is known.
pub struct Opened {
    pub both: BothSides,
    pub is_reversed: bool,
}

/// The same with sessions that are open already. One that is lost meanwhile is opened anew. With a limit, a server that does not
/// answer is given up after it, and so is each later wait of the sessions.
pub fn open_again(config: &Config, verb: &str, kept: Kept, limit: Option<Duration>) -> Opened {
    let Kept { sessions, is_reversed: was_reversed } = kept;
    let way = Way { config: &config.directed(was_reversed), label: format!("{} {verb}", config.name), limit };
    let (mut master, mut slave) = way.ask_both(sessions);
    let (first, second) = if was_reversed { (&slave.1, &master.1) } else { (&master.1, &slave.1) };
    let roles = match (first, second) {
        (Some(first), Some(second)) => Some(role::decide(first, second)),
        _ => None,
    };
    let alone = |said: &Option<Said>, is_second| said.as_ref().is_some_and(|said| role::guess(said, is_second));
    let is_reversed = match &roles {
        Some(Ok(roles)) => roles.is_reversed,
        Some(Err(_)) => false,
        None => alone(first, false) || alone(second, true),
    };
    let config = config.directed(is_reversed);
    if is_reversed != was_reversed {
        // Each session is set up for its side.
        drop((master, slave));
        let way = Way { config: &config, ..way };
        (master, slave) = way.ask_both([None, None]);
    }
    let is_one = matches!((&master.1, &slave.1), (Some(one), Some(other)) if one.identity == other.identity);
    let (mut master, mut slave) = (master.0, slave.0);
    if is_one {
        // No verb has anything to do there.
        slave = Err(same_database());
    }
    let roles = match roles {
        Some(Err(error)) => {
            master = Err(error);
            None
        }
        other => other.and_then(Result::ok),
    };
    Opened { both: BothSides { master, slave, config, roles }, is_reversed }
}

/// The same for a verb that needs both servers.
pub fn open_both(config: &Config, verb: &str, control: &Control) -> Result<(Session, Session)> {
    let BothSides { master, slave, .. } = open(config, verb, control);
    Ok((master?, slave?))
}

/// How to connect to the two sides.
struct Way<'a> {
    /// In the direction in which the sessions are to be.
    config: &'a Config,
    label: String,
    limit: Option<Duration>,
}

impl Way<'_> {
    fn ask_both(&self, kept: [Option<Session>; 2]) -> (Asked, Asked) {
        let [master, slave] = kept;
        thread::scope(|scope| {
            let asked = thread::Builder::new()
                .name("master".into())
                .spawn_scoped(scope, || self.ask(Side::Master, &self.config.master, master))
                .map_err(|e| failed(Side::Master, &e.to_string()));
            let slave = self.ask(Side::Slave, &self.config.slave, slave);
            let joined = |thread: thread::ScopedJoinHandle<'_, Asked>| {
                thread.join().map_err(|_| failed(Side::Master, "the thread panicked"))
            };
            (asked.and_then(joined).unwrap_or_else(|error| (Err(error), None)), slave)
        })
    }

    /// A kept session may be lost, or its server hang: then there is half of the time for a new one.
    fn ask(&self, side: Side, dsn: &Dsn, kept: Option<Session>) -> Asked {
        let field = &self.config.slave_field;
        let half = self.limit.map(|limit| limit / 2);
        if let Some(mut session) = kept.filter(|session| !session.is_lost()) {
            half.into_iter().for_each(|half| session.limit_waits(half));
            let asked = refuse_untrusted_tables(&mut session).and_then(|()| role::said(&mut session, field));
            if let Ok(said) = asked {
                return (Ok(session), Some(said));
            }
        }
        let opened = match half {
            Some(half) => connect::connect_within(half, side, dsn, &self.label),
            None => connect::connect(side, dsn, &self.label),
        };
        let asked = opened.and_then(|mut session| {
            half.into_iter().for_each(|half| session.limit_waits(half));
            let said = role::said(&mut session, field)?;
            Ok((session, said))
        });
        match asked {
            Ok((session, said)) => (Ok(session), Some(said)),
            Err(error) => (Err(error), None),
        }
    }
}

fn failed(side: Side, why: &str) -> Error {
    Error::new(Kind::Internal, Some(side), "connect", why)
}
