//! One fresh database on the master's cluster, without any of pyreplica's scripts, and roles that go with it.

use super::cluster::{Server, psql, shared};
use postgres::{Client, SimpleQueryMessage};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// How psql gets a script.
#[derive(Clone, Copy, Debug)]
pub enum Feed {
    /// `psql -f script.sql`
    File,
    /// `psql < script.sql`
    Input,
}

/// How psql ended, and what it wrote, standard output and error in one.
#[derive(Debug)]
pub struct Said {
    pub success: bool,
    pub text: String,
}

/// Removed, and its roles with it, when this is dropped.
pub struct Database {
    pub name: String,
    server: Server,
    roles: Vec<String>,
}

impl Database {
    #[track_caller]
    pub fn new() -> Database {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let server = shared().0.clone();
        let name = format!("d{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let sql = format!("create database {name} template template0");
        server.connect("postgres").batch_execute(&sql).expect("create the database");
        Database { name, server, roles: Vec::new() }
    }

    /// A role that may log in and nothing else.
    #[track_caller]
    pub fn role(&mut self, label: &str) -> String {
        let role = format!("{}_{label}", self.name);
        self.server.connect("postgres").batch_execute(&format!("create role {role} login")).expect("create the role");
        self.roles.push(role.clone());
        role
    }

    /// A role that owns the database.
    #[track_caller]
    pub fn owner(&mut self) -> String {
        let owner = self.role("owner");
        self.run(&format!("alter database {} owner to {owner}", self.name));
        owner
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// A session of the superuser.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.server.connect(&self.name)
    }

    #[track_caller]
    pub fn connect_as(&self, user: &str) -> Client {
        self.server.connect_as(&self.name, user)
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.run_as("postgres", sql);
    }

    #[track_caller]
    pub fn run_as(&self, user: &str, sql: &str) {
        self.connect_as(user).batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    }

    /// The server's error message.
    #[track_caller]
    pub fn refused_as(&self, user: &str, sql: &str) -> String {
        match self.connect_as(user).batch_execute(sql) {
            Ok(()) => panic!("{user} was allowed to: {sql}"),
            Err(error) => error.as_db_error().expect("the server answers").message().to_owned(),
        }
    }

    /// The first column of a query, as text; NULL is the empty string.
    #[track_caller]
    pub fn column(&self, sql: &str) -> Vec<String> {
        self.column_as("postgres", sql)
    }

    #[track_caller]
    pub fn column_as(&self, user: &str, sql: &str) -> Vec<String> {
        let answers = self.connect_as(user).simple_query(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
        let cells = answers.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
            _ => None,
        });
        cells.collect()
    }

    /// Runs one of pyreplica's scripts as the documentation tells the operator to; psql goes on after an error, as it
    /// does for somebody who just types the command.
    #[track_caller]
    pub fn psql(&self, user: &str, feed: Feed, script: &str) -> Said {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(script);
        self.feed(user, feed, &file, &[])
    }

    /// Runs the script, which must not say anything on standard error.
    #[track_caller]
    pub fn install(&self, user: &str, script: &str) {
        let said = self.psql(user, Feed::File, script);
        assert!(said.success && said.text.is_empty(), "{user} {script}: {said:?}");
    }

    /// What psql says about one command, warnings included.
    #[track_caller]
    pub fn psql_command(&self, user: &str, sql: &str) -> Said {
        self.feed(user, Feed::Input, &PathBuf::from("/dev/null"), &["-c", sql])
    }

    fn feed(&self, user: &str, feed: Feed, file: &Path, options: &[&str]) -> Said {
        let mut command = Command::new(psql());
        command.args(["-X", "-q", "-At", "-U", user, "-d", &self.name, "-p", &self.server.port().to_string()]);
        command.arg("-h").arg(self.server.dir()).args(options).env("PGCLIENTENCODING", "UTF8");
        match feed {
            Feed::File => command.arg("-f").arg(file),
            Feed::Input => command.stdin(Stdio::from(File::open(file).expect("open the script"))),
        };
        let output = command.output().expect("psql starts");
        let text = [output.stdout, output.stderr].concat();
        Said { success: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.server.drop_database(&self.name);
        for role in &self.roles {
            // A failed drop must not hide the test's own failure.
            if let Ok(mut admin) = self.server.try_connect("postgres") {
                let _ = admin.batch_execute(&format!("drop owned by {role}; drop role {role}"));
            }
        }
    }
}
