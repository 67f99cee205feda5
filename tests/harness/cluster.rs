//! Throwaway clusters: the shared pair of this run, and private ones. `cluster.sh` starts each and removes it when the
//! pipe to its standard input closes, which the kernel does even for a process that was killed.

use super::certificates::{Certificate, restrict};
use postgres::{Client, NoTls};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

const SUPERVISOR: &str = include_str!("cluster.sh");

/// Serialises the making of a template among the tests of one run.
const TEMPLATE_LOCK: i64 = 7_736_542;

/// Which of pyreplica's scripts a database gets.
#[derive(Clone, Copy)]
pub enum Script {
    Master,
    Slave,
}

impl Script {
    pub fn path(self) -> PathBuf {
        let file = match self {
            Script::Master => "master-install.sql",
            Script::Slave => "slave-install.sql",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(file)
    }

    /// The template's name follows the script's text, so that a changed script is never tested in its old form.
    fn template(self) -> String {
        let text = std::fs::read_to_string(self.path()).expect("the SQL script is readable");
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let label = match self {
            Script::Master => "master",
            Script::Slave => "slave",
        };
        format!("template_{label}_{:016x}", hasher.finish())
    }
}

/// Where a running cluster is.
#[derive(Clone, Debug)]
pub struct Server {
    dir: PathBuf,
    port: u16,
}

impl Server {
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its socket is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The server's own log.
    pub fn log(&self) -> String {
        std::fs::read(self.dir.join("log")).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// As in `server_version_num`, without the minor version: 15, not 150004.
    #[track_caller]
    pub fn major_version(&self) -> u32 {
        major_version(&mut self.connect("postgres"))
    }

    /// The test's own way in: the unix socket, past any forwarder and any password.
    #[track_caller]
    pub fn connect(&self, database: &str) -> Client {
        self.try_connect(database).unwrap_or_else(|error| panic!("connect to {database} at {}: {error}", self.port))
    }

    pub fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        self.try_connect_as(database, "postgres")
    }

    #[track_caller]
    pub fn connect_as(&self, database: &str, user: &str) -> Client {
        self.try_connect_as(database, user).unwrap_or_else(|error| panic!("connect to {database} as {user}: {error}"))
    }

    fn try_connect_as(&self, database: &str, user: &str) -> Result<Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host_path(&self.dir).port(self.port).user(user).dbname(database);
        config.application_name("pyreplica test").connect(NoTls)
    }

    /// What pyreplica is told: loopback TCP, as on a network.
    pub fn dsn(&self, database: &str) -> String {
        Self::dsn_at(self.port, database)
    }

    /// The same database behind another port, e.g. a forwarder's.
    pub fn dsn_at(port: u16, database: &str) -> String {
        format!("host=127.0.0.1 port={port} user=postgres dbname={database}")
    }

    /// Runs a file by the real psql, as the documentation tells the operator to.
    #[track_caller]
    pub fn psql(&self, database: &str, file: &Path) {
        let output = Command::new(psql())
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-p", &self.port.to_string()])
            .arg("-h")
            .arg(&self.dir)
            .arg("-f")
            .arg(file)
            .env("PGCLIENTENCODING", "UTF8")
            .output()
            .expect("psql starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql -f {} failed:\n{said}", file.display());
    }

    /// A fresh database with the script in it: a copy of the run's template.
    #[track_caller]
    pub fn create_database(&self, name: &str, script: Script) {
        let mut admin = self.connect("postgres");
        let template = self.ensure_template(&mut admin, script);
        // Copying files is cheaper than logging each page of them, which became the default when there was a choice.
        let strategy = if major_version(&mut admin) < 15 { "" } else { "strategy file_copy" };
        let sql = format!("create database \"{name}\" template \"{template}\" {strategy}");
        admin.batch_execute(&sql).expect("create database");
    }

    /// A fresh database in another encoding; such ones are rare, so the script runs each time.
    #[track_caller]
    pub fn create_database_in(&self, name: &str, encoding: &str, script: Script) {
        let sql = format!("create database \"{name}\" template template0 encoding '{encoding}' locale 'C'");
        self.connect("postgres").batch_execute(&sql).expect("create database");
        self.psql(name, &script.path());
    }

