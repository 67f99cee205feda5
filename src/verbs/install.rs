//! `pyreplica install` prepares a master for replication.

use crate::base::control::Control;
use crate::base::error::{ExitCode, Result};
use crate::base::names::Side;
use crate::base::shown::shown;
use crate::config::dsn::Dsn;
use crate::process::output;
use crate::server::connect;
use crate::verbs::sql;
use crate::verbs::verb::{Call, PairSource, Verb, Words};

pub const VERB: Verb = Verb { name: "install", help: HELP, options: &[], words: Words::Master, run };

const HELP: &str = "\
pyreplica install prepares a master

usage:
  pyreplica install DSN

It creates the table replica_log and what belongs to it in that database, and a
trigger on every table that has a primary key. It lists tables without one and
does not change them. It may be run again at any time, for example after new
tables have been created. The owner of the database may run it; it needs no
superuser.

example:
  pyreplica install 'dbname=shop host=db1 user=joe'
";

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let PairSource::Master(dsn) = &call.source else { unreachable!("the command line was checked") };
    install(dsn, control, &mut |line| output::print(&format!("{}\n", shown(line))))?;
    Ok(ExitCode::Success)
}

/// Runs the embedded master script and creates the triggers. It calls `report` with a line about each table.
pub fn install(dsn: &Dsn, control: &Control, report: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let mut master = connect::connect(Side::Master, dsn, "install")?;
    control.set_cancellers(vec![master.canceller()]);
    // The script then creates hstore in the schema in which the operator's own session would create it.
    master.message("set the session up", "RESET search_path")?;
    master.script("install the log and its trigger", sql::MASTER_INSTALL)?;
    master.message("set the session up", sql::OWN_SESSION_PATH)?;
    let warnings: Vec<String> = master.query_one("read the warnings of the script", sql::WARNINGS, &[])?.get(0);
    warnings.iter().try_for_each(|warning| report(warning))?;
    for row in master.query("create the triggers", &sql::CREATE_TRIGGERS, &[])? {
        report(row.get(0))?;
    }
    Ok(())
}
