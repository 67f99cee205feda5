//! A blocking client on tokio-postgres, which another thread can make give up, and the reasons why it could not connect.
//!
//! The client waits for an answer as long as the connection is there. If another thread calls its `Closer`, or if its limit is
//! over, it drops the connection; then what waits for an answer returns an error.

use super::guard::{ANSWER, LONGEST_TEXT, Limits};
use super::line::{Line, Stream};
use crate::base::control::Closer;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tokio_postgres::types::ToSql;
use tokio_postgres::{
    AsyncMessage, Config, CopyInSink, CopyOutStream, Error, Row, SimpleQueryMessage, Socket, Statement,
};

/// How long the end of a session may take. The server notices the closed connection too, but only later.
const GOODBYE: Duration = Duration::from_secs(2);

/// A COPY sends pieces of at least this size.
const PIECE: usize = 4 << 10;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server, the network or TLS refused it.
    Refused(Error),
    /// The host name has no address.
    Unresolved(io::Error),
}

pub(super) struct Client {
    /// None only while this is dropped.
    client: Option<tokio_postgres::Client>,
    wire: Wire,
    line: Line,
}

/// The connection, and the runtime on which it is read and written while the client waits for something.
struct Wire {
    runtime: Runtime,
    /// None once the connection is closed.
    connection: Option<tokio_postgres::Connection<Socket, Stream>>,
    /// Notifications that have arrived.
    notifications: usize,
    closer: Closer,
    /// How long each wait may take, if there is a limit.
    limit: Option<Duration>,
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
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::Unresolved)?;
        let (client, connection) = runtime.block_on(config.connect(line.clone())).map_err(Failure::Refused)?;
        let closer = Closer::default();
        let wire = Wire { runtime, connection: Some(connection), notifications: 0, closer, limit: None };
        Ok(Client { client: Some(client), wire, line })
    }

    /// From now on the server may send what a server sends to a session that works.
    pub(super) fn end_connecting(&self) {
        self.line.limits.end_connecting();
    }

    /// What closes this connection from another thread.
    pub(super) fn closer(&self) -> &Closer {
        &self.wire.closer
    }

    /// Closes the connection if a wait takes longer.
    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.wire.limit = Some(limit);
    }

    pub(super) fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        let (client, wire) = self.for_answer(ANSWER);
        wire.wait(client.prepare(sql))
    }

    pub(super) fn query(&mut self, sql: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let (client, wire) = self.for_answer(ANSWER);
        wire.wait(client.query(sql, params))
    }

    /// Passes each row to `take` as it arrives, so that memory does not have to hold all of them.
    pub(super) fn each(
        &mut self,
        sql: &Statement,
        params: &[&(dyn ToSql + Sync)],
        mut take: impl FnMut(Row),
    ) -> Result<(), Error> {
        let (client, wire) = self.for_answer(ANSWER);
        let rows = wire.wait(client.query_raw(sql, params.iter().map(|param| *param as &dyn ToSql)))?;
        let mut rows = pin!(rows);
        while let Some(row) = wire.wait(async { rows.next().await.transpose() })? {
            take(row);
        }
        Ok(())
    }

    pub(super) fn execute(&mut self, sql: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        let (client, wire) = self.for_answer(ANSWER);
        wire.wait(client.execute(sql, params))
    }

    pub(super) fn simple_query(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        let (client, wire) = self.for_answer(ANSWER);
        wire.wait(client.simple_query(sql))
    }

    /// Sends a message and frees its text before it is written to the network, so that a large one is not there three times.
    pub(super) fn simple_query_once(&mut self, sql: String) -> Result<Vec<SimpleQueryMessage>, Error> {
        let (client, wire) = self.for_answer(ANSWER);
        let answers = wire.wait(client.simple_query_raw(&sql))?;
        drop(sql);
        wire.wait(answers.try_collect())
    }

    pub(super) fn copy_out(&mut self, sql: &str) -> Result<Reader<'_>, Error> {
        let (client, wire) = self.for_answer(u64::MAX);
        let stream = wire.wait(client.copy_out(sql))?;
        Ok(Reader { wire, stream: Box::pin(stream) })
    }

    pub(super) fn copy_in(&mut self, sql: &str) -> Result<Writer<'_>, Error> {
        let (client, wire) = self.for_answer(ANSWER);
        let sink = wire.wait(client.copy_in(sql))?;
        Ok(Writer { wire, sink: Box::pin(sink), buffer: Vec::new() })
    }

    /// True if a notification came in time; false if none came or the connection is closed.
    pub(super) fn wait_for_notification(&mut self, limit: Duration) -> Result<bool, Error> {
        let (_, wire) = self.for_answer(LONGEST_TEXT);
        let mut over = Box::pin(wire.sleep(limit));
        let came = wire.poll(|context, wire| {
            if *wire.notifications > 0 {
                *wire.notifications -= 1;
                return Poll::Ready(Ok(true));
            }
            if !wire.is_open || over.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(false));
            }
            Poll::Pending
        });
        self.line.limits.forget_notifications();
        came
    }

    /// Reads what has arrived, without waiting. True if there were notifications, which are dropped.
    pub(super) fn forget_notifications(&mut self) -> Result<bool, Error> {
        let (_, wire) = self.for_answer(LONGEST_TEXT);
        let came = wire.poll(|_, wire| Poll::Ready(Ok(std::mem::take(wire.notifications) > 0)));
        self.line.limits.forget_notifications();
        came
    }

    pub(super) fn is_closed(&self) -> bool {
        self.wire.connection.is_none() || self.client.as_ref().is_none_or(tokio_postgres::Client::is_closed)
    }

    /// A function that cancels this session's statement from another thread. Its connection uses the same TLS settings.
    pub(super) fn canceller(&self) -> impl Fn() -> io::Result<()> + Send + use<> {
        let token = self.client.as_ref().map(tokio_postgres::Client::cancel_token);
        let line = Line { limits: Arc::new(Limits::new(self.line.limit)), ..self.line.clone() };
        move || {
            let Some(token) = &token else { return Ok(()) };
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(token.cancel_query(line.clone())).map_err(io::Error::other)
        }
    }

    /// Allows the server to send an answer of this many bytes. A COPY has no limit, because its rows are not kept.
    fn for_answer(&mut self, length: u64) -> (&tokio_postgres::Client, &mut Wire) {
        self.line.limits.allow(length);
        (self.client.as_ref().expect("the client lives as long as the session"), &mut self.wire)
    }
}

