//! What monitoring/ has for Prometheus and Grafana fits what a daemon serves.

use crate::harness::http::{free_port, get, sample};
use crate::harness::{Pair, wait_until};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring").join(name)
}

/// The names of metrics in a text: its words that begin like one of ours.
fn names(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut names: Vec<String> =
        words.filter(|word| word.starts_with("pyreplica_") || word.starts_with("process_")).map(String::from).collect();
    names.sort();
    names.dedup();
    names
}

/// The queries of the dashboard.
fn queries(of: &Value) -> Vec<String> {
    match of {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::String(text) if name == "expr" || name == "definition" => vec![text.clone()],
                value => queries(value),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(queries).collect(),
        _ => Vec::new(),
    }
}

/// Runs promtool where run.sh has found it.
#[track_caller]
fn promtool(words: &[&str], input: &str) {
    let Ok(program) = std::env::var("PROMTOOL") else {
        eprintln!("skipped: no promtool here");
        return;
    };
    let mut command = Command::new(program);
    let piped = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("promtool starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {words:?}: {said}");
}

/// The disabled trigger is nothing that status sees.
#[test]
fn the_rules_and_the_dashboard_use_what_is_served_and_doctor_is_in_it() {
    let pair = Pair::new().with_a_table();
    pair.run("alter table t disable trigger \"!replica_tg\"");
    let port = free_port();
    let mut daemon = pair.start_with(&format!("METRICS=127.0.0.1:{port}"));
    daemon.wait_log("Serving http://127.0.0.1:");
    let labels =
        format!("{{pair=\"{}\",field=\"replicated\",check=\"disabled triggers\",level=\"failure\"}}", pair.name);
    let found = || sample(&get(port, "/metrics"), &format!("pyreplica_doctor_findings{labels}"));
    wait_until("doctor has checked the pair", || found() == Some(1.0));

    let answer = get(port, "/metrics");
    let (_, scrape) = answer.split_once("\r\n\r\n").unwrap();
    let rules = fs::read_to_string(file("pyreplica.rules.yml")).unwrap();
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file("grafana.json")).unwrap()).unwrap();
    let expressions: String = rules.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    for (what, text) in [("rules", expressions), ("dashboard", queries(&dashboard).join(" "))] {
        let used = names(&text);
        assert!(used.len() > 9, "{what}: {used:?}");
        for name in used.iter().filter(|name| cfg!(target_os = "linux") || name.starts_with("pyreplica_")) {
            assert!(scrape.contains(&format!("\n# TYPE {name} ")), "the {what} use {name}");
        }
    }
    promtool(&["check", "metrics"], scrape);
}

#[test]
fn promtool_accepts_the_rules_and_they_do_what_they_say() {
    promtool(&["check", "rules", file("pyreplica.rules.yml").to_str().unwrap()], "");
    promtool(&["test", "rules", file("pyreplica.test.yml").to_str().unwrap()], "");
}

/// Every metric is explained, and nothing is explained that is not served.
#[test]
fn the_docs_name_every_metric() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/status.md")).unwrap();
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/health/exposition.rs")).unwrap();
    let table: Vec<&str> = docs.lines().filter(|line| line.starts_with("| `pyreplica_")).collect();
    let (code, _) = source.split_once("mod tests").unwrap();
    let mut served = names(code);
    served.retain(|name| name.starts_with("pyreplica_"));
    assert_eq!(names(&table.join(" ")), served);
}
