//! Connects to the first host of a connection string that can be reached, as libpq does: each address of a host, with or without
//! TLS, or a Unix socket.

use super::client::{self, Client, Failure};
use super::guard::Limits;
use super::line::Line;
use super::refusal;
use super::settings;
use super::socket::{Socket, TIME_TO_DOOR};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::dsn::Dsn;
use crate::server::tls::{self, Tls, Use};
use postgres::Config;
use postgres::config::{SslMode, SslNegotiation};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// SQLSTATE of a server that is starting up or shutting down. Another host of the list may be ready.
const STARTING_UP: &str = "57P03";

/// Tries the hosts in order, as libpq does. It tries the next one if a server cannot be reached, but not if the server
/// refuses the login.
pub(super) fn connect_any(side: Side, hosts: &[Dsn], label: &str) -> Result<Client> {
    let mut failed: Option<Error> = None;
    for dsn in hosts {
        let error = match connect_host(side, dsn, label) {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let is_final = error.kind() == Kind::Config || error.code().is_some_and(|code| code != STARTING_UP);
        let error = match failed {
            Some(before) => refusal::both(&before, error, &format!("at {}", refusal::place(dsn))),
            None => error,
        };
        if is_final {
            return Err(error);
        }
        failed = Some(error);
    }
    Err(failed.expect("a completed connection string has a host"))
}

/// Tries every address of the host, each with its own time limit.
fn connect_host(side: Side, dsn: &Dsn, label: &str) -> Result<Client> {
    let tls = Tls::of(side, dsn)?;
    if let Some(socket) = Socket::of(dsn) {
        return connect_socket(side, dsn, label, &socket, &tls);
    }
    let (mut config, limit) = settings::of(side, dsn, label)?;
    hand_over(&mut config);
    let refused = |failure| refusal::no_connection(side, dsn, &failure);
    let addresses = match dsn.get("host") {
        Some(host) if dsn.get("hostaddr").is_none() && !host.starts_with('/') => {
            client::resolve(host).map_err(refused)?
        }
        _ => Vec::new(),
    };
    if addresses.is_empty() {
        return connect_address(side, dsn, (&config, limit), &tls);
    }
    let mut failed = None;
    for address in addresses {
        let mut config = config.clone();
        config.hostaddr(address);
        match connect_address(side, dsn, (&config, limit), &tls) {
            Err(error) if error.code().is_none_or(|code| code == STARTING_UP) => failed = Some(error),
            settled => return settled,
        }
    }
    Err(failed.expect("there is an address"))
}

/// The line asks for TLS itself, or does without.
fn hand_over(config: &mut Config) {
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
}

fn connect_socket(side: Side, dsn: &Dsn, label: &str, socket: &Arc<Socket>, tls: &Tls) -> Result<Client> {
    let why = match Socket::through_door(dsn) {
        Ok(through_door) => {
            let (mut config, limit) = settings::of(side, &through_door, label)?;
            hand_over(&mut config);
            config.connect_timeout(TIME_TO_DOOR);
            let line = Line { socket: Some(Arc::clone(socket)), ..line(tls, Use::Never, limit) };
            match Client::connect(&config, line) {
                Ok(client) => return Ok(client),
                Err(failure) if socket.is_reached() => return Err(refusal::no_connection(side, dsn, &failure)),
                Err(failure) => failure.to_string(),
            }
        }
        Err(error) => error.to_string(),
    };
    warn_of_loopback(&why);
    let (mut config, limit) = settings::of(side, dsn, label)?;
    config.ssl_mode(SslMode::Disable);
    let failed = |failure| refusal::no_connection(side, dsn, &failure);
    Client::connect(&config, line(tls, Use::Never, limit)).map_err(failed)
}

fn warn_of_loopback(why: &str) {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    if !IS_SAID.swap(true, Relaxed) {
        log::warn!(
            target: "pyreplica",
            "this process cannot connect to itself by TCP (127.0.0.1), so it cannot close a connection by a Unix socket whose \
             server hangs: {why}. hint: is the loopback interface up, and is TCP allowed on it?"
        );
    }
}

/// The caller gives up before the limit of the line is over, and says so.
fn line(tls: &Tls, use_of_tls: Use, limit: Duration) -> Line {
    let limit = limit.saturating_mul(2);
    let (limits, patience) = (Arc::new(Limits::new(limit)), Arc::default());
    Line { tls: tls.connector.clone(), use_of_tls, limit, limits, patience, socket: None }
}

/// Makes the attempts that sslmode asks for. It makes the second one only if that may help.
fn connect_address(side: Side, dsn: &Dsn, (config, limit): (&Config, Duration), tls: &Tls) -> Result<Client> {
    let mut failed: Option<Error> = None;
    for attempt in tls.attempts {
        let failure = match Client::connect(config, line(tls, *attempt, limit)) {
            Ok(client) => return Ok(client),
            Err(failure) => failure,
        };
        let may_retry = match &failure {
            Failure::Refused(error) => {
                let is_about_tls = tls::diagnose(error).is_some();
                let refuses_login = error.code().is_some_and(|code| code.code().starts_with("28"));
                is_about_tls || (refuses_login && (*attempt == Use::Never || tls.has_seen_certificate()))
            }
            Failure::Unresolved(_) => false,
        };
        let error = refusal::no_connection(side, dsn, &failure);
        let way = if *attempt == Use::Never { "without TLS" } else { "with TLS" };
        let error = match failed {
            Some(before) => refusal::both(&before, error, way),
            None => error,
        };
        if !may_retry {
            return Err(error);
        }
        failed = Some(error);
    }
    Err(failed.expect("every mode makes an attempt"))
}
