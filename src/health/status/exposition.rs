//! Prints the metrics in Prometheus's text exposition format, version 0.0.4. The names are stable.

use super::PairStatus;
use crate::base::shown::shown;

type Measure = fn(&PairStatus) -> Vec<(&'static str, f64)>;

struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The values for one pair: none if unknown, one, or one for each value of a further label.
    measure: Measure,
}

const METRICS: &[Metric] = &[
    gauge("pyreplica_up", "Whether a daemon is connected and replication does not fail", |v| {
        one(flag(v.state() == "replicating"))
    }),
    gauge("pyreplica_reachable", "Whether the side could be reached", |v| {
        vec![("master", flag(v.reached[0])), ("slave", flag(v.reached[1]))]
    }),
    gauge("pyreplica_daemon_connected", "Whether a daemon holds the lock of the slave on the master", |v| {
        if v.reached[0] { one(flag(v.daemon.is_some())) } else { Vec::new() }
    }),
    gauge("pyreplica_lag_changes", "Changes that the slave has not replayed yet", |v| {
        optional(v.lag.as_ref().map(|lag| lag.changes as f64))
    }),
    gauge("pyreplica_lag_seconds", "Age of the oldest change that the slave has not replayed yet", |v| {
        optional(v.lag.as_ref().map(|lag| lag.seconds))
    }),
    gauge("pyreplica_replayed_id", "Log id of the last change of the last transaction that was replayed", |v| {
        optional(v.lag.as_ref().and_then(|lag| lag.last).map(|id| id as f64))
    }),
    gauge("pyreplica_logged_id", "Log id of the newest change", |v| {
        optional(v.lag.as_ref().map(|lag| lag.highest as f64))
    }),
    gauge("pyreplica_log_bytes", "Size of replica_log with its indexes", |v| {
        optional(v.lag.as_ref().map(|lag| lag.log_bytes as f64))
    }),
    gauge("pyreplica_failing", "Whether the daemon's last attempt failed", |v| {
        if v.lag.is_some() { one(flag(v.error.as_ref().is_some_and(|e| e.recovered.is_none()))) } else { Vec::new() }
    }),
    gauge(
        "pyreplica_failing_since_seconds",
        "When it began to fail, in seconds since 1970; absent if it does not",
        |v| optional(v.error.as_ref().filter(|e| e.recovered.is_none()).map(|e| e.since_epoch)),
    ),
    gauge("pyreplica_in_doubt_batches", "Batches that are prepared and not yet committed", |v| {
        optional(v.in_doubt.as_ref().map(|in_doubt| in_doubt.batches as f64))
    }),
    gauge("pyreplica_in_doubt_seconds", "Age of the oldest of them", |v| {
        optional(v.in_doubt.as_ref().map(|in_doubt| in_doubt.oldest.as_secs_f64()))
    }),
    gauge("pyreplica_conflicts", "Conflicts that the slave keeps a record of", |v| {
        optional(v.records.conflicts.map(|n| n as f64))
    }),
    gauge("pyreplica_put_aside_changes", "Changes that are held on the slave instead of being replayed", |v| {
        optional(v.records.held.map(|n| n as f64))
    }),
    gauge("pyreplica_copy_unfinished", "Whether a copy of all tables has begun and not ended", |v| {
        optional(v.records.held.map(|_| flag(v.copy.is_some())))
    }),
    gauge("pyreplica_role", "Whether the side that the config file calls DSN0 or DSN1 is the master", |v| {
        match &v.roles {
            Some(roles) => vec![("DSN0", flag(!roles.is_reversed)), ("DSN1", flag(roles.is_reversed))],
            None => Vec::new(),
        }
    }),
    gauge("pyreplica_epoch", "How often the roles of the pair were exchanged", |v| {
        optional(v.roles.as_ref().map(|roles| roles.epoch as f64))
    }),
    gauge("pyreplica_paused", "Whether the operator has paused the pair", |v| {
        optional(v.records.held.map(|_| flag(v.records.is_paused)))
    }),
];

/// One sample for each pair and metric. The format requires all samples of a metric together.
pub fn exposition(pairs: &[&PairStatus]) -> String {
    let mut text = String::new();
    for Metric { name, kind, help, measure } in METRICS {
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for pair in pairs {
            for (side, value) in measure(pair) {
                let side = if side.is_empty() { String::new() } else { format!(",side=\"{side}\"") };
                let labels = format!("pair=\"{}\",field=\"{}\"{side}", escaped(&pair.name), escaped(&pair.field));
                text += &format!("{name}{{{labels}}} {value}\n");
            }
        }
    }
    text
}

const fn gauge(name: &'static str, help: &'static str, measure: Measure) -> Metric {
    Metric { name, kind: "gauge", help, measure }
}

fn one(value: f64) -> Vec<(&'static str, f64)> {
    vec![("", value)]
}

fn optional(value: Option<f64>) -> Vec<(&'static str, f64)> {
    value.map_or(Vec::new(), one)
}

fn flag(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
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
        let pair = |name: &str| PairStatus {
            name: name.to_string(),
            field: "replicated".to_string(),
            ..PairStatus::default()
        };
        let text = exposition(&[&pair("a \"b\" \\"), &pair("c")]);
        assert_eq!(text.matches("# TYPE pyreplica_up gauge\n").count(), 1);
        assert!(text.contains("pyreplica_up{pair=\"a \\\"b\\\" \\\\\",field=\"replicated\"} 0\n"), "{text}");
        assert!(text.contains("pyreplica_reachable{pair=\"c\",field=\"replicated\",side=\"slave\"} 0\n"), "{text}");
        assert!(!text.contains("pyreplica_lag_changes{"), "what is unknown has no sample");
        assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("pyreplica_")));
    }
}
