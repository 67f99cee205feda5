//! A session on one of the two servers, over the blocking API of the postgres crate, which only this file imports.

use crate::control::Canceller;
use crate::dsn::Dsn;
use crate::error::{Error, Kind, Result};
use crate::libpq;
use crate::names::Side;
use crate::sql;
use fallible_iterator::FallibleIterator;
use postgres::config::{ChannelBinding, SslMode, TargetSessionAttrs};
use postgres::error::DbError;
use postgres::{Client, NoTls, SimpleQueryMessage, Statement};
use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

pub use postgres::Row;
pub use postgres::types::ToSql;

/// A server that does not answer within this time is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A dead network is noticed after idle + retries * interval; the system's default is two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_RETRIES: u32 = 3;

/// The same for data that is never acknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// A text row of a simple query: one value a column.
pub type TextRow = Vec<Option<String>>;

pub struct Session {
    side: Side,
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Session {
    /// Connects and sets the session up. `label` becomes part of `application_name`, so that `pg_stat_activity` tells
    /// which pair a session belongs to; `origin` is what the trigger notes for changes made in the session.
    pub fn connect(side: Side, dsn: &Dsn, label: &str, origin: &str) -> Result<Session> {
        let dsn = libpq::complete(dsn)?;
        let settings = client_config(side, &dsn, label)?;
        let client = settings.connect(NoTls).map_err(|error| connect_error(side, &dsn, &error))?;
        let mut session = Session { side, client, statements: HashMap::new() };
        session.set_up(origin)?;
        Ok(session)
    }

    /// Gives the session its settings, also after a free statement may have changed them.
    pub fn set_up(&mut self, origin: &str) -> Result<()> {
        // DEALLOCATE ALL does not spare the session's own statements.
        self.statements.clear();
        self.query("set the session up", sql::SESSION, &[&origin]).map(drop)
    }

    pub fn side(&self) -> Side {
        self.side
    }

    /// Runs a query whose statement is prepared once a session.
    pub fn query(&mut self, operation: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let run = |session: &mut Session| {
            let statement = session.prepared(sql)?;
            session.client.query(&statement, params)
        };
        run(self).map_err(|error| self.error(operation, &error))
    }

    /// The one row of a query that always has one.
    pub fn query_one(&mut self, operation: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        let rows = self.query(operation, sql, params)?;
        rows.into_iter()
            .next()
            .ok_or_else(|| Error::new(Kind::Internal, Some(self.side), operation, "the server sent no row"))
    }

    /// Runs a statement that is prepared once a session; how many rows it touched.
    pub fn execute(&mut self, operation: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        let run = |session: &mut Session| {
            let statement = session.prepared(sql)?;
            session.client.execute(&statement, params)
        };
        run(self).map_err(|error| self.error(operation, &error))
    }

    /// Sends statements as one message; how many rows each of them touched.
    pub fn message(&mut self, operation: &str, sql: &str) -> Result<Vec<u64>> {
        let answers = self.client.simple_query(sql).map_err(|error| self.error(operation, &error))?;
        let counts = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::CommandComplete(count) => Some(*count),
            _ => None,
        });
        Ok(counts.collect())
    }

    /// The rows of one statement, as text.
    pub fn text_rows(&mut self, operation: &str, sql: &str) -> Result<Vec<TextRow>> {
        let answers = self.client.simple_query(sql).map_err(|error| self.error(operation, &error))?;
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|n| row.get(n).map(str::to_string)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Waits for a notification; false when none came in time.
    pub fn wait_for_notification(&mut self, timeout: Duration) -> Result<bool> {
        let next = self.client.notifications().timeout_iter(timeout).next();
        match next {
            Ok(Some(_)) => Ok(true),
            Ok(None) if self.client.is_closed() => Err(self.closed("wait for notifications")),
            Ok(None) => Ok(false),
            Err(error) => Err(self.error("wait for notifications", &error)),
        }
    }

    /// Something that makes the server give up this session's statement in hand, from another thread.
    pub fn canceller(&self) -> Canceller {
        let token = self.client.cancel_token();
        Box::new(move || {
            if let Err(error) = token.cancel_query(NoTls) {
                log::debug!(target: "pyreplica", "cannot cancel: {error}");
            }
        })
    }

    pub fn backend_pid(&mut self) -> Result<i32> {
        Ok(self.query_one("ask for the process id", "select pg_backend_pid()", &[])?.get(0))
    }

    fn prepared(&mut self, sql: &str) -> std::result::Result<Statement, postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql.to_string(), statement.clone());
        Ok(statement)
    }

    fn closed(&self, operation: &str) -> Error {
        Error::new(Kind::Connection, Some(self.side), operation, "the server closed the connection")
    }

    fn error(&self, operation: &str, error: &postgres::Error) -> Error {
        match error.as_db_error() {
            Some(server) => server_error(self.side, operation, server),
            None => Error::new(Kind::Connection, Some(self.side), operation, error),
        }
    }
}

