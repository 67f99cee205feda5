//! A server that never stops talking, or somebody between: it is left as soon as it has sent more than any server would.
//! Several pairs share one process, so what one server sends must not take its memory.

use crate::harness::secure::{assert_says, connect, with_defaults};
use crate::harness::{Pair, wait_until};
use pyreplica::for_tests::{Dsn, Session};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

/// A message of the protocol.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn notice() -> Vec<u8> {
    message(b'N', &[b"SNOTICE\0VNOTICE\0C00000\0M", &[b'x'; 2000][..], b"\0\0"].concat())
}

fn notification() -> Vec<u8> {
    message(b'A', &[b"\0\0\0\x01replicas\0", &[b'x'; 2000][..], b"\0"].concat())
}

/// What a server says after the login.
fn welcome() -> Vec<u8> {
    [message(b'R', &[0; 4]), message(b'K', &[1; 8]), message(b'Z', b"I")].concat()
}

/// The answer to the question for the server's address: it is the one that was connected to, so there is no pooler.
fn address(port: u16) -> Vec<u8> {
    let (host, port) = ("127.0.0.1", port.to_string());
    let column =
        |name: &str| [name.as_bytes(), &[0; 7], &[0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]].concat();
    let columns = [&[0, 3][..], &column("a"), &column("b"), &column("c")].concat();
    let value = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let values = [&[0, 3][..], &value(host), &value(&port), &value(&port)].concat();
    [message(b'T', &columns), message(b'D', &values), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

/// Takes one connection, answers what the client sends with one of `answers` each, and the next thing with `then(0)`,
/// `then(1)` and so on. After the welcome comes the answer to the question for the server's address.
fn server(answers: &[Vec<u8>], then: impl Fn(usize) -> Vec<u8> + Send + 'static) -> Dsn {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = answers.to_vec();
    let talk = move |mut client: TcpStream| -> std::io::Result<()> {
        let mut said = [0; 65_536];
        for (place, answer) in answers.into_iter().enumerate() {
            let _ = client.read(&mut said)?;
            client.write_all(&answer)?;
            if place == 0 {
                let _ = client.read(&mut said)?;
                client.write_all(&address(port))?;
            }
        }
        let _ = client.read(&mut said)?;
        for n in 0.. {
            client.write_all(&then(n))?;
        }
        Ok(())
    };
    std::thread::spawn(move || listener.accept().map(|(client, _)| talk(client)));
    with_defaults(&format!("host=127.0.0.1 port={port} user=u dbname=d sslmode=disable"))
}

fn parameters(n: usize) -> Vec<u8> {
    (0..100).flat_map(|m| message(b'S', format!("k{n}_{m}\0{}\0", "v".repeat(1000)).as_bytes())).collect()
}

/// The head of a message that goes on for 2 GB, and then the rest of it.
fn endless(kind: u8) -> impl Fn(usize) -> Vec<u8> + Send + 'static {
    move |n| match n {
        0 => [&[kind, 0x7f, 0xff, 0xff, 0xff][..], b"SFATAL\0C28000\0M"].concat(),
        _ => vec![b'x'; 65_536],
    }
}

#[track_caller]
fn assert_left(dsn: &Dsn, what: &str) {
    let error = connect(dsn).err().expect("nobody logs in there");
    assert_says(&error, &format!("the server sent {what}"), "sslmode=verify-full");
}

const MANY: &str = "too many notices, notifications or parameters";

#[test]
fn a_server_that_never_stops_talking_is_left_before_the_login() {
    let accepted = message(b'R', &[0; 4]);
    for flood in [|_| notice().repeat(50), parameters] {
        let accepted = accepted.clone();
        let then = move |n| if n == 0 { accepted.clone() } else { flood(n) };
        assert_left(&server(&[], then), MANY);
    }
    for kind in [b'E', b'N', b'R', b'S', b'D'] {
        assert_left(&server(&[], endless(kind)), "a message of kind");
    }
}

#[test]
fn a_server_that_never_stops_talking_is_left_after_the_login() {
    for flood in [|_| notice().repeat(50), |_| notification().repeat(50), parameters] {
        assert_left(&server(&[welcome()], flood), MANY);
    }
    for kind in [b'E', b'D', b'T', b'C'] {
        assert_left(&server(&[welcome()], endless(kind)), "a message of kind");
    }
    // The statement has a text and a boolean as parameters, and a column of type text; then come rows without end.
    let (text, name) = (25_u32.to_be_bytes(), [0; 2]);
    let parameters = message(b't', &[&[0, 2][..], &text, &[0, 0, 0, 16]].concat());
    let column = message(b'T', &[&[0, 1][..], &name[..1], &[0; 6], &text, &[0; 8]].concat());
    let prepared = [message(b'1', b""), parameters, column, message(b'Z', b"I")].concat();
    let row = message(b'D', &[&[0, 1, 0, 0, 0xea, 0x60][..], &[b'x'; 60_000]].concat());
    let then = move |n| if n == 0 { message(b'2', b"") } else { row.clone() };
    assert_left(&server(&[welcome(), prepared], then), "too long an answer");
}

#[test]
fn a_session_ends_when_its_server_talks_without_end() {
    let mut pair = Pair::new();
    for flood in [notice(), notification()] {
        let [forwarder, _slave] = pair.put_behind_forwarders();
        let mut session = connect(&Dsn::parse(&pair.master_dsn).unwrap()).unwrap();
        let asked = std::thread::spawn(move || session.text_rows("wait", "select pg_sleep(3600)").err().unwrap());
        let asking = "from pg_stat_activity where query = 'select pg_sleep(3600)'";
        wait_until("the statement", || !pair.on_master(&format!("select 'x' {asking}")).is_empty());
        forwarder.repeat(&flood);
        assert_says(&asked.join().unwrap(), "the server sent too many notices", "sslmode=verify-full");
        pair.on_master(&format!("select pg_terminate_backend(pid)::text {asking}"));
    }
}

#[test]
fn notifications_without_end_wake_a_session_and_do_not_keep_it() {
    let mut pair = Pair::new();
    let [forwarder, _slave] = pair.put_behind_forwarders();
    let mut session: Session = connect(&Dsn::parse(&pair.master_dsn).unwrap()).unwrap();
    forwarder.repeat(&notification());
    for _ in 0..20 {
        assert!(session.wait_for_notification(Duration::from_secs(60)).unwrap());
        session.forget_notifications().unwrap();
    }
}
