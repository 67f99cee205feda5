//! The binary as a shell sees it: words in, lines and exit codes out. No database is needed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

fn pyreplica() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyreplica"));
    for variable in ["DSN0", "DSN1", "PGHOST", "PGPORT", "PGPASSWORD", "PGSERVICE"] {
        command.env_remove(variable);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    pyreplica().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory of its own for one test, gone at the end of it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pyreplica-cli-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, file: &str, text: &str) -> String {
        let path = self.0.join(file);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn help_and_version_go_to_stdout_and_succeed() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("example:") && stdout(&help).contains("exit codes"));
    assert!(stdout(&run(&["install", "--help"])).contains("pyreplica install [--ddl] [--json] DSN"));
    let version = stdout(&run(&["--version"]));
    assert!(version.starts_with(concat!("pyreplica ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
    assert!(version.contains("built by rustc 1.") && version.lines().count() == 1, "{version}");
    let is_repository = fs::exists(concat!(env!("CARGO_MANIFEST_DIR"), "/.git")).unwrap();
    assert_eq!(version.contains("(commit "), is_repository || option_env!("PYREPLICA_COMMIT").is_some(), "{version}");
}

#[test]
fn wrong_usage_is_one_line_a_hint_and_exit_code_2() {
    let output = run(&["--nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "pyreplica: cannot understand the command line: unknown option --nonsense\n\
         hint: pyreplica --help shows the usage\n"
    );
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_wrong_config_file_is_named_with_line_and_key_and_exit_code_3() {
    let dir = Scratch::new("config");
    let file = dir.write("x.conf", "[MAIN]\nNAME=x\nDSN0=host=a password=hunter2\nDSN1=host=b\nDEBUG_LEVEL=7\n");
    let output = run(&[&file]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        stderr(&output),
        format!("pyreplica: cannot use the config file: {file}:5: DEBUG_LEVEL: must be 0 to 3\n")
    );
}

const SHORT: &str = "[MAIN]\nNAME=x\nDSN0=host=a password=hunter2\nDSN1=host=b\n";

#[test]
fn check_config_names_all_that_is_wrong_and_what_was_meant_and_needs_no_server() {
    let dir = Scratch::new("check");
    let good = dir.write("a.conf", "[MAIN]\nNAME=good\nDSN0=host=a\nDSN1=host=b\n");
    let output = run(&["check-config", &good]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    assert_eq!(stdout(&output), format!("ok       {good}: good, from 'host=a' to 'host=b'\n"));

    let bad = dir.write("b.conf", &format!("{SHORT}TIMOUT=5\nDEBUG_LEVEL=7\n"));
    let output = run(&["check-config", dir.path()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stdout(&output).ends_with(&format!(
        "failure  {bad}:5: TIMOUT: unknown key in [MAIN]: did you mean TIMEOUT?\n\
         failure  {bad}:6: DEBUG_LEVEL: must be 0 to 3\n"
    )));
    assert!(!stdout(&output).contains("hunter2"));

    // Neither an unknown section nor a value of a connection string hides the others; the command line is checked as well.
    let bad = dir.write("c.conf", "[MAIN]\nNAME=c\nDSN0=sslmode=bogus port=abc\nDSN1=host=b\n[SMPT]\nSERVER=x\n");
    let output = run(&["check-config", &bad]);
    let modes = "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full";
    let ports = "port must be 1 to 65535, or one for each host";
    let sections = "[SMPT]: unknown section: did you mean [SMTP]?";
    let expected = format!("failure  {bad}:3: DSN0: {modes}; {ports}\nfailure  {bad}:5: {sections}\n");
    assert_eq!((output.status.code(), stdout(&output)), (Some(3), expected));
    let output = run(&["check-config", "host=a", "host=a"]);
    let expected = "failure  DSN1: must be another database than DSN0's\n".to_string();
    assert_eq!((output.status.code(), stdout(&output)), (Some(3), expected));
    let same = dir.write("d.conf", "[MAIN]\nNAME=d\nDSN0=host=a\nDSN1=host=a\n");
    assert!(stdout(&run(&["check-config", &same])).contains("d.conf:4: DSN1: must be another database than DSN0's"));
    let bad = dir.write("b.conf", &format!("{SHORT}TIMOUT=5\nDEBUG_LEVEL=7\n"));

    // Whoever uses it gets them on one line.
    let output = run(&["--once", &bad]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).ends_with(
            ":5: TIMOUT: unknown key in [MAIN]: did you mean TIMEOUT?; line 6: DEBUG_LEVEL: must be 0 to 3\n"
        )
    );
}

#[test]
fn with_json_a_verb_prints_one_document_also_about_an_error() {
    let dir = Scratch::new("json");
    let file = dir.write("x.conf", &format!("{SHORT}DEBUG_LEVEL=7\n"));
    for (words, code, why) in [
        (&["compare", "--json", &file][..], 3, "DEBUG_LEVEL"),
        (&["pending", "--json", &file], 3, "DEBUG_LEVEL"),
        (&["status", "--json", &file], 3, "DEBUG_LEVEL"),
        (&["doctor", "--json", "/nonexistent/x.conf"], 3, "no such file"),
        (&["check-config", "--json", &file], 3, "DEBUG_LEVEL"),
        (&["install", "--json", "host=127.0.0.1 port=9"], 4, "cannot connect"),
        (&["skip", "--json", "7", "--nonsense", &file], 2, "unknown option"),
        (&["copy", "--json", "host=127.0.0.1 port=9", "host=127.0.0.1 port=9"], 4, "listen_addresses"),
        (&["statsu", "--json"], 2, "did you mean status?"),
    ] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        let document: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(document.to_string().contains(why), "{words:?}: {document}");
        assert!(!document.to_string().contains("os error"), "{document}");
        if let Some(error) = document.get("error") {
            assert_eq!(document["exit_code"], code, "{words:?}: {document}");
            assert!(stderr(&output).contains(error["message"].as_str().unwrap()), "{words:?}: {document}");
        }
    }
}

#[test]
fn an_error_reaches_the_log_file_too() {
    let dir = Scratch::new("log");
    let log = dir.0.join("log");
    let output = run(&["--log", log.to_str().unwrap(), dir.path()]);
    assert_eq!(output.status.code(), Some(3));
    let text = fs::read_to_string(log).unwrap();
    assert!(text.starts_with("pyreplica ") && text.contains("no *.conf file") && text.contains("\n\thint: "), "{text}");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_an_error() {
    let output = run(&["--log", "/nonexistent/log", "host=a", "host=b"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("/nonexistent/log: No such file"), "{}", stderr(&output));
}

#[test]
fn the_connection_strings_of_the_environment_are_checked_like_arguments() {
    let output = pyreplica().env("DSN0", "host=a").env("DSN1", "password=hunter2 hunter3=x").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).starts_with("pyreplica: slave: cannot understand the connection string"));
    assert!(!stderr(&output).contains("hunter"));
}

#[test]
fn what_a_verb_cannot_use_is_refused_with_its_own_hint() {
    let dir = Scratch::new("refused");
    let file =
        dir.write("x.conf", "[MAIN]\nNAME=x\nDSN0=host=/nonexistent dbname=a\nDSN1=host=/nonexistent dbname=b\n");
    for (words, code, why) in [
        (
            &["install", "shop.conf"][..],
            3,
            "hint: the verb takes the connection string of one database, not a config file: ",
        ),
        (&["uninstall", "shop.conf"], 3, "pyreplica uninstall 'host=... dbname=...'"),
        (&["status", "--watch", "0", &file], 2, "--watch needs a number from 1 to 3600"),
        (&["status", "--json", "--prometheus", &file], 2, "two formats"),
        (&["failback", "--replay-lost", "--discard-lost", &file], 2, "hint: pyreplica help failback shows the usage"),
        (&["status", ""], 3, "its name is empty\nhint: is a variable"),
        (&["status", "/nonexistent/x.conf"], 3, "hint: name a config file"),
        (&["pending", &file], 4, "unix_socket_directories"),
    ] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{words:?}: {}", stderr(&output));
        assert_eq!(stdout(&output).is_empty(), !words.contains(&"--json"), "{words:?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error_with_a_hint() {
    let output = run(&["/nonexistent/x.conf"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("/nonexistent/x.conf: there is no such file"));
    assert!(stderr(&output).contains("\nhint: "));
}

#[cfg(target_os = "linux")]
mod running {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;
    use std::process::{Child, Stdio};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    fn to_file(words: &[&str], file: &Path, environment: &[(&str, &str)]) -> Output {
        let stdout = fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        let journal = fs::metadata(file).map(|meta| format!("{}:{}", meta.dev(), meta.ino())).unwrap();
        let environment = environment.iter().map(|(name, value)| (*name, value.replace("THIS", &journal)));
        pyreplica().args(words).envs(environment).stdout(stdout).output().unwrap()
    }

    #[test]
    fn output_that_cannot_be_written_is_an_error_with_its_reason() {
        let dir = Scratch::new("full");
        let file = dir.write("x.conf", "[MAIN]\nNAME=x\nDSN0=host=a\nDSN1=host=b\n");
        for words in [&["--help"][..], &["--version"], &["check-config", &file], &["check-config", "--json", &file]] {
            let output = to_file(words, Path::new("/dev/full"), &[]);
            let told = "pyreplica: cannot write the output: No space left on device\n";
            assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(3), told), "{words:?}");
        }
    }

    #[test]
    fn a_line_of_the_log_has_the_time_that_one_wants_and_none_in_the_journal() {
        let dir = Scratch::new("format");
        let logged = |words: &[&str], environment: &[(&str, &str)]| {
            let log = dir.0.join("stdout");
            drop(fs::remove_file(&log));
            let words: Vec<&str> = words.iter().copied().chain(["--once", "host=127.0.0.1 port=9", "host=b"]).collect();
            to_file(&words, &log, environment);
            fs::read_to_string(&log).unwrap()
        };
        let opening = "Opening origin (master) connection\n";
        let zone = [("TZ", "UTC")];
        let original = logged(&[], &[]);
        assert!(
            original.starts_with("pyreplica ") && original.ends_with(opening) && !original.contains('+'),
            "{original}"
        );
        assert!(logged(&["--log-format", "iso"], &zone).ends_with(&format!("+00:00 {opening}")));
        assert_eq!(logged(&["--log-format=syslog"], &[]), format!("<6>pyreplica {opening}"));
        assert_eq!(logged(&[], &[("JOURNAL_STREAM", "THIS")]), format!("<6>pyreplica {opening}"));
        assert!(logged(&[], &[("JOURNAL_STREAM", "1:2")]).starts_with("pyreplica "));
        assert!(logged(&["--log-format=original"], &[("JOURNAL_STREAM", "THIS")]).starts_with("pyreplica "));
    }

    /// What appears on a terminal of this width.
    fn on_a_terminal(columns: u32, words: &str, environment: &[(&str, &str)]) -> String {
        let line = format!("stty cols {columns}; exec {} {words}", env!("CARGO_BIN_EXE_pyreplica"));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
        for variable in ["DSN0", "DSN1", "PGHOST", "PGPORT", "COLUMNS", "NO_COLOR"] {
            command.env_remove(variable);
        }
        let output = command.env("TERM", "xterm").envs(environment.iter().copied()).output().unwrap();
        stdout(&output).replace("\r\n", "\n")
    }

    #[test]
    fn a_table_fits_the_terminal_and_colours_are_only_there_and_can_be_refused() {
        let dir = Scratch::new("terminal");
        let file =
            dir.write("x.conf", "[MAIN]\nNAME=x\nDSN0=host=127.0.0.1 port=9\nDSN1=host=127.0.0.1 port=9 dbname=d\n");
        let status = |columns| on_a_terminal(columns, &format!("status {file}"), &[]);
        assert!(status(200).starts_with("PAIR  STATE    BEHIND  SECONDS  PER SECOND  LAST REPLAYED  AT"));
        assert!(status(80).starts_with("PAIR  STATE    BEHIND  SECONDS  PER SECOND  CONFLICTS  LOG\n"));
        assert!(status(40).starts_with("PAIR           x\nSTATE          unknown\n"));
        assert!(stdout(&run(&["status", &file])).contains("LAST REPLAYED"), "what no person looks at has all columns");

        let check = |environment: &[(&str, &str)]| on_a_terminal(80, &format!("check-config {file}"), environment);
        assert!(check(&[]).starts_with("\u{1b}[32mok\u{1b}[0m       "), "{}", check(&[]));
        for refused in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
            assert!(check(&refused).starts_with("ok       "), "{}", check(&refused));
        }
        assert!(stdout(&run(&["check-config", &file])).starts_with("ok       "));
    }

    /// A running daemon, killed at the end of the test.
    struct Daemon(Child);

    impl Daemon {
        fn start(arguments: &[&str]) -> Self {
            Daemon(pyreplica().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        }

        /// What the kernel shows about the process.
        fn shows(&self, file: &str) -> String {
            let bytes = fs::read(format!("/proc/{}/{file}", self.0.id())).unwrap();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        }

        fn signal(&self, signal: &str) {
            // The shell's own: a minimal Debian has no program of that name.
            let status =
                Command::new("sh").args(["-c", "kill \"$@\"", "kill", signal, &self.0.id().to_string()]).status();
            assert!(status.unwrap().success());
        }

        fn exit_code(&mut self) -> Option<i32> {
            let mut status = None;
            wait_until(|| {
                status = self.0.try_wait().unwrap();
                status.is_some()
            });
            status.unwrap().code()
        }
    }

    impl Drop for Daemon {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Bounds a hang. Who waits for a silent server would do so for an hour.
    const PATIENCE: Duration = Duration::from_secs(180);

    #[track_caller]
    fn wait_until(mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < end, "it did not come to pass within {PATIENCE:?}");
            sleep(Duration::from_millis(5));
        }
    }

    /// A server that accepts connections and never answers: a daemon stays at its login.
    fn silent_server() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[test]
    fn a_password_on_the_command_line_does_not_stay_in_the_process_list() {
        let (_server, port) = silent_server();
        let master = format!("host=127.0.0.1 port={port} user=me password=hunter2 sslmode=disable");
        let daemon = Daemon::start(&[&master, &format!("postgres://me:hunter2@127.0.0.1:{port}/d")]);

        wait_until(|| {
            let line = daemon.shows("cmdline");
            line.contains(&format!("port={port}")) && !line.contains("hunter2")
        });
        assert_eq!(daemon.shows("comm").trim(), "pyreplica");
        assert!(daemon.shows("environ").contains("PYREPLICA_PASSWORD1=password=hunter2"));
    }

    #[test]
    fn the_log_is_reopened_on_hangup_and_a_stop_ends_with_exit_code_0() {
        let (_server, port) = silent_server();
        let dir = Scratch::new("signals");
        let dsn = format!("host=127.0.0.1 port={port} user=me sslmode=disable connect_timeout=3600");
        let config = dir.write("x.conf", &format!("[MAIN]\nNAME=x\nDSN0={dsn}\nDSN1={dsn} dbname=d\n"));
        let (log, moved) = (dir.0.join("log"), dir.0.join("log.1"));
        let mut daemon = Daemon::start(&["--log", log.to_str().unwrap(), &config]);

        wait_until(|| fs::read_to_string(&log).is_ok_and(|text| !text.is_empty()));
        fs::rename(&log, &moved).unwrap();
        daemon.signal("-HUP");
        wait_until(|| log.exists());
        daemon.signal("-TERM");
        assert_eq!(daemon.exit_code(), Some(0));
        assert!(fs::read_to_string(&log).unwrap().contains("Stopping"));
        assert!(!fs::read_to_string(&moved).unwrap().contains("Stopping"));
    }

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_log_file_is_nobody_elses_and_an_old_one_keeps_its_mode() {
        let dir = Scratch::new("log-mode");
        let log = dir.0.join("log");
        let run = || {
            let words =
                ["-c", "umask 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_pyreplica"), "--log", log.to_str().unwrap()];
            Command::new("sh").args(words).arg(dir.path()).output().unwrap()
        };
        run();
        assert_eq!(mode(&log), 0o640);
        fs::set_permissions(&log, fs::Permissions::from_mode(0o664)).unwrap();
        run();
        assert_eq!(mode(&log), 0o664);
    }

    #[test]
    fn a_config_file_with_a_password_that_others_may_read_or_write_is_warned_of() {
        let dir = Scratch::new("config-mode");
        let (dsn, log) = ("host=127.0.0.1 port=9 user=me", dir.0.join("log"));
        let mail = "[SMTP]\nSERVER=x\nFROM_ADDR=a@b.c\nTO_ADDRS=a@b.c\nUSERNAME=joe\nPASSWORD=hunter2\n";
        // Only root can give a file to somebody else. docs/service.md has 0640 for a file of root.
        let own = fs::metadata(&dir.0).unwrap().uid();
        let other = if own == 0 { 65_534 } else { own };
        for (is_told, mode, owner, password, rest) in [
            (true, 0o644, own, " password=hunter2", ""),
            (true, 0o620, own, " password=hunter2", ""),
            (own != 0, 0o640, own, "", mail),
            (true, 0o640, other, "", mail),
            (false, 0o600, own, " password=hunter2", mail),
            (false, 0o644, own, "", ""),
        ] {
            let text = format!("[MAIN]\nNAME=x\nDSN0={dsn}\nDSN1={dsn} dbname=d{password}\n{rest}");
            let file = dir.write("x.conf", &text);
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(&file, Some(owner), None).unwrap();
            drop(fs::remove_file(&log));
            let output = super::run(&["--once", "--log", log.to_str().unwrap(), &file]);
            let told = fs::read_to_string(&log).unwrap();
            let warning = format!("WARNING: config file {file} holds a password and has group or world access");
            assert_eq!(told.contains(&warning), is_told, "{mode:o} {password} {rest}: {told}\n{}", stderr(&output));
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn a_verb_that_waits_for_a_silent_server_is_interrupted_at_once() {
        let (server, port) = silent_server();
        let dsn = format!("host=127.0.0.1 port={port} user=me sslmode=disable connect_timeout=3600");
        let mut daemon = Daemon::start(&["doctor", &dsn, &dsn]);
        // It has registered its signals before it connects.
        let _held = server.accept().unwrap();
        daemon.signal("-INT");
        assert_eq!(daemon.exit_code(), Some(130));
    }
}
