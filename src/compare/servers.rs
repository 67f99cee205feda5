//! Runs queries on both servers at the same time.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::config::settings::Config;
use crate::process::failpoint;
use crate::process::output::ProgressLine;
use crate::server::connect_pair;
use crate::server::session::{Session, TextRow};
use std::thread;
use std::time::Duration;

/// A pair's two sessions. A thread runs the slave's query whenever both are asked.
pub struct Servers {
    master: Session,
    slave: Session,
    control: Control,
    /// A pause before each query to both, so that other sessions get their turn.
    pause: Duration,
    progress: ProgressLine,
}

impl Servers {
    pub fn open(config: &Config, verb: &str, control: &Control, pause: Duration) -> Result<Servers> {
        let (master, slave) = connect_pair::open_both(config, verb, control)?;
        Ok(Servers { master, slave, control: control.clone(), pause, progress: ProgressLine::default() })
    }

    pub fn sessions(&mut self) -> (&mut Session, &mut Session) {
        (&mut self.master, &mut self.slave)
    }

    /// Clears the progress line, before something is printed.
    pub fn clear_progress(&mut self) {
        self.progress.end();
    }

    /// Runs one message on each side, both at the same time.
    pub fn ask_both(&mut self, operation: &str, master: &str, slave: &str) -> Result<(Vec<TextRow>, Vec<TextRow>)> {
        if self.control.is_stopping() || (!self.pause.is_zero() && self.control.pause(self.pause)) {
            return Err(stopped());
        }
        let on_slave = &mut self.slave;
        let (from_master, from_slave) = thread::scope(|scope| {
            let from_slave = scope.spawn(|| on_slave.text_rows(operation, slave));
            let from_master = self.master.text_rows(operation, master);
            (from_master, from_slave.join().expect("asking a server does not panic"))
        });
        let answers = from_master.and_then(|from_master| Ok((from_master, from_slave?)));
        // A stop cancels the running queries, which then fail.
        answers.map_err(|error| if self.control.is_stopping() { stopped() } else { error })
    }

    pub fn master(&mut self) -> &mut Session {
        &mut self.master
    }

    pub fn slave(&mut self) -> &mut Session {
        &mut self.slave
    }

    /// Waits. An error of `Kind::Stopped` if the operator stops the verb.
    pub fn pause(&mut self, length: Duration) -> Result<()> {
        if self.control.pause(length) { Err(stopped()) } else { Ok(()) }
    }

    /// Shows how far the verb has come.
    pub fn show_progress(&mut self, text: &dyn Fn() -> String) {
        self.progress.show(text);
    }

    /// A step at which a test may pause the process.
    pub fn reached(&mut self, step: &str) {
        failpoint::reached(step);
    }
}

fn stopped() -> Error {
    Error::new(Kind::Stopped, None, "go on", "interrupted")
}
