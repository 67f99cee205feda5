//! Serves the state of the pairs over HTTP: `/metrics` for Prometheus, `/health` for programs that restart services, and `/` for
//! people.
//!
//! `clients.rs` deals with the clients, so that a slow or malicious one disturbs neither replication nor other clients. The pairs'
//! observers ask the databases, each by itself. Who asks gets an answer in time, with what is known of each pair by then.

mod clients;

use crate::base::shown::shown;
use crate::base::tally::Tally;
use crate::config::settings::Config;
use crate::health::exposition::{Measured, exposition, of_process};
use crate::health::observer::pool::Pool;
use crate::health::observer::{Observer, Seen};
use crate::health::page::page;
use crate::process::logger::OWN_TARGET;
use clients::{Answer, Kind};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the databases may take. After this time the client gets an answer without those that have not answered.
const DATABASE_TIME: Duration = Duration::from_millis(4500);

/// The addresses that are served, and the pairs of each.
#[derive(Default)]
pub struct Served {
    addresses: BTreeMap<SocketAddr, Pairs>,
    pool: Pool,
}

/// Replaced when the config files have been read again.
type Pairs = Arc<Mutex<Arc<Vec<Arc<Observer>>>>>;

/// A pair to serve, and how it is named on a command line.
pub struct Wanted<'a> {
    pub config: &'a Config,
    pub source: String,
    pub tally: &'a Arc<Tally>,
}

impl Served {
    /// Serves each address that a config file names, for the pairs that name it. An address that no file names any more
    /// has no pairs. If an address cannot be served, that is logged, and replication goes on.
    pub fn serve<'a>(&mut self, pairs: impl Iterator<Item = Wanted<'a>>) {
        let mut wanted: BTreeMap<SocketAddr, Vec<Wanted>> =
            self.addresses.keys().map(|known| (*known, Vec::new())).collect();
        for pair in pairs {
            if let Some(address) = pair.config.metrics {
                wanted.entry(address).or_default().push(pair);
            }
        }
        for (address, pairs) in wanted {
            match self.addresses.get(&address) {
                Some(known) => {
                    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    *known = Arc::new(observers(pairs, &known, &self.pool));
                }
                None => self.start(address, pairs),
            }
        }
    }

    fn start(&mut self, address: SocketAddr, wanted: Vec<Wanted>) {
        let pool = &self.pool;
        let started = TcpListener::bind(address).and_then(|listener| {
            // Before the first client comes: no pair would be no failure.
            let pairs = Arc::new(Mutex::new(Arc::new(observers(wanted, &[], pool))));
            let shared: Pairs = pairs.clone();
            let body = move || clients::serve(&listener, move |method, path| answer(&shared, method, path));
            thread::Builder::new().name("metrics".into()).spawn(body).map(|_| pairs)
        });
        match started {
            Ok(pairs) => {
                log::info!(target: OWN_TARGET, "Serving http://{address}/, /metrics and /health");
                self.addresses.insert(address, pairs);
            }
            Err(e) => log::warn!(
                target: OWN_TARGET,
                "cannot serve METRICS={address}: {e}; replication goes on without it. hint: use another port, or stop the \
                 program that uses this one"
            ),
        }
    }
}

/// An observer for each pair. Those that observe a pair with these settings already go on.
fn observers(wanted: Vec<Wanted>, known: &[Arc<Observer>], pool: &Pool) -> Vec<Arc<Observer>> {
    let observer = |Wanted { config, source, tally }: Wanted| {
        if let Some(known) = known.iter().find(|known| known.is_of(config, &source, tally)) {
            return known.clone();
        }
        let former = known.iter().find(|known| known.is_like(config)).map(Arc::as_ref);
        Arc::new(Observer::start(config, source, tally.clone(), pool, former))
    };
    wanted.into_iter().map(observer).collect()
}

fn answer(pairs: &Pairs, method: &str, path: &str) -> Answer {
    match (method, path) {
        ("GET" | "HEAD", "/metrics") => metrics(pairs),
        ("GET" | "HEAD", "/health") => health(pairs),
        ("GET" | "HEAD", "/") => Answer { status: "200 OK", kind: Kind::Page, body: page(&ask(pairs)) },
        ("GET" | "HEAD", _) => Answer::text("404 Not Found", "try /, /metrics or /health\n".to_string()),
        _ => Answer::text("405 Method Not Allowed", "only GET and HEAD are allowed\n".to_string()),
    }
}

fn metrics(pairs: &Pairs) -> Answer {
    let seen = ask(pairs);
    let measured = seen.iter().map(|seen| Measured { status: &seen.status, by_daemon: Some(&seen.by_daemon) });
    let body = exposition(&measured.collect::<Vec<_>>()) + &of_process();
    Answer::text("200 OK", body)
}

fn health(pairs: &Pairs) -> Answer {
    let seen = ask(pairs);
    let mut body = String::new();
    for pair in seen.iter().map(|seen| &seen.status) {
        body += &format!("{}: {}\n", shown(&pair.name), pair.state());
        for problem in &pair.problems {
            body += &format!("  {}\n", shown(&problem.text));
            body += &problem.hint.as_ref().map_or(String::new(), |hint| format!("  hint: {}\n", shown(hint)));
        }
    }
    let is_healthy = seen.iter().all(|seen| seen.status.is_healthy());
    Answer::text(if is_healthy { "200 OK" } else { "503 Service Unavailable" }, body)
}

/// Asks about all pairs at the same time, and waits for them in turn, all within one time.
fn ask(pairs: &Pairs) -> Vec<Seen> {
    let pairs = pairs.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let since = Instant::now();
    pairs.iter().for_each(|pair| pair.ask());
    pairs.iter().map(|pair| pair.answer(since, since + DATABASE_TIME)).collect()
}
