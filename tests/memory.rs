//! The daemon's memory while it replays a row that is large itself. Symptom: a row of 200 MB took 2.5 GB, which the daemon kept.
//! Cause: the row was copied from one form into the next, and the buffers of both connections kept their size.

use crate::harness::{Daemon, Pair, wait_until};

/// The length of the row's value.
const SIZE: u64 = 64 << 20;

/// A line of /proc/PID/status, in bytes.
fn memory(daemon: &Daemon, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no line {name}"));
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Measured: 3 times the row for the INSERT, 6 for the UPDATE, of which the log holds the old value and the new one, 1 for the DELETE. It
/// is the same with 200 MB. The three are the message's text, and two copies of it in the postgres crate.
#[test]
fn a_large_row_takes_a_few_times_its_size_and_the_memory_is_given_back() {
    let changes = [
        (format!("insert into t select 1, string_agg(md5(i::text), '') from generate_series(1, {}) i", SIZE / 32), 4),
        ("update t set a = reverse(a)".to_string(), 7),
        ("delete from t".to_string(), 2),
    ];
    let pair = Pair::new().with_a_table();
    for (change, bound) in changes {
        let daemon = pair.start_with("TIMEOUT=3600\nDEBUG_LEVEL=3");
        let waits = || daemon.log().matches("Waiting for 'NOTIFY'").count();
        wait_until("the daemon waits", || waits() == 1);
        let before = memory(&daemon, "VmRSS:");
        pair.run(&change);
        pair.wait_caught_up();
        wait_until("the daemon waits again", || waits() > 1);
        let peak = memory(&daemon, "VmHWM:").saturating_sub(before);
        assert!(peak < bound * SIZE, "{change}: {:.2} times the row", peak as f64 / SIZE as f64);
        let kept = memory(&daemon, "VmRSS:").saturating_sub(before);
        assert!(kept < SIZE / 2, "{change}: the daemon keeps {kept} bytes");
    }
    pair.assert_equal();
}

/// The daemon drops a large change before it is sent, and has to read it again if the slave does not take it.
#[test]
fn a_large_change_that_meets_a_conflict_is_replayed_too() {
    let pair = Pair::new().with_a_table();
    let large = "(select string_agg(md5(i::text), '') from generate_series(1, 600000) i)";
    pair.run(&format!("insert into t select 1, {large}; insert into t values (2, 'small')"));
    pair.once();
    pair.run_on_slave("update t set a = 'other' where id = 1");
    pair.run("begin; update t set a = 'new' where id = 2; update t set a = reverse(a) where id = 1; commit");
    let said = pair.once().output;
    assert_eq!(said.matches("Possible conflict").count(), 1, "{said}");
    pair.assert_equal();
    // One that the slave refuses stops the pair, and the error names it.
    pair.run_on_slave("insert into t values (3, 'slave')");
    pair.run(&format!("update t set a = 'before' where id = 2; insert into t select 3, {large}"));
    let refused = pair.try_once();
    assert_eq!(refused.code(), 6, "{}", refused.output);
    let change = pair.on_master("select max(id) from replica_log").remove(0);
    assert!(refused.output.contains(&format!("replay change {change} of transaction")), "{}", refused.output);
    pair.run_on_slave("delete from t where id = 3");
    pair.once();
    pair.assert_equal();
    pair.assert_no_prepared();
}
