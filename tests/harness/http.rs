//! What a daemon serves by HTTP, asked as simply as possible.

use super::PATIENCE;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// A port that nobody has at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The whole answer, with its head.
#[track_caller]
pub fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
pub fn get(port: u16, path: &str) -> String {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"))
}

/// The value of a metric, by its name and all its labels, or without labels.
pub fn sample(scrape: &str, series: &str) -> Option<f64> {
    let (_, behind) = scrape.split_once(&format!("\n{series} "))?;
    behind.split_whitespace().next()?.parse().ok()
}
