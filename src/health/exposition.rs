//! Prints the metrics in Prometheus's text exposition format, version 0.0.4. The names are stable.

use crate::base::shown::shown;
use crate::base::tally::Tally;
use crate::health::doctor::{Finding, Level};
use crate::health::status::PairStatus;
use crate::process::logger;
use crate::process::usage::{Usage, usage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A pair, and what only the daemon knows of it.
pub struct Measured<'a> {
    pub status: &'a PairStatus,
    pub by_daemon: Option<&'a ByDaemon>,
}

pub struct ByDaemon {
    pub tally: Arc<Tally>,
    /// When the databases have answered last.
    pub answered: Option<SystemTime>,
    pub checked: Option<Arc<Checked>>,
}

/// What doctor has found, and when.
pub struct Checked {
    pub at: SystemTime,
    pub findings: Vec<Finding>,
}

/// The further labels, as they are printed, and the value.
type Value = (String, f64);

type Measure = fn(&Measured) -> Vec<Value>;

struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The values for one pair: none if unknown, one, or one for each value of further labels.
    measure: Measure,
}

const METRICS: &[Metric] = &[
    gauge("pyreplica_up", "Whether a daemon is connected and replication does not fail", |v| {
        one(flag(v.status.state() == "replicating"))
    }),
    gauge("pyreplica_reachable", "Whether the side could be reached", |v| {
        vec![side("master", v.status.reached[0]), side("slave", v.status.reached[1])]
    }),
    gauge("pyreplica_answer_timestamp_seconds", "When the databases were last asked", |v| {
        optional(v.by_daemon.as_ref().and_then(|known| known.answered).map(since_1970))
    }),
    gauge("pyreplica_daemon_connected", "Whether a daemon holds the lock of the slave on the master", |v| {
        if v.status.reached[0] { one(flag(v.status.daemon.is_some())) } else { Vec::new() }
    }),
    counter("pyreplica_changes_replayed_total", "Changes that this process has replayed", |v| {
        optional(v.by_daemon.as_ref().map(|known| known.tally.replayed() as f64))
    }),
    counter("pyreplica_errors_total", "Tries of this process that have failed", |v| {
        optional(v.by_daemon.as_ref().map(|known| known.tally.errors() as f64))
    }),
    counter("pyreplica_conflicts_total", "Conflicts that this process has met", |v| {
        optional(v.by_daemon.as_ref().map(|known| known.tally.conflicts() as f64))
    }),
    gauge("pyreplica_lag_changes", "Changes that the slave has not replayed yet", |v| {
        optional(v.status.lag.as_ref().map(|lag| lag.changes as f64))
    }),
    gauge("pyreplica_lag_seconds", "Age of the oldest change that the slave has not replayed yet", |v| {
        optional(v.status.lag.as_ref().map(|lag| lag.seconds))
    }),
    gauge("pyreplica_replayed_id", "Log id of the last change of the last transaction that was replayed", |v| {
        optional(v.status.lag.as_ref().and_then(|lag| lag.last).map(|id| id as f64))
    }),
    gauge("pyreplica_logged_id", "Log id of the newest change", |v| {
        optional(v.status.lag.as_ref().map(|lag| lag.highest as f64))
    }),
    gauge("pyreplica_log_bytes", "Size of replica_log with its indexes", |v| {
        optional(v.status.lag.as_ref().map(|lag| lag.log_bytes as f64))
    }),
    gauge("pyreplica_log_warning_bytes", "LOG_WARNING: a larger log is a warning", |v| {
        optional(v.status.lag.as_ref().map(|_| v.status.log_warning as f64))
    }),
    gauge("pyreplica_failing", "Whether the daemon's last attempt failed", |v| {
        optional(v.status.lag.as_ref().map(|_| flag(v.status.is_failing())))
    }),
    gauge("pyreplica_failing_since_timestamp_seconds", "When it began to fail; absent if it does not", |v| {
        optional(v.status.error.as_ref().filter(|_| v.status.is_failing()).map(|e| e.since_epoch))
    }),
    gauge("pyreplica_problems", "What status finds wrong, by its level", |v| {
        let failures = v.status.problems.iter().filter(|problem| problem.is_failure).count();
        let value = |level, number: usize| (format!("level=\"{level}\""), number as f64);
        vec![value("failure", failures), value("warning", v.status.problems.len() - failures)]
    }),
    gauge("pyreplica_doctor_findings", "What doctor finds wrong, by its check and level; absent if nothing", |v| {
        found(v.by_daemon.as_ref().and_then(|known| known.checked.as_deref()))
    }),
    gauge("pyreplica_doctor_timestamp_seconds", "When doctor has checked the pair", |v| {
        let checked = v.by_daemon.as_ref().and_then(|known| known.checked.as_ref());
        optional(checked.map(|checked| since_1970(checked.at)))
    }),
    gauge("pyreplica_in_doubt_batches", "Batches that are prepared and not yet committed", |v| {
        optional(v.status.in_doubt.as_ref().map(|in_doubt| in_doubt.batches as f64))
    }),
    gauge("pyreplica_in_doubt_seconds", "Age of the oldest of them", |v| {
        optional(v.status.in_doubt.as_ref().map(|in_doubt| in_doubt.oldest.as_secs_f64()))
    }),
    gauge(
        "pyreplica_open_transactions",
        "Transactions on the master that have logged changes and are still open",
        |v| optional(v.status.open.as_ref().map(|open| open.transactions as f64)),
    ),
    gauge("pyreplica_open_transaction_seconds", "Age of the oldest of them", |v| {
        optional(v.status.open.as_ref().map(|open| open.oldest.as_secs_f64()))
    }),
    gauge("pyreplica_conflicts_kept", "Conflicts that the slave keeps a record of", |v| {
        optional(v.status.records.conflicts.map(|n| n as f64))
    }),
    gauge("pyreplica_put_aside_changes", "Changes that are held on the slave instead of being replayed", |v| {
        optional(v.status.records.held.map(|n| n as f64))
    }),
    gauge("pyreplica_copy_unfinished", "Whether a copy of all tables has begun and not ended", |v| {
        optional(v.status.records.held.map(|_| flag(v.status.copy.is_some())))
    }),
    gauge("pyreplica_copying", "Whether a copy to the slave is in progress", |v| {
        optional(v.status.lag.as_ref().map(|_| flag(v.status.is_copying)))
    }),
    gauge("pyreplica_role", "Whether the side that the config file calls DSN0 or DSN1 is the master", |v| {
        match &v.status.roles {
            Some(roles) => vec![side("DSN0", !roles.is_reversed), side("DSN1", roles.is_reversed)],
            None => Vec::new(),
        }
    }),
    gauge("pyreplica_epoch", "How often the roles of the pair were exchanged", |v| {
        optional(v.status.roles.as_ref().map(|roles| roles.epoch as f64))
    }),
    gauge("pyreplica_paused", "Whether the operator has paused the pair", |v| {
        optional(v.status.records.held.map(|_| flag(v.status.records.is_paused)))
    }),
];

