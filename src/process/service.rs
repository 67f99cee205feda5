//! Tells the service manager, systemd, how the daemon is doing: the protocol of `sd_notify`, which is a datagram of lines to the
//! socket that NOTIFY_SOCKET names. Without the variable nobody asks, and nothing is sent.

use crate::process::logger::OWN_TARGET;

/// The daemon runs, or runs again after `reloading`. The status is a line for people.
pub fn ready(status: &str) {
    if let Err(why) = imp::send(&format!("READY=1\nSTATUS={status}")) {
        log::warn!(target: OWN_TARGET, "cannot tell the service manager that pyreplica is ready: {why}");
    }
}

pub fn reloading() {
    // Only Type=notify-reload needs the time, and compares it with the time of its signal.
    let time = imp::time().map(|time| format!("\nMONOTONIC_USEC={time}")).unwrap_or_default();
    or_debug(imp::send(&format!("RELOADING=1{time}")));
}

pub fn stopping() {
    or_debug(imp::send("STOPPING=1\nSTATUS=stopping"));
}

pub fn status(status: &str) {
    or_debug(imp::send(&format!("STATUS={status}")));
}

/// The service manager can do without.
fn or_debug(sent: std::io::Result<()>) {
    if let Err(why) = sent {
        log::debug!(target: OWN_TARGET, "cannot tell the service manager anything: {why}");
    }
}

#[cfg(all(unix, target_os = "linux"))]
mod imp {
    use std::ffi::OsStr;
    use std::fs;
    use std::io;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    use std::time::Duration;

    /// A service manager that reads nothing for so long is not waited for.
    const SEND_LIMIT: Duration = Duration::from_secs(2);

    pub fn send(message: &str) -> io::Result<()> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_LIMIT))?;
        socket.send_to_addr(message.as_bytes(), &address(&name)?).map(drop)
    }

    /// A name that begins with `@` is in Linux's abstract namespace.
    fn address(name: &OsStr) -> io::Result<SocketAddr> {
        match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
            [b'/', ..] => SocketAddr::from_pathname(name),
            _ => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "NOTIFY_SOCKET is neither a path nor an abstract name"))
            }
        }
    }

    /// Microseconds since the machine started, rounded up. The monotonic clock, for which std has no number, is not ahead of it.
    pub fn time() -> Option<u64> {
        let text = fs::read_to_string("/proc/uptime").ok()?;
        let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
        let (seconds, hundredths): (u64, u64) = (seconds.parse().ok()?, hundredths.parse().ok()?);
        Some((seconds * 100 + hundredths + 1) * 10_000)
    }
}

#[cfg(not(all(unix, target_os = "linux")))]
mod imp {
    pub fn send(_message: &str) -> std::io::Result<()> {
        Ok(())
    }

    pub fn time() -> Option<u64> {
        None
    }
}
