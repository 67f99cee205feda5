//! Where the lines go: standard output, or a file that SIGHUP reopens.
//!
//! Nobody may wait for the log, and no pair ends because it cannot be written: lines are lost then, and counted. The next line that can
//! be written comes behind one that says how many are missing. Meanwhile the error output says so, once, and the metrics count.

use super::OWN_TARGET;
use crate::base::phrases::{counted, without_number};
use crate::base::shown::shown;
use log::Level;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

static SINK: OnceLock<Mutex<Sink>> = OnceLock::new();

struct Sink {
    place: Place,
    lost: Lost,
}

enum Place {
    Stdout,
    File { path: PathBuf, file: File },
}

/// The lines that could not be written.
#[derive(Clone, Default)]
pub struct Lost {
    /// Since the process has started.
    pub lines: u64,
    /// Why the last one could not.
    pub reason: String,
    /// Those of which the log does not say yet that they are missing.
    untold: u64,
    /// The file ends in the middle of a line.
    is_torn: bool,
}

/// What env_logger writes to, which ignores errors.
pub(super) struct Output;

impl Write for Output {
    /// Takes one whole message. It is written or lost, and counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        sink()?.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn put(&mut self, line: &[u8]) {
        let Err(error) = self.tell_lost().and_then(|()| self.write(line)) else { return };
        let is_first = self.lost.untold == 0;
        let lines = line.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.lost.lines += lines;
        self.lost.untold += lines;
        self.lost.reason = without_number(&error.to_string()).into_owned();
        if is_first {
            // There is nobody left to tell if that fails too.
            let _ = writeln!(io::stderr(), "{OWN_TARGET}: cannot write the log: {}", shown(&self.lost.reason));
        }
    }

    /// If lines are missing before the next one, the log says so.
    fn tell_lost(&mut self) -> io::Result<()> {
        if self.lost.untold > 0 {
            let what = counted(self.lost.untold, "line");
            let missing = format!("{what} of the log could not be written: {}", self.lost.reason);
            self.write(super::line(OWN_TARGET, Level::Warn, &missing).as_bytes())?;
            self.lost.untold = 0;
        }
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match &mut self.place {
            Place::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(line).and_then(|()| stdout.flush())
            }
            Place::File { file, .. } => {
                let apart;
                let mut rest = line;
                if self.lost.is_torn {
                    apart = [b"\n", line].concat();
                    rest = &apart;
                }
                while !rest.is_empty() {
                    match file.write(rest) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(count) => rest = &rest[count..],
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => return Err(error),
                    }
                    self.lost.is_torn = !rest.is_empty();
                }
                Ok(())
            }
        }
    }
}

/// Chooses where the lines go, once.
pub(super) fn begin(file: Option<&Path>) -> io::Result<()> {
    let place = match file {
        Some(path) => Place::File { path: path.to_path_buf(), file: open(path)? },
        None => Place::Stdout,
    };
    assert!(SINK.set(Mutex::new(Sink { place, lost: Lost::default() })).is_ok(), "logging starts once");
    Ok(())
}

/// The lines that this process could not write to its log.
pub fn lost() -> Lost {
    sink().map(|sink| sink.lost.clone()).unwrap_or_default()
}

fn sink() -> io::Result<MutexGuard<'static, Sink>> {
    let sink = SINK.get().ok_or_else(|| io::Error::other("logging has not started"))?;
    Ok(sink.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Opens the file again by its name.
pub(super) fn try_reopen() -> io::Result<()> {
    let sink = &mut *sink()?;
    if let Place::File { path, file } = &mut sink.place {
        *file = open(path)?;
        sink.lost.is_torn = false;
    }
    Ok(())
}

/// Opens the file in append mode. So several writers do not overwrite each other, and log rotation may truncate the
/// file.
fn open(path: &Path) -> io::Result<File> {
    let describe =
        |e: io::Error| io::Error::new(e.kind(), format!("{}: {}", path.display(), without_number(&e.to_string())));
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    limit_mode(&mut options);
    options.open(path).map_err(describe)
}

/// An existing file keeps its mode.
#[cfg(unix)]
fn limit_mode(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(super::NEW_FILE_MODE);
}

#[cfg(windows)]
fn limit_mode(_options: &mut OpenOptions) {}
