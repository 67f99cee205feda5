//! What keeps a slave from becoming the master, found before anything is locked. Each obstacle comes with what helps.

use crate::base::control::Control;
use crate::base::error::Result;
use crate::base::names::{Side, create_trigger_of, quote_ident, quote_literal};
use crate::base::phrases::counted;
use crate::base::shown::listed;
use crate::commit::prepared::{Prepared, prepared};
use crate::compare::sql as compare_sql;
use crate::config::settings::Config;
use crate::health::doctor::{Finding, Level, diagnose};
use crate::pair::copied;
use crate::roles::exchange::OtherSlave;
use crate::roles::sides::Sides;
use crate::roles::sql;
use crate::server::checks;
use crate::server::connect;
use crate::server::connect_pair::{self, BothSides};
use crate::server::fence::{self, Renamed};
use crate::server::ours;
use crate::server::role;
use crate::server::session::{Row, Session};
use std::collections::BTreeSet;

/// What doctor says about a daemon, or about replication in progress, is no obstacle: the exchange waits for what is pending.
const NO_OBSTACLE: [&str; 6] = ["daemon", "last error", "sequences", "log", "fence", "roles"];

pub struct Obstacle {
    pub text: String,
    /// Statements or commands, and on which side.
    pub help: Vec<String>,
    /// Somebody may want to leave this behind.
    pub may_be_left: bool,
}

impl Obstacle {
    fn new(text: impl Into<String>, help: impl Into<String>) -> Obstacle {
        Obstacle { text: text.into(), help: vec![help.into()], may_be_left: false }
    }

    fn that_may_be_left(mut self) -> Obstacle {
        self.may_be_left = true;
        self
    }
}

/// Before anything is prepared: the present direction, and what the slave lacks.
pub fn before(sides: &mut Sides, config: &Config, source: &str, control: &Control) -> Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    if sides.config.skip_user.is_some() {
        found.push(Obstacle::new(
            "SKIP_USER is set: this pair has several masters, and both sides accept writes already",
            "an exchange of roles is for a pair with one master",
        ));
    }
    if sides.config.tables.is_limited() {
        found.push(Obstacle::new(
            "TABLES is set: this pair replicates some tables only, and all others would be left behind",
            "an exchange of roles is for a pair that replicates all tables",
        ));
    }
    let BothSides { master, slave, config: directed, roles } = connect_pair::open(config, "switchover check", control);
    found.extend(failures(diagnose(&directed, source, roles.as_ref(), master, slave)));
    control.check()?;
    let Sides { master, slave, key, renamed, master_identity, config, .. } = sides;
    found.extend(other_masters(slave, master_identity, &config.slave_field)?);
    found.extend(left_behind(master)?);
    found.extend(self::renamed(renamed));
    found.extend(filtered(master)?);
    found.extend(held(slave, key)?);
    found.extend(lacking(master, slave)?);
    Ok(found)
}

/// After it: can the present master be the slave of the other side? And does a trigger log each table there?
///
/// Whatever the two say about the last batch of that direction, the exchange writes both rows anew, with a position that covers all of
/// the new master's log.
pub fn after(sides: &mut Sides, config: &Config, source: &str, control: &Control) -> Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    let missing = sides.without_trigger()?;
    if !missing.is_empty() {
        let help = missing.iter().map(|table| format!("on the slave: {}", create_trigger_of(table))).collect();
        let text = format!("on the slave no trigger logs {}", listed(&missing));
        found.push(Obstacle { text, help, may_be_left: false });
    }
    let turned = sides.config.directed(true);
    let label = format!("{} switchover check", config.name);
    let master = connect::connect(Side::Master, &turned.master, &label);
    let slave = connect::connect(Side::Slave, &turned.slave, &label);
    let mut findings = diagnose(&turned, source, None, master, slave);
    // The exchange enables the triggers.
    findings.retain(|finding| !["disabled triggers", "last batch"].contains(&finding.subject.as_str()));
    control.check()?;
    for mut obstacle in failures(findings) {
        obstacle.text = format!("after the exchange, when the sides are the other way round: {}", obstacle.text);
        found.push(obstacle);
    }
    Ok(found)
}

