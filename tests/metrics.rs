//! METRICS: what the daemon serves by HTTP, and that no client can hurt replication.

use crate::harness::http::{ask, free_port, get, sample};
use crate::harness::{self, Daemon, End, Pair, Still, wait_until};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TABLE: &str = "create table t (id int primary key, a text)";

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
        get(self.port, path)
    }

    fn ask(&self, request: &str) -> String {
        ask(self.port, request)
    }
}

/// Two pairs in one process, at one address.
struct Several {
    pairs: [Pair; 2],
    daemon: Daemon,
    port: u16,
    directory: PathBuf,
}

impl Several {
    fn start(pairs: [Pair; 2]) -> Several {
        let (port, directory) = (free_port(), pairs[0].dir().join("conf.d"));
        std::fs::create_dir_all(&directory).unwrap();
        let write = |pair: &Pair| {
            let written = pair.config_file(&format!("METRICS=127.0.0.1:{port}\nTIMEOUT=1"));
            std::fs::copy(written, directory.join(format!("{}.conf", pair.name))).unwrap();
        };
        pairs.iter().for_each(write);
        let mut daemon = Daemon::spawn(&pairs[0].dir().join("served.log"), &[directory.to_str().unwrap()], &[]);
        daemon.wait_log("Serving http://127.0.0.1:");
        Several { pairs, daemon, port, directory }
    }

