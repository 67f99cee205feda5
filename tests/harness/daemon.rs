//! The real binary as a process under the test's hand: its output, its signals, its end.

use super::{PATIENCE, wait_until};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Instant;

/// How much of a log a failed test shows.
const TAIL_LINES: usize = 60;

/// How a run of the binary ended, and everything it wrote, standard output and error in one.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub output: String,
}

impl Finished {
    /// The exit code; panics when a signal ended it.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by {}:\n{}", self.status, self.output))
    }

    /// How often `text` was written.
    pub fn count(&self, text: &str) -> usize {
        self.output.matches(text).count()
    }
}

/// Runs the binary to its end and returns what it wrote; `log` is a file that nobody else uses.
#[track_caller]
pub fn run(log: &Path, args: &[&str], env: &[(&str, &str)]) -> Finished {
    let mut daemon = Daemon::spawn(log, args, env);
    let status = daemon.wait_exit();
    Finished { status, output: daemon.log() }
}

/// A running pyreplica. It is killed when this is dropped; a failing test shows the end of its log.
pub struct Daemon {
    process: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Daemon {
    /// Starts the binary with a clean environment: what the machine has set for libpq is none of the tests' business.
    ///
    /// The kernel kills it when the test that started it is killed. The kernel counts the starting *thread* as the
    /// parent, so a daemon ends with the thread that called this.
    #[track_caller]
    pub fn spawn(log: &Path, args: &[&str], env: &[(&str, &str)]) -> Daemon {
        Daemon::spawn_behind(&[], log, args, env)
    }

    /// The same behind another command, which must turn into it by exec.
    #[track_caller]
    pub fn spawn_behind(prefix: &[String], log: &Path, args: &[&str], env: &[(&str, &str)]) -> Daemon {
        let output = File::create(log).expect("create the daemon's log");
        let words: Vec<&str> = prefix.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_pyreplica")]).collect();
        let mut command = mortal(words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars() {
            if name.starts_with("PG") || name.starts_with("DSN") || name.starts_with("PYREPLICA") {
                command.env_remove(name);
            }
        }
        command.args(args).envs(env.iter().copied()).stdin(std::process::Stdio::null());
        command.stdout(output.try_clone().expect("clone the log's handle")).stderr(output);
        let process = command.spawn().expect("pyreplica starts");
        Daemon { process, log: log.to_owned(), status: None }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Everything written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `text` was written.
    #[track_caller]
    pub fn wait_log(&mut self, text: &str) {
        self.wait_log_times(text, 1);
    }

    /// Waits until `text` was written `times` times.
    #[track_caller]
    pub fn wait_log_times(&mut self, text: &str, times: usize) {
        wait_until(&format!("{text:?} in pyreplica's log, {times} times"), || {
            // In this order: what a process wrote before its end counts.
            let ended = self.has_exited();
            let seen = self.log().matches(text).count() >= times;
            assert!(seen || !ended, "pyreplica ended ({:?}) without {text:?}", self.status);
            seen
        });
    }

    /// Waits for its own end.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        wait_until("the end of pyreplica", || self.has_exited());
        self.status.expect("it has ended")
    }

    pub fn has_exited(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.process.try_wait().expect("ask for the daemon's status");
        }
        self.status.is_some()
    }

    /// SIGTERM, as the init script does it, and the wait for the end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit()
    }

    /// The hard death, also of a paused process.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.process.kill().expect("kill pyreplica");
        self.wait_exit();
    }

    /// Sends a signal by name, e.g. `HUP`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits until the process has stopped itself at the step named by `PYREPLICA_PAUSE_AT`.
    #[track_caller]
    pub fn wait_paused(&mut self) {
        assert!(self.paused_or_exited(), "pyreplica ended ({:?}) without a pause", self.status);
    }

    /// Waits until the process pauses (true) or ends without having come to the step (false).
    #[track_caller]
    pub fn paused_or_exited(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        loop {
            if process_state(self.pid()) == Some('T') {
                return true;
            }
            if self.has_exited() {
                return false;
            }
            assert!(Instant::now() < end, "waited {PATIENCE:?} in vain for a pause of pyreplica");
            std::thread::sleep(super::POLL);
        }
    }

    /// Lets a paused process go on.
    #[track_caller]
    pub fn resume(&self) {
        self.signal("CONT");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.status.is_none() {
            // It may have ended in this very moment; then there is nothing to kill.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            eprintln!("--- the end of pyreplica's log ---\n{tail}\n--- {} lines in all ---", lines.len());
        }
    }
}

/// Sends a signal by name to any process, e.g. to a server's backend.
#[track_caller]
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "kill", name, &pid.to_string()]).status();
    assert!(status.expect("sh starts").success(), "kill -s {name} {pid}");
}

/// A server's process that stands still. It goes on at the latest when this is dropped, for the whole cluster waits for it
/// as soon as somebody drops a database.
pub struct Still(u32);

impl Still {
    #[track_caller]
    pub fn make(pid: u32) -> Still {
        signal(pid, "STOP");
        let still = Still(pid);
        wait_until("the process stands still", || process_state(pid) == Some('T'));
        still
    }

    pub fn go_on(self) {}
}

impl Drop for Still {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

/// The state letter of a process: `T` is stopped by a signal.
fn process_state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it, in parentheses, may hold anything.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A command whose process dies with the thread that starts it, where util-linux offers that.
fn mortal(program: &str) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let there = *SETPRIV.get_or_init(|| {
        let probe = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).status();
        probe.is_ok_and(|status| status.success())
    });
    if !there {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}
