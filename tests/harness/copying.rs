//! Runs of `pyreplica copy`.

use super::{Daemon, Finished, Pair, Server, psql};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs the copy to its end.
#[track_caller]
pub fn copy(pair: &Pair, options: &[&str]) -> Finished {
    let finished = try_copy(pair, options);
    assert!(finished.status.success(), "pyreplica copy: {}\n{}", finished.status, finished.output);
    finished
}

#[track_caller]
pub fn try_copy(pair: &Pair, options: &[&str]) -> Finished {
    pair.verb(&[&["copy"], options].concat())
}

/// Whether this machine's pg_dump is new enough for the master. The servers that `tests/versions.sh` downloads come without
/// client programs.
pub fn can_dump(pair: &Pair) -> bool {
    can_dump_from(pair.master_server())
}

pub fn can_dump_from(server: &Server) -> bool {
    let said = Command::new(psql()).arg("--version").output().expect("psql starts").stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let digits = said.split_once("(PostgreSQL) ").expect("its version").1;
    let clients: u32 = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().expect("a number");
    clients >= server.major_version()
}

/// Starts a copy that stops itself at a step.
#[track_caller]
pub fn paused(pair: &Pair, options: &[&str], step: &str) -> Daemon {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let log = pair.dir().join(format!("copy{}.log", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let words = [&["copy"], options, &[&pair.master_dsn, &pair.slave_dsn]].concat();
    let mut copy = Daemon::spawn(&log, &words, &[("PYREPLICA_PAUSE_AT", step)]);
    copy.wait_paused();
    copy
}
