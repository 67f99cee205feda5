//! On a terminal: a progress line is one line, also when the terminal becomes narrower while it is there, and columns are aligned
//! whatever alphabet a name has.

use crate::harness::{Daemon, Pair, wait_until};
use std::fs;
use std::process::Command;

/// Wide characters, a combining accent, an emoji.
const TABLES: [&str; 4] = ["\u{6ce8}\u{6587}\u{8868}", "cafe\u{301}", "\u{1f418}", "t"];

/// The columns that a text of those takes.
fn width(text: &str) -> usize {
    let of = |c: char| match c {
        '\u{301}' => 0,
        '\u{2e80}'.. => 2,
        _ => 1,
    };
    text.chars().map(of).sum()
}

/// The program on a terminal of this width, whose name is then in `tty`. What appears there is the log.
fn on_a_terminal(pair: &Pair, columns: u32, words: &[&str]) -> Daemon {
    let tty = pair.dir().join("tty");
    let inner = format!("stty cols {columns}; tty >{}; exec $0 $*", tty.display());
    let prefix = ["sh", "-c", &format!("exec script -qefc \"{inner}\" /dev/null")].map(String::from);
    Daemon::spawn_behind(&prefix, &pair.dir().join("screen"), words, &[("TERM", "xterm"), ("COLUMNS", "")])
}

/// The progress lines that were drawn. Each begins where the one before has begun, does not wrap, and leaves the cursor there.
fn drawn(screen: &str) -> Vec<&str> {
    let lines = screen.split("\r\u{1b}[?7l").skip(1);
    lines.map(|line| line.split_once("\u{1b}[J\u{1b}[?7h\r").expect("a whole line").0).collect()
}

#[test]
fn a_progress_line_stays_one_line_when_the_terminal_becomes_narrower_during_a_copy() {
    let pair = Pair::new();
    pair.exec_both("create table \u{6ce8}\u{6587}\u{8868} (id int primary key)");
    pair.run("insert into \u{6ce8}\u{6587}\u{8868} select generate_series(1, 10)");
    pair.create_triggers();
    // The copy waits in the middle of the table.
    pair.run_on_slave(
        "create function waits() returns boolean language sql as $$ select pg_advisory_xact_lock_shared(7) is not null $$;
         alter table \u{6ce8}\u{6587}\u{8868} add check (waits()) not valid",
    );
    let mut gate = pair.slave();
    gate.batch_execute("select pg_advisory_lock(7)").unwrap();
    let file = pair.config_file("");
    let mut copy = on_a_terminal(&pair, 100, &["copy", file.to_str().unwrap()]);
    copy.wait_log("0 of 1 tables");
    assert!(drawn(&copy.log())[0].starts_with("[...") && width(drawn(&copy.log())[0]) < 100, "{}", copy.log());

    let tty = fs::read_to_string(pair.dir().join("tty")).unwrap();
    assert!(Command::new("stty").args(["-F", tty.trim(), "cols", "30"]).status().unwrap().success());
    wait_until("it fits", || width(drawn(&copy.log()).last().unwrap()) == 29);
    drop(gate);
    assert!(copy.wait_exit().success(), "{}", copy.log());
    let screen = copy.log();
    // The line is gone before the next one, and lines wrap again.
    assert!(screen.contains("\u{1b}[?7h\r\r\u{1b}[Jpublic.\"\u{6ce8}\u{6587}\u{8868}\": 10 rows, "), "{screen}");
    assert!(
        screen.rfind("\u{1b}[?7h") > screen.rfind("\u{1b}[?7l") && screen.contains("copied 1 table, 10 rows"),
        "{screen}"
    );
    pair.assert_equal();
}

#[test]
fn columns_are_aligned_in_every_alphabet() {
    let pair = Pair::new();
    for table in TABLES {
        pair.exec_both(&format!("create table \"{table}\" (id int primary key)"));
    }
    pair.create_triggers();
    pair.once();
    let column = |text: &str, word: &str| {
        let columns: Vec<usize> =
            text.lines().filter_map(|line| line.find(word).map(|at| width(&line[..at]))).collect();
        assert!(!columns.is_empty() && columns.iter().all(|column| *column == columns[0]), "{word}: {text}");
        (columns[0], columns.len())
    };
    let compared = pair.done(&["compare"]);
    let (at, _) = column(&compared, "STATE");
    assert_eq!(column(&compared, "equal"), (at, TABLES.len()), "{compared}");
    let status = pair.verb_by_file("status", "NAME=\u{6ce8}\u{6587}\u{8868}\u{6ce8}\u{6587}\u{8868}", &[]).output;
    assert_eq!(column(&status, "STATE").0, column(&status, "stopped").0, "{status}");
}