/// What a slave lacks that is to become the master because the master is gone, or what it would lose. `key` names what it has replayed, and
/// `own` are the databases that this pair's other side was.
pub fn of_failover(slave: &mut Session, field: &str, key: &str, own: &[String]) -> Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    if let Some(copy) = copied::unfinished(slave, key)? {
        found.push(Obstacle::new(copy.to_string(), "if the master comes back, pyreplica copy goes on with it"));
    }
    if ours::may_read(slave, &["replica_hold"])? {
        let tables: String = slave.query_one("look for a copy", sql::COPYING, &[&key])?.get(0);
        if !tables.is_empty() {
            found.push(Obstacle::new(
                format!("the copy of {tables} to this database is unfinished, so rows are missing here"),
                "if the master comes back, pyreplica copy --table goes on with it",
            ));
        }
    }
    for Prepared { gid, owner, .. } in prepared(slave)?.into_iter().filter(|found| found.is_forged(field)) {
        // Any role may use such a name.
        if slave.query_one("look at the rights", sql::MAY_NOTE_PROGRESS, &[&owner])?.get(0) {
            let gid = quote_literal(&gid);
            found.push(Obstacle::new(
                format!("role {owner} has prepared a batch here, {gid}"),
                format!(
                    "if the daemon ran as {owner}, run the failover as that role; otherwise ROLLBACK PREPARED {gid};"
                ),
            ));
        }
    }
    if checks::log_oid(slave).is_ok() && !slave.query("look at the slaves", sql::OTHER_USE, &[&field, &own])?.is_empty()
    {
        found.push(Obstacle::new(
            format!("this database has a slave of its own with SLAVE_FIELD={field}, which would be cut off"),
            "fill that one again afterwards, under a field of its own: py_log_add_slave",
        ));
    }
    Ok(found)
}

/// What the master of today has never got of a former master, and what that one's log does not show as lost.
pub fn withheld(master: &mut Session, former: &mut Session, key: &str) -> Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    if ours::which(former, &["py_log_filter", "py_log_transform"])?.len() == 2 {
        found.extend(filtered(former)?);
    }
    let captured = fence::replicated(former)?;
    let mut never = fence::known(master)?.0;
    never.retain(|table| !captured.contains(table));
    let rows = former.query("look for tables that were not replicated", sql::WITH_ROWS, &[&never])?;
    let never: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if !never.is_empty() {
        found.push(Obstacle::new(format!("tables that it did not replicate: {}", listed(&never)), ""));
    }
    found.extend(copied::unfinished(master, key)?.map(|copy| Obstacle::new(copy.to_string(), "")));
    found.extend(held_by(master, key)?);
    Ok(found)
}

/// What is held of a pair, if the tables for that are there.
pub fn held_by(slave: &mut Session, key: &str) -> Result<Option<Obstacle>> {
    match ours::may_read(slave, &["replica_held", "replica_hold"])? {
        true => held(slave, key),
        false => Ok(None),
    }
}

/// Other slaves that are to be taken along, and have not replayed everything: the lock would wait for them.
pub fn late_slaves(master: &mut Session, others: &[OtherSlave]) -> Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    for other in others {
        if other.is_behind(master)? && !other.has_daemon(master)? {
            found.push(Obstacle::new(
                format!(
                    "changes are pending for the slave {}, which is to be taken along, and no daemon replicates it",
                    other.field
                ),
                "start its daemon, or leave out --take-slaves",
            ));
        }
    }
    Ok(found)
}

fn failures(findings: Vec<Finding>) -> Vec<Obstacle> {
    let is_obstacle = |finding: &Finding| {
        finding.level == Level::Failure && !NO_OBSTACLE.contains(&finding.subject.as_str())
            || finding.subject == "log" && finding.level == Level::Failure && !finding.fixes.is_empty()
    };
    let found = findings.into_iter().filter(is_obstacle).map(|finding| {
        let side = finding.side.map_or(String::new(), |side| format!("{side}: "));
        let on = finding.side.map_or(String::new(), |side| format!("on the {side}: "));
        let mut help: Vec<String> = finding.fixes.iter().map(|fix| format!("{on}{fix}")).collect();
        help.extend(finding.advice);
        Obstacle { text: format!("{side}{}: {}", finding.subject, finding.text), help, may_be_left: false }
    });
    found.collect()
}

/// Tables that are not replicated stay on the old master, which nobody writes to any more.
fn left_behind(master: &mut Session) -> Result<Option<Obstacle>> {
    let rows = master.query("look at the tables", &compare_sql::REPLICATED, &[])?;
    let tables: Vec<String> =
        rows.iter().filter(|row| !row.get::<_, bool>("logged")).map(|row| row.get("relation")).collect();
    Ok((!tables.is_empty()).then(|| {
        Obstacle::new(
            format!("not replicated, so they would be left behind: {}", listed(&tables)),
            "give each a primary key or a REPLICA IDENTITY, and its trigger (pyreplica install), and copy it (pyreplica copy --table); or copy them by \
             hand afterwards",
        )
        .that_may_be_left()
    }))
}

