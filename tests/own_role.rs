//! The roles of a pair are exchanged by the owner of the tables, who is no superuser and may not take the replica role. So it is
//! on PostgreSQL 13 and 14, whoever grants what. The application connects as the same role.

use crate::harness::{self, Database};
use std::path::Path;

/// Two databases of one owner.
struct Owned {
    // Before the master, which removes the role.
    slave: Database,
    master: Database,
    owner: String,
}

impl Owned {
    fn new() -> Owned {
        let mut master = Database::new();
        let owner = master.owner();
        let slave = Database::new();
        slave.run(&format!("alter database {} owner to {owner}", slave.name));
        for database in [&master, &slave] {
            database.run(&format!("grant create on schema public to {owner}"));
            database.run_as(&owner, "create table t (id int primary key, a text)");
        }
        Owned { slave, master, owner }
    }

    #[track_caller]
    fn verb(&self, words: &[&str]) {
        let dsns = [&self.master, &self.slave].map(|database| {
            database.server().dsn(&database.name).replace("user=postgres", &format!("user={}", self.owner))
        });
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&self.master.name);
        let finished = harness::run(&log, &[words, &[dsns[0].as_str(), &dsns[1]]].concat(), &[]);
        assert!(finished.status.success(), "pyreplica {words:?}: {}\n{}", finished.status, finished.output);
        std::fs::remove_file(&log).unwrap();
    }
}

/// Symptom: somebody had exchanged the connection strings of a first copy. It failed, and was repeated the right way round. But the slave had
/// got a master's log, with a row for the other side, so it was taken for a master that keeps its own sequences.
#[test]
fn a_database_without_tables_gets_no_log_by_a_copy() {
    let [empty, full] = [Database::new(), Database::new()];
    full.run("create table t (id int primary key)");
    let dsns = [&empty, &full].map(|database| database.server().dsn(&database.name));
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&empty.name);
    let finished = harness::run(&log, &["copy", "--install", "--schema", &dsns[0], &dsns[1]], &[]);
    std::fs::remove_file(&log).unwrap();
    assert_eq!(finished.code(), 4, "{}", finished.output);
    harness::assert_says(&finished.output, &["nothing was changed", "are DSN0 and DSN1 exchanged?"]);
    assert_eq!(empty.column("select count(*) from pg_class where relname ~ '^replica_'"), ["0"]);
}

/// The same with --truncate, where the other side is a master that works.
#[test]
fn a_copy_does_not_empty_the_master_of_its_master() {
    let owned = Owned::new();
    owned.verb(&["copy", "--install"]);
    owned.master.run("insert into t values (1, 'kept')");
    owned.verb(&["--once"]);
    owned.master.run("insert into t values (2, 'not sent yet')");
    let dsns = [&owned.slave, &owned.master].map(|database| database.server().dsn(&database.name));
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&owned.master.name);
    let finished = harness::run(&log, &["copy", "--install", "--truncate", &dsns[0], &dsns[1]], &[]);
    std::fs::remove_file(&log).unwrap();
    assert_eq!(finished.code(), 5, "{}", finished.output);
    harness::assert_says(&finished.output, &["DSN1 is a master, which has replicated to DSN0", "failover --force"]);
    assert_eq!(owned.master.column("select count(*) from t"), ["2"]);
    assert_eq!(owned.slave.column("select to_regclass('replica_log') is null"), ["t"]);
}

/// The fence let the daemon's role pass, so an open session of the application went on writing to the old master, where nothing logs
/// any more. And the way back was refused, because the triggers that log are disabled there meanwhile.
#[test]
fn an_open_session_of_the_same_role_is_fenced_and_the_way_back_is_open() {
    let owned = Owned::new();
    owned.verb(&["copy", "--install"]);
    owned.verb(&["--once"]);
    // Somebody else has given a table of his own a trigger of that name.
    owned.slave.run(
        "create table other (n int); create function other() returns trigger language plpgsql as 'begin return null; end';
         create trigger \"!replica_fence\" after insert on other execute function other()",
    );
    let mut open = owned.master.connect_as(&owned.owner);
    open.batch_execute("insert into t values (1, 'before')").unwrap();
    owned.verb(&["switchover"]);
    owned.slave.run("drop table other; drop function other()");
    let error = open.batch_execute("insert into t values (2, 'nowhere else')").expect_err("the fence is up");
    assert_eq!(error.code().map(|code| code.code()), Some("25006"), "{error:?}");
    owned.slave.run_as(&owned.owner, "insert into t values (3, 'on the new master')");
    owned.verb(&["switchover"]);
    open.batch_execute("insert into t values (4, 'on the old one again')").unwrap();
    owned.verb(&["--once"]);
    owned.verb(&["compare"]);
    assert_eq!(owned.slave.column("select id from t order by id"), ["1", "3", "4"]);
}
