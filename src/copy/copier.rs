//! The initial copy while the master works.
//!
//! ```text
//! lock the pair -> LOCK TABLE ... IN ACCESS SHARE MODE -> one snapshot -> note on the slave what is wanted
//!               -> each table: COPY to COPY, noted as loaded in the same transaction     (any number at a time)
//!               -> the sequences -> the snapshot becomes the slave's position -> note on the slave that all is there
//! ```
//!
//! The snapshot shows a transaction's rows and its rows in the log, or neither. So a slave that holds what the snapshot
//! shows, and whose position is that very snapshot, gets everything else from the log: what came later, and what was open
//! or prepared when the snapshot was taken. Nothing comes twice.
//!
//! A table is locked before the snapshot is taken, for a table that was truncated or rewritten afterwards would look empty
//! to it. The lock keeps nobody from reading and writing; TRUNCATE and ALTER TABLE wait.
//!
//! Interrupted at any step, it is run again: tables that are noted as loaded stay, the others are loaded with a snapshot of
//! their own (`copied.rs`). What is noted on the slave keeps daemons away meanwhile; what keeps the log is the position,
//! which has not moved. That it has not is checked: the copy gives the slave's row on the master a number, which must
//! still be there when it goes on, and when the position is written.

mod live;
mod load;
mod sequences;

use crate::backlog::position::Position;
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql as backlog_sql;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchNumber, LogId, Side};
use crate::commit::sql as commit_sql;
use crate::commit::twophase::Pair;
use crate::config::settings::Config;
use crate::copy::plan::{self, Captured, CopyPlan, Surroundings, listed};
use crate::copy::schema;
use crate::copy::sql;
use crate::pair::copied::{self, Copied, State};
use crate::pair::release::Release;
use crate::pair::replicator;
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::replay::hold;
use crate::server::connect;
use crate::server::session::Session;
use crate::server::sql as server_sql;

pub use load::{Board, LoadedTable};

/// What the operator wants.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// These tables only, and not the slave's position; all if there is none.
    pub tables: Vec<String>,
    pub jobs: usize,
    /// Empty the slave's tables first.
    pub truncate: bool,
    /// Forget a copy that was interrupted.
    pub restart: bool,
    /// Bring the schema first.
    pub schema: bool,
}

