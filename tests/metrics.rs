//! METRICS: what the daemon serves by HTTP, and that no client can hurt replication.

use crate::harness::{self, Daemon, End, Pair, wait_until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TABLE: &str = "create table t (id int primary key, a text)";

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Served {
    pair: Pair,
    daemon: Daemon,
    port: u16,
}

impl Served {
    fn start() -> Served {
        let pair = Pair::new();
        pair.exec_both(TABLE);
        pair.create_triggers();
        Served::start_with(pair)
    }

    fn start_with(pair: Pair) -> Served {
        let port = free_port();
        let mut daemon = pair.start_with(&format!("METRICS=127.0.0.1:{port}"));
        daemon.wait_log("Serving http://127.0.0.1:");
        Served { pair, daemon, port }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(harness::PATIENCE)).unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn metrics_and_health_follow_the_pair() {
    let mut served = Served::start();
    served.pair.run("insert into t values (1, 'one')");
    served.pair.wait_caught_up();
    let sample = format!("pyreplica_lag_changes{{pair=\"{}\",field=\"replicated\"}} 0\n", served.pair.name);
    wait_until("the slave is up to date", || served.get("/metrics").contains(&sample));
    let metrics = served.get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    let (head, body) = metrics.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    assert!(served.get("/health").starts_with("HTTP/1.1 200 OK\r\n"), "{}", served.get("/health"));

    // A change that cannot be replayed.
    served.pair.run_on_slave("insert into t values (2, 'in the way')");
    served.pair.run("insert into t values (2, 'two')");
    // For a moment the daemon is gone and has not left the reason yet.
    wait_until("the failure is shown", || served.get("/health").contains("failing since "));
    let health = served.get("/health");
    assert!(health.starts_with("HTTP/1.1 503 ") && health.contains("already exists"), "{health}");
    served.pair.run_on_slave("delete from t where id = 2");
    wait_until("the end of it is shown", || served.get("/health").starts_with("HTTP/1.1 200 "));
    assert!(served.daemon.terminate().success());
}

#[test]
fn what_is_no_request_for_anything_is_answered_briefly() {
    let served = Served::start();
    assert!(served.get("/nothing").starts_with("HTTP/1.1 404 "));
    assert!(served.get("/").starts_with("HTTP/1.1 200 "));
    assert!(served.ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    let head = served.ask("HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn clients_that_say_nothing_too_much_or_go_away_hurt_nobody() {
    let mut served = Served::start();
    let silent: Vec<TcpStream> = (0..3).map(|_| served.connect()).collect();
    let mut endless = served.connect();
    endless.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    // Its end is that nobody listens any more.
    let _ = endless.write_all(&vec![b'x'; 1 << 20]);
    drop(served.connect());
    served.pair.run("insert into t values (1, 'one')");
    served.pair.wait_caught_up();
    assert!(served.get("/health").starts_with("HTTP/1.1 "), "others get their turn");
    drop(silent);
    assert!(served.daemon.terminate().success());
}

/// Each of them would take two seconds, one after the other.
#[test]
fn however_many_clients_say_nothing_or_little_others_are_served() {
    let served = Served::start();
    wait_until("the daemon is connected", || served.get("/health").starts_with("HTTP/1.1 200 "));
    let mut silent: Vec<TcpStream> = (0..150).map(|_| served.connect()).collect();
    assert!(served.get("/health").starts_with("HTTP/1.1 200 "));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                silent.push(served.connect());
                // Those that had to go say nothing any more.
                silent.iter_mut().rev().take(40).for_each(|client| drop(client.write_all(b"G")));
                silent.truncate(silent.len().min(200));
                std::thread::sleep(Duration::from_millis(20));
                if silent.len() == 200 {
                    silent.drain(..100);
                }
            }
        });
        let began = Instant::now();
        for path in ["/health", "/metrics"].repeat(10) {
            assert!(served.get(path).starts_with("HTTP/1.1 200 "), "{path}");
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    });
}

#[test]
fn a_request_without_end_is_cut_off() {
    let served = Served::start();
    let mut endless = served.connect();
    endless.set_write_timeout(Some(harness::PATIENCE)).unwrap();
    let cut = (0..1 << 12).any(|_| endless.write_all(&[b'x'; 1 << 12]).is_err());
    assert!(cut, "16 MB were taken");
}

/// It accepts connections and says nothing, and the connection string lets the daemon wait for ever.
#[test]
fn a_server_that_hangs_is_told_and_does_not_hang_the_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pair = Pair::new();
    let port = silent.local_addr().unwrap().port();
    pair.slave_dsn = format!("host=127.0.0.1 port={port} user=postgres dbname=x connect_timeout=0 sslmode=disable");
    let served = Served::start_with(pair);
    for path in ["/health", "/metrics"] {
        let answer = served.get(path);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("do not answer within"), "{answer}");
    }
}

#[test]
fn an_address_that_is_taken_is_a_warning_and_replication_goes_on() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let pair = Pair::new();
    pair.exec_both(TABLE);
    pair.create_triggers();
    let mut daemon = pair.start_with(&format!("METRICS={}", taken.local_addr().unwrap()));
    daemon.wait_log("cannot serve METRICS=");
    pair.run("insert into t values (1, 'one')");
    pair.wait_caught_up();
}

#[test]
fn a_reload_changes_which_pairs_are_served() {
    let pairs = [Pair::new(), Pair::new()];
    let directory = pairs[0].dir().join("conf.d");
    std::fs::create_dir_all(&directory).unwrap();
    let port = free_port();
    let file = |pair: &Pair| directory.join(format!("{}.conf", pair.name));
    let write = |pair: &Pair| {
        let written = pair.config_file(&format!("METRICS=127.0.0.1:{port}"));
        std::fs::copy(written, file(pair)).unwrap();
    };
    write(&pairs[0]);
    let mut daemon = Daemon::spawn(&pairs[0].dir().join("served.log"), &[directory.to_str().unwrap()], &[]);
    daemon.wait_log("Serving http://127.0.0.1:");
    let shows = |pair: &Pair| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.contains(&format!("pair=\"{}\"", pair.name))
    };
    assert!(shows(&pairs[0]) && !shows(&pairs[1]));
    write(&pairs[1]);
    daemon.signal("HUP");
    wait_until("the new pair is served", || shows(&pairs[1]));
    std::fs::remove_file(file(&pairs[0])).unwrap();
    daemon.signal("HUP");
    wait_until("the removed pair is not served any more", || !shows(&pairs[0]));
    assert!(shows(&pairs[1]));
    assert!(daemon.terminate().success(), "{}", daemon.log());
}
