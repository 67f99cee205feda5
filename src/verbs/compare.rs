//! `pyreplica compare` checks whether both sides have the same rows. `pyreplica repair` makes the slave's rows equal to
//! the master's.

mod report;

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Result};
use crate::base::shown::{shown, shown_statement};
use crate::compare::comparison::{ComparePlan, Counts, Difference, TablePlan, compare, plans};
use crate::compare::rejoin::{self, Rejoin};
use crate::compare::repair::{self, ROWS_PER_LOCK, Repaired};
use crate::compare::servers::Servers;
use crate::config::settings::Config;
use crate::pair::connecting::{self, Purpose};
use crate::process::output;
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words};
use report::{CompareReport, RepairCounts, Shown, TableResult};
use std::time::Duration;

pub const COMPARE: Verb = Verb {
    name: "compare",
    help: COMPARE_HELP,
    options: &[JSON, TABLE, ROWS, WAIT, PAUSE],
    words: Words::Pairs,
    run: run_compare,
};

pub const REPAIR: Verb = Verb {
    name: "repair",
    help: REPAIR_HELP,
    options: &[JSON, TABLE, DRY_RUN, WAIT, PAUSE],
    words: Words::Pairs,
    run: run_repair,
};

const TABLE: Opt = Opt { name: "--table", value: Value::Text("a table") };
const ROWS: Opt = Opt { name: "--rows", value: Value::Number(0..=10_000) };
const WAIT: Opt = Opt { name: "--wait", value: Value::Number(0..=3_600) };
const PAUSE: Opt = Opt { name: "--pause", value: Value::Number(0..=60_000) };
const DRY_RUN: Opt = Opt { name: "--dry-run", value: Value::None };

const DEFAULT_ROWS: u64 = 20;
const DEFAULT_WAIT: u64 = 30;

/// How many rows that the slave refused at first are kept for another try.
const MAX_REFUSED: usize = 10_000;

const COMPARE_HELP: &str = "\
pyreplica compare checks whether master and slave have the same rows

usage:
  pyreplica compare [OPTIONS] [FILE.conf... | DIR | DSN0 DSN1]

It compares every table whose changes are logged, while clients and the daemon
go on. A row that differs and has a change on its way to the slave counts as
pending, not as a difference. The role needs the right to SELECT from the
tables on both sides.

options:
  --table NAME  this table only; may be given several times
  --rows N      show at most N rows of each table that differ (default: 20);
                all are counted
  --wait N      wait at most N seconds for each table until changes on their
                way have been replayed (default: 30)
  --pause N     pause N milliseconds between two ranges of rows
  --json        one document for programs instead of tables for people

example:
  pyreplica compare --table orders /etc/pyreplica/shop.conf

exit codes:
  0 no row differs                     8 some rows or tables are unknown
  9 rows or tables differ
";

const REPAIR_HELP: &str = "\
pyreplica repair makes the slave's rows equal to the master's

usage:
  pyreplica repair [OPTIONS] FILE.conf
  pyreplica repair [OPTIONS] DSN0 DSN1

It compares as `pyreplica compare` does, and writes the rows that differ to the
slave. The daemon may go on: repair does not touch rows that have a change on
its way. What it writes is not logged, and no trigger of the slave runs. The
role needs the right to write to the tables on the slave and to set
session_replication_role there.

options:
  --dry-run     print the statements for the slave instead of running them
  --table NAME  this table only; may be given several times
  --wait N      wait at most N seconds for each table until changes on their
                way have been replayed (default: 30)
  --pause N     pause N milliseconds between two ranges of rows
  --json        one document for programs instead of a table for people

example:
  pyreplica repair --dry-run --table orders /etc/pyreplica/shop.conf

exit codes:
  0 the tables are equal now           8 some rows or tables are unknown
  9 something could not be repaired; with --dry-run: rows or tables differ
";

struct Settings {
    tables: Vec<String>,
    shown: u64,
    patience: Duration,
    pause: Duration,
    json: bool,
}

