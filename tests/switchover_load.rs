//! Clients that never stop, while the roles are exchanged again and again, and while the verb, the daemon and the servers die at
//! its steps: nothing that a client saw committed is gone, nothing is there twice, and at no moment do both sides accept a write.

use crate::harness::switching::{MODES, master_said, switched, wait_equal};
use crate::harness::{Daemon, End, OwnCluster, Pair, wait_until};
use postgres::config::TargetSessionAttrs;
use postgres::{Client, NoTls};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const CLIENTS: usize = 4;
/// With two-phase commit and without.
const SWITCHES: [usize; 2] = [20, 8];
const ACCOUNTS: usize = 20;

/// Between two attempts of a client. Without it they would use the processors up, which the servers need too.
const PAUSE: Duration = Duration::from_millis(4);

/// Where something dies, in turn. There are five of each kind of turn, so that every fault comes to every step.
const STEPS: [&str; 3] = ["switch drained", "switch noted", "switch old committed"];
const TWO_PHASE_STEPS: [&str; 4] = ["switch drained", "switch old prepared", "switch prepared", "switch old committed"];

/// What dies. Nothing: an exchange that goes through.
#[derive(Clone, Copy)]
enum Fault {
    Nothing,
    Verb,
    Daemon,
    Server(usize),
}

const FAULTS: [Fault; 5] = [Fault::Nothing, Fault::Verb, Fault::Daemon, Fault::Server(0), Fault::Server(1)];

/// A transaction moves money, and notes an id of the client's, the database that took it, and that database's epoch. A
/// database that is not the master has none, and the column takes no NULL.
const TABLES: &str = "create table account (id int primary key, amount int not null);
     insert into account select i, 1000 from generate_series(0, 19) i;
     create table journal (id text primary key, taken_by text not null, epoch bigint not null, at timestamptz not null)";

const NOTE: &str = "insert into journal select $1, current_database()::text, \
     (select epoch from replica_role where role = 'master'), clock_timestamp()";

/// Connects as libpq does with both hosts and target_session_attrs=read-write.
fn connect(pair: &Pair) -> Option<Client> {
    [&pair.master_dsn, &pair.slave_dsn].into_iter().find_map(|dsn| {
        let mut config: postgres::Config = dsn.parse().expect("a connection string");
        config.target_session_attrs(TargetSessionAttrs::ReadWrite).connect(NoTls).ok()
    })
}

fn transfer(client: &mut Client, id: &str, from: i32, to: i32) -> Result<(), postgres::Error> {
    let mut transaction = client.transaction()?;
    // In one order, so that clients do not deadlock.
    let (low, high) = (from.min(to), from.max(to));
    let sign = if from < to { -1 } else { 1 };
    transaction.execute("update account set amount = amount + $2 where id = $1", &[&low, &(sign * 7)])?;
    transaction.execute("update account set amount = amount - $2 where id = $1", &[&high, &(sign * 7)])?;
    transaction.execute(NOTE, &[&id])?;
    transaction.commit()
}

