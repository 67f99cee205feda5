//! Bounds what a server can make this process read: it follows the messages of the protocol as they arrive.
//!
//! The postgres crate keeps notices, notifications and parameters for as long as they come, and waits for the whole of a
//! message however long the server says it is. A server, or somebody between, could fill the memory that all pairs share.
//! So a message is refused as soon as its length is known, an answer and what comes between answers have a limit, and
//! what nobody needs is dropped here.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::ReadBuf;

/// What a server may send until it is connected and checked. It sends a few kB.
const CONNECTING: u64 = 4 << 20;

/// PostgreSQL composes messages in memory of at most this size, so no row is longer.
const LONGEST_MESSAGE: u64 = 1 << 30;

/// What one answer may hold if it is kept in memory: the largest row, and some more.
pub(super) const ANSWER: u64 = LONGEST_MESSAGE + (256 << 20);

/// An error or a notice may quote a value, and the description of a row has up to 1,664 names.
pub(super) const LONGEST_TEXT: u64 = 16 << 20;

/// For messages of any other kind, as in libpq.
const LONGEST_OF_OTHERS: u64 = 30_000;

/// What may come between answers while the caller waits once: notices, notifications, new values of parameters.
const CHATTER: u64 = 256 << 20;

/// Notifications that are kept until somebody reads them. They only wake the daemon, so more would say nothing new.
const NOTIFICATIONS_KEPT: u64 = 64 << 10;

/// After so much chatter, the caller gets a chance to look at its time limit.
const PAUSE: u64 = 64 << 10;

const HEADER: usize = 5;

/// The limits of one connection, shared by the session and the stream below it.
#[derive(Debug)]
pub(super) struct Limits {
    /// What the server may still send as answers, and in between.
    answer: AtomicU64,
    chatter: AtomicU64,
    /// Of the notifications that nobody has read yet.
    notifications: AtomicU64,
    is_connecting: AtomicBool,
    /// When connecting must have ended; None if the operator wants no limit.
    deadline: Option<Instant>,
}

/// The server sent more than it may.
#[derive(Debug)]
pub(super) struct TooMuch(String);

impl Limits {
    /// Until `end_connecting`, the limits are those of connecting.
    pub(super) fn new(time: Duration) -> Limits {
        let answer = AtomicU64::new(CONNECTING);
        let chatter = AtomicU64::new(CONNECTING);
        let (notifications, is_connecting) = (AtomicU64::new(0), AtomicBool::new(true));
        Limits { answer, chatter, notifications, is_connecting, deadline: Instant::now().checked_add(time) }
    }

    pub(super) fn end_connecting(&self) {
        self.is_connecting.store(false, Relaxed);
    }

    /// Allows an answer of this length, and what comes in between.
    pub(super) fn allow(&self, answer: u64) {
        if !self.is_connecting.load(Relaxed) {
            self.answer.store(answer, Relaxed);
            self.chatter.store(CHATTER, Relaxed);
        }
    }

    /// The notifications so far have been read.
    pub(super) fn forget_notifications(&self) {
        self.notifications.store(0, Relaxed);
    }
}

/// Where in the messages the stream is.
pub(super) struct Guard {
    limits: Arc<Limits>,
    header: [u8; HEADER],
    /// How many bytes of the header have arrived, and of these, how many have been passed on.
    arrived: usize,
    passed: usize,
    /// What is still to come of the message.
    rest: u64,
    is_dropped: bool,
    is_logged_in: bool,
    /// Chatter since the last pause.
    since_pause: u64,
}

impl Guard {
    pub(super) fn new(limits: Arc<Limits>) -> Guard {
        let header = [0; HEADER];
        let (is_dropped, is_logged_in) = (false, false);
        Guard { limits, header, arrived: 0, passed: 0, rest: 0, is_dropped, is_logged_in, since_pause: 0 }
    }

