//! A connection pooler between pyreplica and a server: one that keeps a session for each client works, any other is refused
//! before anything is set in the sessions that the application uses too.

use crate::harness::{Pair, assert_says, signal, wait_until};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

/// pgbouncer in front of a server, as long as this lives.
struct Pooler {
    process: Child,
    port: u16,
}

impl Pooler {
    /// None if there is no pgbouncer on this machine.
    fn start(pair: &Pair, server_port: u16, mode: &str) -> Option<Pooler> {
        let found = Command::new("pgbouncer").arg("--version").stdout(Stdio::null()).status();
        if found.is_err() {
            eprintln!("there is no pgbouncer: poolers are not tested");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = std::env::temp_dir().join(format!("{}-{port}.ini", pair.name));
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\npool_mode = {mode}\nunix_socket_dir =\nignore_startup_parameters = \
             extra_float_digits\n"
        );
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
        // It refuses to run as root.
        let process = Command::new("runuser")
            .args(["-u", "postgres", "--", "pgbouncer", "-q"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer starts");
        wait_until("pgbouncer listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        fs::remove_file(&config).unwrap();
        Some(Pooler { process, port })
    }

    fn dsn(&self, dsn: &str, server_port: u16) -> String {
        dsn.replace(&format!("port={server_port}"), &format!("port={}", self.port))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // runuser passes it on.
        signal(self.process.id(), "TERM");
        let _ = self.process.wait();
    }
}

/// Symptom: the application's next statement found a session that was read-only, without its search_path or in the replica
/// role, in which its changes were not logged.
#[test]
fn a_pooler_that_pools_transactions_is_refused_before_anything_is_set() {
    let mut pair = Pair::new().with_a_table();
    let port = pair.slave_server().port();
    let Some(pooler) = Pooler::start(&pair, port, "transaction") else { return };
    let dsn = pooler.dsn(&pair.slave_dsn, port);
    pair.run("insert into t values (1, 'a')");
    let direct = std::mem::replace(&mut pair.slave_dsn, dsn.clone());
    for words in [&["status"][..], &["doctor"], &["compare"], &["pause"]] {
        let finished = pair.verb(words);
        assert_says(&finished.output, &["each transaction another session of the server", "pool_mode=session"]);
    }
    let finished = pair.try_once();
    assert_eq!(finished.code(), 5, "{}", finished.output);
    assert_says(&finished.output, &["slave: cannot connect to ", "pool_mode=session"]);
    let mut application = postgres::Client::connect(&dsn, postgres::NoTls).unwrap();
    for (setting, value) in [("session_replication_role", "origin"), ("default_transaction_read_only", "off")] {
        let answers = application.simple_query(&format!("show {setting}")).unwrap();
        let shown = answers.iter().find_map(|answer| match answer {
            postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
            _ => None,
        });
        assert_eq!(shown.as_deref(), Some(value), "{setting}");
    }
    pair.slave_dsn = direct;
    pair.once();
    pair.assert_equal();
}

#[test]
fn a_pooler_that_keeps_a_session_for_each_client_is_no_obstacle() {
    let mut pair = Pair::new().with_a_table();
    let port = pair.slave_server().port();
    let Some(pooler) = Pooler::start(&pair, port, "session") else { return };
    pair.run("insert into t values (1, 'a')");
    pair.slave_dsn = pooler.dsn(&pair.slave_dsn, port);
    pair.once();
    pair.assert_equal();
}
