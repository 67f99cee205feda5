//! Who tells the operator by mail what happens to a pair. Whoever hands in news never waits: a thread of its own talks to
//! the mail server, and what it cannot send waits in a queue with a bound.

use crate::base::backoff;
use crate::base::error::{Error, Kind};
use crate::base::names::{LogId, Side};
use crate::config::settings::{Config, Smtp};
use crate::daemon::mail::{self, Letter, Mailer, Refusal};
use crate::daemon::notices::{NoticeBatch, NoticeQueue, ProblemLog, Tally};
use crate::process::logger;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Mails that wait for a mail server that is away. Beyond that the oldest is dropped.
const MAX_WAITING: usize = 32;

/// Longer texts, such as a statement with a large value, are cut.
const LONGEST_TEXT: usize = 4000;

/// How far the values in the body are indented.
const COLUMN: usize = 10;

/// The handle of one pair's mails; clones refer to the same. Without an `[SMTP]` section it does nothing.
#[derive(Clone, Default)]
pub struct Outbox {
    office: Option<Arc<Office>>,
}

/// What makes two failures the same problem: not the words, which may hold a time or a process id.
type Problem = (Option<Side>, Kind, Option<LogId>);

struct Office {
    pair: String,
    smtp: Smtp,
    host: String,
    /// Master and slave, without passwords.
    sides: [String; 2],
    desk: Mutex<Desk>,
    bell: Condvar,
}

#[derive(Default)]
struct Desk {
    problems: ProblemLog<Problem>,
    warnings: NoticeQueue,
    /// Whether a conflict is among the warnings.
    has_conflict: bool,
    waiting: VecDeque<Letter>,
    /// Mails that were dropped since the last one that was sent.
    dropped: u64,
    is_closing: bool,
}

impl Outbox {
    pub fn new(config: &Config) -> Outbox {
        let office = config.smtp.clone().map(|smtp| Office {
            pair: config.name.clone(),
            smtp,
            host: mail::host_name(),
            sides: [config.master.to_string(), config.slave.to_string()],
            desk: Mutex::default(),
            bell: Condvar::new(),
        });
        Outbox { office: office.map(Arc::new) }
    }

    /// Whether there is anything to deliver, ever.
    pub fn has_work(&self) -> bool {
        self.office.is_some()
    }

    pub fn started(&self) {
        let Some(office) = &self.office else { return };
        office.post(&office.smtp.start_subject, "", "replication starts", &[]);
    }

    /// `how` it ended.
    pub fn stopped(&self, how: &str) {
        let Some(office) = &self.office else { return };
        office.post(&office.smtp.stop_subject, "", how, &[]);
    }

    pub fn failed(&self, error: &Error) {
        let Some(office) = &self.office else { return };
        let problem = (error.side(), error.kind(), error.change().map(|(id, _)| id));
        let tally = office.desk().problems.failed(problem, &error.to_string(), Instant::now());
        let Some(tally) = tally else { return };
        let (what, change) = (what(error), error.change().map(|(id, txid)| format!("{id} of transaction {txid}")));
        let again = (tally.failures > 1).then(|| format!("it has failed {}", times(&tally)));
        let lines = [
            ("why", Some(error.detail().to_string())),
            ("change", change),
            ("again", again),
            ("to do", error.hint().map(str::to_string)),
            ("next", Some("tried again until it works; told again in an hour, and when it is over".to_string())),
        ];
        office.post(&office.smtp.error_subject, "", &what, &present(lines));
    }

    /// Everything pending has been replayed, so whatever was wrong is not wrong any more.
    pub fn drained(&self) {
        let Some(office) = &self.office else { return };
        let over = office.desk().problems.over(Instant::now());
        for (problem, tally) in over {
            let lines = [("problem", problem), ("failed", times(&tally))];
            office.post(&office.smtp.error_subject, " (over)", "the problem is over, replication goes on", &lines);
        }
    }

    /// A change that was replayed although the slave's row was not what it should have been.
    pub fn conflict(&self, text: &str) {
        let Some(office) = &self.office else { return };
        office.desk().has_conflict = true;
        self.warn(text);
    }

    /// Something that the operator should look at. Several are one mail.
    pub fn warn(&self, text: &str) {
        let Some(office) = &self.office else { return };
        if office.smtp.warning_subject.is_some() {
            let text = format!("{}: {}", logger::time(), cut(text));
            office.desk().warnings.add(text, Instant::now());
            office.bell.notify_one();
        }
    }

    /// Nothing more will be handed in: what waits is tried once more, and `deliver` returns.
    pub fn close(&self) {
        let Some(office) = &self.office else { return };
        office.desk().is_closing = true;
        office.bell.notify_one();
    }

    /// Sends what is handed in until the outbox is closed; on a thread of its own.
    pub fn deliver(&self) {
        let Some(office) = &self.office else { return };
        let mailer = Mailer::new(office.smtp.clone());
        office.deliver(|letter| mailer.send(letter));
    }
}

