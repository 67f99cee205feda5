//! A log that cannot be written stops nobody, and nobody overlooks it: a single run ends with an error, a daemon says it on its error
//! output and in its metrics, and in the log itself as soon as that can be written again.

use crate::harness::http::{free_port, get, sample};
use crate::harness::{Daemon, Pair, run, wait_until};
use std::fs;

const METRIC: &str = "pyreplica_log_lines_lost_total";

/// What the tests run behind a shell: the program is `$0`.
fn behind(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(String::from).to_vec()
}

#[test]
fn a_single_run_whose_log_is_full_or_a_closed_pipe_has_replayed_and_ends_with_an_error() {
    let pair = Pair::new().with_a_table();
    let (file, log) = (pair.config_file(""), pair.dir().join("said"));
    let words = ["--once", file.to_str().unwrap()];
    let full = "No space left on device";
    // It starts when nobody reads any more.
    let closed = "trap '' PIPE; { while echo; do :; done 2>&-; \"$0\" \"$@\"; echo \"exit code $?\" >&2; } | true";
    for (id, script, reason) in [
        (1, "\"$0\" \"$@\" >/dev/full; echo \"exit code $?\" >&2", full),
        (2, "\"$0\" --log /dev/full \"$@\"; echo \"exit code $?\" >&2", full),
        (3, closed, "Broken pipe"),
    ] {
        pair.run(&format!("insert into t (id) values ({id})"));
        let mut ended = Daemon::spawn_behind(&behind(script), &log, &words, &[]);
        ended.wait_exit();
        let said = ended.log();
        assert!(said.contains(&format!("pyreplica: cannot write the log: {reason}; missing: ")), "{said}");
        assert!(said.ends_with("exit code 3\n"), "{said}");
        assert_eq!(pair.pending(), 0);
    }
    pair.assert_equal();
    assert_eq!(run(&log, &words, &[]).code(), 0);
}

#[test]
fn a_daemon_goes_on_without_its_log_and_says_how_much_is_missing() {
    let pair = Pair::new().with_a_table();
    let port = free_port();
    let file = pair.config_file(&format!("DEBUG_LEVEL=2\nMETRICS=127.0.0.1:{port}\n"));
    // Files have an end, and the log is there in the middle of its first line.
    let log = pair.dir().join("full.log");
    fs::write(&log, [b'-'; 4090]).unwrap();
    let limited = behind("trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"");
    let words = ["--log", log.to_str().unwrap(), file.to_str().unwrap()];
    let mut daemon = Daemon::spawn_behind(&limited, &pair.dir().join("said"), &words, &[]);
    daemon.wait_log("pyreplica: cannot write the log: File too large");
    pair.run("insert into t (id) select generate_series(1, 10)");
    pair.wait_caught_up();
    wait_until("the metrics count it", || sample(&get(port, "/metrics"), METRIC).is_some_and(|lost| lost > 10.0));
    fs::write(&log, "").unwrap();
    pair.run("insert into t (id) values (11)");
    pair.wait_caught_up();
    let told = |text: &str| text.lines().any(|line| line.contains(" WARNING: ") && line.ends_with(": File too large"));
    wait_until("the log goes on", || fs::read_to_string(&log).is_ok_and(|text| told(&text) && text.contains("'11'")));
    assert!(daemon.terminate().success(), "{}", daemon.log());
    assert_eq!(daemon.log().matches("cannot write the log").count(), 1);
    pair.assert_equal();
}