/// One sample for each pair and metric. The format requires all samples of a metric together.
pub fn exposition(pairs: &[Measured]) -> String {
    let mut text = String::new();
    let named = labels(pairs);
    for Metric { name, kind, help, measure } in METRICS {
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (pair, own) in pairs.iter().zip(&named) {
            for (labels, value) in measure(pair) {
                let more = if labels.is_empty() { labels } else { format!(",{labels}") };
                text += &format!("{name}{{{own}{more}}} {value}\n");
            }
        }
    }
    text
}

/// The labels of each pair. Prometheus refuses everything if two samples have the same ones, so a second pair of the same name and field
/// gets a number.
fn labels(pairs: &[Measured]) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for Measured { status, .. } in pairs {
        let field = escaped(&status.field);
        let of = |name: &str| format!("pair=\"{}\",field=\"{field}\"", escaped(name));
        let numbered = (2..).map(|number| of(&format!("{} ({number})", status.name)));
        let free = std::iter::once(of(&status.name)).chain(numbered).find(|labels| !named.contains(labels));
        named.extend(free);
    }
    named
}

/// What a daemon says of itself, under the names that Prometheus's own libraries give it.
pub fn of_process() -> String {
    let mut text = String::new();
    let mut add = |name: &str, kind: &str, help: &str, labels: &str, value: f64| {
        let value = if value.is_infinite() { "+Inf".to_string() } else { value.to_string() };
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}\n");
    };
    let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    add("pyreplica_build_info", "gauge", "The version of pyreplica", version, 1.0);
    let what = "Lines that this process could not write to its log";
    add("pyreplica_log_lines_lost_total", "counter", what, "", logger::lost().lines as f64);
    let Some(Usage { cpu_seconds, resident_bytes, virtual_bytes, open_files, most_files, started }) = usage() else {
        return text;
    };
    let mut add = |name, kind, help, value| add(name, kind, help, "", value);
    add("process_cpu_seconds_total", "counter", "Time of processors that the daemon has used", cpu_seconds);
    add("process_resident_memory_bytes", "gauge", "Memory of the daemon", resident_bytes);
    add("process_virtual_memory_bytes", "gauge", "Address space of the daemon", virtual_bytes);
    add("process_open_fds", "gauge", "Files and connections that the daemon has open", open_files);
    add("process_max_fds", "gauge", "How many it may have open", most_files);
    add("process_start_time_seconds", "gauge", "When the daemon started, since 1970", started);
    text
}

