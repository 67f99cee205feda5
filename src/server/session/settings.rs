//! Turns a completed connection string into settings of the postgres crate.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::dsn::Dsn;
use postgres::Config;
use postgres::config::{ChannelBinding, TargetSessionAttrs};
use std::time::Duration;

/// The time limit for a connection if the connection string has no connect_timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// In libpq, 0 and less mean "no limit". This time is long enough to mean the same.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// libpq's lower bound, so that a slow server is not taken for a dead one.
const SHORTEST_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The session notices a dead network after idle + retries * interval. The system's default is two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_RETRIES: u32 = 3;

/// The session notices a dead network after this time if the other side does not acknowledge sent data.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// The client asks a server whether its transactions are read-only, and goes away if they are. It is to leave standbys, and not a
/// database that is fenced.
const NOT_READ_ONLY: &str = "-c default_transaction_read_only=off";

/// All settings except TLS, which differs between attempts; and how long one attempt may take.
pub(super) fn of(side: Side, dsn: &Dsn, label: &str) -> Result<(Config, Duration)> {
    let mut config = Config::new();
    config
        .application_name(&format!("pyreplica {label}"))
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(USER_TIMEOUT)
        .notice_callback(|notice| log::trace!(target: "pyreplica", "{}: {}", notice.severity(), notice.message()));
    let mut limit = CONNECT_TIMEOUT;
    let has_address = dsn.get("hostaddr").is_some_and(|address| !address.is_empty());
    let is_path = |key, value: &str| key == "host" && value.starts_with('/');
    for (key, value) in dsn.iter().filter(|(_, value)| !value.is_empty()) {
        if has_address && is_path(key, value) {
            continue;
        }
        let applied = match key {
            "connect_timeout" => connect_timeout(value).map(|given| limit = given),
            _ => apply(&mut config, key, value),
        };
        let shown = if Dsn::is_secret(key) { key.to_string() } else { format!("{key}={value}") };
        applied.map_err(|reason| Error::new(Kind::Config, Some(side), format!("use {shown}"), reason))?;
    }
    // Without a host name the address takes its place. verify-full compares names, so `tls.rs` has refused it by then.
    if config.get_hosts().is_empty() {
        dsn.get("hostaddr").map(|address| config.host(address));
    }
    if matches!(dsn.get("target_session_attrs"), Some("read-write" | "primary")) {
        config.options(&format!("{NOT_READ_ONLY} {}", dsn.get("options").unwrap_or_default()));
    }
    config.connect_timeout(limit);
    Ok((config, limit))
}

fn connect_timeout(value: &str) -> std::result::Result<Duration, String> {
    match value.trim().parse::<i64>().map_err(|_| "this is not a number")? {
        seconds if seconds > 0 => Ok(Duration::from_secs(seconds as u64).clamp(SHORTEST_CONNECT_TIMEOUT, FOR_EVER)),
        _ => Ok(FOR_EVER),
    }
}

/// Applies one keyword of libpq. Keywords that only control libpq's own working have no effect. A keyword that asks for
/// something that pyreplica cannot do is an error.
fn apply(config: &mut Config, key: &str, value: &str) -> std::result::Result<(), String> {
    let number = || value.trim().parse::<u64>().map_err(|_| "this is not a number".to_string());
    let seconds = || number().map(Duration::from_secs);
    let only = |allowed: &[&str], reason: &str| {
        if allowed.contains(&value) { Ok(()) } else { Err(reason.to_string()) }
    };
    match key {
        "host" => drop(config.host(value)),
        "hostaddr" => drop(config.hostaddr(value.parse().map_err(|_| "this is not an IP address")?)),
        "port" => drop(config.port(value.trim().parse().map_err(|_| "this is not a port number")?)),
        "dbname" => drop(config.dbname(value)),
        "user" => drop(config.user(value)),
        "password" => drop(config.password(value)),
        "options" => drop(config.options(value)),
        "keepalives" => drop(config.keepalives(value != "0")),
        "keepalives_idle" => drop(config.keepalives_idle(seconds()?)),
        "keepalives_interval" => drop(config.keepalives_interval(seconds()?)),
        "keepalives_count" => drop(config.keepalives_retries(number()? as u32)),
        "tcp_user_timeout" => drop(config.tcp_user_timeout(number().map(Duration::from_millis)?)),
        "target_session_attrs" => match value {
            "any" => drop(config.target_session_attrs(TargetSessionAttrs::Any)),
            "read-write" | "primary" => drop(config.target_session_attrs(TargetSessionAttrs::ReadWrite)),
            _ => return Err("replication writes on both sides: use any, read-write or primary".into()),
        },
        "channel_binding" => match value {
            "disable" => drop(config.channel_binding(ChannelBinding::Disable)),
            "prefer" => drop(config.channel_binding(ChannelBinding::Prefer)),
            "require" => drop(config.channel_binding(ChannelBinding::Require)),
            _ => return Err("it must be disable, prefer or require".into()),
        },
        "sslpassword" => {
            return Err("keys with a passphrase are not supported: remove the passphrase with openssl pkey".into());
        }
        "sslcrldir" => return Err("directories of revocation lists are not supported: name a file with sslcrl".into()),
        "sslcertmode" => only(&["disable", "allow"], "only disable and allow are supported")?,
        "sslkeylogfile" | "requirepeer" | "require_auth" => return Err("this is not supported".into()),
        "gssencmode" => only(&["disable", "prefer"], "GSSAPI is not supported: use disable or prefer")?,
        "min_protocol_version" => only(&["3.0"], "only protocol 3.0 is supported, which every server speaks")?,
        "replication" => only(&["false", "off", "no", "0"], "the replication protocol is not supported")?,
        "load_balance_hosts" => only(&["disable", "random"], "it must be disable or random")?,
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dsn: &str) -> Result<(Config, Duration)> {
        of(Side::Master, &Dsn::parse(dsn).unwrap(), "test")
    }

    #[test]
    fn connecting_has_a_time_limit_unless_the_operator_wants_none() {
        let limit = |dsn| settings(dsn).unwrap().1;
        assert_eq!(limit("host=a"), CONNECT_TIMEOUT);
        assert_eq!(limit("connect_timeout=1"), SHORTEST_CONNECT_TIMEOUT);
        assert_eq!(limit("connect_timeout=30"), Duration::from_secs(30));
        assert_eq!(limit("connect_timeout=0"), FOR_EVER);
        assert_eq!(limit("connect_timeout=-1"), FOR_EVER);
    }

    #[test]
    fn unsupported_keywords_are_refused_and_no_secret_is_shown() {
        for dsn in ["gssencmode=require", "require_auth=scram-sha-256", "requirepeer=joe", "sslcrldir=/x"] {
            assert_eq!(settings(dsn).unwrap_err().kind(), Kind::Config, "{dsn}");
        }
        let error = settings("sslpassword=hunter2").unwrap_err().to_string();
        assert!(error.contains("sslpassword") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn empty_values_count_as_left_out() {
        assert!(settings("sslpassword='' require_auth='' channel_binding='' target_session_attrs=''").is_ok());
    }
}
