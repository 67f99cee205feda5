//! The two databases of a pair, in the direction in force, and what each has to have before the roles are exchanged.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::commit::prepared::prepared;
use crate::commit::recovery::GidFamily;
use crate::commit::twophase::pair_key;
use crate::config::settings::Config;
use crate::pair::sql as pair_sql;
use crate::roles::install;
use crate::roles::lock;
use crate::roles::sql;
use crate::server::checks;
use crate::server::connect;
use crate::server::connect_pair::{self, BothSides};
use crate::server::fence::{self, Fenced, Renamed};
use crate::server::role::{self, Roles, State};
use crate::server::session::Session;
use crate::server::sql as server_sql;
use std::time::{Duration, Instant};

/// How long a daemon may take to settle what is prepared.
const SETTLEMENT: Duration = Duration::from_secs(15);

/// The sessions are for the verb alone: it holds the master's locks in one.
pub struct Sides {
    /// In the direction in force: what is the master before the exchange.
    pub config: Config,
    pub master: Session,
    pub slave: Session,
    pub roles: Roles,
    pub master_identity: String,
    pub slave_identity: String,
    /// The master's log.
    pub origin: u64,
    /// The pair in the slave's tables.
    pub key: String,
    /// The tables that are replicated, as the log names them.
    pub tables: Vec<String>,
    /// Those that nothing is done with.
    pub renamed: Vec<Renamed>,
    /// Whether the daemon may take the replica role, on the master and on the slave. Otherwise the fence lets its role pass where it
    /// replays, and the triggers that log are disabled on the slave, where replayed changes would fire them.
    pub replica_role: (bool, bool),
}