impl Settings {
    fn of(call: &Call) -> Settings {
        Settings {
            tables: call.texts("--table").map(str::to_string).collect(),
            shown: call.number("--rows").unwrap_or(DEFAULT_ROWS),
            patience: Duration::from_secs(call.number("--wait").unwrap_or(DEFAULT_WAIT)),
            pause: Duration::from_millis(call.number("--pause").unwrap_or(0)),
            json: call.has("--json"),
        }
    }
}

fn run_compare(call: &Call, control: &Control) -> Result<ExitCode> {
    let settings = Settings::of(call);
    let loaded = call.pairs();
    if let Some(error) = loaded.errors.into_iter().next() {
        return Err(error);
    }
    let mut report = CompareReport::default();
    for config in &loaded.configs {
        report.pair(&config.name);
        let mut servers = Servers::open(config, "compare", control, settings.pause)?;
        for outlook in outlooks(config, &mut servers, &settings)? {
            report.add(match outlook {
                TablePlan::Compare(plan) => {
                    let result = compare_table(&mut servers, &plan, &settings);
                    or_unknown(&mut servers, &plan, result)?
                }
                TablePlan::LeftOut(omission) => TableResult::omitted(omission),
            });
        }
    }
    print(&report, &settings)?;
    Ok(report.exit_code())
}

fn outlooks(config: &Config, servers: &mut Servers, settings: &Settings) -> Result<Vec<TablePlan>> {
    let (master, slave) = servers.sessions();
    plans(config, master, slave, &settings.tables)
}

fn compare_table(servers: &mut Servers, plan: &ComparePlan, settings: &Settings) -> Result<TableResult> {
    let mut shown: Vec<Shown> = Vec::new();
    let counts = compare(servers, plan, settings.patience, &mut |both, found| {
        let room = (settings.shown as usize).saturating_sub(shown.len()).min(found.len());
        if room > 0 {
            if plan.master.is_by_digest {
                let rows = repair::whole_rows(both, plan, &found[..room])?;
                let rows = found.into_iter().zip(rows);
                shown.extend(rows.map(|(row, whole)| Shown { row, values: Vec::new(), whole }));
                return Ok(());
            }
            let values = repair::values(both, plan, &found[..room])?;
            shown.extend(found.into_iter().zip(values).map(|(row, values)| Shown { row, values, whole: Vec::new() }));
        }
        Ok(())
    });
    Ok(TableResult::compared(plan, counts.map_err(|error| with_grant_hint(error, plan))?, shown))
}

/// If a server refuses a statement about one table, the others are compared all the same. A lost connection ends the verb.
fn or_unknown(servers: &mut Servers, plan: &ComparePlan, result: Result<TableResult>) -> Result<TableResult> {
    let is_about_table = |error: &Error| error.code().is_some() && !error.is_transient();
    match result {
        Err(error) if is_about_table(&error) => {
            servers.master().roll_back();
            servers.slave().roll_back();
            Ok(TableResult::failed(plan, &error))
        }
        result => result,
    }
}

fn run_repair(call: &Call, control: &Control) -> Result<ExitCode> {
    let settings = Settings::of(call);
    let config = call.pair()?;
    let dry = call.has("--dry-run");
    let mut servers = Servers::open(&config, "repair", control, settings.pause)?;
    let (master, slave) = servers.sessions();
    rejoin::refuse_if_behind(&config, master, slave)?;
    let (report, rejoin) = repair_all(&config, &mut servers, &settings, dry, false)?;
    if dry && !settings.json {
        servers.clear_progress();
        output::print("COMMIT;\n")?;
    } else if !settings.json {
        print(&report, &settings)?;
    }
    if let Some(rejoin) = rejoin {
        end_rejoin(rejoin, &mut servers, &report)?;
    }
    if settings.json {
        // There is one document, of this or of an error.
        print(&report, &settings)?;
    }
    Ok(report.exit_code())
}