/// Their changes are not replayed, and on the slave the name may be somebody else's.
fn renamed(tables: &[Renamed]) -> Option<Obstacle> {
    (!tables.is_empty()).then(|| {
        Obstacle::new(
            format!(
                "they had other names when their triggers were created, so they would be left behind: {}",
                Renamed::listed(tables)
            ),
            Renamed::help(tables),
        )
        .that_may_be_left()
    })
}

/// A slave of several masters has a row for each of them.
fn other_masters(slave: &mut Session, master: &str, field: &String) -> Result<Option<Obstacle>> {
    let mut own: Vec<String> = role::said(slave, field)?.rows.into_iter().map(|row| row.peer).collect();
    own.push(master.to_string());
    let rows = slave.query("look what was replayed last", sql::LAST_REPLAYED, &[field])?;
    let is_other =
        |row: &&Row| row.get::<_, Option<String>>("identity").is_some_and(|identity| !own.contains(&identity));
    Ok(rows.iter().find(is_other).map(|row| {
        let key = quote_literal(row.get("master"));
        Obstacle::new(
            format!(
                "the slave has replayed the changes of another master under SLAVE_FIELD={field}, until {}: that pair would be cut off",
                row.get::<_, &str>("ts")
            ),
            format!("if that pair is no more, on the slave: DELETE FROM replica_progress WHERE master = {key};"),
        )
        .that_may_be_left()
    }))
}

fn filtered(master: &mut Session) -> Result<Option<Obstacle>> {
    let rows = master.query("look at the filters", sql::FILTERS, &[])?;
    let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok((!tables.is_empty()).then(|| {
        Obstacle::new(
            format!("filters or transforms withhold data from the slave: {}", listed(&tables)),
            "a slave without all rows and values can't be the master: remove them from py_log_filter and py_log_transform, and \
             make these tables equal (pyreplica repair --table)",
        )
        .that_may_be_left()
    }))
}

fn held(slave: &mut Session, key: &str) -> Result<Option<Obstacle>> {
    let row = slave.query_one("look at what is held", sql::HELD, &[&key])?;
    let (changes, holds): (i64, String) = (row.get(0), row.get(1));
    if changes == 0 && holds.is_empty() {
        return Ok(None);
    }
    let lacks = (changes > 0).then(|| format!("the slave lacks {} held or in quarantine", counted(changes, "change")));
    let on_hold = (!holds.is_empty()).then(|| format!("on hold: {holds}"));
    Ok(Some(Obstacle::new(
        lacks.into_iter().chain(on_hold).collect::<Vec<String>>().join(", "),
        "pyreplica pending shows them; pyreplica resume, retry or skip decides about them",
    )))
}

/// Objects that the slave lacks: applications may need them.
fn lacking(master: &mut Session, slave: &mut Session) -> Result<Option<Obstacle>> {
    let objects = |session: &mut Session| -> Result<BTreeSet<(String, String)>> {
        let rows = session.query("look at the objects", &sql::OBJECTS, &[])?;
        Ok(rows.iter().map(|row| (row.get("kind"), row.get("name"))).collect())
    };
    let (here, there) = (objects(master)?, objects(slave)?);
    let mut missing: Vec<String> = here.difference(&there).map(|(kind, name)| format!("{kind} {name}")).collect();
    // The log needs it, and is installed with it.
    missing.retain(|object| object != "extension hstore");
    Ok((!missing.is_empty()).then(|| {
        let mut obstacle = Obstacle::new(
            format!("the slave lacks {} objects of the master: {}", missing.len(), listed(&missing)),
            "create them there; pg_dump --schema-only of the master has the statements",
        )
        .that_may_be_left();
        if missing.iter().any(|object| object.contains("!pyreplica_ddl_")) {
            obstacle.help.push("those of pyreplica: pyreplica install --ddl on the slave".to_string());
        }
        let extensions = missing.iter().filter_map(|name| name.strip_prefix("extension "));
        obstacle.help.extend(
            extensions.map(|name| format!("on the slave: CREATE EXTENSION {};", quote_ident(name.trim_matches('"')))),
        );
        obstacle
    }))
}
