//! A real mail server on the loopback (Debian's python3-aiosmtpd), and certificates for it.

use super::wait_until;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/smtp.py");

/// The distribution's Python first: it is the one that has the distribution's packages.
const PYTHONS: [&str; 2] = ["/usr/bin/python3", "python3"];

/// A mail as the server took it.
#[derive(Debug)]
pub struct Mail {
    /// `key: value` about the delivery, then about the header.
    lines: Vec<String>,
    pub body: String,
}

impl Mail {
    /// All values of a key: `from`, `to`, `tls`, `login`, `header-subject` and the like.
    pub fn all(&self, key: &str) -> Vec<&str> {
        let value = |line: &'_ String| line.strip_prefix(key).and_then(|rest| rest.strip_prefix(": ")).is_some();
        self.lines.iter().filter(|line| value(line)).map(|line| &line[key.len() + 2..]).collect()
    }

    /// The one value of a key.
    #[track_caller]
    pub fn one(&self, key: &str) -> &str {
        let found = self.all(key);
        assert_eq!(found.len(), 1, "{key} in {self:?}");
        found[0]
    }

    #[track_caller]
    pub fn subject(&self) -> &str {
        self.one("header-subject")
    }
}

pub struct MailServer {
    port: u16,
    dir: PathBuf,
    process: Child,
}

impl MailServer {
    /// With options of `smtp.py`; `dir` is a directory of the test's own.
    #[track_caller]
    pub fn start(dir: &Path, options: &[&str]) -> MailServer {
        let dir = dir.join("mails");
        fs::create_dir_all(&dir).expect("create the directory for mails");
        let has_package = |python: &&str| {
            let probe = Command::new(python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
            probe.is_ok_and(|status| status.success())
        };
        let python = PYTHONS.iter().find(|python| has_package(python));
        let python = python.expect("python3-aiosmtpd is missing: tests/run.sh installs it");
        let mut command = Command::new(python);
        let complaints = fs::File::create(dir.join("stderr")).expect("create the mail server's log");
        command.arg(SERVER).arg(&dir).args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints);
        let mut process = command.spawn().expect("the mail server starts");
        let mut line = String::new();
        let output = process.stdout.take().expect("it is a pipe");
        BufReader::new(output).read_line(&mut line).expect("read the mail server's port");
        let mut server = MailServer { port: 0, dir, process };
        server.port = line.trim().parse().expect("the mail server says its port");
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// All mails taken so far, in that order.
    pub fn mails(&self) -> Vec<Mail> {
        let entries = fs::read_dir(&self.dir).expect("read the directory of mails").map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "mail")).collect();
        files.sort();
        files.iter().map(|file| read(file)).collect()
    }

    /// Waits until a mail with this subject has been taken, and returns the first.
    #[track_caller]
    pub fn wait_for(&self, subject: &str) -> Mail {
        let mut found = None;
        wait_until(&format!("a mail {subject:?}"), || {
            found = self.mails().into_iter().find(|mail| mail.subject() == subject);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// The subjects of all mails taken so far.
    #[track_caller]
    pub fn subjects(&self) -> Vec<String> {
        self.mails().iter().map(|mail| mail.subject().to_string()).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the mail server ---\n{}", fs::read_to_string(self.dir.join("stderr")).unwrap_or_default());
        }
    }
}

/// Made by openssl in a directory of the test's own. All certificates are for localhost and 127.0.0.1.
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// `ca.pem`, which signed `server.pem`, and `self.pem`, which signed itself.
    #[track_caller]
    pub fn make(dir: &Path) -> Certificates {
        let script = "
            new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30'
            names='-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE'
            openssl req -x509 $new -subj '/CN=test authority' -keyout ca.key -out ca.pem
            openssl req -x509 $new -subj /CN=localhost $names -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem
            openssl req -x509 $new -subj /CN=itself $names -keyout self.key -out self.pem";
        let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().expect("sh starts");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        Certificates { dir: dir.to_owned() }
    }

    /// The path of one of the files.
    pub fn path(&self, file: &str) -> String {
        self.dir.join(file).to_str().expect("the target directory's name is text").to_string()
    }
}

fn read(file: &Path) -> Mail {
    let text = fs::read_to_string(file).expect("read a mail");
    let (head, body) = text.split_once("\n\n").expect("a mail has a head and a body");
    Mail { lines: head.lines().map(str::to_string).collect(), body: body.to_string() }
}
