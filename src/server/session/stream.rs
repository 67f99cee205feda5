//! COPY: from one server directly to the other, and of rows in memory.
//!
//! One thread is enough: while it reads from one server, the other server works on what is in the connection's buffers.

use super::{Client, Session};
use crate::base::error::{Error, Kind, Result};
use postgres::CopyOutReader;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

/// The writer keeps a piece in memory until it gets the next one. With pieces of this size, memory never holds a large
/// value twice.
const PIECE: usize = 64 << 10;

/// A server reports a refused row only at the end of a COPY. So each COPY ends after this time, and another one goes
/// on.
const LONGEST_COPY: Duration = Duration::from_secs(1);

/// The length of the header of the binary format, and its trailer. The header may have an extension, but PostgreSQL
/// does not use it.
const HEADER: usize = 19;
const TRAILER: [u8; 2] = [0xff, 0xff];

/// Waits for a cancel request that was sent but has not arrived yet. It arrives within this time or not at all.
const AWAIT_CANCEL: &str = "SELECT pg_catalog.pg_sleep(2)";

/// What went wrong, from which follows on which side.
enum CopyError {
    Reading(io::Error),
    Starting(postgres::Error),
    Writing(io::Error),
    Ending(postgres::Error),
    /// The end of the last COPY, after all rows have been read.
    Refused(postgres::Error),
    /// `watch` returned this error.
    Stopped(Error),
}

impl Session {
    /// Copies the rows of the COPY `out` to the server `to`, in one transaction there, and returns their number. It
    /// calls `watch` for each message, which is a row, with its length; an error from `watch` ends the copy. The reader
    /// waits for the writer, so the reading server waits too.
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
        let failure = match self.client().copy_out(out) {
            Err(error) => CopyError::Starting(error),
            Ok(mut reader) => match pour(&mut reader, to.client(), into, is_binary, watch) {
                Ok(rows) => return Ok(rows),
                Err(failure @ (CopyError::Reading(_) | CopyError::Refused(_))) => failure,
                Err(failure) => {
                    // Without this, the next statement would wait until all other rows have arrived.
                    cancel();
                    is_late = drain(reader).is_ok();
                    failure
                }
            },
        };
        if is_late {
            // The COPY ended before the cancel request arrived. It must not cancel the next statement.
            let _ = self.message("wait for the cancel request", AWAIT_CANCEL);
        }
        Err(match failure {
            CopyError::Reading(error) => self.io_error("read the rows", error),
            CopyError::Writing(error) => to.io_error("write the rows", error),
            CopyError::Starting(error) => self.error("read the rows", &error),
            CopyError::Ending(error) | CopyError::Refused(error) => to.error("write the rows", &error),
            CopyError::Stopped(error) => error,
        })
    }

    /// Sends rows to a COPY between two messages, and returns their number.
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
            // If the server has refused a row, it reports that now.
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
) -> std::result::Result<u64, CopyError> {
    // If the writer is dropped before `finish`, it tells the server that the copy has failed.
    let mut writer = to.copy_in(into).map_err(CopyError::Ending)?;
    let (mut rows, mut began) = (0, Instant::now());
    let mut header: Option<Vec<u8>> = None;
    loop {
        let message = reader.fill_buf().map_err(CopyError::Reading)?;
        let length = message.len();
        if length == 0 {
            return Ok(rows + writer.finish().map_err(CopyError::Refused)?);
        }
        watch(length).map_err(CopyError::Stopped)?;
        let is_end = is_binary && message == TRAILER;
        match &header {
            Some(header) if began.elapsed() > LONGEST_COPY && !is_end => {
                if is_binary {
                    writer.write_all(&TRAILER).map_err(CopyError::Writing)?;
                }
                rows += writer.finish().map_err(CopyError::Ending)?;
                (writer, began) = (to.copy_in(into).map_err(CopyError::Ending)?, Instant::now());
                writer.write_all(header).map_err(CopyError::Writing)?;
            }
            Some(_) => {}
            None => header = Some(if is_binary { message[..HEADER.min(length)].to_vec() } else { Vec::new() }),
        }
        for piece in message.chunks(PIECE) {
            writer.write_all(piece).map_err(CopyError::Writing)?;
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