    /// Removes a database and whatever was left prepared in it. Never panics: it runs while a test fails, too.
    pub fn drop_database(&self, name: &str) {
        let dropped = self.try_connect(name).and_then(|mut client| {
            let held = "select gid from pg_prepared_xacts where database = current_database()";
            for row in client.query(held, &[])? {
                let gid: &str = row.get(0);
                client.batch_execute(&format!("rollback prepared '{}'", gid.replace('\'', "''")))?;
            }
            drop(client);
            self.try_connect("postgres")?.batch_execute(&format!("drop database \"{name}\" with (force)"))
        });
        if let Err(error) = dropped {
            eprintln!("database {name} stays behind: {error}");
        }
    }

    fn ensure_template(&self, admin: &mut Client, script: Script) -> String {
        let template = script.template();
        let exists = |admin: &mut Client| {
            let rows = admin.query("select from pg_database where datname = $1", &[&template]);
            !rows.expect("look for the template").is_empty()
        };
        if exists(admin) {
            return template;
        }
        admin.query("select pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).expect("lock the template");
        if !exists(admin) {
            for sql in ["drop database if exists building", "create database building template template0"] {
                admin.batch_execute(sql).expect("create the template");
            }
            self.psql("building", &script.path());
            // Nobody may be connected to a database that is copied, not even autovacuum.
            let finish = [
                "alter database building with allow_connections false".to_owned(),
                format!("alter database building rename to \"{template}\""),
            ];
            for sql in finish {
                admin.batch_execute(&sql).expect("finish the template");
            }
        }
        admin.query("select pg_advisory_unlock($1)", &[&TEMPLATE_LOCK]).expect("unlock the template");
        template
    }
}

/// The master and the slave cluster that all ordinary tests share. They start with the first test that asks for them and go
/// with this process.
pub fn shared() -> (&'static Server, &'static Server) {
    static CLUSTERS: OnceLock<(OwnCluster, OwnCluster)> = OnceLock::new();
    let (master, slave) = CLUSTERS.get_or_init(|| {
        let slave = std::thread::spawn(|| OwnCluster::start("slave", "", &[]));
        (OwnCluster::start("master", "", &[]), slave.join().expect("the slave cluster starts"))
    });
    (master.server(), slave.server())
}

/// A private cluster, for tests that stop a server or need other settings. It goes when this is dropped.
pub struct OwnCluster {
    server: Server,
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl OwnCluster {
    /// `conf` are further lines of postgresql.conf, `initdb` further options, e.g. `--encoding=LATIN1 --locale=C`.
    #[track_caller]
    pub fn start(label: &str, conf: &str, initdb: &[&str]) -> OwnCluster {
        let bin = server_programs(label);
        let mut command = Command::new("sh");
        if is_root() {
            command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh"]);
        }
        command.args(["-c", SUPERVISOR, "cluster"]).arg(bin).args([label, conf]).args(initdb);
        command.env_remove("PGPORT").env_remove("PGDATA").env_remove("PGHOST");
        // A group of its own: what kills the tests' whole group must leave this one alive to clean up.
        command.process_group(0);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cluster.sh starts");
        let commands = process.stdin.take();
        let mut answers = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let ready = answer(&mut answers);
        let words: Vec<&str> = ready.split(' ').collect();
        assert!(words.len() == 3 && words[0] == "ready", "the {label} cluster does not start: {ready:?}");
        let server = Server { dir: PathBuf::from(words[1]), port: words[2].parse().expect("a port number") };
        OwnCluster { server, process, commands, answers }
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Switches TLS on with this certificate; `clients` is the file of those who vouch for the clients' certificates.
    #[track_caller]
    pub fn use_certificate(&mut self, certificate: &Certificate, clients: &Path) {
        for (from, to) in
            [(certificate.file.as_path(), "server.crt"), (&certificate.key, "server.key"), (clients, "clients.crt")]
        {
            let to = self.server.dir.join("data").join(to);
            std::fs::copy(from, &to).expect("copy into the data directory");
            restrict(&to, 0o600);
            self.give_away(&to);
        }
        let mut admin = self.server.connect("postgres");
        for sql in ["alter system set ssl = on", "alter system set ssl_ca_file = 'clients.crt'"] {
            admin.batch_execute(sql).expect("switch TLS on");
        }
        drop(admin);
        self.stop_fast();
        self.start_again();
    }

    /// Replaces pg_hba.conf; the change counts from the next start on.
    #[track_caller]
    pub fn write_hba(&self, lines: &str) {
        let file = self.server.dir.join("data/pg_hba.conf");
        std::fs::write(&file, lines).expect("write pg_hba.conf");
    }

    /// Makes the server's user the owner of a file.
    fn give_away(&self, file: &Path) {
        let owner = std::fs::metadata(self.server.dir.join("data")).expect("the data directory is there");
        std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid())).expect("give a file to the server");
    }

