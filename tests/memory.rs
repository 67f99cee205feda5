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

/// Of an UPDATE the log holds the old value and the new one.
#[test]
fn a_large_row_takes_a_few_times_its_size_and_the_memory_is_given_back() {
    let changes = [
        (format!("insert into t select 1, string_agg(md5(i::text), '') from generate_series(1, {}) i", SIZE / 32), 1),
        ("update t set a = reverse(a)".to_string(), 2),
        ("delete from t".to_string(), 1),
    ];
    let pair = Pair::new().with_a_table();
    for (change, values) in changes {
        let daemon = pair.start_with("TIMEOUT=3600\nDEBUG_LEVEL=3");
        let waits = || daemon.log().matches("Waiting for 'NOTIFY'").count();
        wait_until("the daemon waits", || waits() == 1);
        let before = memory(&daemon, "VmRSS:");
        pair.run(&change);
        pair.wait_caught_up();
        wait_until("the daemon waits again", || waits() > 1);
        let peak = memory(&daemon, "VmHWM:").saturating_sub(before) / values;
        assert!(peak < 4 * SIZE, "{change}: {:.1} times what the log holds", peak as f64 / SIZE as f64);
        let kept = memory(&daemon, "VmRSS:").saturating_sub(before);
        assert!(kept < SIZE / 2, "{change}: the daemon keeps {kept} bytes");
    }
    pair.assert_equal();
}
