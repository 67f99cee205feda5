//! Refuses a connection pooler that gives each transaction another session of the server. What pyreplica sets in a session
//! would then hold for the application's statements too, and locks and LISTEN would be lost.
//!
//! Nothing may be set before this is known. Usually the server's own address shows that nobody is in between. Otherwise a
//! second connection begins a transaction: if it gets the first one's session, or the first one gets another session
//! meanwhile, there is such a pooler.

use super::{Session, client};
use crate::base::error::{Error, Kind, Result};
use crate::config::dsn::Dsn;

const ADDRESS: &str = "select pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port()::pg_catalog.text, \
     pg_catalog.current_setting('port')";
const SESSION: &str = "select pg_catalog.pg_backend_pid()::pg_catalog.text";
const SESSION_IN_TRANSACTION: &str = "begin; select pg_catalog.pg_backend_pid()::pg_catalog.text";

/// An error if there is such a pooler. `again` makes another connection.
pub(super) fn refuse(session: &mut Session, hosts: &[Dsn], again: impl Fn() -> Result<Session>) -> Result<()> {
    let address = session.text_rows("look at the server's address", ADDRESS)?;
    if is_direct(hosts, address.first().map(Vec::as_slice).unwrap_or_default()) {
        return Ok(());
    }
    let before = pid(session, SESSION)?;
    // If there is no second connection, nobody knows.
    let Ok(mut other) = again() else { return Ok(()) };
    // A pooler that pools statements refuses the transaction.
    let others = pid(&mut other, SESSION_IN_TRANSACTION).unwrap_or_default();
    let after = pid(session, SESSION)?;
    drop(other);
    if others.is_some() && others != before && after == before {
        return Ok(());
    }
    let shown = hosts.last().map(Dsn::to_string).unwrap_or_default();
    let detail = "a connection pooler in between gives each transaction another session of the server";
    Err(Error::new(Kind::Setup, Some(session.side), format!("connect to {shown}"), detail).with_hint(
        "connect to the server itself, or through a pool that keeps a session for each client (pgbouncer: pool_mode=session). \
         Nothing was set in the pool's sessions",
    ))
}

/// Whether the server has the address that was connected to.
fn is_direct(hosts: &[Dsn], server: &[Option<String>]) -> bool {
    let [address, port, setting] = server else { return false };
    hosts.iter().any(|dsn| {
        let own = dsn.get("port").unwrap_or_default();
        let host = dsn.get("hostaddr").or(dsn.get("host")).unwrap_or_default();
        if host.starts_with('/') || host.starts_with('@') {
            return address.is_none() && setting.as_deref() == Some(own);
        }
        let is_same = |found: &std::net::IpAddr| Some(found.to_string()) == *address;
        let addresses = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => client::resolve(host).unwrap_or_default(),
        };
        port.as_deref() == Some(own) && addresses.iter().any(is_same)
    })
}

fn pid(session: &mut Session, query: &str) -> Result<Option<String>> {
    let rows = session.text_rows("look at the server's process", query)?;
    Ok(rows.into_iter().flatten().flatten().next())
}