/// Works until it is told to stop. Returns the ids that it saw committed.
fn work(pair: &Pair, number: usize, end: &AtomicBool, count: &AtomicUsize) -> Vec<String> {
    let (mut session, mut seen, mut is_unsure) = (None, Vec::new(), false);
    while !end.load(Ordering::SeqCst) || is_unsure {
        thread::sleep(PAUSE);
        let Some(client) = session.as_mut() else {
            session = connect(pair);
            continue;
        };
        let turn = seen.len();
        let id = format!("{number}-{turn}");
        if is_unsure {
            match client.query("select from journal where id = $1", &[&id]) {
                Ok(rows) if !rows.is_empty() => {
                    seen.push(id);
                    is_unsure = false;
                }
                Ok(_) => is_unsure = false,
                Err(_) => session = None,
            }
            continue;
        }
        let (from, to) = ((number * 7 + turn) % ACCOUNTS, (number * 3 + turn * 11 + 1) % ACCOUNTS);
        if from == to {
            // Nothing to move: only the note.
            match client.execute(NOTE, &[&id]) {
                Ok(_) => seen.push(id),
                Err(_) => (session, is_unsure) = (None, true),
            }
        } else {
            match transfer(client, &id, from as i32, to as i32) {
                Ok(()) => seen.push(id),
                Err(_) => (session, is_unsure) = (None, true),
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
    }
    seen
}

/// One exchange, at one of whose steps something dies. Afterwards there is a master.
fn exchange(pair: &Pair, clusters: &mut [OwnCluster; 2], mode: &str, turn: usize, daemon: &mut Daemon) {
    let steps = if mode.is_empty() { TWO_PHASE_STEPS.as_slice() } else { STEPS.as_slice() };
    let (step, fault) = (steps[turn % steps.len()], FAULTS[turn % FAULTS.len()]);
    if matches!(fault, Fault::Nothing) {
        switched(pair, mode, &[]);
        return;
    }
    let mut verb = pair.start_verb("switchover", mode, &[], &[("PYREPLICA_PAUSE_AT", step)]);
    verb.wait_paused();
    match fault {
        Fault::Nothing => {}
        Fault::Verb => verb.kill9(),
        Fault::Daemon => {
            daemon.kill9();
            *daemon = pair.start_with(mode);
        }
        Fault::Server(side) => {
            clusters[side].stop_immediate();
            verb.resume();
            verb.wait_exit();
            clusters[side].start_again();
        }
    }
    if matches!(fault, Fault::Daemon) {
        verb.resume();
        verb.wait_exit();
    }
    if !mode.is_empty() && master_said(pair).is_none() {
        // Without two-phase commit only the verb finishes what was interrupted between its commits.
        switched(pair, mode, &[]);
    }
}

#[test]
fn clients_that_never_stop_lose_nothing_and_do_nothing_twice() {
    for (mode, switches) in MODES.into_iter().zip(SWITCHES) {
        let [master, slave] = ["master", "slave"].map(|label| thread::spawn(|| OwnCluster::start(label, "", &[])));
        let mut clusters = [master, slave].map(|starting| starting.join().expect("it starts"));
        let pair = Pair::on(clusters[0].server(), clusters[1].server());
        pair.exec_both(TABLES);
        pair.create_triggers();
        pair.run("update account set amount = amount");
        pair.once_with(mode);
        // The table of roles is there from now on.
        switched(&pair, mode, &[]);
        let mut daemon = pair.start_with(mode);
        let (end, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let seen: Vec<String> = thread::scope(|scope| {
            let _end = End(&end);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let (pair, end, count) = (&pair, &end, &count);
                    scope.spawn(move || work(pair, number, end, count))
                })
                .collect();
            let work_goes_on = || {
                let before = count.load(Ordering::SeqCst);
                wait_until("clients work", || count.load(Ordering::SeqCst) > before + 10 * CLIENTS);
            };
            for turn in 0..switches {
                work_goes_on();
                eprintln!("-- {mode} {turn}");
                exchange(&pair, &mut clusters, mode, turn, &mut daemon);
            }
            work_goes_on();
            end.store(true, Ordering::SeqCst);
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        wait_equal(&pair);
        assert!(daemon.terminate().success());
        assert_eq!(pair.on_slave("select sum(amount) from account"), ["20000"]);
        let mut there = pair.on_slave("select id from journal order by id collate \"C\"");
        let mut seen = seen;
        seen.sort_unstable();
        there.sort_unstable();
        assert_eq!(seen, there, "what clients saw committed is what is there");
        let epochs = "select epoch || ' ' || count(distinct taken_by) from journal group by epoch order by epoch";
        let epochs = pair.on_slave(epochs);
        assert!(epochs.len() > switches / 2, "{epochs:?}");
        assert!(epochs.iter().all(|epoch| epoch.ends_with(" 1")), "{epochs:?}");
        let overlap = "with e as (select epoch, min(at) as first, max(at) as last from journal group by epoch)
                       select a.epoch from e a join e b on b.epoch < a.epoch and b.last >= a.first";
        assert!(pair.on_slave(overlap).is_empty(), "two databases took writes at the same time");
    }
}
