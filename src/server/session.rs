//! A session on one of the two servers. It uses the blocking API of the postgres crate; no other module imports that
//! crate.

mod guard;
mod line;
mod client;
mod hosts;
mod patience;
mod pooler;
mod refusal;
mod settings;
mod socket;
mod stream;
mod xid8;

use crate::base::control::{Canceller, Closed, Closer, Waiting, Watched};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::dsn::Dsn;
use crate::server::libpq;
use crate::server::sql;
use client::{Client, counts};
use postgres::{SimpleQueryMessage, Statement};
use std::collections::HashMap;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub use postgres::Row;
pub use postgres::types::ToSql;
pub use xid8::Xid8;

/// A row of a simple query, as text: one value for each column.
pub type TextRow = Vec<Option<String>>;

pub struct Session {
    side: Side,
    client: Client,
    statements: HashMap<String, Statement>,
    waiting: Waiting,
    /// The server's process for this session.
    backend: i32,
    is_standby: bool,
    life: Arc<()>,
}

impl Session {
    /// Connects and sets the session up. `label` becomes part of `application_name`, so that `pg_stat_activity` shows
    /// which pair a session belongs to. The trigger logs `origin` with the changes that the session makes.
    pub fn connect(side: Side, dsn: &Dsn, label: &str, origin: &str) -> Result<Session> {
        let hosts = libpq::complete(dsn)?;
        let open = || {
            let client = hosts::connect_any(side, &hosts, label)?;
            let (statements, waiting) = (HashMap::new(), Waiting::default());
            Ok(Session { side, client, statements, waiting, backend: 0, is_standby: false, life: Arc::default() })
        };
        let mut session = open()?;
        pooler::refuse(&mut session, &hosts, open)?;
        session.set_up(origin)?;
        let row = session.query_one("ask for the process id", sql::WHO_ANSWERS, &[])?;
        (session.backend, session.is_standby) = (row.get(0), row.get(1));
        Ok(session)
    }

    /// Until then the server may send only as much as connecting needs.
    pub fn end_connecting(&mut self) {
        self.client.end_connecting();
    }

