//! A wrapper of the postgres crate's blocking client, and the reasons why it could not connect.

use super::guard::{ANSWER, LONGEST_TEXT, Limits};
use super::line::Line;
use super::socket::Unreachable;
use crate::base::control::Closer;
use fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{Config, CopyInWriter, CopyOutReader, Error, Row, SimpleQueryMessage, Statement};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// How long the end of a session may take. The server notices the closed connection too, but only later.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server, the network or TLS refused it.
    Refused(Error),
    /// The host name has no address.
    Unresolved(io::Error),
}

pub(super) struct Client {
    client: postgres::Client,
    line: Line,
}

/// All addresses of a host name.
pub(super) fn resolve(host: &str) -> Result<Vec<IpAddr>, Failure> {
    let found = (host, 0).to_socket_addrs().map_err(Failure::Unresolved)?;
    Ok(found.map(|address| address.ip()).collect())
}

/// How many rows each statement of a message has touched.
pub(super) fn counts(answers: &[SimpleQueryMessage]) -> Vec<u64> {
    let count = |answer: &SimpleQueryMessage| match answer {
        SimpleQueryMessage::CommandComplete(count) => Some(*count),
        _ => None,
    };
    answers.iter().filter_map(count).collect()
}

impl Client {
    /// Connects to the one address in `config`.
    pub(super) fn connect(config: &Config, line: Line) -> Result<Client, Failure> {
        let client = config.connect(line.clone()).map_err(Failure::Refused)?;
        Ok(Client { client, line })
    }

    /// From now on the server may send what a server sends to a session that works.
    pub(super) fn end_connecting(&self) {
        self.line.limits.end_connecting();
    }

    /// What closes this connection from another thread. None if the crate has kept a Unix socket to itself.
    pub(super) fn closer(&self) -> Option<&Closer> {
        let patience = &self.line.patience;
        patience.is_heeded().then_some(&patience.closer)
    }

    /// Closes the connection if a wait takes longer.
    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.line.patience.set_limit(limit);
    }

    pub(super) fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        self.for_answer(ANSWER).prepare(sql)
    }

    pub(super) fn query(&mut self, sql: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.for_answer(ANSWER).query(sql, params)
    }

    /// Passes each row to `take` as it arrives, so that memory does not have to hold all of them.
    pub(super) fn each(
        &mut self,
        sql: &Statement,
        params: &[&(dyn ToSql + Sync)],
        mut take: impl FnMut(Row),
    ) -> Result<(), Error> {
        let mut rows = self.for_answer(ANSWER).query_raw(sql, params.iter().map(|param| *param as &dyn ToSql))?;
        while let Some(row) = rows.next()? {
            take(row);
        }
        Ok(())
    }

    pub(super) fn execute(&mut self, sql: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.for_answer(ANSWER).execute(sql, params)
    }

    pub(super) fn simple_query(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.for_answer(ANSWER).simple_query(sql)
    }

    pub(super) fn copy_out(&mut self, sql: &str) -> Result<CopyOutReader<'_>, Error> {
        self.for_answer(u64::MAX).copy_out(sql)
    }

    pub(super) fn copy_in(&mut self, sql: &str) -> Result<CopyInWriter<'_>, Error> {
        self.for_answer(ANSWER).copy_in(sql)
    }

    /// True if a notification came in time; false if none came or the connection is closed.
    pub(super) fn wait_for_notification(&mut self, limit: Duration) -> Result<bool, Error> {
        let came = self.for_answer(LONGEST_TEXT).notifications().timeout_iter(limit).next()?.is_some();
        self.line.limits.forget_notifications();
        Ok(came)
    }

    pub(super) fn forget_notifications(&mut self) -> Result<bool, Error> {
        let count = self.for_answer(LONGEST_TEXT).notifications().iter().count()?;
        self.line.limits.forget_notifications();
        Ok(count > 0)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// A function that cancels this session's statement from another thread. Its connection uses the same TLS settings.
    pub(super) fn canceller(&self) -> impl Fn() -> Result<(), Error> + Send + use<> {
        let token = self.client.cancel_token();
        let line =
            Line { limits: Arc::new(Limits::new(self.line.limit)), patience: Arc::default(), ..self.line.clone() };
        move || token.cancel_query(line.clone())
    }

    /// Allows the server to send an answer of this many bytes. A COPY has no limit, because its rows are not kept.
    fn for_answer(&mut self, length: u64) -> &mut postgres::Client {
        self.line.limits.allow(length);
        self.line.patience.begin();
        &mut self.client
    }
}

impl Drop for Client {
    /// The client below says goodbye to the server, and waits until that is sent.
    fn drop(&mut self) {
        self.line.patience.set_limit(GOODBYE);
        self.line.patience.begin();
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => match error.source() {
                Some(source) if source.is::<Unreachable>() => write!(f, "{source}"),
                Some(source) if !error.to_string().ends_with(&source.to_string()) => write!(f, "{error}: {source}"),
                _ => write!(f, "{error}"),
            },
            Failure::Unresolved(error) => write!(f, "{error}"),
        }
    }
}
