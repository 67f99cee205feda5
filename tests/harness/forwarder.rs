//! A network that can be broken: a TCP forwarder between pyreplica and a server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Listens on a port of its own and passes everything on to the server's.
pub struct Forwarder {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frozen: bool,
    refusing: bool,
    closed: bool,
    greeting_takes: Duration,
    // The first eight bytes that each client sent: they tell a plain connection from an encrypted one.
    greetings: Vec<[u8; 8]>,
    // Both ends of every connection, to shut them down; the dead among them do no harm in a test.
    streams: Vec<TcpStream>,
}

impl Forwarder {
    pub fn to(server_port: u16) -> Forwarder {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("the listener's address").port();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, server_port, &shared))
        };
        Forwarder { port, shared, acceptor: Some(acceptor) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks all connections that there are now, visibly for both ends. New ones are welcome.
    pub fn cut(&self) {
        self.change(|state| shut(&mut state.streams));
    }

    /// Breaks all connections and closes new ones at once, until `accept_again`.
    pub fn refuse(&self) {
        self.change(|state| {
            state.refusing = true;
            shut(&mut state.streams);
        });
    }

    pub fn accept_again(&self) {
        self.change(|state| state.refusing = false);
    }

    /// Stops passing bytes, in both directions, without a sign for either end: the cable is out.
    pub fn freeze(&self) {
        self.change(|state| state.frozen = true);
    }

    /// Passes on what was held back, and everything after it.
    pub fn thaw(&self) {
        self.change(|state| state.frozen = false);
    }

    /// What a new connection says first, a cancel request perhaps, comes so much later.
    pub fn delay_greetings(&self, takes: Duration) {
        self.change(|state| state.greeting_takes = takes);
    }

    /// Sends this to every client that is connected now, again and again until the client hangs up. The server must have
    /// nothing to say meanwhile.
    pub fn repeat(&self, message: &[u8]) {
        let state = self.shared.state.lock().expect("no holder panics");
        for client in state.streams.iter().step_by(2) {
            let mut client = client.try_clone().expect("clone a socket");
            let message = message.repeat(1 + 65_536 / message.len());
            thread::spawn(move || while client.write_all(&message).is_ok() {});
        }
    }

    /// The first eight bytes of every connection so far, in no particular order.
    pub fn greetings(&self) -> Vec<[u8; 8]> {
        self.shared.state.lock().expect("no holder panics").greetings.clone()
    }

    fn change(&self, apply: impl FnOnce(&mut State)) {
        apply(&mut self.shared.state.lock().expect("no holder panics"));
        self.shared.changed.notify_all();
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.change(|state| {
            state.closed = true;
            shut(&mut state.streams);
        });
        // The acceptor looks at the flag when a connection comes.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn shut(streams: &mut Vec<TcpStream>) {
    for stream in streams.drain(..) {
        // An end that is already gone is what was wanted.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, server_port: u16, shared: &Arc<Shared>) {
    for client in listener.incoming().flatten() {
        let mut state = shared.state.lock().expect("no holder panics");
        if state.closed {
            return;
        }
        if state.refusing {
            continue;
        }
        // A server that is down looks to the client like one behind this forwarder that hangs up.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)) else { continue };
        for (from, to, is_client) in [(&client, &server, true), (&server, &client, false)] {
            let (from, to) = (from.try_clone().expect("clone a socket"), to.try_clone().expect("clone a socket"));
            let shared = Arc::clone(shared);
            thread::spawn(move || pump(from, to, is_client, &shared));
        }
        state.streams.extend([client, server]);
    }
}

/// Passes bytes one way until either end is gone.
fn pump(mut from: TcpStream, mut to: TcpStream, is_client: bool, shared: &Shared) {
    let mut buffer = [0; 64 * 1024];
    if is_client {
        let mut greeting = [0; 8];
        let takes = shared.state.lock().expect("no holder panics").greeting_takes;
        thread::sleep(takes);
        if from.read_exact(&mut greeting).is_ok() && to.write_all(&greeting).is_ok() {
            shared.state.lock().expect("no holder panics").greetings.push(greeting);
        }
    }
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let state = shared.state.lock().expect("no holder panics");
        let thawed = shared.changed.wait_while(state, |state| state.frozen && !state.closed);
        drop(thawed.expect("no holder panics"));
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
