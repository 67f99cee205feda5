//! Finds in a pair's state what needs the operator's attention, and says what to do.

use super::{Lag, LastError, PairStatus, Problem, Wait};
use crate::config::settings::Config;
use std::time::Duration;

/// A running daemon commits a prepared batch within milliseconds. A batch that is older than this is stuck.
const IN_DOUBT_PATIENCE: Duration = Duration::from_secs(60);

/// What a server waits for is reported after this, and after the second time it is a failure.
pub(super) const WAIT_PATIENCE: Duration = Duration::from_secs(5);
const LONG_WAIT: Duration = Duration::from_secs(60);

/// A daemon tries again after a minute at most, and is seen while it tries and while it waits. Only before the first tries and for a
/// moment between the two it is not, nor if the master has no connection left for one that waits.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(120);

/// A daemon that has replayed nothing for this long although changes wait is replaying a large transaction, or is
/// stuck.
const WORK_PATIENCE: Duration = Duration::from_secs(60);

/// After this it is a failure, whatever the daemon says: a server that hangs looks like that.
const FAILURE_PATIENCE: Duration = Duration::from_secs(300);

/// No transaction of the application should take this long.
const OPEN_PATIENCE: Duration = Duration::from_secs(3600);

impl PairStatus {
    pub(super) fn find_problems(&mut self, config: &Config, source: &str) {
        let failing = self.error.as_ref().filter(|error| error.recovered.is_none());
        let found = [
            failing.map(failure),
            self.roles(),
            self.absence(failing, source),
            self.idleness(failing, source),
            self.batches_in_doubt(source),
            self.records.is_paused.then(|| warning("paused by the operator", format!("pyreplica resume {source}"))),
            self.unfinished_copy(source),
            self.tables_in_copy(source),
            self.paused_tables(source),
            self.held(source),
            self.open_transactions(source),
            self.large_log(config, source),
        ];
        let waits = self.waits.iter().map(|wait| waiting(wait, source));
        let found: Vec<Problem> = found.into_iter().flatten().chain(waits).collect();
        self.problems.extend(found);
    }

    fn roles(&self) -> Option<Problem> {
        let (text, hint) = self.roles.as_ref()?.trouble(&self.master_at)?;
        let hint = Some(hint.to_string());
        Some(Problem { is_failure: true, text, hint })
    }

    /// Reports that no daemon is connected. Between two failing attempts it is not connected either, so a recent
    /// attempt is enough.
    fn absence(&self, failing: Option<&LastError>, source: &str) -> Option<Problem> {
        if !self.reached[0] || !self.knows_daemon || self.daemon.is_some() || self.daemon_waits || self.is_copying {
            return None;
        }
        let start = format!("is it running? start it: pyreplica {source}");
        match failing {
            Some(error) if error.idle < ATTEMPT_PATIENCE => None,
            Some(error) => Some(warning(
                format!("no daemon is connected to the master, and none has tried since {}", error.last),
                start,
            )),
            None => {
                let waiting = self.lag.as_ref().map_or("unknown".to_string(), Lag::amount);
                let since =
                    self.last_batch().map_or(String::new(), |at| format!("; the last batch was committed at {at}"));
                Some(warning(
                    format!("no daemon is connected to the master; changes that wait: {waiting}{since}"),
                    start,
                ))
            }
        }
    }

    fn idleness(&self, failing: Option<&LastError>, source: &str) -> Option<Problem> {
        let (daemon, lag) = (self.daemon.as_ref()?, self.lag.as_ref()?);
        let idle = lag.idle.unwrap_or(FAILURE_PATIENCE);
        let is_stuck = lag.changes > 0 && lag.seconds >= WORK_PATIENCE.as_secs_f64() && idle >= WORK_PATIENCE;
        if !is_stuck || failing.is_some() || self.records.is_paused {
            return None;
        }
        let from = if daemon.client.is_empty() { String::new() } else { format!(", from {}", daemon.client) };
        let text = format!(
            "a daemon is connected (server process {} on the master{from}) and has committed nothing for {} s, although \
             changes have waited for {:.0} s",
            daemon.pid,
            idle.as_secs(),
            lag.seconds
        );
        let hint = format!(
            "pyreplica doctor {source} shows whether it waits for a lock, and its log whether it replays a large \
             transaction. If it hangs or its machine is gone, end it, and run on the master: SELECT \
             pg_terminate_backend({});",
            daemon.pid
        );
        let is_failure = idle >= FAILURE_PATIENCE && lag.seconds >= FAILURE_PATIENCE.as_secs_f64();
        Some(Problem { is_failure, text, hint: Some(hint) })
    }

