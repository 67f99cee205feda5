//! Sends a mail over a connection that begins in the clear.
//!
//! A mail server says yes to STARTTLS, and then both sides begin TLS. Somebody between could add lines to that yes, in the
//! clear, and lettre's buffer would keep them and take them for answers that came by TLS (CVE-2011-0411). So lettre gets
//! the bytes one at a time, when it asks for them: what follows the yes is still in the socket when TLS begins, and the
//! handshake fails.

use super::TIMEOUT;
use lettre::address::Envelope;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::time::timeout;

/// Why a mail was not sent.
pub(super) enum Failure {
    Smtp(Error),
    Network(io::Error),
}

/// The mail server, and how to speak to it.
pub(super) struct Way<'a> {
    pub(super) server: (&'a str, u16),
    pub(super) tls: TlsParameters,
    /// Without it, the mail is sent in the clear to a server that does not offer STARTTLS.
    pub(super) needs_tls: bool,
    pub(super) hello: ClientId,
    pub(super) login: Option<Credentials>,
}

/// Hands over one byte at a time.
#[derive(Debug)]
struct Sips(TcpStream);

pub(super) fn send(way: Way<'_>, envelope: &Envelope, text: &[u8]) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(converse(way, envelope, text))
}

async fn converse(way: Way<'_>, envelope: &Envelope, text: &[u8]) -> Result<(), Failure> {
    let Way { server, tls, needs_tls, hello, login } = way;
    let socket = within(1, TcpStream::connect(server)).await?;
    let mut connection = within(2, AsyncSmtpConnection::connect_with_transport(Box::new(Sips(socket)), &hello)).await?;
    if needs_tls || connection.can_starttls() {
        within(3, connection.starttls(tls, &hello)).await?;
    }
    if let Some(login) = &login {
        within(2, connection.auth(DEFAULT_MECHANISMS, login)).await?;
    }
    let answers = 3 + envelope.to().len() as u32;
    within(answers, connection.send(envelope, text)).await?;
    // The server has taken the mail, and the end changes nothing about it.
    let _ = timeout(TIMEOUT, connection.abort()).await;
    Ok(())
}

/// Limits the time for a number of answers.
async fn within<T, E>(answers: u32, step: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let late = |_| Failure::Network(io::ErrorKind::TimedOut.into());
    Ok(timeout(TIMEOUT * answers, step).await.map_err(late)??)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Smtp(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Network(error)
    }
}

impl AsyncTokioStream for Sips {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}

impl AsyncRead for Sips {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let mut sip = ReadBuf::new(&mut byte[..out.remaining().min(1)]);
        let read = Pin::new(&mut self.0).poll_read(cx, &mut sip);
        out.put_slice(sip.filled());
        read
    }
}

impl AsyncWrite for Sips {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
