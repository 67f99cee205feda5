//! One test's databases: a master and a slave, and everything a test does with them.

use super::cluster::{Script, Server, shared};
use super::compare::differences;
use super::daemon::{Daemon, Finished, run};
use super::forwarder::Forwarder;
use super::wait_until;
use postgres::{Client, SimpleQueryMessage};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The SELECT that the documentation gives for all tables at once.
const CREATE_TRIGGERS: &str = "SELECT py_log_create_tg(relname::text) FROM pg_class \
     WHERE relname::text !~ '^(pg_|sql_)' AND relkind = 'r' AND relname != 'replica_log'";

/// Two fresh databases, removed when this is dropped.
pub struct Pair {
    /// The NAME of the config file; nothing else in the cluster has it.
    pub name: String,
    /// What pyreplica is told. A test may put a [`super::Forwarder`]'s port or another user here.
    pub master_dsn: String,
    pub slave_dsn: String,
    master: Server,
    slave: Server,
    dir: PathBuf,
    runs: AtomicU32,
}

impl Pair {
    /// On the shared clusters.
    #[track_caller]
    pub fn new() -> Pair {
        let (master, slave) = shared();
        Pair::on(master, slave)
    }

    /// On any two servers, which may be one and the same.
    #[track_caller]
    pub fn on(master: &Server, slave: &Server) -> Pair {
        let pair = Pair::named(master, slave);
        master.create_database(&pair.master_db(), Script::Master);
        slave.create_database(&pair.slave_db(), Script::Slave);
        pair
    }

    /// On the shared clusters, with the master in another encoding than the slave's UTF8.
    #[track_caller]
    pub fn with_master_encoding(encoding: &str) -> Pair {
        let (master, slave) = shared();
        let pair = Pair::named(master, slave);
        master.create_database_in(&pair.master_db(), encoding, Script::Master);
        slave.create_database(&pair.slave_db(), Script::Slave);
        pair
    }

    /// On the shared clusters, with the slave in another encoding than the master's UTF8.
    #[track_caller]
    pub fn with_slave_encoding(encoding: &str) -> Pair {
        let (master, slave) = shared();
        let pair = Pair::named(master, slave);
        master.create_database(&pair.master_db(), Script::Master);
        slave.create_database_in(&pair.slave_db(), encoding, Script::Slave);
        pair
    }

    /// A table on both sides, with the trigger.
    #[track_caller]
    pub fn with_a_table(self) -> Pair {
        self.exec_both("create table t (id int primary key, a text)");
        self.create_triggers();
        self
    }

    /// Daemons reach both servers through forwarders from now on; the master's comes first.
    pub fn put_behind_forwarders(&mut self) -> [Forwarder; 2] {
        let forwarders = [&self.master, &self.slave].map(|server| Forwarder::to(server.port()));
        self.master_dsn = Server::dsn_at(forwarders[0].port(), &self.master_db());
        self.slave_dsn = Server::dsn_at(forwarders[1].port(), &self.slave_db());
        forwarders
    }

    pub fn master_db(&self) -> String {
        format!("{}_m", self.name)
    }

    pub fn slave_db(&self) -> String {
        format!("{}_s", self.name)
    }

    pub fn master_server(&self) -> &Server {
        &self.master
    }

    pub fn slave_server(&self) -> &Server {
        &self.slave
    }

    /// The older of both servers' major versions.
    #[track_caller]
    pub fn version(&self) -> u32 {
        self.master.major_version().min(self.slave.major_version())
    }

    /// A new session on the master.
    #[track_caller]
    pub fn master(&self) -> Client {
        self.master.connect(&self.master_db())
    }

    /// A new session on the slave.
    #[track_caller]
    pub fn slave(&self) -> Client {
        self.slave.connect(&self.slave_db())
    }

    /// Statements on the master, in a new session; several in one string are one transaction.
    #[track_caller]
    pub fn run(&self, sql: &str) {
        batch(&mut self.master(), sql);
    }

    /// Statements on the slave, in a new session.
    #[track_caller]
    pub fn run_on_slave(&self, sql: &str) {
        batch(&mut self.slave(), sql);
    }

    /// Statements on both, as the operator changes a schema. The slave goes first.
    #[track_caller]
    pub fn exec_both(&self, sql: &str) {
        self.run_on_slave(sql);
        self.run(sql);
    }

    /// The documented SELECT for all tables; the answers, sorted, without those about pyreplica's own tables.
    #[track_caller]
    pub fn create_triggers(&self) -> Vec<String> {
        let mut said = column(&mut self.master(), CREATE_TRIGGERS);
        said.retain(|line| !line.contains("is pyreplica's own"));
        said.sort();
        said
    }

