//! A wrapper of the postgres crate's blocking client, and the reasons why it could not connect.

use crate::server::tls::Connector;
use fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{Config, CopyInWriter, CopyOutReader, Error, Row, SimpleQueryMessage, Statement};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server, the network or TLS refused it.
    Refused(Error),
    /// The host name has no address.
    Unresolved(io::Error),
}

pub(super) struct Client(postgres::Client);

/// All addresses of a host name.
pub(super) fn resolve(host: &str) -> Result<Vec<IpAddr>, Failure> {
    let found = (host, 0).to_socket_addrs().map_err(Failure::Unresolved)?;
    Ok(found.map(|address| address.ip()).collect())
}

impl Client {
    /// Connects to the one address in `config`.
    pub(super) fn connect(config: &Config, tls: &Connector) -> Result<Client, Failure> {
        config.connect(tls.clone()).map(Client).map_err(Failure::Refused)
    }

    pub(super) fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        self.0.prepare(sql)
    }

    pub(super) fn query(&mut self, sql: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.0.query(sql, params)
    }

    /// Passes each row to `take` as it arrives, so that memory does not have to hold all of them.
    pub(super) fn each(
        &mut self,
        sql: &Statement,
        params: &[&(dyn ToSql + Sync)],
        mut take: impl FnMut(Row),
    ) -> Result<(), Error> {
        let mut rows = self.0.query_raw(sql, params.iter().map(|param| *param as &dyn ToSql))?;
        while let Some(row) = rows.next()? {
            take(row);
        }
        Ok(())
    }

    pub(super) fn execute(&mut self, sql: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.0.execute(sql, params)
    }

    pub(super) fn simple_query(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.0.simple_query(sql)
    }

    pub(super) fn copy_out(&mut self, sql: &str) -> Result<CopyOutReader<'_>, Error> {
        self.0.copy_out(sql)
    }

    pub(super) fn copy_in(&mut self, sql: &str) -> Result<CopyInWriter<'_>, Error> {
        self.0.copy_in(sql)
    }

    /// True if a notification came in time; false if none came or the connection is closed.
    pub(super) fn wait_for_notification(&mut self, limit: Duration) -> Result<bool, Error> {
        Ok(self.0.notifications().timeout_iter(limit).next()?.is_some())
    }

    pub(super) fn forget_notifications(&mut self) -> Result<bool, Error> {
        Ok(self.0.notifications().iter().count()? > 0)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// A function that cancels this session's statement from another thread. Its connection uses the same TLS settings.
    pub(super) fn canceller(&self, tls: Connector) -> impl Fn() -> Result<(), Error> + Send + use<> {
        let token = self.0.cancel_token();
        move || token.cancel_query(tls.clone())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => match error.source() {
                Some(source) if !error.to_string().ends_with(&source.to_string()) => write!(f, "{error}: {source}"),
                _ => write!(f, "{error}"),
            },
            Failure::Unresolved(error) => write!(f, "{error}"),
        }
    }
}
