//! Serves the state of the pairs over HTTP: `/metrics` for Prometheus, and `/health` for programs that restart
//! services.
//!
//! `clients.rs` deals with the clients, so that a slow or malicious one disturbs neither replication nor other clients. Another
//! thread queries the databases, so that `/health` can report a database that hangs. The result is kept for a moment, so that
//! many requests do not cause many queries.

mod clients;

use crate::base::control::Control;
use crate::base::shown::shown;
use crate::config::settings::Config;
use crate::health::status::{self, PairStatus};
use crate::process::logger::OWN_TARGET;
use crate::server::connect_pair::{self, BothSides};
use clients::Answer;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the databases may take. After this time the client gets the answer that they do not answer.
const DATABASE_TIME: Duration = Duration::from_secs(10);

/// How long a result of the databases is used for further requests.
const FRESH_TIME: Duration = Duration::from_secs(1);

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
            let server = Arc::new(Server { pairs: shared, looks: Mutex::default(), looked: Condvar::new() });
            let body = move || clients::serve(&listener, move |method, path| server.answer(method, path));
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
    looks: Mutex<Looks>,
    /// A look has ended.
    looked: Condvar,
}

#[derive(Default)]
struct Looks {
    latest: Option<(Instant, Arc<Vec<PairStatus>>)>,
    /// The databases are being asked. Requests that come meanwhile wait for the same answer, so that threads do not pile up.
    is_looking: bool,
}

impl Server {
    fn answer(self: &Arc<Server>, method: &str, path: &str) -> Answer {
        match (method, path) {
            ("GET" | "HEAD", "/metrics") => self.metrics(),
            ("GET" | "HEAD", "/health") => self.health(),
            ("GET" | "HEAD", "/") => Answer { status: "200 OK", body: "pyreplica: /metrics, /health\n".to_string() },
            ("GET" | "HEAD", _) => Answer { status: "404 Not Found", body: "try /metrics or /health\n".to_string() },
            _ => Answer { status: "405 Method Not Allowed", body: "only GET and HEAD are allowed\n".to_string() },
        }
    }

    fn metrics(self: &Arc<Server>) -> Answer {
        match self.ask() {
            Some(pairs) => Answer { status: "200 OK", body: status::exposition(&pairs) },
            None => no_answer(),
        }
    }

    fn health(self: &Arc<Server>) -> Answer {
        let Some(pairs) = self.ask() else { return no_answer() };
        let mut body = String::new();
        for pair in pairs.iter() {
            body += &format!("{}: {}\n", shown(&pair.name), pair.state());
            for problem in &pair.problems {
                body += &format!("  {}\n", shown(&problem.text));
                body += &problem.hint.as_ref().map_or(String::new(), |hint| format!("  hint: {}\n", shown(hint)));
            }
        }
        let status = if pairs.iter().all(PairStatus::is_healthy) { "200 OK" } else { "503 Service Unavailable" };
        Answer { status, body }
    }

    /// The state of the pairs. None if the databases do not answer in time.
    fn ask(self: &Arc<Server>) -> Option<Arc<Vec<PairStatus>>> {
        let since = Instant::now();
        let mut looks = self.lock();
        loop {
            let fresh = looks.latest.as_ref().filter(|(when, _)| *when >= since || when.elapsed() < FRESH_TIME);
            if let Some((_, pairs)) = fresh {
                return Some(pairs.clone());
            }
            if !looks.is_looking {
                looks.is_looking = true;
                drop(looks);
                self.look()?;
                looks = self.lock();
                continue;
            }
            let left = DATABASE_TIME.checked_sub(since.elapsed())?;
            looks = self.looked.wait_timeout(looks, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Queries all pairs at the same time, because one whose server is down takes the whole time limit for connecting.
    fn look(self: &Arc<Server>) -> Option<()> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let looking = Looking(self.clone());
        let body = move || {
            let status: Vec<PairStatus> = thread::scope(|scope| {
                let asked: Vec<_> = pairs.iter().map(|config| scope.spawn(|| look(config))).collect();
                asked.into_iter().filter_map(|thread| thread.join().ok()).collect()
            });
            looking.0.lock().latest = Some((Instant::now(), Arc::new(status)));
        };
        thread::Builder::new().name("metrics look".into()).spawn(body).ok().map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look in progress, which ends however it ends.
struct Looking(Arc<Server>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.lock().is_looking = false;
        self.0.looked.notify_all();
    }
}

fn no_answer() -> Answer {
    let body = format!("the databases do not answer within {} s\n", DATABASE_TIME.as_secs());
    Answer { status: "503 Service Unavailable", body }
}

fn look(config: &Config) -> PairStatus {
    let BothSides { master, slave, config, roles } = connect_pair::open(config, "metrics", &Control::default());
    status::look(&config, "with its config file", roles, (master, slave), false)
}