    /// Passes bytes on to `out` until it is full. Returns how many bytes of `input` it has used.
    pub(super) fn pass(&mut self, input: &[u8], out: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            if self.arrived < HEADER {
                let count = (HEADER - self.arrived).min(input.len() - used);
                self.header[self.arrived..][..count].copy_from_slice(&input[used..][..count]);
                self.arrived += count;
                used += count;
                if self.arrived < HEADER {
                    return Ok(used);
                }
                self.judge()?;
            }
            if self.is_dropped {
                self.passed = HEADER;
            }
            let count = (HEADER - self.passed).min(out.remaining());
            out.put_slice(&self.header[self.passed..][..count]);
            self.passed += count;
            let mut count = self.rest.min((input.len() - used) as u64) as usize;
            if !self.is_dropped {
                count = if self.passed < HEADER { 0 } else { count.min(out.remaining()) };
                out.put_slice(&input[used..][..count]);
            }
            used += count;
            self.rest -= count as u64;
            if self.passed < HEADER || self.rest > 0 {
                return Ok(used);
            }
            (self.arrived, self.passed) = (0, 0);
        }
    }

    /// Whether the caller should get a chance to look at its time limit.
    pub(super) fn is_time_to_pause(&mut self) -> bool {
        let is_time = self.since_pause > PAUSE;
        if is_time {
            self.since_pause = 0;
        }
        is_time
    }

    /// An error if the server still speaks although connecting should have ended. The caller has given up by then.
    pub(super) fn in_time(&self) -> io::Result<()> {
        let is_late = || self.limits.deadline.is_some_and(|deadline| deadline < Instant::now());
        match self.limits.is_connecting.load(Relaxed) && is_late() {
            true => Err(io::Error::new(io::ErrorKind::TimedOut, "the server took too long to accept the login")),
            false => Ok(()),
        }
    }

    /// Decides about a message by its header.
    fn judge(&mut self) -> io::Result<()> {
        let kind = self.header[0];
        let length = u64::from(u32::from_be_bytes([self.header[1], self.header[2], self.header[3], self.header[4]]));
        let limit = match kind {
            b'D' | b'd' => LONGEST_MESSAGE,
            b'A' | b'E' | b'N' | b'T' | b't' | b'V' => LONGEST_TEXT,
            _ => LONGEST_OF_OTHERS,
        };
        if length < 4 || length > limit {
            return Err(refused(format!("a message of kind {} and {length} bytes", kind.escape_ascii())));
        }
        self.rest = length - 4;
        let is_chatter = matches!(kind, b'A' | b'N' | b'S');
        let (left, what) = match is_chatter {
            true => (&self.limits.chatter, "too many notices, notifications or parameters"),
            false => (&self.limits.answer, "too long an answer"),
        };
        if left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(length)).is_err() {
            return Err(refused(what.into()));
        }
        if is_chatter {
            self.since_pause += length;
        }
        self.is_dropped = match kind {
            b'A' => self.limits.notifications.fetch_add(length, Relaxed) > NOTIFICATIONS_KEPT,
            // Nobody asks for a parameter after the login.
            b'S' => self.is_logged_in,
            _ => false,
        };
        self.is_logged_in |= kind == b'Z';
        Ok(())
    }
}

fn refused(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, TooMuch(what))
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server sent {}, so the connection was closed", self.0)
    }
}

impl StdError for TooMuch {}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, length: usize) -> Vec<u8> {
        [&[kind][..], &(length as u32 + 4).to_be_bytes(), &vec![kind; length]].concat()
    }

    /// Sends the bytes in pieces through a buffer of `room` bytes, and returns what comes out.
    fn through(guard: &mut Guard, bytes: &[u8], piece: usize, room: usize) -> io::Result<Vec<u8>> {
        let (mut passed, mut buffer) = (Vec::new(), vec![0; room]);
        for mut piece in bytes.chunks(piece) {
            loop {
                let mut out = ReadBuf::new(&mut buffer);
                piece = &piece[guard.pass(piece, &mut out)?..];
                passed.extend_from_slice(out.filled());
                if out.remaining() > 0 && piece.is_empty() {
                    break;
                }
            }
        }
        Ok(passed)
    }

    fn guard() -> (Guard, Arc<Limits>) {
        let limits = Arc::new(Limits::new(Duration::MAX));
        limits.end_connecting();
        limits.allow(ANSWER);
        (Guard::new(Arc::clone(&limits)), limits)
    }

    #[test]
    fn what_may_pass_passes_unchanged_however_it_is_cut() {
        let bytes: Vec<u8> = [(b'R', 4), (b'S', 9), (b'Z', 1), (b'D', 300), (b'1', 0), (b'A', 20), (b'Z', 1)]
            .iter()
            .flat_map(|(kind, length)| message(*kind, *length))
            .collect();
        for piece in 1..=20 {
            for room in 1..=20 {
                assert_eq!(through(&mut guard().0, &bytes, piece, room).unwrap(), bytes, "{piece} {room}");
            }
        }
    }

    #[test]
    fn notifications_that_nobody_reads_are_dropped_and_parameters_after_the_login() {
        let (mut guard, limits) = guard();
        let storm = message(b'A', 8000).repeat(1000);
        let passed = through(&mut guard, &storm, 7001, 999).unwrap();
        assert!(!passed.is_empty() && passed.len() < 100_000 && passed.len() % 8005 == 0, "{}", passed.len());
        assert!(guard.is_time_to_pause());
        limits.forget_notifications();
        assert_eq!(through(&mut guard, &message(b'A', 8), 7001, 999).unwrap(), message(b'A', 8));
        through(&mut guard, &message(b'Z', 1), 9, 9).unwrap();
        assert!(through(&mut guard, &message(b'S', 10), 3, 2).unwrap().is_empty());
    }

    #[test]
    fn only_connecting_has_a_deadline() {
        let limits = Arc::new(Limits::new(Duration::ZERO));
        let guard = Guard::new(Arc::clone(&limits));
        std::thread::sleep(Duration::from_millis(1));
        assert!(guard.in_time().is_err());
        limits.end_connecting();
        assert!(guard.in_time().is_ok());
    }

    #[test]
    fn an_answer_and_a_message_have_limits() {
        let says =
            |result: io::Result<Vec<u8>>, text| assert!(result.unwrap_err().to_string().contains(text), "{text}");
        let (mut first, limits) = guard();
        limits.allow(10_000);
        let rows = message(b'D', 1000).repeat(10);
        says(through(&mut first, &rows, 500, 500), "too long an answer");
        for (kind, length) in [(b'D', u32::MAX), (b'E', 1 << 28), (b'C', 1 << 17), (b'Z', 3)] {
            let head = [&[kind][..], &length.to_be_bytes()].concat();
            says(through(&mut guard().0, &head, 5, 5), "a message of kind");
        }
    }
}
