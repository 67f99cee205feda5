//! Turns errors of the server, the network and TLS into errors with hints for the operator.

use super::client::Failure;
use super::guard::TooMuch;
use crate::base::error::{Error, Kind};
use crate::base::names::Side;
use crate::config::dsn::Dsn;
use crate::server::tls;
use postgres::error::DbError;
use std::error::Error as StdError;
use std::io;

const TOO_MUCH: &str = "no PostgreSQL server sends so much there: is it the right one, and is nobody in between? \
                        sslmode=verify-full makes sure";

/// None unless the server sent more than it may.
pub(super) fn too_much(side: Side, operation: &str, error: &postgres::Error) -> Option<Error> {
    let io = error.source()?.downcast_ref::<io::Error>()?;
    let why = io.get_ref()?.downcast_ref::<TooMuch>()?;
    Some(Error::new(Kind::Connection, Some(side), operation, why).with_hint(TOO_MUCH))
}

/// Why there is no connection.
pub(super) fn no_connection(side: Side, dsn: &Dsn, failure: &Failure) -> Error {
    let operation = format!("connect to {dsn}");
    if let Failure::Refused(error) = failure {
        if let Some(server) = error.as_db_error() {
            return from_server(side, &operation, server);
        }
        if let Some(error) = too_much(side, &operation, error) {
            return error;
        }
        if let Some(tls::TlsFailure { detail, hint }) = tls::diagnose(error) {
            return Error::new(Kind::Login, Some(side), operation, detail).with_hint(hint);
        }
    }
    let reason = failure.to_string();
    // The crate reports a login that it cannot even try as a configuration error. Usually the password is missing.
    if reason.contains("password missing") {
        return Error::new(Kind::Login, Some(side), operation, "the server asks for a password, and none is given")
            .with_hint("put it into the connection string, into PGPASSWORD or into ~/.pgpass");
    }
    if reason.contains("did not use channel binding") {
        return Error::new(Kind::Login, Some(side), operation, "the login was not bound to the TLS channel").with_hint(
            "channel_binding=require needs TLS, and a scram-sha-256 line for this role in the server's pg_hba.conf",
        );
    }
    let is_socket =
        dsn.get("hostaddr").is_none_or(str::is_empty) && dsn.get("host").is_some_and(|host| host.starts_with('/'));
    let hint = match failure {
        Failure::Unresolved(_) => "is the host name right, and does it resolve on this machine?",
        Failure::Refused(_) if is_socket => {
            "is the server running on this machine, and is this the directory of its socket (unix_socket_directories) and its port?"
        }
        Failure::Refused(_) => {
            "is the server running there, and does it accept connections from here (listen_addresses, firewall)?"
        }
    };
    Error::new(Kind::Connection, Some(side), operation, reason).with_hint(hint)
}

/// The error of the second of two attempts, with the reason of the first. `second_way` says how the second differed.
pub(super) fn both(first: &Error, second: Error, second_way: &str) -> Error {
    if first.detail() == second.detail() {
        return second;
    }
    let detail = format!("{}; {second_way}: {}", first.detail(), second.detail());
    second.with_detail(detail).with_hint(first.hint().unwrap_or_default())
}

pub(super) fn from_server(side: Side, operation: &str, error: &DbError) -> Error {
    let code = error.code().code();
    let kind = match code {
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03" | "25P04" => Kind::Connection,
        "3D000" => Kind::Login,
        "40001" | "40P01" | "55P03" | "57014" => Kind::Contention,
        "42501" | "42P01" | "42883" | "3F000" | "25006" => Kind::Setup,
        _ if code.starts_with("08") || code.starts_with("53") => Kind::Connection,
        _ if code.starts_with("28") => Kind::Login,
        _ => Kind::Internal,
    };
    let mut detail = error.message().to_string();
    if let Some(more) = error.detail() {
        detail.push_str(&format!(" ({})", more.replace('\n', " ")));
    }
    let hint = match code {
        "28P01" => Some("wrong password: look at the connection string, PGPASSWORD and ~/.pgpass"),
        "28000" if detail.contains("client certificate") => {
            Some("name a certificate and its key by sslcert= and sslkey= (~/.postgresql/postgresql.crt and .key)")
        }
        "28000" if detail.contains("certificate authentication") => {
            Some("the certificate's CN must be the role's name, or pg_ident.conf must map it")
        }
        "28000" if detail.contains("no encryption") => Some(
            "no line of pg_hba.conf of that server lets this role connect to this database from here: add one; or if there is one for TLS \
             only (hostssl), use sslmode=require or stricter",
        ),
        "28000" if detail.contains("not permitted to log in") => Some("on that server: ALTER ROLE ... LOGIN"),
        "28000" if detail.contains("Peer authentication") || detail.contains("Ident authentication") => Some(
            "pg_hba.conf asks for the user of the operating system: run this as that user, or connect by host= with a password",
        ),
        "3D000" => Some("create the database there, or name another one: dbname= in the connection string"),
        "53100" => Some("that server's disk is full: make room there; a daemon tries again by itself"),
        "53200" if operation.starts_with("prepare transaction") => Some(
            "all of that server's max_prepared_transactions are in use: commit or roll back those that nobody needs \
             (SELECT * FROM pg_prepared_xacts), or raise the setting and restart that server; a daemon tries again by itself",
        ),
        "53200" if detail.contains("shared memory") => Some(
            "one transaction needs more locks than that server has room for: raise its max_locks_per_transaction and restart it; \
             a daemon tries again by itself",
        ),
        "53300" if detail.contains("for role") => Some(
            "end sessions of this role, or raise its limit: ALTER ROLE ... CONNECTION LIMIT ...; a daemon tries again by itself",
        ),
        "53300" => Some(
            "end sessions on that server, or raise its max_connections and restart it; a daemon tries again by itself",
        ),
        "55P03" => {
            Some("another session holds a lock there: pyreplica doctor names it; a daemon tries again by itself")
        }
        "57P01" | "57P02" => {
            Some("the server was stopped, or somebody ended the session: is the server running again?")
        }
        "57P03" => Some("the server is starting, stopping or recovering, see its log; a daemon tries again by itself"),
        "25006" => Some("that server is a standby, which is read-only: connect to its primary"),
        "28000" => Some("there is no such role, or pg_hba.conf of that server does not let it connect from here"),
        _ => error.hint(),
    };
    let mut result = Error::new(kind, Some(side), operation, detail).with_code(code);
    if error.detail().is_some() && !has_detail_without_values(kind, code) {
        result = result.with_bare_detail(error.message());
    }
    match hint {
        Some(hint) => result.with_hint(hint),
        None => result,
    }
}

/// Whether the server's DETAIL is about sessions, locks or objects. About rows it quotes them: `Key (id)=(5) already exists`.
fn has_detail_without_values(kind: Kind, code: &str) -> bool {
    matches!(kind, Kind::Connection | Kind::Login | Kind::Contention | Kind::Setup) || code.starts_with("42")
}

/// A host and a port, as an error names them.
pub(super) fn place(dsn: &Dsn) -> String {
    let host = dsn.get("host").or(dsn.get("hostaddr")).unwrap_or_default();
    format!("{host}:{}", dsn.get("port").unwrap_or_default())
}