    /// The two-argument form for every table of one schema.
    #[track_caller]
    pub fn create_triggers_in(&self, schema: &str) -> Vec<String> {
        let literal = schema.replace('\'', "''");
        let sql = format!(
            "SELECT py_log_create_tg(n.nspname::text, c.relname::text) FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = '{literal}' ORDER BY 1"
        );
        let mut said = column(&mut self.master(), &sql);
        said.retain(|line| !line.contains("is pyreplica's own"));
        said
    }

    /// Drains the log by the real binary and returns what that wrote.
    #[track_caller]
    pub fn once(&self) -> Finished {
        let finished = self.try_once();
        assert!(finished.status.success(), "pyreplica --once: {}\n{}", finished.status, finished.output);
        finished
    }

    /// The same where a failure is expected.
    #[track_caller]
    pub fn try_once(&self) -> Finished {
        self.try_once_with(&[])
    }

    /// The same with further variables, e.g. `PYREPLICA_PAUSE_AT`.
    #[track_caller]
    pub fn try_once_with(&self, env: &[(&str, &str)]) -> Finished {
        run(&self.next_log(), &["--once", "--debug", "3", &self.master_dsn, &self.slave_dsn], env)
    }

    /// Drains by a config file with further lines.
    #[track_caller]
    pub fn try_once_by_file(&self, lines: &str) -> Finished {
        let file = self.config_file(lines);
        run(&self.next_log(), &["--once", path(&file)], &[])
    }

    /// The same where it succeeds. What the daemon has said.
    #[track_caller]
    pub fn once_with(&self, lines: &str) -> String {
        let finished = self.try_once_by_file(lines);
        assert!(finished.status.success(), "{}", finished.output);
        finished.output
    }

    /// Drains by a config file with further lines; then nothing waits any more in the log. What the daemon has said.
    #[track_caller]
    pub fn drain_with(&self, lines: &str) -> String {
        let output = self.once_with(lines);
        assert_eq!(self.pending(), 0);
        self.assert_no_prepared();
        output
    }

    /// Runs a verb on this pair; its words, e.g. `["pause", "--table", "t"]`.
    #[track_caller]
    pub fn verb(&self, words: &[&str]) -> Finished {
        self.verb_in(words, &[])
    }

    /// The same with further variables.
    #[track_caller]
    pub fn verb_in(&self, words: &[&str], env: &[(&str, &str)]) -> Finished {
        let words = [words, &[self.master_dsn.as_str(), self.slave_dsn.as_str()]].concat();
        run(&self.next_log(), &words, env)
    }

    /// The same with a config file, which may have further lines.
    #[track_caller]
    pub fn verb_by_file(&self, verb: &str, lines: &str, more: &[&str]) -> Finished {
        let file = self.config_file(lines);
        run(&self.next_log(), &[&[verb, path(&file)], more].concat(), &[])
    }

    /// Starts a verb by a config file with further lines, as a process in the test's hand.
    #[track_caller]
    pub fn start_verb(&self, verb: &str, lines: &str, more: &[&str], env: &[(&str, &str)]) -> Daemon {
        let file = self.config_file(lines);
        Daemon::spawn(&self.next_log(), &[&[verb, path(&file)], more].concat(), env)
    }

    /// A verb that must succeed; what it printed.
    #[track_caller]
    pub fn done(&self, words: &[&str]) -> String {
        let finished = self.verb(words);
        assert!(finished.status.success(), "pyreplica {words:?}: {}\n{}", finished.status, finished.output);
        finished.output
    }

    /// A verb that stops itself at a point and is killed there; the same verb is to be run again.
    #[track_caller]
    pub fn killed_at(&self, point: &str, words: &[&str]) {
        let words = [words, &[self.master_dsn.as_str(), self.slave_dsn.as_str()]].concat();
        let mut process = Daemon::spawn(&self.next_log(), &words, &[("PYREPLICA_PAUSE_AT", point)]);
        process.wait_paused();
        process.kill9();
    }

    /// A daemon for this pair, at debug level 2.
    #[track_caller]
    pub fn start(&self) -> Daemon {
        self.start_with("")
    }

    /// The same with further lines in the config file; they may repeat a key of [`Self::config_file`] and win.
    #[track_caller]
    pub fn start_with(&self, lines: &str) -> Daemon {
        self.start_in(lines, &[])
    }

    /// A daemon behind another command, e.g. [`super::Network::command`].
    #[track_caller]
    pub fn start_behind(&self, prefix: &[String], lines: &str) -> Daemon {
        let file = self.config_file(lines);
        Daemon::spawn_behind(prefix, &self.next_log(), &[path(&file)], &[])
    }

    /// A daemon that stops itself by SIGSTOP when it comes to a step of the protocol: `step`, or `step:n` for the n-th
    /// time.
    #[track_caller]
    pub fn start_paused_at(&self, step: &str) -> Daemon {
        self.start_in("", &[("PYREPLICA_PAUSE_AT", step)])
    }

