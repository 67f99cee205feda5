//! COPY from one server straight into another.

use super::Session;
use crate::error::{Error, Kind, Result};
use std::io::{self, BufRead, Write};

/// The writer sends what it holds when it is given the next piece: in pieces of this size no large value is held twice.
const PIECE: usize = 64 << 10;

/// Which side something went wrong on.
enum Broken {
    Reading(io::Error),
    Starting(postgres::Error),
    Writing(io::Error),
    Ending(postgres::Error),
    /// Whoever watches has said so.
    Stopped(Error),
}

impl Session {
    /// Sends what one COPY gives to another COPY on `to`; how many rows that took. `watch` hears of each message, which
    /// is a row, and its bytes, and may end it all with an error. The reader waits for the writer, and with it the server.
    pub fn copy(
        &mut self,
        out: &str,
        to: &mut Session,
        into: &str,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<u64> {
        match run(self, out, to, into, watch) {
            Ok(rows) => Ok(rows),
            Err(Broken::Reading(error)) => Err(self.io_error("read the rows", error)),
            Err(Broken::Writing(error)) => Err(to.io_error("write the rows", error)),
            Err(Broken::Starting(error)) => Err(self.error("read the rows", &error)),
            Err(Broken::Ending(error)) => Err(to.error("write the rows", &error)),
            Err(Broken::Stopped(error)) => Err(error),
        }
    }

    fn io_error(&self, operation: &str, error: io::Error) -> Error {
        match error.downcast::<postgres::Error>() {
            Ok(error) => self.error(operation, &error),
            Err(error) => Error::new(Kind::Connection, Some(self.side()), operation, error),
        }
    }
}

fn run(
    from: &mut Session,
    out: &str,
    to: &mut Session,
    into: &str,
    watch: &mut dyn FnMut(usize) -> Result<()>,
) -> std::result::Result<u64, Broken> {
    let mut reader = from.client().copy_out(out).map_err(Broken::Starting)?;
    // Dropped without its end, the writer tells the server that the copy has failed.
    let mut writer = to.client().copy_in(into).map_err(Broken::Ending)?;
    loop {
        let message = reader.fill_buf().map_err(Broken::Reading)?;
        let length = message.len();
        if length == 0 {
            break;
        }
        watch(length).map_err(Broken::Stopped)?;
        for piece in message.chunks(PIECE) {
            writer.write_all(piece).map_err(Broken::Writing)?;
        }
        reader.consume(length);
    }
    writer.finish().map_err(Broken::Ending)
}
