//! A queue of mails to the operator about one pair. The pair never waits for the mail server: another thread talks to
//! it, and mails that it cannot send yet wait in the queue, whose length is limited.

use crate::base::backoff;
use crate::base::error::{Error, Kind};
use crate::base::names::{LogId, Side};
use crate::base::shown::shown;
use crate::config::settings::{Config, Smtp};
use crate::daemon::mail::{self as smtp, Mail, Mailer, SendError};
use crate::daemon::notices::{FailureCount, NoticeBatch, NoticeQueue, ProblemLog};
use crate::process::logger;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many mails may wait while the mail server cannot be reached. Beyond that, the oldest is dropped.
const MAX_WAITING: usize = 32;

/// Longer texts, such as a statement with a large value, are cut.
const LONGEST_TEXT: usize = 4000;

/// The column at which the values in the body begin.
const COLUMN: usize = 10;

/// A handle on the mails of one pair. Clones refer to the same queue. Without an `[SMTP]` section it does nothing.
#[derive(Clone, Default)]
pub struct Outbox {
    shared: Option<Arc<Shared>>,
}

/// Two failures with equal values are the same problem. The message is not part of it, because it may contain a time or
/// a process id.
type Problem = (Option<Side>, Kind, Option<LogId>);

struct Shared {
    pair: String,
    smtp: Smtp,
    host: String,
    /// The connection strings of master and slave, without passwords.
    sides: [String; 2],
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    problems: ProblemLog<Problem>,
    warnings: NoticeQueue,
    /// Whether a conflict is among the warnings.
    has_conflict: bool,
    waiting: VecDeque<Mail>,
    /// How many mails were dropped since the last one that was sent.
    dropped: u64,
    is_closing: bool,
}

