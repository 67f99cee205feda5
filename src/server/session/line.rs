//! The line to a server: asks for TLS, puts a guard above what is read, and ends a wait that takes too long.
//!
//! The postgres crate asks for TLS itself, except with TLS from the first byte on. So every TCP connection is opened in that
//! mode: then the crate hands its socket to this file, which asks for TLS or does without, and returns a guarded stream.
//! A Unix socket takes the place of a TCP connection (`socket.rs`).

use super::guard::{Guard, Limits};
use super::patience::{Clock, Patience};
use super::socket;
use crate::server::tls::{self, Connector, Use};
use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

type Problem = Box<dyn StdError + Sync + Send>;

/// The message by which a client asks for TLS: its length and a number in the place of a version.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// How to connect.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) tls: Connector,
    pub(super) use_of_tls: Use,
    /// How long the handshake may take.
    pub(super) limit: Duration,
    pub(super) limits: Arc<Limits>,
    pub(super) patience: Arc<Patience>,
    /// Takes the place of the TCP connection.
    pub(super) socket: Option<Arc<socket::Socket>>,
}

/// What bytes come and go through.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub(super) struct Opening {
    line: Line,
    host: String,
}

pub(super) struct Stream {
    wire: Box<dyn Wire>,
    /// What a login by TLS can be bound to.
    endpoint: Option<Vec<u8>>,
    guard: Guard,
    clock: Clock,
    chunk: Box<[u8]>,
    /// What has been read into the chunk and not been passed on.
    begin: usize,
    end: usize,
}

impl MakeTlsConnect<Socket> for Line {
    type Stream = Stream;
    type TlsConnect = Opening;
    type Error = Problem;

    fn make_tls_connect(&mut self, host: &str) -> Result<Opening, Problem> {
        Ok(Opening { line: self.clone(), host: host.to_string() })
    }
}

impl TlsConnect<Socket> for Opening {
    type Stream = Stream;
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Problem>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let Opening { line, host } = self;
            let opened = tokio::time::timeout(line.limit, open(socket, &line, &host)).await;
            let (wire, endpoint) =
                opened.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
            let chunk = vec![0; CHUNK].into_boxed_slice();
            let (guard, clock) = (Guard::new(line.limits), Clock::new(line.patience));
            Ok(Stream { wire, endpoint, guard, clock, chunk, begin: 0, end: 0 })
        })
    }
}

async fn open(mut socket: Socket, line: &Line, host: &str) -> Result<(Box<dyn Wire>, Option<Vec<u8>>), Problem> {
    if let Some(other) = &line.socket {
        return Ok((other.open(socket).await?, None));
    }
    if line.use_of_tls == Use::Never {
        return Ok((Box::new(socket), None));
    }
    if !line.tls.is_direct() {
        socket.write_all(&REQUEST).await?;
        // One byte and no more: what follows in the clear must not be taken for something that came by TLS.
        match (socket.read_u8().await?, line.use_of_tls) {
            (b'S', _) => {}
            (b'N', Use::IfOffered) => return Ok((Box::new(socket), None)),
            (b'N', _) => return Err("server does not support TLS".into()),
            _ => return Err("it answered neither yes nor no to the question whether it supports TLS".into()),
        }
    }
    let (connector, host) = line.tls.prepare(host)?;
    let encrypted = connector.connect(host, socket).await?;
    line.tls.check_protocol(&encrypted)?;
    let endpoint = tls::endpoint(&encrypted);
    Ok((Box::new(encrypted), endpoint))
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        self.endpoint.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl Stream {
    /// What is below, if the wait is not over.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut dyn Wire>> {
        self.clock.look(cx)?;
        Ok(Pin::new(&mut *self.wire))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Stream { wire, guard, clock, chunk, begin, end, .. } = self.get_mut();
        clock.look(cx)?;
        let before = out.filled().len();
        loop {
            if guard.is_time_to_pause() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            *begin += guard.pass(&chunk[*begin..*end], out)?;
            if out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut read = ReadBuf::new(chunk);
            ready!(Pin::new(&mut *wire).poll_read(cx, &mut read))?;
            (*begin, *end) = (0, read.filled().len());
            guard.in_time()?;
            if *end == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().in_time(cx)?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().in_time(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().in_time(cx)?.poll_shutdown(cx)
    }
}