    /// The general form: config lines and environment variables.
    #[track_caller]
    pub fn start_in(&self, lines: &str, env: &[(&str, &str)]) -> Daemon {
        let file = self.config_file(lines);
        Daemon::spawn(&self.next_log(), &[path(&file)], env)
    }

    /// Writes a config file for this pair; `lines` come last, so they may open a section of their own.
    pub fn config_file(&self, lines: &str) -> PathBuf {
        let defaults =
            [("NAME", self.name.as_str()), ("DSN0", &self.master_dsn), ("DSN1", &self.slave_dsn), ("DEBUG_LEVEL", "2")];
        let given = |key: &str| lines.lines().any(|line| line.split('=').next().is_some_and(|k| k.trim() == key));
        let mut text = String::from("[MAIN]\n");
        for (key, value) in defaults.iter().filter(|(key, _)| !given(key)) {
            text.push_str(&format!("{key}={value}\n"));
        }
        text.push_str(lines);
        let file = self.dir.join(format!("{}.conf", self.runs.load(Ordering::Relaxed)));
        fs::write(&file, text).expect("write the config file");
        file
    }

    /// A directory of this pair's own; it goes with the pair.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many changes the slave has not got yet.
    #[track_caller]
    pub fn pending(&self) -> i64 {
        number(&mut self.master(), "select count(*) from replica_log where not replicated")
    }

    /// How many rows the log holds, save those that every slave has replayed and that it only keeps for a while.
    #[track_caller]
    pub fn logged(&self) -> i64 {
        self.pending()
    }

    /// Waits until nothing is pending and nothing is in doubt.
    #[track_caller]
    pub fn wait_caught_up(&self) {
        let (mut master, mut slave) = (self.master(), self.slave());
        wait_until("the slave has caught up", || {
            // In this order: the marks become visible on the master before the rows do on the slave.
            column(&mut master, "select 'waits' from replica_log where not replicated limit 1").is_empty()
                && prepared(&mut master).is_empty()
                && prepared(&mut slave).is_empty()
        });
    }

    /// All tables but pyreplica's own hold the same rows on both sides.
    #[track_caller]
    pub fn assert_equal(&self) {
        let found = differences(&mut self.master(), &mut self.slave());
        assert!(found.is_empty(), "master and slave differ:\n{found}");
    }

    /// The same question for who waits for it.
    #[track_caller]
    pub fn is_equal(&self) -> bool {
        differences(&mut self.master(), &mut self.slave()).is_empty()
    }

    /// The slave holds what the master does not: for tests that look before the replay.
    #[track_caller]
    pub fn assert_different(&self) {
        let found = differences(&mut self.master(), &mut self.slave());
        assert!(!found.is_empty(), "master and slave are equal, although nothing was replayed");
    }

    /// Nothing of this pair is left between the two phases.
    #[track_caller]
    pub fn assert_no_prepared(&self) {
        for (side, mut client) in [("master", self.master()), ("slave", self.slave())] {
            let gids = prepared(&mut client);
            assert!(gids.is_empty(), "left prepared on the {side}: {gids:?}");
        }
    }

    /// The first column of a query on the master, as text.
    #[track_caller]
    pub fn on_master(&self, sql: &str) -> Vec<String> {
        column(&mut self.master(), sql)
    }

    /// The first column of a query on the slave, as text.
    #[track_caller]
    pub fn on_slave(&self, sql: &str) -> Vec<String> {
        column(&mut self.slave(), sql)
    }

    fn named(master: &Server, slave: &Server) -> Pair {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // The test's name, for the reader of a server's log; short enough to be shown whole as the name of a session, with
        // both numbers and what the daemon adds.
        let thread = std::thread::current();
        let test = thread.name().and_then(|name| name.rsplit("::").next()).unwrap_or("test");
        let name = format!("t{}_{number}_{}", std::process::id(), test.get(..28).unwrap_or(test)).to_lowercase();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        fs::create_dir_all(&dir).expect("create the pair's directory");
        let (master_dsn, slave_dsn) = (master.dsn(&format!("{name}_m")), slave.dsn(&format!("{name}_s")));
        Pair { name, master_dsn, slave_dsn, master: master.clone(), slave: slave.clone(), dir, runs: AtomicU32::new(0) }
    }

    fn next_log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.runs.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.master.drop_database(&self.master_db());
        self.slave.drop_database(&self.slave_db());
        // Leftovers in target/tmp are cargo's to clean.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn path(file: &Path) -> &str {
    file.to_str().expect("the target directory's name is text")
}

#[track_caller]
fn batch(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
}

fn prepared(client: &mut Client) -> Vec<String> {
    column(client, "select gid from pg_prepared_xacts where database = current_database() order by 1")
}

#[track_caller]
fn number(client: &mut Client, sql: &str) -> i64 {
    column(client, sql)[0].parse().expect("a number")
}

#[track_caller]
fn column(client: &mut Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    let cells = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
        _ => None,
    });
    cells.collect()
}