impl Office {
    /// Nothing that panics is done while the desk is locked, and no mail is worth a panic of replication.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a mail into the queue, unless it has no subject.
    fn post(&self, subject: &Option<String>, suffix: &str, what: &str, lines: &[(&str, String)]) {
        let Some(subject) = subject else { return };
        let letter = Letter { subject: format!("{subject}{suffix}"), body: self.body(what, lines) };
        let mut desk = self.desk();
        if desk.waiting.len() == MAX_WAITING {
            desk.waiting.pop_front();
            desk.dropped += 1;
        }
        desk.waiting.push_back(letter);
        self.bell.notify_one();
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

    fn deliver(&self, send: impl Fn(&Letter) -> Result<Vec<String>, Refusal>) {
        let mut attempt = 0;
        while let Some(letter) = self.next() {
            let subject = &letter.subject;
            match send(&letter) {
                Ok(refused) => {
                    attempt = 0;
                    log::info!(target: &self.pair, "Mail sent: \"{subject}\"");
                    for refused in refused {
                        log::warn!(target: &self.pair, "mail \"{subject}\" not taken for {refused}");
                    }
                }
                Err(refusal) if refusal.is_final() => {
                    log::warn!(target: &self.pair, "mail \"{subject}\" refused, and not tried again: {refusal}");
                }
                Err(refusal) => {
                    let pause = backoff::pause(attempt);
                    attempt += 1;
                    log::warn!(target: &self.pair, "cannot send mail \"{subject}\": {refusal}{}", hint(&refusal));
                    if !self.keep(letter, pause) {
                        return;
                    }
                }
            }
        }
    }

    /// The next mail to send, waited for; none when there is none and there will be none.
    fn next(&self) -> Option<Letter> {
        let mut desk = self.desk();
        loop {
            let now = Instant::now();
            let due = desk.warnings.due();
            if due.is_some_and(|due| desk.is_closing || due <= now) {
                let (heap, has_conflict) = (desk.warnings.take(now), std::mem::take(&mut desk.has_conflict));
                drop(desk);
                heap.iter().for_each(|heap| self.post_heap(heap, has_conflict));
                desk = self.desk();
            } else if let Some(mut letter) = desk.waiting.pop_front() {
                let dropped = std::mem::take(&mut desk.dropped);
                if dropped > 0 {
                    letter.body.push_str(&line("missing", &format!("{dropped} older mails, which could not be sent")));
                }
                return Some(letter);
            } else if desk.is_closing {
                return None;
            } else {
                desk = match due {
                    Some(due) => self.bell.wait_timeout(desk, due - now).unwrap_or_else(PoisonError::into_inner).0,
                    None => self.bell.wait(desk).unwrap_or_else(PoisonError::into_inner),
                };
            }
        }
    }

    fn post_heap(&self, heap: &NoticeBatch, has_conflict: bool) {
        let what = match heap.count {
            1 => "a warning".to_string(),
            count => format!("{count} warnings"),
        };
        let mut lines: Vec<(&str, String)> = heap.first.iter().map(|text| ("warning", text.clone())).collect();
        let more = heap.count - heap.first.len() as u64;
        if more > 0 {
            lines.push(("and", format!("{more} more, see the log")));
        }
        if has_conflict {
            let advice = "find out who else changes the slave; where rows differed, the master's values were applied";
            lines.push(("to do", advice.to_string()));
        }
        self.post(&self.smtp.warning_subject, "", &what, &lines);
    }

    /// Puts back a mail that could not be sent, and waits before the next try. False when there is none.
    fn keep(&self, letter: Letter, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut desk = self.desk();
        if desk.is_closing {
            let left = desk.waiting.len() + 1;
            drop(desk);
            log::warn!(target: &self.pair, "mails not sent: {left}");
            return false;
        }
        match desk.waiting.len() {
            MAX_WAITING => desk.dropped += 1,
            _ => desk.waiting.push_front(letter),
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || desk.is_closing {
                return true;
            }
            desk = self.bell.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The failure without its reason, which stands on a line of its own: a long statement must not hide it.
fn what(error: &Error) -> String {
    let side = error.side().map(|side| format!("{side}: ")).unwrap_or_default();
    format!("{side}cannot {}", error.operation())
}

fn hint(refusal: &Refusal) -> &'static str {
    match refusal.to_string().contains("certificate") {
        true => "\nhint: CA_FILE in [SMTP] names the certificates to trust",
        false => "",
    }
}

/// `3 times within 2 min`
fn times(tally: &Tally) -> String {
    let number = match tally.failures {
        1 => "once".to_string(),
        count => format!("{count} times"),
    };
    match tally.lasting.as_secs() {
        0..60 => format!("{number} within a minute"),
        seconds @ 60..7200 => format!("{number} within {} min", seconds.div_ceil(60)),
        seconds => format!("{number} within {} h", seconds.div_ceil(3600)),
    }
}

fn present<const N: usize>(lines: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    lines.into_iter().filter_map(|(label, text)| Some((label, text?))).collect()
}

/// `label:   text`, whose further lines are indented: no text can pass for another line.
fn line(label: &str, text: &str) -> String {
    let text = cut(text.trim_end()).replace("\r\n", "\n").replace(['\n', '\r'], &format!("\n{:COLUMN$}", ""));
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
