//! Both servers at work at the same time, for verbs that ask them the same.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::config::settings::Config;
use crate::process::failpoint;
use crate::process::output::ProgressLine;
use crate::server::connect_pair;
use crate::server::session::{Session, TextRow};
use std::thread;
use std::time::Duration;

/// A pair's two sessions, with a thread for the slave's whenever both are asked.
pub struct Servers {
    master: Session,
    slave: Session,
    control: Control,
    /// Between two questions to both, so that others get their turn.
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

    /// Takes the line of progress away, before something is printed.
    pub fn quiet(&mut self) {
        self.progress.end();
    }

    /// Runs one message on each side at the same time.
    pub fn ask(&mut self, operation: &str, master: &str, slave: &str) -> Result<(Vec<TextRow>, Vec<TextRow>)> {
        if self.control.is_stopping() || (!self.pause.is_zero() && self.control.pause(self.pause)) {
            return Err(stopped());
        }
        let on_slave = &mut self.slave;
        let (there, here) = thread::scope(|scope| {
            let here = scope.spawn(|| on_slave.text_rows(operation, slave));
            let there = self.master.text_rows(operation, master);
            (there, here.join().expect("asking a server does not panic"))
        });
        let answers = there.and_then(|there| Ok((there, here?)));
        // The stop cancels what the servers are doing.
        answers.map_err(|error| if self.control.is_stopping() { stopped() } else { error })
    }

    pub fn master(&mut self) -> &mut Session {
        &mut self.master
    }

    pub fn slave(&mut self) -> &mut Session {
        &mut self.slave
    }

    /// An error of `Kind::Stopped` when it is time to stop.
    pub fn pause(&mut self, length: Duration) -> Result<()> {
        if self.control.pause(length) { Err(stopped()) } else { Ok(()) }
    }

    /// Shows how far it has come.
    pub fn show(&mut self, text: &dyn Fn() -> String) {
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