/// What the operator is told meanwhile.
pub enum News<'a> {
    Note(String),
    Progress(&'a Board),
    LoadedTable(&'a LoadedTable),
    /// For the daemon: so many changes of a table are to be passed yet.
    Waiting(&'a str, u64),
}

#[derive(Debug)]
pub struct Outcome {
    pub loaded: Vec<LoadedTable>,
    /// Loaded by a former run.
    pub kept: Vec<Copied>,
    pub sequences: u64,
    /// The daemon has gone on meanwhile.
    pub is_live: bool,
}

/// The tables of this run, and how it goes on from a former one.
struct Scope {
    key: String,
    is_whole: bool,
    todo: Vec<Captured>,
    kept: Vec<Copied>,
    /// Of a former run, and of no use any more.
    forgotten: Vec<String>,
    /// The number that the copy has in the slave's row on the master.
    batch: BatchNumber,
}

/// The master's snapshot, and the session that keeps it and the tables' locks.
struct Keeper {
    session: Session,
    backend: i32,
    exported: String,
    snapshot: Snapshot,
}

pub fn run(config: &Config, wish: &Wish, control: &Control, tell: &mut dyn FnMut(News)) -> Result<Outcome> {
    match replicator::connect(config, control) {
        Ok(pair) => alone(config, wish, pair, control, tell),
        Err(error) if error.kind() != Kind::Busy => Err(error),
        Err(_) if !wish.tables.is_empty() => live::run(config, wish, control, tell),
        Err(error) => Err(error.with_hint(
            "stop the pair's daemon (or the copy that is under way), and start it after the copy; with --table the \
             daemon may go on",
        )),
    }
}

/// No daemon is at work.
fn alone(
    config: &Config,
    wish: &Wish,
    mut pair: Pair,
    control: &Control,
    tell: &mut dyn FnMut(News),
) -> Result<Outcome> {
    pair.master.query("tell that a copy is under way", sql::LOCK_COPY, &[&config.slave_field])?;
    pair.slave.query("set the session up", pair_sql::COMMIT_DURABLY, &[])?;
    pair.master.query("set the session up", pair_sql::COMMIT_DURABLY, &[])?;
    let (tables, notes) = plan::choose(&mut pair.master, &wish.tables)?;
    notes.into_iter().for_each(|note| tell(News::Note(note)));
    if wish.schema {
        let sides = (&mut pair.master, &mut pair.slave);
        tell(News::Note(schema::bring(config, sides, &tables, !wish.tables.is_empty(), control)?));
    }
    copied::create(&mut pair.slave)?;
    let scope = scope(wish, &mut pair, tables)?;
    let held = match scope.is_whole {
        true => Vec::new(),
        false => live::on_hold(&mut pair.slave, &scope.key, &scope.todo)?,
    };
    let mut keeper = Keeper::open(config, &scope.todo)?;
    let around = surroundings(&mut pair.master, &mut pair.slave)?;
    let plans = plan::make(&mut keeper.session, &mut pair.slave, &scope.todo, &around)?;
    check(wish, &mut pair.slave, &plans, &held)?;
    register(wish, &mut pair, &scope, &plans)?;
    failpoint::reached("copy-registered");
    let way = load::Way {
        config,
        key: &scope.key,
        exported: &keeper.exported,
        snapshot: &keeper.snapshot,
        keeper: keeper.backend,
        jobs: wish.jobs,
        delete_first: (wish.truncate || !held.is_empty()) && !scope.is_whole,
        done: if scope.is_whole { "loaded" } else { "passing" },
    };
    let loaded = load::all(&way, keeper.session, &plans, control, tell)?;
    let snapshot = keeper.snapshot.as_str();
    failpoint::reached("copy-loaded");
    let of = if scope.is_whole { None } else { Some(plans.iter().map(|plan| plan.relation.clone()).collect()) };
    let sequences = sequences::bring(&mut pair.master, &mut pair.slave, of, tell)?;
    if scope.is_whole {
        settle(&mut pair, &scope)?;
    }
    for relation in held {
        Release::open(config, "copy", control)?.resume_table(&relation, Some(snapshot), &mut |_| ())?;
    }
    // A daemon that is refused because of this session's lock would go on waiting.
    pair.master.message("let the daemon go on", sql::END_COPY)?;
    Ok(Outcome { loaded, kept: scope.kept, sequences, is_live: false })
}

/// Which tables are to be loaded, by what a former run has left.
fn scope(wish: &Wish, pair: &mut Pair, tables: Vec<Captured>) -> Result<Scope> {
    let key = pair.key.clone();
    let former = copied::read(&mut pair.slave, &key)?;
    let unfinished = former.iter().find(|table| table.is_of_unfinished_copy()).filter(|_| !wish.restart);
    let batch = pair.log.progress.position().batch;
    if !wish.tables.is_empty() {
        if unfinished.is_some() {
            return Err(unfinished_whole(
                "run pyreplica copy without --table first: it goes on where it was interrupted",
            ));
        }
        let (kept, forgotten) = (Vec::new(), Vec::new());
        return Ok(Scope { key, is_whole: false, todo: tables, kept, forgotten, batch });
    }
    let Some(begun) = unfinished.map(|table| table.batch) else {
        let batch = BatchNumber(pair.master.query_one("number the copy", commit_sql::NEXT_BATCH, &[])?.get(0));
        let forgotten = former.into_iter().map(|table| table.relation).collect();
        return Ok(Scope { key, is_whole: true, todo: tables, kept: Vec::new(), forgotten, batch });
    };
    if begun != batch {
        let detail = "the slave's position has moved since the copy was interrupted";
        return Err(Error::new(Kind::Setup, Some(Side::Master), "go on with the copy", detail)
            .with_hint("begin anew: pyreplica copy --restart --truncate ..."));
    }
    let is_captured = |table: &Copied| tables.iter().any(|other| other.relation == table.relation);
    let (kept, gone): (Vec<Copied>, Vec<Copied>) = former.into_iter().partition(is_captured);
    let kept: Vec<Copied> = kept.into_iter().filter(|table| table.state == State::Loaded).collect();
    let is_missing = |table: &Captured| !kept.iter().any(|other| other.relation == table.relation);
    let todo = tables.into_iter().filter(is_missing).collect();
    let forgotten = gone.into_iter().map(|table| table.relation).collect();
    Ok(Scope { key, is_whole: true, todo, kept, forgotten, batch })
}

fn unfinished_whole(hint: &str) -> Error {
    Error::new(Kind::Setup, Some(Side::Slave), "copy single tables", "a copy of all is unfinished").with_hint(hint)
}

impl Keeper {
    fn open(config: &Config, tables: &[Captured]) -> Result<Keeper> {
        let mut session = connect::connect(Side::Master, &config.master, &format!("{} copy", config.name))?;
        let locks = tables.iter().map(|table| format!("LOCK TABLE {} IN ACCESS SHARE MODE;", table.locked()));
        let begin = format!("{} {}", load::BEGIN_SNAPSHOT, locks.collect::<String>());
        session.message("lock the tables", &begin).map_err(|error| match error.code() {
            Some("42501") => error.with_hint("DSN0's role needs the right to SELECT from every table that is copied"),
            _ => error,
        })?;
        let row = session.query_one("take a snapshot", sql::EXPORT_SNAPSHOT, &[])?;
        let shown: &str = row.get(1);
        let snapshot = Snapshot::parse(shown).ok_or_else(|| {
            Error::new(Kind::Internal, Some(Side::Master), "take a snapshot", format!("that is none: {shown}"))
        })?;
        Ok(Keeper { exported: row.get(0), snapshot, backend: session.backend_pid()?, session })
    }
}

fn surroundings(master: &mut Session, slave: &mut Session) -> Result<Surroundings> {
    Ok(Surroundings {
        master_encoding: master.query_one("look at the server", server_sql::IDENTITY, &[])?.get(1),
        slave_encoding: slave.query_one("look at the server", server_sql::IDENTITY, &[])?.get(1),
        hstore_schema: master.query_one("look for hstore", server_sql::HSTORE_SCHEMA, &[])?.get(0),
    })
}

/// What would make the load fail, or harm the slave, is found before anything happens. `begun`: a copy that was interrupted
/// may have filled these.
fn check(wish: &Wish, slave: &mut Session, plans: &[CopyPlan], begun: &[String]) -> Result<()> {
    let role: String = slave.query_one("look at the role", sql::ROLE_SETTING, &[])?.get(0);
    let watched: Vec<String> = plans.iter().filter(|plan| plan.is_watched).map(|plan| plan.relation.clone()).collect();
    if role != "replica" && !watched.is_empty() {
        let detail = format!("foreign keys or triggers would fire on {}", listed(&watched));
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "copy", detail).with_hint(
            "let DSN1's role set session_replication_role: GRANT SET ON PARAMETER session_replication_role TO it \
             (PostgreSQL 15), or a superuser",
        ));
    }
    if wish.truncate {
        return Ok(());
    }
    let mut full = Vec::new();
    for plan in plans.iter().filter(|plan| !begun.contains(&plan.relation)) {
        let look = format!("SELECT FROM {} LIMIT 1", plan.target);
        if !slave.text_rows("look whether the tables are empty", &look)?.is_empty() {
            full.push(plan.relation.clone());
        }
    }
    if full.is_empty() {
        return Ok(());
    }
    let verb = if full.len() == 1 { "is" } else { "are" };
    Err(Error::new(Kind::Setup, Some(Side::Slave), "copy", format!("{} {verb} not empty", listed(&full)))
        .with_hint("--truncate empties the slave's tables before they are loaded"))
}