impl Outbox {
    pub fn new(config: &Config) -> Outbox {
        let shared = config.smtp.clone().map(|smtp| Shared {
            pair: config.name.clone(),
            smtp,
            host: smtp::host_name(),
            sides: [config.master.to_string(), config.slave.to_string()],
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        Outbox { shared: shared.map(Arc::new) }
    }

    /// Whether the pair has an `[SMTP]` section.
    pub fn sends_mails(&self) -> bool {
        self.shared.is_some()
    }

    pub fn started(&self) {
        let Some(shared) = &self.shared else { return };
        shared.enqueue(&shared.smtp.start_subject, "", "replication starts", &[]);
    }

    /// Replication has ended. `how` says why.
    pub fn stopped(&self, how: &str) {
        let Some(shared) = &self.shared else { return };
        shared.enqueue(&shared.smtp.stop_subject, "", how, &[]);
    }

    pub fn failed(&self, error: &Error) {
        let Some(shared) = &self.shared else { return };
        let problem = (error.side(), error.kind(), error.change().map(|(id, _)| id));
        let count = shared.state().problems.failed(problem, &error.to_string(), Instant::now());
        let Some(count) = count else { return };
        let (what, change) = (what(error), error.change().map(|(id, txid)| format!("{id} of transaction {txid}")));
        let again = (count.failures > 1).then(|| format!("it has failed {}", times(&count)));
        let lines = [
            ("why", Some(error.detail().to_string())),
            ("change", change),
            ("again", again),
            ("to do", error.hint().map(str::to_string)),
            (
                "next",
                Some("the daemon tries again; the next mail comes in an hour, or when the problem is over".to_string()),
            ),
        ];
        shared.enqueue(&shared.smtp.error_subject, "", &what, &present(lines));
    }

    /// Everything pending has been replayed, so all problems are over.
    pub fn drained(&self) {
        let Some(shared) = &self.shared else { return };
        let over = shared.state().problems.over(Instant::now());
        for (problem, count) in over {
            let lines = [("problem", problem), ("failed", times(&count))];
            shared.enqueue(&shared.smtp.error_subject, " (over)", "the problem is over, replication goes on", &lines);
        }
    }

    /// A change was replayed although the slave's row was not as expected.
    pub fn conflict(&self, text: &str) {
        let Some(shared) = &self.shared else { return };
        shared.state().has_conflict = true;
        self.warn(text);
    }

    /// Something needs the operator's attention. Several warnings are sent in one mail.
    pub fn warn(&self, text: &str) {
        let Some(shared) = &self.shared else { return };
        if shared.smtp.warning_subject.is_some() {
            let text = format!("{}: {}", logger::time(), cut(text));
            shared.state().warnings.add(text, Instant::now());
            shared.changed.notify_one();
        }
    }

    /// The roles of the pair were exchanged, and it is connected in the other direction.
    pub fn switched(&self, now: &Config) {
        let text = format!("The roles were exchanged: replicating {} -> {} from now on", now.master, now.slave);
        log::warn!(target: &now.name, "{text}");
        self.warn(&text);
    }

    /// No more mails will be added. `deliver` tries once more to send those that wait, and returns.
    pub fn close(&self) {
        let Some(shared) = &self.shared else { return };
        shared.state().is_closing = true;
        shared.changed.notify_one();
    }

    /// Sends mails until the outbox is closed. It runs on a thread of its own.
    pub fn deliver(&self) {
        let Some(shared) = &self.shared else { return };
        let mailer = Mailer::new(shared.smtp.clone());
        shared.deliver(|mail| mailer.send(mail));
    }
}

impl Shared {
    /// Locks the state, also if a thread has panicked while it held the lock: a mail must not stop replication.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a mail into the queue, unless the config file has no subject for it.
    fn enqueue(&self, subject: &Option<String>, suffix: &str, what: &str, lines: &[(&str, String)]) {
        let Some(subject) = subject else { return };
        let mail = Mail { subject: shown(&format!("{subject}{suffix}")).into_owned(), body: self.body(what, lines) };
        let mut state = self.state();
        if state.waiting.len() == MAX_WAITING {
            state.waiting.pop_front();
            state.dropped += 1;
        }
        state.waiting.push_back(mail);
        self.changed.notify_one();
    }

    fn body(&self, what: &str, lines: &[(&str, String)]) -> String {
        let [master, slave] = &self.sides;
        let head = [
            ("pair", &self.pair),
            ("host", &self.host),
            ("time", &logger::time()),
            ("master", master),
            ("slave", slave),
        ];
        let head = head.map(|(label, text)| line(label, text)).concat();
        let rest: String = lines.iter().map(|(label, text)| line(label, text)).collect();
        format!("{head}\n{}{rest}", line("what", what))
    }

    fn deliver(&self, send: impl Fn(&Mail) -> Result<Vec<String>, SendError>) {
        let mut attempt = 0;
        while let Some(mail) = self.next() {
            let subject = &mail.subject;
            match send(&mail) {
                Ok(refused) => {
                    attempt = 0;
                    log::info!(target: &self.pair, "Mail sent: \"{subject}\"");
                    for refused in refused {
                        log::warn!(target: &self.pair, "mail \"{subject}\" refused for {refused}");
                    }
                }
                Err(error) if error.is_final() => {
                    log::warn!(target: &self.pair, "mail \"{subject}\" refused, and not tried again: {error}");
                }
                Err(error) => {
                    let pause = backoff::pause(attempt);
                    attempt += 1;
                    log::warn!(target: &self.pair, "cannot send mail \"{subject}\": {error}{}", hint(&error));
                    if !self.keep(mail, pause) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for the next mail to send. None if the outbox is closed and the queue is empty.
    fn next(&self) -> Option<Mail> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let due = state.warnings.due();
            if due.is_some_and(|due| state.is_closing || due <= now) {
                let (batch, has_conflict) = (state.warnings.take(now), std::mem::take(&mut state.has_conflict));
                drop(state);
                batch.iter().for_each(|batch| self.enqueue_warnings(batch, has_conflict));
                state = self.state();
            } else if let Some(mut mail) = state.waiting.pop_front() {
                let dropped = std::mem::take(&mut state.dropped);
                if dropped > 0 {
                    mail.body.push_str(&line("missing", &format!("{dropped} older mails, which could not be sent")));
                }
                return Some(mail);
            } else if state.is_closing {
                return None;
            } else {
                state = match due {
                    Some(due) => self.changed.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0,
                    None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
            }
        }
    }

    fn enqueue_warnings(&self, batch: &NoticeBatch, has_conflict: bool) {
        let what = match batch.count {
            1 => "a warning".to_string(),
            count => format!("{count} warnings"),
        };
        let mut lines: Vec<(&str, String)> = batch.first.iter().map(|text| ("warning", text.clone())).collect();
        let more = batch.count - batch.first.len() as u64;
        if more > 0 {
            lines.push(("and", format!("{more} more, see the log")));
        }
        if has_conflict {
            let advice = "find out who else changes the slave; where rows differed, the master's values were applied";
            lines.push(("to do", advice.to_string()));
        }
        self.enqueue(&self.smtp.warning_subject, "", &what, &lines);
    }

    /// Puts back a mail that could not be sent, and waits before the next try. False if the outbox is closed, so that
    /// there is no next try.
    fn keep(&self, mail: Mail, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut state = self.state();
        if state.is_closing {
            let left = state.waiting.len() + 1;
            drop(state);
            log::warn!(target: &self.pair, "mails not sent: {left}");
            return false;
        }
        match state.waiting.len() {
            MAX_WAITING => state.dropped += 1,
            _ => state.waiting.push_front(mail),
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.is_closing {
                return true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The failure without its reason. The reason has a line of its own, so that a long statement does not hide it.
fn what(error: &Error) -> String {
    let side = error.side().map(|side| format!("{side}: ")).unwrap_or_default();
    format!("{side}cannot {}", error.operation())
}

fn hint(error: &SendError) -> &'static str {
    match error.to_string() {
        text if text.contains("certificate") => "\0hint: CA_FILE in [SMTP] names the certificates to trust",
        text if text.contains("STARTTLS is not supported") => {
            "\0hint: if the server has TLS, is somebody in between? SECURITY=tls uses TLS from the start"
        }
        text if text.contains("corrupt message") => {
            "\0hint: after STARTTLS came something else than TLS: is somebody in between? SECURITY=tls uses TLS from the start"
        }
        _ => "",
    }
}

/// `3 times within 2 min`
fn times(count: &FailureCount) -> String {
    let number = match count.failures {
        1 => "once".to_string(),
        count => format!("{count} times"),
    };
    match count.duration.as_secs() {
        0..60 => format!("{number} within a minute"),
        seconds @ 60..7200 => format!("{number} within {} min", seconds.div_ceil(60)),
        seconds => format!("{number} within {} h", seconds.div_ceil(3600)),
    }
}

fn present<const N: usize>(lines: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    lines.into_iter().filter_map(|(label, text)| Some((label, text?))).collect()
}

/// `label:   text`. It is one line, whatever the text is of, so nothing in it can look like another label.
fn line(label: &str, text: &str) -> String {
    let text = cut(&shown(text.trim_end()));
    format!("{:COLUMN$}{text}\n", format!("{label}:"))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests;
