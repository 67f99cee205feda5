//! What status and doctor say about a pair, and which of its sessions the servers show.

use super::{Finished, Pair, Server, assert_says};
use serde_json::Value;

/// One check of the doctor's, as the JSON has it.
#[derive(Debug)]
pub struct Check {
    pub level: String,
    pub side: String,
    pub subject: String,
    pub text: String,
    pub fixes: Vec<String>,
    pub hint: String,
}

/// The pair's part of status's JSON.
#[track_caller]
pub fn status(pair: &Pair) -> Value {
    document(&pair.verb_by_file("status", "", &["--json"]))["pairs"][0].clone()
}

#[track_caller]
pub fn doctor(pair: &Pair, lines: &str, more: &[&str]) -> Finished {
    pair.verb_by_file("doctor", lines, more)
}

#[track_caller]
pub fn checks(finished: &Finished) -> Vec<Check> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let document = document(finished);
    let checks = document["pairs"][0]["checks"].as_array().expect("checks").iter().map(|check| Check {
        level: text(&check["level"]),
        side: text(&check["side"]),
        subject: text(&check["check"]),
        text: text(&check["text"]),
        fixes: check["fixes"].as_array().expect("fixes").iter().map(text).collect(),
        hint: text(&check["hint"]),
    });
    checks.collect()
}

/// What is wrong: warnings and failures.
#[track_caller]
pub fn faults(pair: &Pair, lines: &str) -> Vec<Check> {
    let mut checks = checks(&doctor(pair, lines, &["--json"]));
    checks.retain(|check| ["warning", "failure"].contains(&check.level.as_str()));
    checks
}

#[track_caller]
pub fn assert_finds(checks: &[Check], level: &str, side: &str, subject: &str, text: &str) {
    let is_it = |check: &&Check| {
        (check.level.as_str(), check.side.as_str(), check.subject.as_str()) == (level, side, subject)
            && check.text.contains(text)
    };
    assert!(checks.iter().any(|check| is_it(&check)), "no {level} {side} {subject} {text:?} in {checks:#?}");
}

/// Status ends with this code, and it and the doctor say each of the parts.
#[track_caller]
pub fn assert_explained(pair: &Pair, code: i32, in_status: &[&str], in_doctor: &[&str]) {
    let finished = pair.verb_by_file("status", "", &[]);
    assert_says(&finished.output, in_status);
    assert_eq!(finished.code(), code, "{}", finished.output);
    let finished = doctor(pair, "", &["--brief"]);
    assert_says(&finished.output, in_doctor);
    assert!(!finished.output.contains("s3cr3t"), "{}", finished.output);
}

/// What both verbs print for people about a pair that is broken.
pub struct Explained {
    pub state: String,
    pub status: String,
    pub doctor: String,
}

/// Looks at a pair that is broken, by both verbs, for people and for programs: each problem comes with what to do, and people
/// are told what programs are.
#[track_caller]
pub fn explained(pair: &Pair, lines: &str) -> Explained {
    let [status, doctor] = ["status", "doctor"].map(|verb| pair.verb_by_file(verb, lines, &[]));
    let [for_status, for_doctor] = ["status", "doctor"].map(|verb| pair.verb_by_file(verb, lines, &["--json"]));
    for finished in [&status, &doctor, &for_status, &for_doctor] {
        assert!([8, 9].contains(&finished.code()), "{}", finished.output);
        assert!(!finished.output.contains("s3cr3t"), "{}", finished.output);
    }
    let document = document(&for_status);
    let problems = document["pairs"][0]["problems"].as_array().expect("problems");
    assert!(!problems.is_empty(), "{document:#}");
    for problem in problems {
        assert!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "nothing to do: {problem:#}");
        // Ages and attempts have gone on between the two looks.
        let text = problem["text"].as_str().expect("a text");
        let beginning = text.split(" for ").next().and_then(|text| text.split(" (").next()).expect("a beginning");
        assert!(status.output.contains(beginning), "{beginning:?} is not told to people: {}", status.output);
    }
    for check in checks(&for_doctor).iter().filter(|check| ["warning", "failure"].contains(&check.level.as_str())) {
        assert!(!check.hint.is_empty() || !check.fixes.is_empty(), "nothing to do: {check:#?}");
    }
    let state = document["pairs"][0]["state"].as_str().expect("a state").to_string();
    Explained { state, status: status.output, doctor: doctor.output }
}

impl Explained {
    /// Both verbs say each of these.
    #[track_caller]
    pub fn assert_says(&self, parts: &[&str]) {
        assert_says(&self.status, parts);
        assert_says(&self.doctor, parts);
    }
}

#[track_caller]
fn document(finished: &Finished) -> Value {
    serde_json::from_str(&finished.output).unwrap_or_else(|e| panic!("{e}: {}", finished.output))
}

/// The daemon's sessions on one side, by the names that pg_stat_activity shows.
pub fn sessions(server: &Server, pair: &Pair) -> Vec<String> {
    let Ok(mut client) = server.try_connect("postgres") else { return Vec::new() };
    let shown = "select application_name from pg_stat_activity where starts_with(application_name, $1) order by 1";
    let rows = client.query(shown, &[&format!("pyreplica {}", pair.name)]).unwrap_or_default();
    rows.iter().map(|row| row.get(0)).collect()
}