/// Notes what is wanted, and empties the tables: from here on no daemon replicates to the slave until it is there.
fn register(wish: &Wish, pair: &mut Pair, scope: &Scope, plans: &[CopyPlan]) -> Result<()> {
    // Also if nothing in it changes: it is what comes after the snapshot and is on the disk.
    let former = pair.log.progress.position().clone();
    let position = Position { batch: scope.batch, ..former.clone() };
    pair.log.progress.write(&mut pair.master, &position, former.batch)?;
    let wanted: Vec<&str> = plans.iter().map(|plan| plan.relation.as_str()).collect();
    pair.slave.transaction("BEGIN", |slave| {
        slave.execute("note the copy", pair_sql::FORGET_COPIES, &[&scope.key, &scope.forgotten])?;
        slave.execute(
            "note the copy",
            sql::WANT_COPY,
            &[&scope.key, &wanted, &scope.is_whole, &scope.batch.0, &"wanted"],
        )?;
        if wish.truncate && scope.is_whole {
            empty(slave, plans)?;
        }
        Ok(())
    })
}

fn empty(slave: &mut Session, plans: &[CopyPlan]) -> Result<()> {
    let targets: Vec<&str> = plans.iter().map(|plan| plan.target.as_str()).collect();
    if targets.is_empty() {
        return Ok(());
    }
    let truncate = format!("SAVEPOINT pyreplica_empty; TRUNCATE {}", targets.join(", "));
    match slave.message("empty the tables", &truncate) {
        // A table that is not copied references one of them.
        Err(error) if error.code() == Some("0A000") => {
            let deletes: Vec<String> = targets.iter().map(|target| format!("DELETE FROM {target}")).collect();
            let delete = format!("ROLLBACK TO SAVEPOINT pyreplica_empty; {}", deletes.join("; "));
            slave.message("empty the tables", &delete).map(drop)
        }
        other => other.map(drop),
    }
}

