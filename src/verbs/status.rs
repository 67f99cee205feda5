//! `pyreplica status` shows the state of each pair.

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::names::Side;
use crate::config::files::LoadedConfigs;
use crate::config::settings::Config;
use crate::health::exposition::{Measured, exposition};
use crate::health::status::{self, PairStatus, Progress};
use crate::process::output::{self, Json, json};
use crate::server::connect;
use crate::server::connect_pair::{self, BothSides};
use crate::server::session::Session;
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words, usage};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub const VERB: Verb = Verb {
    name: "status",
    help: HELP,
    options: &[
        JSON,
        Opt { name: "--watch", value: Value::Optional(1..=3600) },
        Opt { name: "--prometheus", value: Value::None },
    ],
    words: Words::Pairs,
    run,
};

const HELP: &str = "\
pyreplica status shows the state of each pair

usage:
  pyreplica status [OPTIONS] [FILE.conf... | DIR | DSN0 DSN1]

It reads the state from the databases, so it works on any machine that reaches
them, and while the daemon is down. BEHIND is the number of changes that wait,
SECONDS the age of the oldest of them. Below the table it lists what needs your
attention.

options:
  --watch[=N]   again every N seconds (default: 2), until Ctrl-C
  --json        one document for programs instead of a table for people
  --prometheus  the metrics of docs/status.md, for the node exporter's textfile
                collector

exit codes: 0 all is well, 8 something needs attention, 9 something fails,
3 no config file can be used

example:
  pyreplica status --watch /etc/pyreplica
";

/// The default of --watch.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Without --watch, status waits at most this long for two batches to be committed, to compute the rate.
const RATE_TIME: Duration = Duration::from_secs(3);

/// If fewer changes wait, the daemon replays them before two batches are committed, so status does not wait.
const RATE_CHANGES: u64 = 100;

/// The pause between two queries during that wait.
const RATE_PAUSE: Duration = Duration::from_millis(250);

/// If two batches are committed at least this many seconds apart, the rate between them is good enough.
const RATE_SPAN: f64 = 1.0;

/// The last replayed change of each pair, and when it was read.
type LastReplayed = HashMap<String, (Instant, i64)>;

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    if call.has("--prometheus") && call.has(JSON.name) {
        return Err(usage("--prometheus and --json are two formats: choose one"));
    }
    let loaded = call.some_pairs()?;
    if !call.has("--watch") {
        let pairs = look(call, &loaded, control)?;
        // Prometheus computes the rate itself.
        let rates = if call.has("--prometheus") { HashMap::new() } else { measure_rates(&loaded, &pairs, control)? };
        show(call, &loaded, &pairs, &rates)?;
        return Ok(exit_code(&loaded, &pairs));
    }
    let interval = call.number("--watch").map_or(WATCH_INTERVAL, Duration::from_secs);
    let mut before = LastReplayed::new();
    loop {
        let pairs = match look(call, &loaded, control) {
            Err(error) if error.kind() == Kind::Stopped => return Ok(ExitCode::Success),
            pairs => pairs?,
        };
        let rates = rates(&pairs, &mut before);
        if !call.has("--json") && !call.has("--prometheus") {
            output::clear()?;
        }
        show(call, &loaded, &pairs, &rates)?;
        if control.pause(interval) {
            return Ok(ExitCode::Success);
        }
    }
}

fn look(call: &Call, loaded: &LoadedConfigs, control: &Control) -> Result<Vec<PairStatus>> {
    let mut pairs = Vec::new();
    for (index, config) in loaded.configs.iter().enumerate() {
        let BothSides { mut master, mut slave, config: directed, roles } =
            connect_pair::open(config, "status", control);
        control.check()?;
        let source = call.words_for(config, loaded.files.get(index).map(PathBuf::as_path));
        pairs.push(status::look(&directed, &source, roles, (&mut master, &mut slave), true));
    }
    control.check().map(|()| pairs)
}

/// Measures how fast the busy daemons replay, from one commit to another on the master's clock. The time between two
/// queries would not do, because in that time a batch may be committed or not.
fn measure_rates(loaded: &LoadedConfigs, pairs: &[PairStatus], control: &Control) -> Result<HashMap<String, f64>> {
    let has_work = |pair: &PairStatus| {
        pair.state() == "replicating" && pair.lag.as_ref().is_some_and(|lag| lag.changes >= RATE_CHANGES)
    };
    let busy = loaded.configs.iter().zip(pairs).filter(|(_, pair)| has_work(pair)).map(|(config, _)| config);
    let mut rates = HashMap::new();
    let mut watched: Vec<(&Config, Session, Option<Progress>)> = Vec::new();
    for config in busy {
        // An error is ignored here: the first query has reported it.
        let directed = config.directed(pairs.iter().any(|pair| pair.name == config.name && pair.is_reversed()));
        let opened = connect::connect(Side::Master, &directed.master, &format!("{} status", config.name));
        watched.extend(opened.ok().map(|session| (config, session, None)));
    }
    let end = Instant::now() + RATE_TIME;
    while !watched.is_empty() && Instant::now() < end {
        watched.retain_mut(|(config, master, first)| {
            let now = match status::progress(master, &config.slave_field) {
                Ok(Some(now)) => now,
                Ok(None) => return true,
                Err(_) => return false,
            };
            let former = *first.get_or_insert(now);
            let span = now.committed_at - former.committed_at;
            if now.batch != former.batch && span > 0.0 {
                rates.insert(config.name.clone(), (now.last - former.last).max(0) as f64 / span);
            }
            span < RATE_SPAN
        });
        if control.pause(RATE_PAUSE) {
            break;
        }
    }
    control.check().map(|()| rates)
}

fn show(call: &Call, loaded: &LoadedConfigs, pairs: &[PairStatus], rates: &HashMap<String, f64>) -> Result<()> {
    if call.has("--prometheus") {
        loaded.errors.iter().for_each(|error| output::complain(&format!("pyreplica: {error}\n")));
        let measured: Vec<Measured> = pairs.iter().map(|status| Measured { status, by_daemon: None }).collect();
        return output::print(&exposition(&measured));
    }
    if call.has("--json") {
        let documents: Vec<Json> =
            pairs.iter().map(|pair| status::as_json(pair, rates.get(&pair.name).copied())).collect();
        let unusable: Vec<String> = loaded.errors.iter().map(Error::to_string).collect();
        return output::print_json(&json!({ "pairs": documents, "unusable": unusable }));
    }
    let unusable = loaded.errors.iter().map(|error| format!("\n{error}\n"));
    output::print(&(status::as_table(pairs, rates) + &unusable.collect::<String>()))
}

fn exit_code(loaded: &LoadedConfigs, pairs: &[PairStatus]) -> ExitCode {
    let problems = || pairs.iter().flat_map(|pair| &pair.problems);
    if !loaded.errors.is_empty() || problems().any(|problem| problem.is_failure) {
        ExitCode::Faulty
    } else if problems().next().is_some() {
        ExitCode::Warned
    } else {
        ExitCode::Success
    }
}

/// Changes per second since the last query, computed from the ids. Ids of transactions that were rolled back count too.
fn rates(pairs: &[PairStatus], before: &mut LastReplayed) -> HashMap<String, f64> {
    let mut rates = HashMap::new();
    for pair in pairs {
        let Some(last) = pair.lag.as_ref().and_then(|lag| lag.last) else { continue };
        if let Some((when, former)) = before.insert(pair.name.clone(), (Instant::now(), last)) {
            rates.insert(pair.name.clone(), (last - former).max(0) as f64 / when.elapsed().as_secs_f64().max(0.001));
        }
    }
    rates
}