fn client_config(side: Side, dsn: &Dsn, label: &str) -> Result<postgres::Config> {
    let mut config = postgres::Config::new();
    config
        .application_name(&format!("pyreplica {label}"))
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(USER_TIMEOUT)
        .notice_callback(|notice| log::trace!(target: "pyreplica", "{}: {}", notice.severity(), notice.message()));
    for (key, value) in dsn.iter() {
        apply(&mut config, key, value)
            .map_err(|reason| Error::new(Kind::Config, Some(side), format!("use {key}={value}"), reason))?;
    }
    Ok(config)
}

/// One libpq keyword; those that only steer how libpq itself works have no effect here.
fn apply(config: &mut postgres::Config, key: &str, value: &str) -> std::result::Result<(), String> {
    let number = || value.trim().parse::<u64>().map_err(|_| "this is not a number".to_string());
    let seconds = || number().map(Duration::from_secs);
    match key {
        "host" => value.split(',').for_each(|host| {
            config.host(host);
        }),
        "hostaddr" => {
            for address in value.split(',').filter(|address| !address.is_empty()) {
                config.hostaddr(address.parse().map_err(|_| "this is not an IP address")?);
            }
        }
        "port" => {
            for port in value.split(',') {
                let port = if port.is_empty() { "5432" } else { port };
                config.port(port.trim().parse().map_err(|_| "this is not a port number")?);
            }
        }
        "dbname" => drop(config.dbname(value)),
        "user" => drop(config.user(value)),
        "password" => drop(config.password(value)),
        "options" => drop(config.options(value)),
        // libpq takes 0 and less as "wait for ever".
        "connect_timeout" => match value.trim().parse::<i64>().map_err(|_| "this is not a number")? {
            seconds if seconds > 0 => drop(config.connect_timeout(Duration::from_secs(seconds as u64))),
            _ => drop(config.connect_timeout(Duration::from_secs(u64::from(u32::MAX)))),
        },
        "keepalives" => drop(config.keepalives(value != "0")),
        "keepalives_idle" => drop(config.keepalives_idle(seconds()?)),
        "keepalives_interval" => drop(config.keepalives_interval(seconds()?)),
        "keepalives_count" => drop(config.keepalives_retries(number()? as u32)),
        "tcp_user_timeout" => drop(config.tcp_user_timeout(number().map(Duration::from_millis)?)),
        "target_session_attrs" => match value {
            "any" => drop(config.target_session_attrs(TargetSessionAttrs::Any)),
            "read-write" | "primary" => drop(config.target_session_attrs(TargetSessionAttrs::ReadWrite)),
            _ => return Err("replication writes on both sides: any, read-write or primary".into()),
        },
        "channel_binding" => match value {
            "disable" => drop(config.channel_binding(ChannelBinding::Disable)),
            "prefer" => drop(config.channel_binding(ChannelBinding::Prefer)),
            _ => return Err("this version connects without TLS".into()),
        },
        "sslmode" => match value {
            "disable" | "allow" | "prefer" => drop(config.ssl_mode(SslMode::Disable)),
            _ => return Err("this version connects without TLS: disable, allow or prefer".into()),
        },
        _ => {}
    }
    Ok(())
}

fn connect_error(side: Side, dsn: &Dsn, error: &postgres::Error) -> Error {
    let operation = format!("connect to {dsn}");
    if let Some(server) = error.as_db_error() {
        return server_error(side, &operation, server);
    }
    let text = error.to_string();
    let reason = match error.source() {
        Some(source) if !text.ends_with(&source.to_string()) => format!("{text}: {source}"),
        _ => text,
    };
    // The crate says why a login cannot even be tried as a configuration error; a missing password is the usual one.
    if reason.contains("password missing") {
        return Error::new(Kind::Login, Some(side), operation, "the server asks for a password and none is given")
            .with_hint("put it into the connection string, into PGPASSWORD or into ~/.pgpass");
    }
    Error::new(Kind::Connection, Some(side), operation, reason).with_hint(
        "is the server running there, and does it accept connections from here (listen_addresses, firewall)?",
    )
}

fn server_error(side: Side, operation: &str, error: &DbError) -> Error {
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
    let mut result = Error::new(kind, Some(side), operation, detail).with_code(code);
    let hint = match code {
        "28P01" => Some("wrong password: look at the connection string, PGPASSWORD and ~/.pgpass"),
        "28000" => Some("no such role, or pg_hba.conf of that server does not let it in from here"),
        _ => error.hint(),
    };
    if let Some(hint) = hint {
        result = result.with_hint(hint);
    }
    result
}