    /// How long connecting may take: for each host, `connect_timeout` or ten seconds.
    pub fn time_to_connect(side: Side, dsn: &Dsn) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for host in &libpq::complete(dsn)? {
            total = total.saturating_add(settings::of(side, host, "")?.1);
        }
        Ok(total)
    }

    /// Sets the session's settings. Called again after a free statement, which may have changed them.
    pub fn set_up(&mut self, origin: &str) -> Result<()> {
        // The free statement may have been DEALLOCATE ALL, which drops the session's prepared statements too.
        self.statements.clear();
        let reads_no_view = self.side == Side::Master;
        self.query("set the session up", sql::SESSION, &[&origin, &reads_no_view]).map(drop)
    }

    /// Reads and writes no view for the rest of the session: the owner of a table may have put one in its place. For verbs
    /// that read tables of the slave.
    pub fn refuse_views(&mut self) -> Result<()> {
        self.query("set the session up", sql::REFUSE_VIEWS, &[]).map(drop)
    }

    /// Drops all prepared statements of the session, also those that nobody knows the names of any more.
    pub fn deallocate_all(&mut self) -> Result<()> {
        self.message("deallocate prepared statements", "DEALLOCATE ALL")?;
        self.statements.clear();
        Ok(())
    }

    pub fn side(&self) -> Side {
        self.side
    }

    /// Runs a query. Its statement is prepared once for each session.
    pub fn query(&mut self, operation: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let run = |session: &mut Session| {
            let statement = session.prepared(sql)?;
            session.client().query(&statement, params)
        };
        self.wait_for(operation, run)
    }

    /// Runs a query and passes each row to `take` as it arrives, so that memory holds one row at a time.
    pub fn each(
        &mut self,
        operation: &str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        take: impl FnMut(Row),
    ) -> Result<()> {
        let run = |session: &mut Session| {
            let statement = session.prepared(sql)?;
            session.client().each(&statement, params, take)
        };
        self.wait_for(operation, run)
    }

    /// Runs a query that always returns one row.
    pub fn query_one(&mut self, operation: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        let rows = self.query(operation, sql, params)?;
        rows.into_iter()
            .next()
            .ok_or_else(|| Error::new(Kind::Internal, Some(self.side), operation, "the server sent no row"))
    }

    /// Runs a statement and returns the number of its rows. The statement is prepared once for each session.
    pub fn execute(&mut self, operation: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        let run = |session: &mut Session| {
            let statement = session.prepared(sql)?;
            session.client().execute(&statement, params)
        };
        self.wait_for(operation, run)
    }

    /// Sends several statements as one message, and returns the number of rows of each.
    pub fn message(&mut self, operation: &str, sql: &str) -> Result<Vec<u64>> {
        let answers = self.wait_for(operation, |session| session.client().simple_query(sql))?;
        Ok(counts(&answers))
    }

    /// Runs `work` in a transaction of its own. `begin` is BEGIN, with other statements that must come before the work.
    pub fn transaction<T>(&mut self, begin: &str, work: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let done = self.message("begin a transaction", begin).and_then(|_| work(self));
        self.end(done)
    }

    /// Runs a script that is one transaction, with its own BEGIN and COMMIT.
    pub fn script(&mut self, operation: &str, sql: &str) -> Result<()> {
        let done = self.message(operation, sql).map(drop);
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    /// Ends a transaction: commits it if `done` is a success, and rolls it back otherwise.
    pub fn end<T>(&mut self, done: Result<T>) -> Result<T> {
        let committed = done.and_then(|done| self.message("commit", "COMMIT").map(|_| done));
        if committed.is_err() {
            self.roll_back();
        }
        committed
    }

    /// Rolls back after an error, which says more than an error of the rollback. If the session cannot roll back, the
    /// connection is lost, and the server rolls back by itself.
    pub fn roll_back(&mut self) {
        if let Err(error) = self.message("roll back", "ROLLBACK") {
            log::debug!(target: "pyreplica", "{error}");
        }
    }

    /// Sends something to the server with `ask`, and runs `work` while it waits for the answer. The new thread runs
    /// `work` and not `ask`: if all processors are busy, a new thread has to wait, and the server would wait for the
    /// message.
    pub fn ask_while<A, T: Send>(
        &mut self,
        ask: impl FnOnce(&mut Session) -> A,
        work: impl FnOnce() -> T + Send,
    ) -> (A, T) {
        thread::scope(|scope| {
            let working = scope.spawn(work);
            let answer = ask(self);
            (answer, working.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
        })
    }

    /// Runs one statement and returns its rows as text.
    pub fn text_rows(&mut self, operation: &str, sql: &str) -> Result<Vec<TextRow>> {
        let answers = self.wait_for(operation, |session| session.client().simple_query(sql))?;
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|n| row.get(n).map(str::to_string)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Waits for a notification. False if none came in time.
    pub fn wait_for_notification(&mut self, timeout: Duration) -> Result<bool> {
        match self.client().wait_for_notification(timeout) {
            Ok(false) if self.client().is_closed() => Err(self.closed("wait for notifications")),
            Ok(came) => Ok(came),
            Err(error) => Err(self.error("wait for notifications", &error)),
        }
    }

    /// Drops the notifications that came with the last answer or wait, and reads nothing from the connection. True if there were any.
    pub fn forget_notifications(&mut self) -> Result<bool> {
        let forgotten = self.client().forget_notifications();
        let came = forgotten.map_err(|error| self.error("read notifications", &error))?;
        if self.client().is_closed() { Err(self.closed("read notifications")) } else { Ok(came) }
    }

    /// A function that cancels this session's current statement from another thread.
    pub fn canceller(&self) -> Canceller {
        let cancel = self.client.canceller();
        Box::new(move || {
            if let Err(error) = cancel() {
                log::debug!(target: "pyreplica", "cannot cancel: {error}");
            }
        })
    }

    /// For somebody who watches over the session from another thread.
    pub fn watched(&self) -> Watched {
        Watched {
            side: self.side,
            backend: self.backend,
            waiting: self.waiting.clone(),
            closer: self.client.closer().cloned(),
            life: Arc::downgrade(&self.life),
        }
    }

    /// Whether the server was a standby when the session began.
    pub fn is_standby(&self) -> bool {
        self.is_standby
    }

    pub fn backend_pid(&self) -> i32 {
        self.backend
    }

    /// Whether the connection is known to be lost. It may be lost without that.
    pub fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    /// Closes the connection if the server does not answer in time. For questions that a server at work answers at once.
    pub fn limit_waits(&mut self, limit: Duration) {
        self.client.set_limit(limit);
    }

    /// Notes for others what it waits for.
    fn wait_for<T>(
        &mut self,
        operation: &str,
        run: impl FnOnce(&mut Session) -> std::result::Result<T, postgres::Error>,
    ) -> Result<T> {
        self.waiting.begin(operation);
        let answer = run(self);
        self.waiting.end();
        answer.map_err(|error| self.error(operation, &error))
    }

    fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    fn prepared(&mut self, sql: &str) -> std::result::Result<Statement, postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client().prepare(sql)?;
        self.statements.insert(sql.to_string(), statement.clone());
        Ok(statement)
    }

    /// Why this process has closed the connection itself.
    fn close_reason(&self) -> Option<Closed> {
        self.client.closer().and_then(Closer::reason)
    }

    fn closed(&self, operation: &str) -> Error {
        if let Some(Closed { why, hint }) = self.close_reason() {
            return Error::new(Kind::Connection, Some(self.side), operation, why).with_hint(hint);
        }
        Error::new(Kind::Connection, Some(self.side), operation, "the server closed the connection")
            .with_hint(WENT_AWAY)
    }

    fn error(&self, operation: &str, error: &postgres::Error) -> Error {
        match error.as_db_error() {
            Some(server) => refusal::from_server(self.side, operation, server).of_standby(self.is_standby),
            None if self.close_reason().is_some() => self.closed(operation),
            None => refusal::too_much(self.side, operation, error).unwrap_or_else(|| {
                Error::new(Kind::Connection, Some(self.side), operation, error).with_hint(WENT_AWAY)
            }),
        }
    }
}

const WENT_AWAY: &str =
    "is the server still running, and is the network up? the server's log says why the session ended";