impl Drop for Client {
    /// Says goodbye to the server.
    fn drop(&mut self) {
        self.client = None;
        self.wire.limit = Some(self.wire.limit.unwrap_or(GOODBYE).min(GOODBYE));
        // What the server still has to say is of no interest.
        let _ = self.wire.poll(|_, wire| if wire.is_open { Poll::Pending } else { Poll::Ready(Ok(())) });
    }
}

impl Wire {
    fn wait<T>(&mut self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut answer = pin!(answer);
        self.poll(|context, _| answer.as_mut().poll(context))
    }

    /// Reads and writes the connection until `done` returns something. Once the connection is closed, everything that waits
    /// for an answer gets an error.
    fn poll<T>(
        &mut self,
        mut done: impl FnMut(&mut Context<'_>, &mut Shared<'_>) -> Poll<Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut over = self.limit.map(|limit| (limit, Box::pin(self.sleep(limit))));
        let Wire { runtime, connection, notifications, closer, .. } = self;
        runtime.block_on(poll_fn(|context| {
            if let Some((limit, _)) = over.take_if(|(_, over)| over.as_mut().poll(context).is_ready()) {
                closer.close(&format!("no answer within {} s", limit.as_secs()), "is the server hung?");
            }
            if closer.is_called(context.waker()) {
                *connection = None;
            }
            while let Some(open) = connection.as_mut() {
                match open.poll_message(context) {
                    Poll::Ready(Some(Ok(AsyncMessage::Notification(_)))) => *notifications += 1,
                    Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                        log::trace!(target: "pyreplica", "{}: {}", notice.severity(), notice.message());
                    }
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => {
                        *connection = None;
                        return Poll::Ready(Err(error));
                    }
                    Poll::Ready(None) => *connection = None,
                    Poll::Pending => break,
                }
            }
            done(context, &mut Shared { is_open: connection.is_some(), notifications })
        }))
    }

    fn sleep(&self, length: Duration) -> tokio::time::Sleep {
        let _context = self.runtime.enter();
        sleep(length)
    }
}

/// What a wait may look at.
struct Shared<'a> {
    is_open: bool,
    notifications: &'a mut usize,
}

/// The rows of a COPY, message by message.
pub(super) struct Reader<'a> {
    wire: &'a mut Wire,
    stream: Pin<Box<CopyOutStream>>,
}

impl Reader<'_> {
    /// The next message; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<impl Deref<Target = [u8]> + use<>>, Error> {
        let Reader { wire, stream } = self;
        wire.wait(async { stream.next().await.transpose() })
    }
}

/// Sends rows to a COPY. If it is dropped before `finish`, the server rolls the COPY back.
pub(super) struct Writer<'a> {
    wire: &'a mut Wire,
    sink: Pin<Box<CopyInSink<io::Cursor<Vec<u8>>>>>,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.buffer.len() > PIECE {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Ends the COPY and returns the number of rows. If the server has refused a row, it reports that now.
    pub(super) fn finish(mut self) -> Result<u64, Error> {
        self.flush()?;
        let Writer { wire, sink, .. } = &mut self;
        wire.wait(sink.as_mut().finish())
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = io::Cursor::new(std::mem::take(&mut self.buffer));
        let Writer { wire, sink, .. } = self;
        wire.wait(sink.send(piece))
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