/// Repairs the tables, and returns what a repair of all tables has to end with.
fn repair_all(
    config: &Config,
    servers: &mut Servers,
    settings: &Settings,
    dry: bool,
    is_former: bool,
) -> Result<(CompareReport, Option<Rejoin>)> {
    let rejoin = if dry || !settings.tables.is_empty() { None } else { begin_rejoin(config, servers, is_former)? };
    let outlooks = outlooks(config, servers, settings)?;
    let mut report = CompareReport::default();
    report.pair(&config.name);
    if dry && !settings.json {
        output::print(
            "-- to be run on the slave, by a role that may set session_replication_role\n\
                       BEGIN;\nSET LOCAL session_replication_role = replica;\n",
        )?;
    }
    for outlook in outlooks {
        let plan = match outlook {
            TablePlan::Compare(plan) => plan,
            TablePlan::LeftOut(omission) => {
                report.add(TableResult::omitted(omission));
                continue;
            }
        };
        let result =
            if dry { print_statements(servers, &plan, settings) } else { repair_table(servers, &plan, settings) };
        let mut result = or_unknown(servers, &plan, result)?;
        if result.has_failed && !dry {
            result.repaired = Some(RepairCounts { refused: 1, ..RepairCounts::default() });
        }
        report.add(result);
    }
    Ok((report, rejoin))
}

/// Makes all tables of the slave equal, and gives both servers a common position, for a failback. Prints the tables, unless
/// that is the caller's. True if all went well.
pub(super) fn repair_pair(config: &Config, control: &Control, is_quiet: bool) -> Result<bool> {
    let settings = Settings {
        tables: Vec::new(),
        shown: 0,
        patience: Duration::from_secs(DEFAULT_WAIT),
        pause: Duration::ZERO,
        json: is_quiet,
    };
    let mut servers = Servers::open(config, "failback", control, settings.pause)?;
    let (report, rejoin) = repair_all(config, &mut servers, &settings, false, true)?;
    servers.clear_progress();
    if !is_quiet {
        output::print(&report.text())?;
    }
    let is_done = report.exit_code() == ExitCode::Success;
    if let Some(rejoin) = rejoin.filter(|_| is_done) {
        let (master, slave) = servers.sessions();
        rejoin.end(master, slave)?;
    }
    Ok(is_done)
}

/// If the servers do not mean the same last batch, the repair ends with a position that both mean.
fn begin_rejoin(config: &Config, servers: &mut Servers, is_former: bool) -> Result<Option<Rejoin>> {
    let (master, slave) = servers.sessions();
    if rejoin::is_in_doubt(config, master, slave, is_former)? {
        // A copy of everything settles it too, and asks no more of the servers.
        connecting::connect(config, &Control::default(), Purpose::FillAll)?;
    }
    let rejoin = Rejoin::begin(config, master, slave, is_former)?;
    let said = "the servers do not mean the same last batch: this repair sets the slave's position at its end\n";
    rejoin.iter().for_each(|_| output::complain(said));
    Ok(rejoin)
}

fn end_rejoin(rejoin: Rejoin, servers: &mut Servers, report: &CompareReport) -> Result<()> {
    if report.exit_code() == ExitCode::Faulty {
        output::complain("the slave's position is not set, since something could not be repaired: run repair again\n");
        return Ok(());
    }
    let (master, slave) = servers.sessions();
    rejoin.end(master, slave)?;
    output::complain(
        "the slave's position is set. Start the daemon; when it has caught up, run compare: rows that changed during the repair \
         may still differ, and tables that were left out or unknown are not repaired\n",
    );
    Ok(())
}

/// A statement that means the same to psql, and shows nothing but what it is.
fn as_line(statement: &str) -> String {
    match shown_statement(statement) {
        Some(statement) => format!("{statement};\n"),
        None => format!("-- a statement that cannot be shown as it is: {}\n", shown(statement)),
    }
}

