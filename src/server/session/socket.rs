//! Puts a Unix socket where the postgres crate has a TCP connection.
//!
//! The crate opens a Unix socket itself and keeps it, so nobody could close it while its server hangs, and nothing would bound what
//! comes from it. Only of a TCP connection it hands the socket over (`line.rs`). So the crate connects by TCP, to a listener
//! of this process, the door. `Socket::open` drops that connection before a byte goes over it, and connects to the Unix socket
//! in its place. Whoever else connects to the door gets nothing.

use super::line::Wire;
use crate::config::dsn::Dsn;
use crate::server::tls;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A connection to this process itself is there at once, or packets are dropped on this machine.
pub(super) const TIME_TO_DOOR: Duration = Duration::from_secs(1);

/// More than the kernel keeps for a listener.
const MOST_VISITORS: usize = 10_000;

static DOOR: OnceLock<TcpListener> = OnceLock::new();

pub(super) struct Socket {
    path: PathBuf,
    is_reached: AtomicBool,
}

/// Nothing listens on the Unix socket, or it cannot be reached.
#[derive(Debug)]
pub(super) struct Unreachable(io::Error);

impl Socket {
    /// None if the connection string is not about a Unix socket.
    pub(super) fn of(dsn: &Dsn) -> Option<Arc<Socket>> {
        let directory = dsn.get("host").filter(|host| cfg!(unix) && host.starts_with('/') && tls::is_socket(dsn))?;
        let path = Path::new(directory).join(format!(".s.PGSQL.{}", dsn.get("port").unwrap_or_default().trim()));
        Some(Arc::new(Socket { path, is_reached: AtomicBool::new(false) }))
    }

    /// The connection string with the door in the place of the socket.
    pub(super) fn through_door(dsn: &Dsn) -> io::Result<Dsn> {
        let address = door()?.local_addr()?;
        let dsn = dsn.clone().with("host", "localhost").with("hostaddr", address.ip().to_string());
        Ok(dsn.with("port", address.port().to_string()))
    }

    /// Whether the crate has handed its TCP connection over.
    pub(super) fn is_reached(&self) -> bool {
        self.is_reached.load(Relaxed)
    }

    pub(super) async fn open(&self, by_tcp: postgres::Socket) -> Result<Box<dyn Wire>, Unreachable> {
        self.is_reached.store(true, Relaxed);
        drop(by_tcp);
        if let Some(door) = DOOR.get() {
            show_out(door);
        }
        connect(&self.path).await.map_err(Unreachable)
    }
}

#[cfg(unix)]
async fn connect(path: &Path) -> io::Result<Box<dyn Wire>> {
    Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
}

#[cfg(windows)]
async fn connect(_path: &Path) -> io::Result<Box<dyn Wire>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

fn door() -> io::Result<&'static TcpListener> {
    if let Some(door) = DOOR.get() {
        show_out(door);
        return Ok(door);
    }
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    door.set_nonblocking(true)?;
    Ok(DOOR.get_or_init(|| door))
}

/// Ends the connections that have arrived, so that there is room for the next one.
fn show_out(door: &TcpListener) {
    for _ in 0..MOST_VISITORS {
        if door.accept().is_err() {
            return;
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error connecting to server: {}", self.0)
    }
}

impl std::error::Error for Unreachable {}
