//! How many files the process may have open. Each connection to a server takes four: its socket, and what waits for it.

use std::fs::File;
use std::io;

/// What a connection needs, and what else may be opened while it is made: a certificate, a password file.
const FOR_CONNECTION: usize = 6;

/// Three connections, one more for a long backlog, two for METRICS, and what each opens for a moment.
const FOR_PAIR: u64 = 28;

/// Of the process itself: the log, the terminal, a mail.
const FOR_PROCESS: u64 = 32;

/// Raises the limit to what the process may have without asking anybody. Returns it, where there is one.
#[cfg(unix)]
pub fn raise() -> Option<u64> {
    rlimit::increase_nofile_limit(u64::MAX).ok()
}

#[cfg(windows)]
pub fn raise() -> Option<u64> {
    None
}

/// What so many pairs need.
pub fn needed(pairs: usize) -> u64 {
    FOR_PROCESS + FOR_PAIR * pairs as u64
}

/// Whether a connection could be made now. Without that the client library ends the thread instead of returning an error.
#[cfg(unix)]
pub fn suffice() -> io::Result<()> {
    (0..FOR_CONNECTION).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<File>>>().map(drop)
}

#[cfg(windows)]
pub fn suffice() -> io::Result<()> {
    Ok(())
}
