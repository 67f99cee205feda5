//! README's three commands by the role that a managed service gives its customer: it makes databases and roles and owns what it makes,
//! and is no superuser. This is as near as a test comes to such a service.

use crate::harness::copying::can_dump_from;
use crate::harness::{self, Database, Finished, assert_says};
use std::path::Path;

const ANNOUNCEMENT: &str = "the role may not set session_replication_role";

const FAMILY: &str = "create table parent (id int primary key, a text);
     create table child (id int primary key, parent int references parent, a text)";

struct Service {
    // Before the master, which removes the role.
    slave: Database,
    master: Database,
    admin: String,
}

impl Service {
    fn new() -> Service {
        let mut master = Database::new();
        let admin = master.owner();
        let slave = Database::new();
        slave.run(&format!("alter database {} owner to {admin}", slave.name));
        slave.run(&format!("alter role {admin} createdb createrole; grant pg_monitor, pg_signal_backend to {admin}"));
        Service { slave, master, admin }
    }

    /// The service lets its customer set session_replication_role, which it can from PostgreSQL 15 on.
    fn grant(&self) {
        self.slave.run(&format!("grant set on parameter session_replication_role to {} with grant option", self.admin));
    }

    /// The first command. Where it cannot make the schema, somebody has.
    #[track_caller]
    fn copy(&self) {
        if can_dump_from(self.master.server()) {
            self.done(&["copy", "--install", "--schema"]);
        } else {
            self.slave.run_as(&self.admin, FAMILY);
            self.done(&["copy", "--install"]);
        }
    }

    fn run(&self, words: &[&str]) -> Finished {
        let dsns = [&self.master, &self.slave].map(|database| {
            database.server().dsn(&database.name).replace("user=postgres", &format!("user={}", self.admin))
        });
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&self.master.name);
        let finished = harness::run(&log, &[words, &[dsns[0].as_str(), &dsns[1]]].concat(), &[]);
        std::fs::remove_file(&log).unwrap();
        finished
    }

    #[track_caller]
    fn done(&self, words: &[&str]) -> String {
        let finished = self.run(words);
        assert!(finished.status.success(), "pyreplica {words:?}: {}\n{}", finished.status, finished.output);
        finished.output
    }

    fn changes(&self, sql: &str) {
        self.master.run_as(&self.admin, sql);
    }
}

#[test]
fn the_customers_role_copies_replicates_and_compares() {
    let mut service = Service::new();
    let may_be_granted = service.master.server().major_version() >= 15;
    if may_be_granted {
        service.grant();
    }
    service.changes(FAMILY);
    service.changes("insert into parent values (1, 'one'); insert into child values (1, 1, 'first')");
    service.copy();
    service.changes(
        "insert into parent values (2, 'two'); insert into child values (2, 2, 'two'); delete from child where id = 1",
    );
    assert_eq!(service.done(&["--once"]).contains(ANNOUNCEMENT), !may_be_granted);
    service.done(&["compare"]);
    assert_eq!(service.slave.column("select id from child order by id"), ["2"]);
    if may_be_granted {
        // It hands the right on to the daemon's own role.
        let daemon = service.master.role("daemon");
        service.changes(&format!("grant set on parameter session_replication_role to {daemon}"));
        service.changes(&format!("revoke set on parameter session_replication_role from {daemon}"));
    }
}

/// So it is before PostgreSQL 15, and on a service that keeps the right to itself.
#[test]
fn without_the_right_to_the_replica_role_an_empty_slave_is_copied_all_the_same_and_nothing_is_repaired() {
    let service = Service::new();
    service.changes(FAMILY);
    service.changes("insert into parent values (1, 'one'); insert into child values (1, 1, 'first')");
    if !can_dump_from(service.master.server()) {
        eprintln!("skipped: this machine's pg_dump is older than the server");
        return;
    }
    service.copy();
    service.changes("insert into parent values (2, 'two'); insert into child values (2, 2, 'two')");
    assert_says(&service.done(&["--once"]), &[ANNOUNCEMENT]);
    service.done(&["compare"]);
    for words in [&["copy", "--table", "child"][..], &["repair"]] {
        let refused = service.run(words);
        assert!(!refused.status.success(), "{}", refused.output);
        assert_says(&refused.output, &["session_replication_role"]);
    }
}
