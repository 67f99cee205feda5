//! The clients of one address: a few at a time, each on a thread of its own and with limits for its time and its length.
//!
//! Every client is let in at once. If there is no room, a client that has not got its answer yet has to go: the oldest one of
//! the machine that has the most. So clients that are slow, or say nothing, keep nobody waiting, however many they are.

use crate::health::page::SECURITY_POLICY;
use crate::process::logger::OWN_TARGET;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// So many clients at a time.
const CLIENTS: usize = 32;

/// How long a client may take for its whole request, and for the whole answer.
const CLIENT_TIME: Duration = Duration::from_secs(2);

/// A longer request is refused.
const LONGEST_REQUEST: usize = 8192;

/// The pause after a connection could not be accepted, for example because the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Answer {
    pub status: &'static str,
    pub kind: Kind,
    pub body: String,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// As Prometheus wants it, and fit for anybody else.
    Text,
    Page,
}

impl Answer {
    pub(super) fn text(status: &'static str, body: String) -> Answer {
        Answer { status, kind: Kind::Text, body }
    }
}

/// A client that is being served.
struct Client {
    number: u64,
    address: IpAddr,
    stream: TcpStream,
    /// The databases are being asked: it has said what it wants, and waits.
    is_waiting: bool,
}

#[derive(Clone, Default)]
struct Clients(Arc<Mutex<Vec<Client>>>);

/// Serves clients for ever. `answer` gets the method and the path.
///
/// A loopback address is often all that keeps strangers out. But a browser on this machine may have been told by a stranger's page that
/// the name of that page has this address now. So there the name in the request must be this machine's.
pub(super) fn serve(listener: &TcpListener, answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) {
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let (clients, answer) = (Clients::default(), Arc::new(answer));
    let mut number = 0;
    loop {
        let (stream, from) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(e) => {
                log::debug!(target: OWN_TARGET, "cannot accept a connection for metrics: {e}");
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        number += 1;
        // An error means that the client has gone, or that there is no room for it. It gets no answer.
        let Ok(place) = clients.enter(number, from.ip(), &stream) else { continue };
        let answer = answer.clone();
        let body = move || drop(answer_client(stream, &place, is_local, answer.as_ref()));
        if let Err(e) = thread::Builder::new().name("metrics client".into()).spawn(body) {
            log::debug!(target: OWN_TARGET, "cannot serve a connection for metrics: {e}");
        }
    }
}

/// A client's place, until this is dropped.
struct Place {
    clients: Clients,
    number: u64,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, Vec<Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, number: u64, address: IpAddr, stream: &TcpStream) -> io::Result<Place> {
        let stream = stream.try_clone()?;
        let mut clients = self.lock();
        if clients.len() >= CLIENTS {
            let of = |address: IpAddr| clients.iter().filter(|client| client.address == address).count();
            let idle = clients.iter().enumerate().filter(|(_, client)| !client.is_waiting);
            // Of equal ones max_by_key takes the last, and the oldest comes first.
            let Some((last, _)) = idle.rev().max_by_key(|(_, client)| of(client.address)) else {
                return Err(io::ErrorKind::QuotaExceeded.into());
            };
            // Its thread notices, and ends.
            let _ = clients.remove(last).stream.shutdown(Shutdown::Both);
        }
        clients.push(Client { number, address, stream, is_waiting: false });
        Ok(Place { clients: self.clone(), number })
    }
}

impl Place {
    fn set_waiting(&self, is_waiting: bool) {
        let mut clients = self.clients.lock();
        clients.iter_mut().filter(|client| client.number == self.number).for_each(|it| it.is_waiting = is_waiting);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.lock().retain(|client| client.number != self.number);
    }
}

fn answer_client(
    mut stream: TcpStream,
    place: &Place,
    is_local: bool,
    answer: &dyn Fn(&str, &str) -> Answer,
) -> io::Result<()> {
    let request = read_request(&mut stream)?;
    let mut words = request.split([' ', '\r', '\n']);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    place.set_waiting(true);
    let Answer { status, kind, body } = match is_local && !is_for_local(&request) {
        true => Answer::text("421 Misdirected Request", "ask by an IP address or as localhost\n".to_string()),
        false => answer(method, target.split('?').next().unwrap_or_default()),
    };
    place.set_waiting(false);
    let kind = match kind {
        Kind::Text => "text/plain; version=0.0.4; charset=utf-8".to_string(),
        Kind::Page => format!("text/html; charset=utf-8\r\nContent-Security-Policy: {SECURITY_POLICY}"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nX-Content-Type-Options: nosniff\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if method == "HEAD" { "" } else { &body };
    write(&mut stream, format!("{head}{body}").as_bytes())
}

/// Whether the client has asked by an IP address or as localhost, or has not said.
fn is_for_local(request: &str) -> bool {
    let mut fields = request.lines().filter_map(|line| line.split_once(':'));
    let Some((_, host)) = fields.find(|(name, _)| name.eq_ignore_ascii_case("host")) else { return true };
    let host = host.trim();
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Reads the request up to the empty line. An error if it does not arrive in time.
fn read_request(stream: &mut TcpStream) -> io::Result<String> {
    let until = Instant::now() + CLIENT_TIME;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > LONGEST_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&request).into_owned())
}

fn write(stream: &mut TcpStream, mut text: &[u8]) -> io::Result<()> {
    let until = Instant::now() + CLIENT_TIME;
    while !text.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(text)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            length => text = &text[length..],
        }
    }
    Ok(())
}

/// The time that is left. An error if there is none.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
