//! `--user`: root starts it, somebody else does the work. Root alone can test that; elsewhere these tests only say so.
#![cfg(target_os = "linux")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(180);

/// A user that every Linux has, and that owns nothing.
const NOBODY: &str = "nobody";

/// A directory that only root may write to, with a copy of the program that everybody may execute: the build's own
/// directory may be closed to others.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Place {
        let path = std::env::temp_dir().join(format!("pyreplica-user-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        // By another process: while this one had the copy open for writing, a child that another test starts at that
        // moment would hold it open too, and a file that is being written cannot be executed.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_pyreplica")).arg(path.join("pyreplica")).status();
        assert!(copied.unwrap().success());
        Place(path)
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().unwrap().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("pyreplica"));
        command.args(arguments).env("HOME", "/root").env("USER", "root");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running daemon, killed at the end of the test.
struct Daemon(Child);

impl Daemon {
    fn shows(&self, file: &str) -> String {
        let bytes = fs::read(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', "\n")
    }

    /// The ids in one line of `/proc/PID/status`.
    fn ids(&self, line: &str) -> Vec<u32> {
        let status = self.shows("status");
        let ids = status.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_default();
        ids.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn wait_until(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "it did not come to pass within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_root() -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        eprintln!("skipped: only root can give up root's rights");
    }
    root
}

/// User and group id of nobody.
fn nobody() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("nobody:")).expect("every Linux has the user nobody");
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that accepts connections and never answers, and a connection string for it.
fn silent_server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("host=127.0.0.1 port={port} user=me password=hunter2 sslmode=disable"))
}

#[test]
fn nothing_of_root_is_left_and_the_password_is_still_there() {
    if !is_root() {
        return;
    }
    let (_server, dsn) = silent_server();
    let place = Place::new("drop");
    let log = place.path("log");
    let mut command = place.command(&["--user", NOBODY, "--log", &log, &dsn, &dsn]);
    let daemon = Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());

    let (uid, gid) = nobody();
    wait_until(|| daemon.ids("Uid:") == [uid; 4] && fs::read_to_string(&log).is_ok_and(|text| !text.is_empty()));
    assert_eq!(daemon.ids("Gid:"), [gid; 4]);
    assert_eq!(daemon.ids("Groups:"), [0; 0]);
    for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"] {
        assert!(daemon.shows("status").contains(line), "{}", daemon.shows("status"));
    }
    let environment = daemon.shows("environ");
    assert!(environment.contains("\nUSER=nobody\n") || environment.starts_with("USER=nobody\n"), "{environment}");
    assert!(!environment.contains("HOME=/root\n") && environment.contains("=password=hunter2"), "{environment}");
    assert!(!daemon.shows("cmdline").contains("hunter2"));

    let meta = fs::metadata(&log).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (uid, gid, 0o640));
}

#[test]
fn a_log_file_that_is_there_keeps_its_owner_and_must_be_writable() {
    if !is_root() {
        return;
    }
    let place = Place::new("log");
    let log = place.path("log");
    fs::write(&log, "before\n").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o644)).unwrap();
    let arguments = ["--user=nobody", "--log", &log, "/nonexistent/x.conf"];
    let refused = place.run(&arguments);
    assert_eq!(refused.status.code(), Some(3));
    assert!(said(&refused).contains("cannot open the log file") && said(&refused).contains("Permission denied"));
    assert_eq!(fs::read_to_string(&log).unwrap(), "before\n");

    chown(&log, Some(nobody().0), None).unwrap();
    assert_eq!(place.run(&arguments).status.code(), Some(3));
    assert!(fs::read_to_string(&log).unwrap().contains("there is no such file"));
}

#[test]
fn config_files_are_read_as_that_user() {
    if !is_root() {
        return;
    }
    let place = Place::new("config");
    let file = place.path("x.conf");
    fs::write(&file, "[MAIN]\nNAME=x\nDSN0=host=a\nDSN1=nonsense\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let output = place.run(&["--user", NOBODY, &file]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("Permission denied"), "{}", said(&output));
}

#[test]
fn the_user_himself_may_say_his_name_and_nobody_else_anothers() {
    if !is_root() {
        return;
    }
    let place = Place::new("self");
    let (uid, gid) = nobody();
    let as_nobody = |arguments: &[&str]| {
        use std::os::unix::process::CommandExt;
        place.command(arguments).uid(uid).gid(gid).output().unwrap()
    };
    let own = as_nobody(&["--user", NOBODY, "/nonexistent/x.conf"]);
    assert!(said(&own).contains("there is no such file"), "{}", said(&own));
    let other = as_nobody(&["--user", "daemon", "/nonexistent/x.conf"]);
    assert_eq!(other.status.code(), Some(2));
    assert_eq!(
        said(&other),
        "pyreplica: cannot run as user daemon: only root can become another user\n\
         hint: start it as root, or without --user\n"
    );
}

#[test]
fn a_user_that_does_not_exist_is_wrong_usage() {
    let place = Place::new("unknown");
    for (arguments, why) in [
        (
            &["--user", "no-such-user", "/nonexistent/x.conf"][..],
            "cannot run as user no-such-user: there is no such user",
        ),
        (&["/nonexistent/x.conf", "--user"], "--user needs a user name"),
        (&["--user=", "/nonexistent/x.conf"], "--user needs a user name"),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(why), "{}", said(&output));
    }
}

#[test]
fn a_program_that_the_user_cannot_execute_is_an_error_and_not_run_by_root() {
    if !is_root() {
        return;
    }
    let place = Place::new("closed");
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o700)).unwrap();
    let output = place.run(&["--user", NOBODY, "/nonexistent/x.conf"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("hint: that user must be able to execute this program"), "{}", said(&output));
}
