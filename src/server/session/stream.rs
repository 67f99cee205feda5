//! COPY: from one server straight into another, and of rows that are in hand.
//!
//! One thread is enough: while it reads, the other server works on what stands in the connection's buffers.

use super::{Client, Session};
use crate::base::error::{Error, Kind, Result};
use postgres::CopyOutReader;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

/// The writer sends what it holds when it is given the next piece: in pieces of this size no large value is held twice.
const PIECE: usize = 64 << 10;

/// A server says what it refuses only when a COPY ends. So it ends after this time, and the next one goes on.
const LOOK: Duration = Duration::from_secs(1);

/// What the binary format begins with, since PostgreSQL does not use the extension that may follow, and ends with.
const HEADER: usize = 19;
const TRAILER: [u8; 2] = [0xff, 0xff];

/// A cancel request that has not come this long after it was sent comes no more.
const AWAIT_CANCEL: &str = "SELECT pg_catalog.pg_sleep(2)";

/// Which side something went wrong on.
enum Broken {
    Reading(io::Error),
    Starting(postgres::Error),
    Writing(io::Error),
    Ending(postgres::Error),
    /// The last one, when all rows have been read.
    Refused(postgres::Error),
    /// Whoever watches has said so.
    Stopped(Error),
}

impl Session {
    /// Sends what one COPY gives to COPYs on `to`, within one transaction there; how many rows that took. `watch` hears of
    /// each message, which is a row, and its bytes, and may end it all with an error. The reader waits for the writer, and
    /// with it the server.
    pub fn copy(
        &mut self,
        out: &str,
        to: &mut Session,
        into: &str,
        is_binary: bool,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<u64> {
        let cancel = self.canceller();
        let mut is_late = false;
        let broken = match self.client().copy_out(out) {
            Err(error) => Broken::Starting(error),
            Ok(mut reader) => match pour(&mut reader, to.client(), into, is_binary, watch) {
                Ok(rows) => return Ok(rows),
                Err(broken @ (Broken::Reading(_) | Broken::Refused(_))) => broken,
                Err(broken) => {
                    // Else the next statement would wait for all the rest of the rows.
                    cancel();
                    is_late = drain(reader).is_ok();
                    broken
                }
            },
        };
        if is_late {
            // The request is under way yet, and must not meet the next statement.
            let _ = self.message("wait for the cancel request", AWAIT_CANCEL);
        }
        Err(match broken {
            Broken::Reading(error) => self.io_error("read the rows", error),
            Broken::Writing(error) => to.io_error("write the rows", error),
            Broken::Starting(error) => self.error("read the rows", &error),
            Broken::Ending(error) | Broken::Refused(error) => to.error("write the rows", &error),
            Broken::Stopped(error) => error,
        })
    }

    /// Sends rows to a COPY between two messages; how many that were.
    pub fn copy_between(
        &mut self,
        operation: &str,
        (before, after): (&str, &str),
        into: &str,
        rows: &str,
    ) -> Result<u64> {
        self.message(operation, before)?;
        let send = |client: &mut Client| {
            let mut writer = client.copy_in(into).map_err(io::Error::other)?;
            writer.write_all(rows.as_bytes())?;
            // What the server has refused meanwhile it says now.
            writer.finish().map_err(io::Error::other)
        };
        let copied = send(self.client()).map_err(|error| self.io_error(operation, error))?;
        self.message(operation, after)?;
        Ok(copied)
    }

    fn io_error(&self, operation: &str, error: io::Error) -> Error {
        match error.downcast::<postgres::Error>() {
            Ok(error) => self.error(operation, &error),
            Err(error) => Error::new(Kind::Connection, Some(self.side()), operation, error),
        }
    }
}

fn pour(
    reader: &mut CopyOutReader,
    to: &mut Client,
    into: &str,
    is_binary: bool,
    watch: &mut dyn FnMut(usize) -> Result<()>,
) -> std::result::Result<u64, Broken> {
    // Dropped without its end, the writer tells the server that the copy has failed.
    let mut writer = to.copy_in(into).map_err(Broken::Ending)?;
    let (mut rows, mut began) = (0, Instant::now());
    let mut header: Option<Vec<u8>> = None;
    loop {
        let message = reader.fill_buf().map_err(Broken::Reading)?;
        let length = message.len();
        if length == 0 {
            return Ok(rows + writer.finish().map_err(Broken::Refused)?);
        }
        watch(length).map_err(Broken::Stopped)?;
        let is_end = is_binary && message == TRAILER;
        match &header {
            Some(header) if began.elapsed() > LOOK && !is_end => {
                if is_binary {
                    writer.write_all(&TRAILER).map_err(Broken::Writing)?;
                }
                rows += writer.finish().map_err(Broken::Ending)?;
                (writer, began) = (to.copy_in(into).map_err(Broken::Ending)?, Instant::now());
                writer.write_all(header).map_err(Broken::Writing)?;
            }
            Some(_) => {}
            None => header = Some(if is_binary { message[..HEADER.min(length)].to_vec() } else { Vec::new() }),
        }
        for piece in message.chunks(PIECE) {
            writer.write_all(piece).map_err(Broken::Writing)?;
        }
        reader.consume(length);
    }
}

fn drain(mut reader: CopyOutReader) -> io::Result<()> {
    loop {
        let length = reader.fill_buf()?.len();
        if length == 0 {
            return Ok(());
        }
        reader.consume(length);
    }
}