    /// As a crash: no checkpoint, no goodbye to the clients.
    #[track_caller]
    pub fn stop_immediate(&mut self) {
        self.command("stop immediate");
    }

    /// As an operator does it before maintenance.
    #[track_caller]
    pub fn stop_fast(&mut self) {
        self.command("stop fast");
    }

    /// Starts it again, on the same port.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.command("start");
    }

    /// A crash and the recovery after it.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop_immediate();
        self.start_again();
    }

    /// Can base backups be made? Some of the servers for tests come without pg_basebackup.
    pub fn can_back_up(&self) -> bool {
        server_programs("master").join("pg_basebackup").exists()
    }

    /// Makes a base backup.
    #[track_caller]
    pub fn back_up(&mut self, name: &str) {
        self.command(&format!("backup {name}"));
    }

    /// The server dies, and a backup takes its place, as it was.
    #[track_caller]
    pub fn restore(&mut self, name: &str) {
        self.command(&format!("restore {name}"));
    }

    /// The server dies, and a standby that has got nothing since the backup is promoted in its place.
    #[track_caller]
    pub fn promote(&mut self, name: &str) {
        self.command(&format!("promote {name}"));
    }

    /// A standby that was made from the backup takes the server's place, and is not promoted.
    #[track_caller]
    pub fn become_standby(&mut self, name: &str) {
        self.command(&format!("standby {name}"));
    }

    /// The server is stopped, and a standby that has got everything is promoted in its place.
    #[track_caller]
    pub fn take_over(&mut self, name: &str) {
        self.command(&format!("takeover {name}"));
    }

    #[track_caller]
    fn command(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("open until the drop");
        writeln!(commands, "{command}").expect("the supervisor listens");
        let answer = answer(&mut self.answers);
        assert_eq!(answer, "done", "{command}; the server's log:\n{}", self.server.log());
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        drop(self.commands.take());
        // Its directory is gone once it has ended; how it ended makes no difference to the test.
        let _ = self.process.wait();
    }
}

#[track_caller]
fn major_version(client: &mut Client) -> u32 {
    let row = client.query_one("select current_setting('server_version_num')::int", &[]);
    row.expect("the version").get::<_, i32>(0) as u32 / 10_000
}

fn answer(answers: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    answers.read_line(&mut line).expect("the supervisor's answer is text");
    line.trim_end().to_owned()
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id starts");
    output.stdout == b"0\n"
}

/// The directory of initdb and pg_ctl: PG_BIN if set, else the newest of the distribution's, else what pg_config says.
/// PG_BIN_SLAVE gives the slave another version than the master.
fn server_programs(label: &str) -> PathBuf {
    let slave = std::env::var_os("PG_BIN_SLAVE").filter(|_| label == "slave");
    let mut candidates: Vec<PathBuf> = slave.into_iter().chain(std::env::var_os("PG_BIN")).map(PathBuf::from).collect();
    candidates.extend(distribution_programs());
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        candidates.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()));
    }
    let found = candidates.into_iter().find(|dir| dir.join("initdb").exists() && dir.join("pg_ctl").exists());
    found.expect("no PostgreSQL server here: install it (tests/run.sh does), or set PG_BIN")
}

/// Newest first.
fn distribution_programs() -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

/// psql need not come with the server: any version talks to any.
pub fn psql() -> PathBuf {
    let beside = server_programs("client").join("psql");
    let found = std::iter::once(beside).chain(distribution_programs().into_iter().map(|dir| dir.join("psql")));
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| PathBuf::from("psql"))
}