    /// What a scrape says of each pair. None if nothing.
    fn up(&self) -> [Option<bool>; 2] {
        let answer = get(self.port, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        [0, 1].map(|index| {
            let up = format!("pyreplica_up{{pair=\"{}\",field=\"replicated\"}}", self.pairs[index].name);
            sample(&answer, &up).map(|up| up == 1.0)
        })
    }

    /// The server processes of the sessions that look at a pair.
    fn sessions(&self, index: usize) -> Vec<String> {
        let pair = &self.pairs[index];
        let named = format!(
            "select pid::text from pg_stat_activity where application_name = 'pyreplica {} metrics'",
            pair.name
        );
        [pair.on_master(&named), pair.on_slave(&named)].concat()
    }

    fn file(&self, index: usize) -> [PathBuf; 2] {
        let file = self.directory.join(format!("{}.conf", self.pairs[index].name));
        [file.with_extension("away"), file]
    }

    fn remove(&self, index: usize) {
        let [away, file] = self.file(index);
        std::fs::rename(file, away).unwrap();
        self.daemon.signal("HUP");
    }

    fn add(&self, index: usize) {
        let [away, file] = self.file(index);
        std::fs::rename(away, file).unwrap();
        self.daemon.signal("HUP");
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

/// Counters begin at zero with the process, and only grow.
#[test]
fn the_daemon_counts_what_it_replays_its_errors_and_conflicts() {
    let served = Served::start();
    let labels = format!("{{pair=\"{}\",field=\"replicated\"}}", served.pair.name);
    let count = |name: &str| sample(&served.get("/metrics"), &format!("pyreplica_{name}_total{labels}")).unwrap();
    served.pair.run("insert into t select n, 'a' from generate_series(1, 30) n");
    wait_until("they are counted", || count("changes_replayed") == 30.0);
    assert_eq!((count("errors"), count("conflicts")), (0.0, 0.0));
    served.pair.run_on_slave("update t set a = 'other' where id <= 2");
    served.pair.run("update t set a = 'new' where id <= 3");
    wait_until("conflicts are counted", || (count("changes_replayed"), count("conflicts")) == (33.0, 2.0));
    served.pair.run_on_slave("insert into t values (50, 'in the way')");
    served.pair.run("insert into t values (50, 'a')");
    wait_until("errors are counted", || count("errors") > 1.0);
    served.pair.run_on_slave("delete from t where id = 50");
    wait_until("the change is counted once", || count("changes_replayed") == 34.0);
    let scrape = served.get("/metrics");
    assert_eq!(
        sample(&scrape, &format!("pyreplica_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))),
        Some(1.0)
    );
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"] {
        let value = sample(&scrape, &format!("process_{name}"));
        assert!(value.is_some_and(|value| value > 0.0) || cfg!(not(target_os = "linux")), "{name}: {value:?}");
    }
}

#[test]
fn what_is_no_request_for_anything_or_for_somebody_else_is_answered_briefly() {
    let served = Served::start();
    assert!(served.get("/nothing").starts_with("HTTP/1.1 404 "));
    assert!(served.get("/").starts_with("HTTP/1.1 200 "));
    // A page of a stranger whose name leads here.
    for (host, code) in [("stranger.example:80", 421), ("127.0.0.1:80", 200), ("[::1]:80", 200), ("LOCALHOST", 200)] {
        let answer = served.ask(&format!("GET /health?x HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(answer.starts_with("HTTP/1.1 421 "), code == 421, "{host}: {answer}");
    }
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
fn a_server_that_hangs_from_the_beginning_is_told() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pair = Pair::new();
    let port = silent.local_addr().unwrap().port();
    pair.slave_dsn = format!("host=127.0.0.1 port={port} user=postgres dbname=x connect_timeout=0 sslmode=disable");
    let served = Served::start_with(pair);
    for _ in 0..3 {
        let answer = served.get("/health");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("no answer within"), "{answer}");
        let answer = served.get("/metrics");
        let labels = format!("{{pair=\"{}\",field=\"replicated\"", served.pair.name);
        harness::assert_says(
            &answer,
            &["HTTP/1.1 200 ", &format!("up{labels}}} 0\n"), &format!("reachable{labels},side=\"master\"}} 1\n")],
        );
    }
}

/// Symptom: the answer waited for the slowest pair, and every second scrape failed for all of them.
#[test]
fn a_server_that_hangs_is_told_in_every_scrape_and_hides_no_other_pair() {
    let mut pairs = [Pair::new().with_a_table(), Pair::new().with_a_table()];
    let forwarders = pairs[0].put_behind_forwarders();
    let several = Several::start(pairs);
    wait_until("both are up", || several.up() == [Some(true), Some(true)]);
    for forwarder in &forwarders {
        forwarder.freeze();
        wait_until("the pair is down", || several.up() == [Some(false), Some(true)]);
        for _ in 0..3 {
            assert_eq!(several.up(), [Some(false), Some(true)]);
        }
        forwarder.thaw();
        wait_until("both are up again", || several.up() == [Some(true), Some(true)]);
        wait_until("no session is left over", || several.sessions(0).len() == 2);
    }
}

#[test]
fn the_sessions_are_kept_and_replaced_and_end_with_the_pair() {
    let several = Several::start([Pair::new().with_a_table(), Pair::new().with_a_table()]);
    wait_until("both are up", || several.up() == [Some(true), Some(true)]);
    let sessions = || several.sessions(0);
    let before = sessions();
    assert_eq!(before.len(), 2, "one on each side");
    assert_eq!(several.up(), [Some(true), Some(true)]);
    assert_eq!(sessions(), before);
    // One that hangs, though its server does not, is replaced.
    let hung = Still::make(before[1].parse().unwrap());
    wait_until("another one answers", || several.up() == [Some(true), Some(true)] && sessions().len() == 3);
    hung.go_on();
    wait_until("the former one has ended", || sessions().len() == 2);
    several.remove(0);
    wait_until("the pair is not served any more", || several.up() == [None, Some(true)]);
    wait_until("its sessions have ended", || sessions().is_empty());
}

#[test]
fn a_pair_that_restarts_with_other_settings_goes_on_counting() {
    let mut several = Several::start([Pair::new().with_a_table(), Pair::new()]);
    let (port, name) = (several.port, several.pairs[0].name.clone());
    let series = format!("pyreplica_changes_replayed_total{{pair=\"{name}\",field=\"replicated\"}}");
    let counted = || sample(&get(port, "/metrics"), &series);
    several.pairs[0].run("insert into t values (1, 'one')");
    wait_until("one change", || counted() == Some(1.0));
    let [_, file] = several.file(0);
    let text = std::fs::read_to_string(&file).unwrap() + "\nKEEPALIVE=true\n";
    std::fs::write(&file, text).unwrap();
    several.daemon.signal("HUP");
    several.daemon.wait_log("Restarting: the config file has changed");
    several.pairs[0].run("insert into t values (2, 'two')");
    wait_until("two changes", || counted() == Some(2.0));
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
    let several = Several::start([Pair::new(), Pair::new()]);
    let shown = || several.up().map(|up| up.is_some());
    wait_until("both are served", || shown() == [true, true]);
    several.remove(0);
    wait_until("the removed pair is not served any more", || shown() == [false, true]);
    several.add(0);
    wait_until("the new pair is served", || shown() == [true, true]);
    several.remove(1);
    wait_until("the removed pair is not served any more", || shown() == [true, false]);
    let mut daemon = several.daemon;
    assert!(daemon.terminate().success(), "{}", daemon.log());
}
