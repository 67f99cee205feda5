//! The signals that the operator sends to the process. The only importer of the signal crates.

use std::io;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT. On Windows, Ctrl-C or another console event that ends a process.
    Stop,
    /// SIGHUP: the log file was renamed, or a config file has changed.
    Reload,
}

/// The signals that arrive after `register`. From then on they no longer kill the process.
#[cfg(unix)]
pub struct Signals(signal_hook::iterator::Signals);

#[cfg(unix)]
impl Signals {
    pub fn register() -> io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]).map(Signals)
    }

    /// Calls `handler` for each signal and never returns. It runs on the caller's thread, so it may lock and allocate.
    pub fn handle(mut self, handler: impl Fn(Signal)) {
        for signal in self.0.forever() {
            handler(if signal == signal_hook::consts::SIGHUP { Signal::Reload } else { Signal::Stop });
        }
    }
}

/// The signals that arrive after `register`. Windows has only those that stop the process.
#[cfg(windows)]
pub struct Signals(std::sync::mpsc::Receiver<()>);

#[cfg(windows)]
impl Signals {
    pub fn register() -> io::Result<Self> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let forward = move || {
            // An error means that the receiver is gone, so nothing handles signals any more.
            let _ = sender.send(());
        };
        ctrlc::set_handler(forward).map_err(io::Error::other)?;
        Ok(Signals(receiver))
    }

    /// Calls `handler` for each signal and never returns. It runs on the caller's thread, so it may lock and allocate.
    pub fn handle(self, handler: impl Fn(Signal)) {
        for () in self.0.iter() {
            handler(Signal::Stop);
        }
    }
}

/// Stops this process with SIGSTOP until a SIGCONT. Meanwhile a test kills it or a server, for example.
#[cfg(unix)]
pub fn stop_this_process() {
    signal_hook::low_level::raise(signal_hook::consts::SIGSTOP).expect("a process may stop itself");
}

/// Windows has no such signal, and the tests that use it do not run there.
#[cfg(windows)]
pub fn stop_this_process() {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use signal_hook::consts::{SIGHUP, SIGTERM};
    use signal_hook::low_level::raise;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn each_signal_arrives_as_what_it_asks_for() {
        let (sender, receiver) = channel();
        let signals = Signals::register().unwrap();
        std::thread::spawn(move || signals.handle(|signal| sender.send(signal).unwrap()));
        for (sent, expected) in [(SIGHUP, Signal::Reload), (SIGTERM, Signal::Stop), (SIGTERM, Signal::Stop)] {
            raise(sent).unwrap();
            assert_eq!(receiver.recv_timeout(Duration::from_secs(5)), Ok(expected));
        }
    }
}