const fn gauge(name: &'static str, help: &'static str, measure: Measure) -> Metric {
    Metric { name, kind: "gauge", help, measure }
}

const fn counter(name: &'static str, help: &'static str, measure: Measure) -> Metric {
    Metric { name, kind: "counter", help, measure }
}

fn one(value: f64) -> Vec<Value> {
    vec![(String::new(), value)]
}

fn side(name: &str, is_so: bool) -> Value {
    (format!("side=\"{name}\""), flag(is_so))
}

/// How many warnings and failures each check has found.
fn found(checked: Option<&Checked>) -> Vec<Value> {
    let mut counted = BTreeMap::new();
    let findings = checked.iter().flat_map(|checked| &checked.findings);
    for finding in findings.filter(|finding| finding.level >= Level::Warning) {
        *counted.entry((finding.level, &finding.subject)).or_insert(0) += 1;
    }
    let value = |((level, check), number): ((Level, &String), u32)| {
        (format!("check=\"{}\",level=\"{level}\"", escaped(check)), f64::from(number))
    };
    counted.into_iter().map(value).collect()
}

fn optional(value: Option<f64>) -> Vec<Value> {
    value.map_or(Vec::new(), one)
}

fn flag(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

fn since_1970(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Escapes the value of a label.
fn escaped(text: &str) -> String {
    shown(text).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_is_explained_once_and_labels_are_escaped() {
        let pair = |name: &str| {
            let mut status = PairStatus::default();
            (status.name, status.field) = (name.to_string(), "replicated".to_string());
            status
        };
        let pairs = [pair("a \"b\" \\"), pair("c")];
        let text = exposition(&pairs.each_ref().map(|status| Measured { status, by_daemon: None }));
        assert_eq!(text.matches("# TYPE pyreplica_up gauge\n").count(), 1);
        assert!(text.contains("pyreplica_up{pair=\"a \\\"b\\\" \\\\\",field=\"replicated\"} 0\n"), "{text}");
        assert!(text.contains("pyreplica_reachable{pair=\"c\",field=\"replicated\",side=\"slave\"} 0\n"), "{text}");
        assert!(!text.contains("pyreplica_lag_changes{"), "what is unknown has no sample");
        assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("pyreplica_")));
        let twice = [pair("c"), pair("c")];
        let text = exposition(&twice.each_ref().map(|status| Measured { status, by_daemon: None }));
        assert!(text.contains("pyreplica_up{pair=\"c (2)\",field=\"replicated\"} 0\n"), "{text}");
    }
}
