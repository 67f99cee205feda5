//! COPY out of a server and COPY into one. Whoever connects the two decides on which threads they run.

use super::Session;
use crate::error::{Error, Kind, Result};
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

/// Rows are handed on when they have come to so many bytes; a row that is larger goes in several pieces.
const PIECE: usize = 128 << 10;

/// How often the writing side is asked whether it still takes what it is sent: it says so only when a COPY ends.
pub const LOOK: Duration = Duration::from_secs(1);

/// What a COPY in binary format ends with.
const TRAILER: [u8; 2] = [0xff, 0xff];

/// Up to the length of an extension, which PostgreSQL does not use.
const HEADER: usize = 19;

/// Some rows, or a part of one.
pub struct Piece {
    bytes: Vec<u8>,
    /// It ends with a row, and is not the end.
    is_followed: bool,
}

/// What there is to write.
pub enum Next {
    Piece(Piece),
    /// Not for the moment.
    Nothing,
    End,
    /// Whoever reads has failed.
    Broken,
}

/// What went wrong, for an error to be made of it when the session is free again.
enum Broken {
    Server(postgres::Error),
    Stream(io::Error),
    /// Whoever watches has said so.
    Stopped(Error),
}

impl Session {
    /// Reads what one COPY gives. `watch` hears of each message, which is a row, and its bytes, and may end it all with an
    /// error; `give` takes the pieces, and says false if no more are wanted.
    pub fn copy_out(
        &mut self,
        sql: &str,
        watch: &mut dyn FnMut(usize) -> Result<()>,
        give: &mut dyn FnMut(Piece) -> bool,
    ) -> Result<()> {
        read(self, sql, watch, give).map_err(|broken| broken.told(self, "read the rows"))
    }

    /// Writes what `next` gives by one COPY after another, so that what the server refuses is known soon; how many rows
    /// that were, or `None` if the reader has failed.
    pub fn copy_in(&mut self, sql: &str, is_binary: bool, next: &mut dyn FnMut() -> Next) -> Result<Option<u64>> {
        write(self, sql, is_binary, next).map_err(|broken| broken.told(self, "write the rows"))
    }
}

impl Broken {
    fn told(self, session: &Session, operation: &str) -> Error {
        match self {
            Broken::Server(error) => session.error(operation, &error),
            Broken::Stream(error) => match error.downcast::<postgres::Error>() {
                Ok(error) => session.error(operation, &error),
                Err(error) => Error::new(Kind::Connection, Some(session.side()), operation, error),
            },
            Broken::Stopped(error) => error,
        }
    }
}

fn read(
    from: &mut Session,
    sql: &str,
    watch: &mut dyn FnMut(usize) -> Result<()>,
    give: &mut dyn FnMut(Piece) -> bool,
) -> std::result::Result<(), Broken> {
    let mut reader = from.client().copy_out(sql).map_err(Broken::Server)?;
    let mut bytes = Vec::with_capacity(PIECE);
    loop {
        let message = reader.fill_buf().map_err(Broken::Stream)?;
        let length = message.len();
        if length == 0 {
            break;
        }
        watch(length).map_err(Broken::Stopped)?;
        let mut is_followed = true;
        for part in message.chunks(PIECE) {
            if bytes.len() + part.len() > PIECE {
                let bytes = std::mem::replace(&mut bytes, Vec::with_capacity(PIECE));
                if !give(Piece { bytes, is_followed }) {
                    return Ok(());
                }
            }
            bytes.extend_from_slice(part);
            is_followed = false;
        }
        reader.consume(length);
    }
    give(Piece { bytes, is_followed: false });
    Ok(())
}

fn write(
    to: &mut Session,
    sql: &str,
    is_binary: bool,
    next: &mut dyn FnMut() -> Next,
) -> std::result::Result<Option<u64>, Broken> {
    let mut rows = 0;
    let mut header: Option<Vec<u8>> = None;
    let mut is_over = false;
    while !is_over {
        let began = Instant::now();
        // Dropped without its end, the writer tells the server that the copy has failed.
        let mut writer = to.client().copy_in(sql).map_err(Broken::Server)?;
        if let Some(header) = &header {
            writer.write_all(header).map_err(Broken::Stream)?;
        }
        let (mut is_empty, mut is_between) = (true, false);
        while is_empty || !is_between || began.elapsed() < LOOK {
            match next() {
                Next::Piece(piece) => {
                    let first = &piece.bytes[..HEADER.min(piece.bytes.len())];
                    header.get_or_insert_with(|| if is_binary { first.to_vec() } else { Vec::new() });
                    writer.write_all(&piece.bytes).map_err(Broken::Stream)?;
                    (is_empty, is_between) = (false, piece.is_followed);
                }
                Next::Nothing => {}
                Next::End => {
                    is_over = true;
                    break;
                }
                Next::Broken => return Ok(None),
            }
        }
        if is_binary && !is_over {
            writer.write_all(&TRAILER).map_err(Broken::Stream)?;
        }
        rows += writer.finish().map_err(Broken::Server)?;
    }
    Ok(Some(rows))
}