fn print_statements(servers: &mut Servers, plan: &ComparePlan, settings: &Settings) -> Result<TableResult> {
    let obstacle = repair::obstacle(plan);
    let mut statements = Vec::new();
    let counts = compare(servers, plan, settings.patience, &mut |both, found| {
        if obstacle.is_some() {
            return Ok(());
        }
        for some in found.chunks(ROWS_PER_LOCK) {
            let now = repair::statements(both, plan, some)?;
            if settings.json {
                statements.extend(now);
            } else {
                output::print(&now.iter().map(|statement| as_line(statement)).collect::<String>())?;
            }
        }
        Ok(())
    });
    let mut finding = TableResult::compared(plan, counts.map_err(|error| with_grant_hint(error, plan))?, Vec::new());
    finding.statements = statements;
    finding.notes.extend(obstacle);
    Ok(finding)
}

fn repair_table(servers: &mut Servers, plan: &ComparePlan, settings: &Settings) -> Result<TableResult> {
    if let Some(obstacle) = repair::obstacle(plan) {
        let mut finding = compare_table(servers, plan, settings)?;
        finding.notes.push(obstacle);
        return Ok(finding);
    }
    repair::prepare(servers.slave(), plan)?;
    let mut total = RepairCounts::default();
    let mut refused: Vec<Difference> = Vec::new();
    let mut refusal: Option<Error> = None;
    let counts: Result<Counts> = compare(servers, plan, settings.patience, &mut |both, found| {
        for some in found.chunks(ROWS_PER_LOCK) {
            let Repaired { written, in_flight, refused: some, refusal: why } = repair::repair(both, plan, some, false)?;
            total.written += written;
            total.in_flight += in_flight;
            if refused.len() + some.len() > MAX_REFUSED {
                return Err(why.expect("a refusal has a reason"));
            }
            refused.extend(some);
            refusal = why.or(refusal.take());
        }
        Ok(())
    });
    let counts = counts.map_err(|error| with_grant_hint(error, plan))?;
    // Another row may have been in the way of a refused row, and may have been repaired since. So try again until
    // nothing changes. Then delete and insert the rest together, for rows that exchange unique values.
    for anew in [false, true] {
        while !refused.is_empty() {
            let before = refused.len();
            let mut left = Vec::new();
            let chunk = if anew { MAX_REFUSED } else { ROWS_PER_LOCK };
            for some in refused.chunks(chunk) {
                let repaired = repair::repair(servers, plan, some, anew)?;
                total.written += repaired.written;
                total.in_flight += repaired.in_flight;
                left.extend(repaired.refused);
                refusal = repaired.refusal.or(refusal);
            }
            refused = left;
            if refused.len() == before {
                break;
            }
        }
    }
    total.refused = refused.len() as u64;
    let mut finding = TableResult::compared(plan, counts, Vec::new());
    if let Some(error) = refusal.filter(|_| !refused.is_empty()) {
        finding.notes.push(format!("the slave refuses rows: {}", error.detail()));
    }
    finding.repaired = Some(total);
    Ok(finding)
}

fn print(report: &CompareReport, settings: &Settings) -> Result<()> {
    if settings.json { output::print_json(&report.json()) } else { output::print(&report.text()) }
}

/// Adds the GRANT to an error about rights. Compare needs the right to read the master's tables, which replication does
/// not need.
fn with_grant_hint(error: Error, plan: &ComparePlan) -> Error {
    match error.code() {
        // Whatever rights a role has, a filter of a table is evaluated by functions of this schema.
        Some("42501") if error.detail().contains("schema pyreplica") => error.with_hint(
            "the table has a filter, which only the owner of the log may evaluate: let DSN0's role be that owner, or a superuser",
        ),
        Some("42501") => {
            let right = format!("for the role that connects there: GRANT SELECT ON {} TO ...;", plan.table);
            error.with_hint(right)
        }
        _ => error,
    }
}