/// All tables are there: the earliest snapshot becomes the slave's position.
fn settle(pair: &mut Pair, scope: &Scope) -> Result<()> {
    let copied = copied::read(&mut pair.slave, &scope.key)?;
    let Some(base) = copied::earliest(&copied).filter(|_| copied.iter().all(|table| table.state == State::Loaded))
    else {
        let detail = "the table replica_copy is not as the copy has left it";
        return Err(Error::new(Kind::Internal, Some(Side::Slave), "end the copy", detail));
    };
    let former = pair.log.progress.position().clone();
    // Asked for after the snapshots were taken, so none of them shows a higher one.
    let highest: i64 = pair.master.query_one("look at the log's end", backlog_sql::HIGHEST_ID, &[])?.get(0);
    let position = Position {
        batch: scope.batch,
        base: Some(base.clone()),
        current: None,
        last: None,
        highest: former.highest.max(LogId(highest)),
        floor: former.floor,
    };
    pair.log.progress.write(&mut pair.master, &position, scope.batch)?;
    failpoint::reached("copy-positioned");
    let is_covered = |table: &&Copied| table.snapshot.as_ref().is_some_and(|snapshot| base.covers(snapshot));
    let covered: Vec<&str> = copied.iter().filter(is_covered).map(|table| table.relation.as_str()).collect();
    pair.slave.transaction("BEGIN", |slave| {
        slave.execute("end the copy", pair_sql::FORGET_COPIES, &[&scope.key, &covered])?;
        slave.execute("end the copy", sql::PASS_COPIES, &[&scope.key])?;
        if hold::are_usable(slave)? {
            slave.execute("end the copy", sql::DROP_ALL_HELD, &[&scope.key])?;
            slave.execute("end the copy", sql::END_HOLDS, &[&scope.key])?;
        }
        Ok(())
    })
}