    fn batches_in_doubt(&self, source: &str) -> Option<Problem> {
        let in_doubt = self.in_doubt.as_ref().filter(|in_doubt| in_doubt.batches > 0)?;
        if self.daemon.is_some() && in_doubt.oldest < IN_DOUBT_PATIENCE {
            return None;
        }
        let named: Vec<String> =
            in_doubt.transactions.iter().map(|(side, gid)| format!("'{gid}' on the {side}")).collect();
        let text = format!(
            "batches in doubt: {}, the oldest for {} s: {}",
            in_doubt.batches,
            in_doubt.oldest.as_secs(),
            named.join(", ")
        );
        let hint = match (self.reached, &self.daemon) {
            ([true, true], Some(_)) => {
                format!(
                    "restart the daemon: it settles them when it reconnects; pyreplica doctor {source} shows what to do \
                     without it"
                )
            }
            ([true, true], None) if in_doubt.is_refused => {
                "the servers do not mean the same last batch: what puts that right settles them too".into()
            }
            ([true, true], None) => format!("the daemon settles them when it connects; start it: pyreplica {source}"),
            _ => "don't settle them by hand: that needs both servers. The daemon settles them when it connects to both"
                .into(),
        };
        Some(warning(text, hint))
    }

    fn unfinished_copy(&self, source: &str) -> Option<Problem> {
        let copy = self.copy.as_ref()?;
        Some(if self.is_copying {
            warning(copy.in_progress(), "when it has ended, start the daemon")
        } else {
            Problem { is_failure: true, text: copy.to_string(), hint: Some(copy.hint(source)) }
        })
    }

    fn tables_in_copy(&self, source: &str) -> Option<Problem> {
        let tables = Some(&self.records.copying_tables).filter(|tables| !tables.is_empty())?;
        Some(if self.is_copying {
            warning(
                format!(
                    "tables that are being copied, whose changes are held on the slave until the copy ends: {tables}"
                ),
                "wait for the end of the copy",
            )
        } else {
            let text =
                format!("a copy was interrupted, and the changes of these tables are held on the slave: {tables}");
            warning(text, format!("run it again: pyreplica copy --table ... {source}"))
        })
    }

    fn paused_tables(&self, source: &str) -> Option<Problem> {
        let tables = Some(&self.records.paused_tables).filter(|tables| !tables.is_empty())?;
        Some(warning(
            format!("tables that are paused, whose changes are held on the slave: {tables}"),
            format!("pyreplica resume --table ... {source} ends the pause"),
        ))
    }

    fn held(&self, source: &str) -> Option<Problem> {
        let held = self.records.held.filter(|held| *held > 0)?;
        Some(warning(
            format!("changes that are held on the slave and not replayed: {held}"),
            format!("pyreplica pending {source} shows them"),
        ))
    }

    fn open_transactions(&self, source: &str) -> Option<Problem> {
        let open = self.open.as_ref().filter(|open| open.transactions > 0 && open.oldest >= OPEN_PATIENCE)?;
        let text = format!(
            "transactions on the master that have changed something and are still open: {}, the oldest for {} s; their \
             changes are replayed after they have committed, and are not counted",
            open.transactions,
            open.oldest.as_secs()
        );
        Some(warning(text, format!("pyreplica doctor {source} shows them")))
    }

    fn large_log(&self, config: &Config, source: &str) -> Option<Problem> {
        let bytes = self.lag.as_ref().map(|lag| lag.log_bytes).filter(|bytes| *bytes > config.log_warning)?;
        let text = format!("the master's log has grown to {} MiB, more than LOG_WARNING", bytes >> 20);
        Some(warning(text, format!("pyreplica doctor {source} shows for which slave it is kept")))
    }

    fn last_batch(&self) -> Option<&String> {
        self.lag.as_ref()?.replayed_at.as_ref()
    }
}

fn waiting(wait: &Wait, source: &str) -> Problem {
    let text = format!(
        "the {} has not answered the daemon for {} s: its process {} waits for {}",
        wait.side,
        wait.time.as_secs(),
        wait.pid,
        wait.what
    );
    let hint = match wait.event.as_str() {
        "SyncRep" => {
            "a synchronous standby of that server is missing: start it, or take it out of synchronous_standby_names there; what \
             waits is on that server's disk already"
                .to_string()
        }
        _ if wait.is_lock => format!("pyreplica doctor {source} shows who holds the lock"),
        _ => "PostgreSQL's manual explains the event in its chapter on monitoring".to_string(),
    };
    Problem { is_failure: wait.time >= LONG_WAIT, text, hint: Some(hint) }
}

fn failure(error: &LastError) -> Problem {
    let LastError { since, attempts, last, message, hint, .. } = error;
    let text = format!("failing since {since} (attempts: {attempts}, last at {last}): {message}");
    Problem { is_failure: true, text, hint: hint.clone() }
}

fn warning(text: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { is_failure: false, text: text.into(), hint: Some(hint.into()) }
}

