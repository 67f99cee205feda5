//! The threads that send the pairs' mails, so that no pair waits for the mail server.

use super::{Event, MAIL_TIME, Pair};
use crate::daemon::outbox::Outbox;
use crate::process::logger::OWN_TARGET;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::Instant;

/// Starts the thread that sends a pair's mails.
pub(super) fn start(name: &str, outbox: &Outbox, sender: Sender<Event>) {
    let (outbox, ended) = (outbox.clone(), sender.clone());
    let body = move || {
        // The log has the panic already. The pair goes on without mails.
        let _ = catch_unwind(AssertUnwindSafe(|| outbox.deliver()));
        drop(ended.send(Event::MailThreadEnded));
    };
    if let Err(e) = thread::Builder::new().name(format!("{name} mail")).spawn(body) {
        log::warn!(target: name, "no mails: cannot start a thread: {e}");
        drop(sender.send(Event::MailThreadEnded));
    }
}

/// Waits until the threads have sent the mails that are left, at most `MAIL_TIME`.
pub(super) fn send_remaining(pairs: &[Pair], mut threads: usize, events: &Receiver<Event>) {
    pairs.iter().for_each(|pair| pair.outbox.close());
    let until = Instant::now() + MAIL_TIME;
    while threads > 0 {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::MailThreadEnded) => threads -= 1,
            Ok(Event::Ended(..) | Event::Standing(..) | Event::Reload) => {}
            Ok(Event::Stop) | Err(_) => {
                log::warn!(target: OWN_TARGET, "the mail server did not take all mails in time: ending without them");
                return;
            }
        }
    }
}
