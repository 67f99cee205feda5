//! `pyreplica install`: prepares a master for replication.

use crate::base::control::Control;
use crate::base::error::{ExitCode, Result};
use crate::base::names::Side;
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

Creates the table replica_log and what belongs to it in that database, and a
trigger on every table that has a primary key. Tables without one are named and
left alone. It may be run again at any time, for instance after new tables have
been created. The owner of the database may do it; no superuser is needed.

example:
  pyreplica install 'dbname=shop host=db1 user=joe'
";

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let PairSource::Master(dsn) = &call.source else { unreachable!("the command line was checked") };
    install(dsn, control, &mut |told| output::print(&format!("{told}\n")))?;
    Ok(ExitCode::Success)
}

/// Runs the embedded master script, creates the triggers, and tells what came of each.
pub fn install(dsn: &Dsn, control: &Control, tell: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let mut master = connect::connect(Side::Master, dsn, "install")?;
    control.set_cancellers(vec![master.canceller()]);
    // hstore goes where the operator's own sessions would put it.
    master.message("set the session up", "RESET search_path")?;
    master.script("install the log and its trigger", sql::MASTER_INSTALL)?;
    master.message("set the session up", sql::OWN_SESSION_PATH)?;
    let told: String = master.query_one("look what the script tells", sql::TOLD, &[])?.get(0);
    told.lines().try_for_each(&mut *tell)?;
    for row in master.query("create the triggers", sql::CREATE_TRIGGERS, &[])? {
        tell(row.get(0))?;
    }
    Ok(())
}