#[cfg(test)]
mod tests {
    use super::super::{Count, Daemon, InDoubt, OpenTransactions};
    use super::*;
    use crate::base::names::Side;
    use crate::config::dsn::Dsn;

    fn healthy() -> PairStatus {
        let lag = Lag {
            changes: 0,
            count: Count::Exact,
            seconds: 0.0,
            batch: 7,
            replayed_at: Some("then".into()),
            idle: Some(Duration::from_secs(9000)),
            last: Some(1),
            transaction: None,
            highest: 1,
            log_bytes: 0,
        };
        PairStatus {
            reached: [true, true],
            knows_daemon: true,
            daemon: Some(Daemon { pid: 4711, client: "10.0.0.7".into() }),
            lag: Some(lag),
            ..PairStatus::default()
        }
    }

    /// All problems in one text.
    fn report(mut status: PairStatus) -> String {
        let dsn = Dsn::parse("host=x").unwrap();
        status.find_problems(&Config::for_pair(dsn.clone(), dsn), "shop.conf");
        let line = |problem: &Problem| format!("{}: {}; ", problem.text, problem.hint.as_deref().unwrap_or("?"));
        status.problems.iter().map(line).collect()
    }

    #[test]
    fn a_healthy_pair_has_no_problems() {
        assert_eq!(report(healthy()), "");
    }

    #[test]
    fn a_daemon_that_does_nothing_is_reported_with_the_statement_that_ends_its_session() {
        let mut status = healthy();
        let lag = status.lag.as_mut().unwrap();
        (lag.changes, lag.seconds) = (3, 400.0);
        let text = report(status);
        assert!(
            text.contains("process 4711 on the master, from 10.0.0.7) and has committed nothing for 9000 s"),
            "{text}"
        );
        assert!(text.contains("SELECT pg_terminate_backend(4711);"), "{text}");
    }

    #[test]
    fn what_a_server_waits_for_is_reported_and_what_is_not_known_is_not_called_nothing() {
        let wait = |time| Wait {
            side: Side::Slave,
            pid: 12,
            what: "SyncRep (IPC)".into(),
            event: "SyncRep".into(),
            is_lock: false,
            time: Duration::from_secs(time),
        };
        let mut status = PairStatus { waits: vec![wait(7), wait(60)], ..healthy() };
        status.find_problems(
            &Config::for_pair(Dsn::parse("host=x").unwrap(), Dsn::parse("host=x").unwrap()),
            "shop.conf",
        );
        assert_eq!(status.problems.iter().map(|problem| problem.is_failure).collect::<Vec<_>>(), [false, true]);
        let text = report(PairStatus { waits: vec![wait(7)], ..healthy() });
        let said = "the slave has not answered the daemon for 7 s: its process 12 waits for SyncRep (IPC): a synchronous standby";
        assert!(text.starts_with(said), "{text}");
        assert_eq!(report(PairStatus { daemon: None, lag: None, knows_daemon: false, ..healthy() }), "");
        let text = report(PairStatus { daemon: None, lag: None, ..healthy() });
        assert!(text.contains("changes that wait: unknown"), "{text}");
    }

    #[test]
    fn a_daemon_that_failed_and_has_not_tried_since_is_reported() {
        let error = |idle| LastError {
            since: "monday".into(),
            since_epoch: 0.0,
            last: "tuesday".into(),
            idle: Duration::from_secs(idle),
            attempts: 2,
            message: "slave: cannot replay".into(),
            hint: None,
            change: None,
            recovered: None,
        };
        let text = report(PairStatus { daemon: None, error: Some(error(30)), ..healthy() });
        assert!(text.contains("failing since monday") && !text.contains("start it"), "{text}");
        let text = report(PairStatus { daemon: None, error: Some(error(3000)), ..healthy() });
        assert!(text.contains("none has tried since tuesday: is it running? start it: pyreplica shop.conf"), "{text}");
    }

    #[test]
    fn a_batch_that_stays_in_doubt_and_a_transaction_that_stays_open_are_reported() {
        let in_doubt = |age| InDoubt {
            batches: 1,
            oldest: Duration::from_secs(age),
            transactions: vec![(Side::Slave, "pyreplica:x".into())],
            is_refused: false,
        };
        assert_eq!(report(PairStatus { in_doubt: Some(in_doubt(1)), ..healthy() }), "");
        let text = report(PairStatus { in_doubt: Some(in_doubt(61)), ..healthy() });
        assert!(text.contains("for 61 s: 'pyreplica:x' on the slave") && text.contains("restart the daemon"), "{text}");
        let open = |age| Some(OpenTransactions { transactions: 1, oldest: Duration::from_secs(age) });
        assert_eq!(report(PairStatus { open: open(60), ..healthy() }), "");
        assert!(report(PairStatus { open: open(7200), ..healthy() }).contains("still open: 1, the oldest for 7200 s"));
    }
}
