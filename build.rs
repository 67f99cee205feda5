//! Tells the program which commit it is built from, and by which compiler, for `pyreplica --version`; and the date of its version,
//! for the manual.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=PYREPLICA_COMMIT");
    for input in INPUTS {
        println!("cargo::rerun-if-changed={input}");
    }
    // Whoever builds from a copy without git, as packages and images do, may say it.
    let commit = std::env::var("PYREPLICA_COMMIT").ok().filter(|commit| !commit.is_empty()).or_else(commit);
    let commit = commit.map(|commit| format!("commit {commit}, "));
    println!("cargo::rustc-env=PYREPLICA_DATE={}", date().unwrap_or_default());
    let compiler = output(&std::env::var("RUSTC").unwrap_or("rustc".into()), &["--version"]);
    let compiler = compiler.unwrap_or("an unknown compiler".into());
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=PYREPLICA_BUILD= ({}built by {compiler} for {target})", commit.unwrap_or_default());
}

/// What the program is made from.
const INPUTS: [&str; 8] =
    ["build.rs", "CHANGELOG.md", "Cargo.toml", "Cargo.lock", ".cargo", "sample.conf", "sql", "src"];

/// The commit, if this directory is a repository of its own and not part of another one, as an unpacked package may be.
fn commit() -> Option<String> {
    std::fs::symlink_metadata(".git").ok()?;
    // It gets a line with each commit.
    if let Some(log) = output("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changes = output("git", &[&["status", "--porcelain", "--"][..], &INPUTS].concat())?;
    Some(if changes.is_empty() { commit } else { format!("{commit} with changes") })
}

/// CHANGELOG.md has `## 1.0.0 (2026-11-30)`.
fn date() -> Option<String> {
    let text = std::fs::read_to_string("CHANGELOG.md").ok()?;
    let heading = format!("## {} (", std::env::var("CARGO_PKG_VERSION").ok()?);
    text.lines().find_map(|line| line.strip_prefix(&heading)?.strip_suffix(')')).map(str::to_string)
}

fn output(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
