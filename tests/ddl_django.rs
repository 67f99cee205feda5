//! Migrations of Django, with rows written between them, arrive on the slave. Django comes from PyPI, into a directory of its own; without
//! a network the test says so, and passes.

use crate::ddl::{assert_same_schema, pair};
use std::path::Path;
use std::process::Command;

/// The Python that has Django.
fn python() -> Option<String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("django");
    let python = directory.join("bin/python").to_str()?.to_string();
    let has_it =
        |python: &str| Command::new(python).args(["-c", "import django, psycopg2"]).status().is_ok_and(|s| s.success());
    if !has_it(&python) {
        Command::new("python3").args(["-m", "venv"]).arg(&directory).status().ok()?;
        let pip = ["-m", "pip", "install", "--quiet", "django==5.2.*", "psycopg2-binary"];
        Command::new(&python).args(pip).status().ok()?;
    }
    has_it(&python).then_some(python)
}

#[test]
fn the_migrations_of_django_travel() {
    let Some(python) = python() else {
        eprintln!("skipped: Django cannot be installed here");
        return;
    };
    let pair = pair();
    let daemon = pair.start();
    let port = pair.master_server().port().to_string();
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/django_app.py"))
        .arg(pair.dir().join("project"))
        .args(["127.0.0.1", &port, &pair.master_db()])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("is required") {
        eprintln!("skipped: this Django is for later versions of PostgreSQL: {said}");
        return;
    }
    assert!(output.status.success() && !said.contains("does not travel"), "{said}");
    pair.wait_caught_up();
    pair.assert_equal();
    assert_same_schema(&pair);
    assert!(!daemon.log().contains("onflict") && !daemon.log().contains("does not travel"), "{}", daemon.log());
}
