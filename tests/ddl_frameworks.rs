//! Migrations of frameworks, with rows written between them, arrive on the slave. Each framework comes from PyPI, into a directory of its
//! own; without a network the test says so, and passes.

use crate::ddl::{assert_same_schema, pair};
use std::path::Path;
use std::process::Command;

/// The Python of the directory that has these packages.
fn python(directory: &str, imports: &str, packages: &[&str]) -> Option<String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(directory);
    let python = directory.join("bin/python").to_str()?.to_string();
    let has_them =
        |python: &str| Command::new(python).args(["-c", imports]).status().is_ok_and(|status| status.success());
    if !has_them(&python) {
        Command::new("python3").args(["-m", "venv"]).arg(&directory).status().ok()?;
        Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages).status().ok()?;
    }
    has_them(&python).then_some(python)
}

/// Runs the application's migrations on the master alone.
#[track_caller]
fn travel(python: Option<String>, application: &str) {
    let Some(python) = python else {
        eprintln!("skipped: the framework of {application} cannot be installed here");
        return;
    };
    let pair = pair();
    let daemon = pair.start();
    let port = pair.master_server().port().to_string();
    let output = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness").join(application))
        .arg(pair.dir().join("project"))
        .args(["127.0.0.1", &port, &pair.master_db()])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("is required") {
        eprintln!("skipped: this framework is for later versions of PostgreSQL: {said}");
        return;
    }
    assert!(output.status.success() && !said.contains("does not travel"), "{said}");
    pair.wait_caught_up();
    pair.assert_equal();
    assert_same_schema(&pair);
    assert!(!daemon.log().contains("onflict") && !daemon.log().contains("does not travel"), "{}", daemon.log());
}

#[test]
fn the_migrations_of_django_travel() {
    travel(python("django", "import django, psycopg2", &["django==5.2.*", "psycopg2-binary"]), "django_app.py");
}

#[test]
fn the_migrations_of_alembic_travel() {
    travel(python("alembic", "import alembic, psycopg2", &["alembic==1.14.*", "psycopg2-binary"]), "alembic_app.py");
}
