//! Serves the state of the pairs over HTTP: `/metrics` for Prometheus, and `/health` for programs that restart
//! services.
//!
//! A thread of its own serves one request at a time, with limits for its time and its length. So a slow or malicious
//! client cannot disturb replication. Another thread queries the databases, so that `/health` can report a database
//! that hangs. The result is kept for a moment, so that many requests do not cause many queries.

use crate::base::control::Control;
use crate::config::settings::Config;
use crate::health::status::{self, PairStatus};
use crate::process::logger::OWN_TARGET;
use crate::server::connect_pair::{self, BothSides};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a client may take for its whole request, and how long each write may take.
const CLIENT_TIME: Duration = Duration::from_secs(2);

/// A longer request is refused.
const LONGEST_REQUEST: usize = 8192;

/// How long the databases may take. After this time the client gets the answer that they do not answer.
const DATABASE_TIME: Duration = Duration::from_secs(10);

/// How long a result of the databases is used for further requests.
const FRESH_TIME: Duration = Duration::from_secs(1);

/// The pause after a connection could not be accepted, for example because the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The addresses that are served, and the pairs of each.
#[derive(Default)]
pub struct Served(BTreeMap<SocketAddr, Pairs>);

/// Replaced when the config files have been read again.
type Pairs = Arc<Mutex<Arc<Vec<Config>>>>;

impl Served {
    /// Serves each address that a config file names, for the pairs that name it. An address that no file names any more
    /// has no pairs. If an address cannot be served, that is logged, and replication goes on.
    pub fn serve<'a>(&mut self, configs: impl Iterator<Item = &'a Config>) {
        let mut wanted: BTreeMap<SocketAddr, Vec<Config>> = self.0.keys().map(|known| (*known, Vec::new())).collect();
        for config in configs {
            if let Some(address) = config.metrics {
                wanted.entry(address).or_default().push(config.clone());
            }
        }
        for (address, pairs) in wanted {
            match self.0.get(&address) {
                Some(known) => *known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(pairs),
                None => self.start(address, Arc::new(Mutex::new(Arc::new(pairs)))),
            }
        }
    }

    fn start(&mut self, address: SocketAddr, pairs: Pairs) {
        let shared = pairs.clone();
        let started = TcpListener::bind(address).and_then(|listener| {
            let body = move || listen(&listener, shared);
            thread::Builder::new().name("metrics".into()).spawn(body)
        });
        match started {
            Ok(_) => {
                log::info!(target: OWN_TARGET, "Serving http://{address}/metrics and /health");
                self.0.insert(address, pairs);
            }
            Err(e) => log::warn!(
                target: OWN_TARGET,
                "cannot serve METRICS={address}: {e}; replication goes on without it. hint: use another port, or stop the \
                 program that uses this one"
            ),
        }
    }
}

/// The pairs of one address, and their last known state.
struct Server {
    pairs: Pairs,
    latest: Option<(Instant, Vec<PairStatus>)>,
    /// A query that has taken longer than `DATABASE_TIME`. The next request waits for it too, so that threads do not
    /// pile up.
    pending: Option<Receiver<Vec<PairStatus>>>,
}

struct Answer {
    status: &'static str,
    body: String,
}

fn listen(listener: &TcpListener, pairs: Pairs) {
    let mut server = Server { pairs, latest: None, pending: None };
    loop {
        match listener.accept() {
            // An error means that the client has closed the connection or was too slow. It gets no answer.
            Ok((stream, _)) => drop(answer_client(stream, &mut server)),
            Err(e) => {
                log::debug!(target: OWN_TARGET, "cannot accept a connection for metrics: {e}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn answer_client(mut stream: TcpStream, server: &mut Server) -> io::Result<()> {
    stream.set_write_timeout(Some(CLIENT_TIME))?;
    let request = read_request(&mut stream)?;
    let mut words = request.split([' ', '\r', '\n']);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let answer = match (method, path) {
        ("GET" | "HEAD", "/metrics") => server.metrics(),
        ("GET" | "HEAD", "/health") => server.health(),
        ("GET" | "HEAD", "/") => Answer { status: "200 OK", body: "pyreplica: /metrics, /health\n".to_string() },
        ("GET" | "HEAD", _) => Answer { status: "404 Not Found", body: "try /metrics or /health\n".to_string() },
        _ => Answer { status: "405 Method Not Allowed", body: "only GET and HEAD are allowed\n".to_string() },
    };
    let Answer { status, body } = answer;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let body = if method == "HEAD" { "" } else { &body };
    stream.write_all(format!("{head}{body}").as_bytes())
}

/// Reads the request up to the empty line. An error if it does not arrive in time.
fn read_request(stream: &mut TcpStream) -> io::Result<String> {
    let until = Instant::now() + CLIENT_TIME;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || request.len() > LONGEST_REQUEST {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&request).into_owned())
}

impl Server {
    fn metrics(&mut self) -> Answer {
        match self.ask() {
            Some(pairs) => Answer { status: "200 OK", body: status::exposition(pairs) },
            None => no_answer(),
        }
    }

    fn health(&mut self) -> Answer {
        let Some(pairs) = self.ask() else { return no_answer() };
        let mut body = String::new();
        for pair in pairs {
            body += &format!("{}: {}\n", pair.name, pair.state());
            for problem in &pair.problems {
                body += &format!("  {}\n", problem.text.replace(char::is_control, " "));
                body += &problem.hint.as_ref().map_or(String::new(), |hint| format!("  hint: {hint}\n"));
            }
        }
        let status = if pairs.iter().all(PairStatus::is_healthy) { "200 OK" } else { "503 Service Unavailable" };
        Answer { status, body }
    }

    /// The state of the pairs. None if the databases do not answer in time.
    fn ask(&mut self) -> Option<&[PairStatus]> {
        if self.latest.as_ref().is_none_or(|(when, _)| when.elapsed() >= FRESH_TIME) {
            let answer = self.pending.take().or_else(|| start(&self.pairs))?;
            match answer.recv_timeout(DATABASE_TIME) {
                Ok(pairs) => self.latest = Some((Instant::now(), pairs)),
                Err(RecvTimeoutError::Timeout) => {
                    self.pending = Some(answer);
                    return None;
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        self.latest.as_ref().map(|(_, pairs)| pairs.as_slice())
    }
}

fn no_answer() -> Answer {
    let body = format!("the databases do not answer within {} s\n", DATABASE_TIME.as_secs());
    Answer { status: "503 Service Unavailable", body }
}

/// Queries all pairs at the same time, because one whose server is down takes the whole time limit for connecting.
fn start(pairs: &Pairs) -> Option<Receiver<Vec<PairStatus>>> {
    let (sender, answer) = channel();
    let pairs = pairs.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let body = move || {
        let status: Vec<PairStatus> = thread::scope(|scope| {
            let asked: Vec<_> = pairs.iter().map(|config| scope.spawn(|| look(config))).collect();
            asked.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        // An error means that nobody waits for the result any more.
        drop(sender.send(status));
    };
    thread::Builder::new().name("metrics look".into()).spawn(body).ok().map(|_| answer)
}

fn look(config: &Config) -> PairStatus {
    let BothSides { master, slave } = connect_pair::open(config, "metrics", &Control::default());
    status::look(config, "with its config file", master, slave)
}