impl Sides {
    pub fn open(config: &Config, verb: &str, control: &Control) -> Result<Sides> {
        let BothSides { master, slave, config, roles } = connect_pair::open(config, verb, control);
        let (mut master, mut slave) = (master?, slave?);
        let roles = roles.unwrap_or_else(Roles::original);
        let trouble = roles.trouble(&role::place(&config.master)).filter(|_| roles.state != State::Between);
        if let Some((text, hint)) = trouble {
            return Err(Error::new(Kind::Apart, Some(Side::Slave), "exchange the roles", text).with_hint(hint));
        }
        let (master_identity, origin) = checks::identity_and_origin(&mut master)?;
        let slave_identity = slave.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0);
        if master_identity == slave_identity {
            return Err(checks::same_database());
        }
        let (tables, renamed) = fence::known(&mut master)?;
        let replica_role = (checks::may_take_replica_role(&mut master)?, checks::may_take_replica_role(&mut slave)?);
        let key = pair_key(origin, &config.slave_field);
        Ok(Sides {
            config,
            master,
            slave,
            roles,
            master_identity,
            slave_identity,
            origin,
            key,
            tables,
            renamed,
            replica_role,
        })
    }

    /// Makes all that can be made before the lock, on both sides: the tables of both, the triggers that log on the slave, the fence
    /// on the master. It changes nothing for the applications. Returns the fence's tables on the master.
    /// `taken` are the fields of other slaves that the new master gets. Where others lock a table, it is tried again for `wait`.
    pub fn prepare(
        &mut self,
        taken: &[String],
        wait: Duration,
        control: &Control,
        report: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Vec<Fenced>> {
        fence::install(&mut self.master)?;
        fence::install(&mut self.slave)?;
        checks::progress_table(&mut self.master)?;
        self.prepare_log(taken, control, report)?;
        let passes = fence::passes(&mut self.master)?;
        let (names, there) = (&self.tables, role::place(&self.config.slave));
        let tables = fence::look(&mut self.master, names)?;
        let with_partitions: Vec<String> = tables.into_iter().map(|table| table.relation).collect();
        lock::briefly(&mut self.master, &with_partitions, wait, control, &mut |master| {
            let tables = fence::look(master, names)?;
            fence::prepare(master, &tables, &there, &passes)
        })?;
        fence::look(&mut self.master, names)
    }

    /// Makes the slave able to be a master: its log, and the triggers of all tables that are replicated.
    fn prepare_log(
        &mut self,
        taken: &[String],
        control: &Control,
        report: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let mut quiet = |line: &str| {
            log::debug!(target: "pyreplica", "{line}");
            Ok(())
        };
        let mut slave = connect::connect(Side::Slave, &self.config.slave, &format!("{} install", self.config.name))?;
        let fields: Vec<&String> = [&self.config.slave_field].into_iter().chain(taken).collect();
        install::prepare_log(&mut slave, &fields, "installing the log on the slave", control, report)?;
        let wanted = |relation: &str| self.tables.iter().any(|table| table == relation);
        install::create_triggers(&mut slave, &wanted, !self.replica_role.1, control, &mut quiet)
    }

    /// The tables of the master that no trigger logs on the slave.
    pub fn without_trigger(&mut self) -> Result<Vec<String>> {
        let there = fence::replicated(&mut self.slave)?;
        Ok(self.tables.iter().filter(|table| !there.contains(table)).cloned().collect())
    }

    /// An error if tables or partitions have come since the fence was prepared: nothing would keep writers off these.
    pub fn refuse_new_tables(&mut self, prepared: &[Fenced]) -> Result<()> {
        let (names, _) = fence::known(&mut self.master)?;
        let mut now = fence::look(&mut self.master, &names)?;
        now.retain(|table| table.is_named && !prepared.iter().any(|known| known.relation == table.relation));
        let Some(new) = now.first() else { return Ok(()) };
        let detail = format!("{} has come while the exchange was prepared", new.relation);
        Err(Error::new(Kind::Contention, Some(Side::Master), "exchange the roles", detail)
            .with_hint("nothing was changed. Run the verb again"))
    }

    /// Has the daemon settle what a verb that has died may have left prepared, and waits for that.
    pub fn await_settlement(&mut self, control: &Control, report: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        // A batch of the daemon's own is committed in a moment.
        let (first, end) = (self.own_prepared()?, Instant::now() + SETTLEMENT);
        let mut is_told = false;
        while Instant::now() < end && self.own_prepared()?.iter().any(|gid| first.contains(gid)) {
            if !is_told {
                report("transactions of this pair are prepared: waiting until the daemon has settled them")?;
                is_told = true;
            }
            self.master.message("wake the daemon", pair_sql::NOTIFY)?;
            control.pause(Duration::from_millis(500));
            control.check()?;
        }
        Ok(())
    }

    /// The names of the pair's prepared transactions on both sides.
    fn own_prepared(&mut self) -> Result<Vec<String>> {
        let family = GidFamily::new(&self.config.name, &self.config.slave_field, self.origin);
        let mut found = prepared(&mut self.master)?;
        found.extend(prepared(&mut self.slave)?);
        let own = found.into_iter().filter(|found| found.batch_of(&family).is_some());
        Ok(own.map(|found| found.gid).collect())
    }

    /// Whether a daemon is connected for the slave of this field.
    pub fn has_daemon(&mut self, field: &String) -> Result<bool> {
        let rows = self.master.query("look for the daemon", server_sql::DAEMON, &[field])?;
        Ok(rows.iter().any(|row| row.get("replicates")))
    }

    /// Another slave uses this pair's column of the log on the slave.
    pub fn refuse_other_use(&mut self) -> Result<()> {
        if checks::log_oid(&mut self.slave).is_err() {
            return Ok(());
        }
        let field = &self.config.slave_field;
        // Before an exchange of roles, this pair's master was never the slave's slave. After one it may have been moved: then the slave's
        // rows still name the database that it was.
        let mut own = Vec::new();
        if self.roles.epoch > 0 {
            let said = role::said(&mut self.slave, field)?;
            own.extend(
                said.rows.into_iter().filter(|row| Some(&row.pair) == self.roles.pair.as_ref()).map(|row| row.peer),
            );
            own.push(self.master_identity.clone());
        }
        let rows = self.slave.query("look at the slaves", sql::OTHER_USE, &[field, &own])?;
        let Some(row) = rows.first() else { return Ok(()) };
        let database = row.get::<_, Option<&str>>(0);
        let refuse = |detail: String, hint: String| {
            Err(Error::new(Kind::Setup, Some(Side::Slave), "exchange the roles", detail).with_hint(hint))
        };
        let (name, forget) = (quote_literal(field), "UPDATE replica_slave SET token = NULL WHERE field =");
        if database == Some(&self.master_identity) {
            return refuse(
                format!(
                    "it is a master too: another pair with SLAVE_FIELD={field} has replicated from it to this master"
                ),
                format!(
                    "an exchange of roles is for a pair with one master. If that pair is no more, on the slave: {forget} {name};"
                ),
            );
        }
        let detail = format!(
            "the slave has a slave of its own with SLAVE_FIELD={field} (database {})",
            database.unwrap_or("unknown")
        );
        refuse(
            detail,
            format!(
                "this pair needs a column of its own in both logs: SELECT py_log_add_slave('...') on the master, and SLAVE_FIELD in \
                 the config file. If that slave is gone, on the slave: {forget} {name};"
            ),
        )
    }
}
