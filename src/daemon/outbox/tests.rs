use super::*;
use crate::base::names::Txid;
use std::cell::RefCell;

const SMTP: &str = "[SMTP]\nSERVER=localhost\nFROM_ADDR=a@b.c\nTO_ADDRS=a@b.c\nPASSWORD=hunter2\nUSERNAME=joe\n";
const SUBJECTS: &str = "START_SUBJECT=start\nSTOP_SUBJECT=stop\nERROR_SUBJECT=error\nWARNING_SUBJECT=warning\n";

fn outbox(subjects: &str) -> Outbox {
    let main = "[MAIN]\nNAME=mydb\nDSN0=host=m password=hunter2\nDSN1=postgresql://joe:hunter2@s/x\n";
    Outbox::new(&Config::parse(&format!("{main}{SMTP}{subjects}")).unwrap())
}

fn refused(id: i64, detail: &str) -> Error {
    Error::new(Kind::Change, Some(Side::Slave), format!("replay change {id} (INSERT)"), detail)
        .with_change(LogId(id), Txid(7))
        .with_hint("correct it")
}

/// Closes the outbox and returns what it would send.
fn sent(outbox: &Outbox) -> Vec<Mail> {
    let mails = RefCell::new(Vec::new());
    outbox.close();
    outbox.shared.as_ref().unwrap().deliver(|mail| {
        mails.borrow_mut().push(mail.clone());
        Ok(Vec::new())
    });
    mails.into_inner()
}

fn subjects(mails: &[Mail]) -> Vec<&str> {
    mails.iter().map(|mail| mail.subject.as_str()).collect()
}

#[test]
fn a_pairs_life_in_mails() {
    let outbox = outbox(SUBJECTS);
    outbox.started();
    outbox.failed(&refused(5, "duplicate key"));
    outbox.failed(&refused(5, "duplicate key, said otherwise"));
    outbox.failed(&refused(6, "duplicate key"));
    outbox.drained();
    outbox.drained();
    outbox.conflict("Possible conflict");
    outbox.stopped("by a signal");
    let mails = sent(&outbox);
    assert_eq!(subjects(&mails), ["start", "error", "error", "error (over)", "error (over)", "stop", "warning"]);
    assert!(mails[3].body.contains("failed:   2 times within a minute\n"), "{}", mails[3].body);
    assert!(mails.iter().all(|mail| !mail.body.contains("hunter2")));
}

#[test]
fn a_body_says_where_when_what_why_and_what_to_do() {
    let outbox = outbox(SUBJECTS);
    outbox.failed(&refused(5, "duplicate key\nDETAIL: (1)"));
    let body = sent(&outbox).remove(0).body;
    let found: Vec<&str> =
        body.lines().filter(|line| !line.starts_with("host:") && !line.starts_with("time:")).collect();
    assert_eq!(
        found,
        [
            "pair:     mydb",
            "master:   host=m",
            "slave:    user=joe host=s dbname=x",
            "",
            "what:     slave: cannot replay change 5 (INSERT)",
            "why:      duplicate key\\nDETAIL: (1)",
            "change:   5 of transaction 7",
            "to do:    correct it",
            "next:     the daemon tries again; the next mail comes in an hour, or when the problem is over",
        ]
    );
}

#[test]
fn a_mail_without_a_subject_is_not_sent() {
    let outbox = outbox("ERROR_SUBJECT=error\nSTOP_SUBJECT=\n");
    outbox.started();
    outbox.conflict("Possible conflict");
    outbox.failed(&refused(5, ""));
    outbox.stopped("by a signal");
    assert_eq!(subjects(&sent(&outbox)), ["error"]);
    assert!(!Outbox::default().sends_mails());
}

#[test]
fn many_conflicts_are_one_mail_with_a_count_and_the_first_few() {
    let outbox = outbox(SUBJECTS);
    for number in 0..1000 {
        outbox.conflict(&format!("conflict {number}."));
    }
    let mails = sent(&outbox);
    assert_eq!(mails.len(), 1);
    let body = &mails[0].body;
    assert!(body.contains("what:     1000 warnings"), "{body}");
    assert!(body.contains("conflict 0.") && body.contains("conflict 9.") && !body.contains("conflict 10."), "{body}");
    assert!(body.contains("and:      990 more, see the log"), "{body}");
}

#[test]
fn a_mail_that_cannot_be_sent_is_tried_again_before_the_next_unless_it_is_refused_for_good() {
    let outbox = outbox(SUBJECTS);
    outbox.started();
    outbox.stopped("by a signal");
    let tries = RefCell::new(Vec::new());
    outbox.shared.as_ref().unwrap().deliver(|mail| {
        tries.borrow_mut().push(mail.subject.clone());
        match tries.borrow().len() {
            1 | 2 => Err(SendError::new("try later", false)),
            3 => Err(SendError::new("never", true)),
            _ => {
                outbox.close();
                Ok(Vec::new())
            }
        }
    });
    assert_eq!(tries.into_inner(), ["start", "start", "start", "stop"]);
}

#[test]
fn at_the_end_waiting_mails_are_tried_once_more_and_dropped_at_the_first_failure() {
    let outbox = outbox(SUBJECTS);
    outbox.started();
    outbox.stopped("by a signal");
    outbox.close();
    let tries = RefCell::new(0);
    outbox.shared.as_ref().unwrap().deliver(|_| {
        *tries.borrow_mut() += 1;
        Err(SendError::new("no", false))
    });
    assert_eq!(tries.into_inner(), 1);
}

#[test]
fn the_length_of_the_queue_is_limited_and_a_mail_says_how_many_are_missing() {
    let outbox = outbox(SUBJECTS);
    for id in 0..40 {
        outbox.failed(&refused(id, ""));
    }
    let mails = sent(&outbox);
    assert_eq!(mails.len(), MAX_WAITING);
    assert!(mails[0].body.contains("change:   8 of"), "the newest are kept");
    assert!(mails[0].body.contains("missing:  8 older mails"));
    assert!(!mails[1].body.contains("missing:"));
}

#[test]
fn long_texts_are_cut_and_hide_no_reason() {
    let outbox = outbox(SUBJECTS);
    let long = "ä".repeat(1_000_000);
    outbox.failed(&Error::new(Kind::Change, None, format!("replay {long}"), "the reason"));
    let body = &sent(&outbox)[0].body;
    assert!(body.len() < 3 * LONGEST_TEXT);
    assert!(body.contains("why:      the reason"));
}
