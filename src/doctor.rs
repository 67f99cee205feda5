//! `pyreplica doctor`: what replication needs, checked on both sides, with what mends it.

use crate::config::Config;
use crate::control::Control;
use crate::db::Session;
use crate::error::{ExitCode, Result};
use crate::output::{self, Json, Table, json};
use crate::sides;
use crate::sql;
use crate::verb::{Call, JSON, Verb, Words};

pub const VERB: Verb = Verb { name: "doctor", help: HELP, options: &[JSON], words: Words::Pairs, run };

const HELP: &str = "\
pyreplica doctor checks everything that replication needs, on both sides

usage:
  pyreplica doctor [--json] [FILE.conf... | DIR | DSN0 DSN1]

options:
  --json        one document for programs instead of a table for people

example:
  pyreplica doctor /etc/pyreplica/shop.conf
";

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let loaded = call.pairs();
    let mut documents: Vec<Json> = Vec::new();
    let mut worst = ExitCode::Success;
    let mut table = Table::new(&["PAIR", "SIDE", "LEVEL", "CHECK"]);
    for config in &loaded.configs {
        for (side, level, text) in examine(config, control) {
            worst = if level == "failure" { ExitCode::Faulty } else { worst };
            table.row([&config.name, side, level, &text]);
            documents.push(json!({ "pair": config.name, "side": side, "level": level, "check": text }));
        }
    }
    for error in &loaded.errors {
        worst = ExitCode::Faulty;
        table.row(["", "", "failure", &error.to_string()]);
        documents.push(json!({ "level": "failure", "check": error.to_string() }));
    }
    if call.has("--json") {
        output::print_json(&json!({ "checks": documents }))?
    } else {
        output::print(&table.text())?
    }
    Ok(worst)
}

fn examine(config: &Config, control: &Control) -> Vec<(&'static str, &'static str, String)> {
    let sides = sides::open(config, "doctor", control);
    let check = |name, session: Result<Session>| match session.and_then(|mut session| version(&mut session)) {
        Ok(version) => (name, "ok", format!("PostgreSQL {version}")),
        Err(error) => (name, "failure", error.to_string()),
    };
    vec![check("master", sides.master), check("slave", sides.slave)]
}

fn version(session: &mut Session) -> Result<i32> {
    Ok(session.query_one("look at the server", sql::IDENTITY, &[])?.get::<_, i32>(3) / 10_000)
}
