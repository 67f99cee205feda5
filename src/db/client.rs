//! A blocking client over tokio-postgres: one small runtime a session, driven only while somebody waits for it. The
//! crate's own blocking client cannot give up a server that accepts a connection and then says nothing.

use crate::tls::Connector;
use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Config, Error, Row, SimpleQueryMessage, Statement};

/// How long a closing session waits until its last message is on its way.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a connection did not come about.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server or the network said no.
    Refused(Error),
    /// Nobody said anything for this long.
    Silent(Duration),
    /// The host name has no address.
    Unresolved(io::Error),
}

pub(super) struct Client {
    // Dropped by hand, because the connection ends only when nobody can send requests any more.
    requests: Option<tokio_postgres::Client>,
    wire: Wire,
}

/// Polls the connection for its next notice or notification, and moves all other traffic on the way.
type Driver = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>> + Send>;

struct Wire {
    runtime: Runtime,
    /// None once the connection is over.
    driver: Option<Driver>,
    /// Notifications that nobody has waited for yet; what they say is of no interest.
    notifications: u64,
}

/// All addresses of a host name.
pub(super) fn resolve(host: &str, limit: Duration) -> Result<Vec<IpAddr>, Failure> {
    let runtime = new_runtime().map_err(Failure::Unresolved)?;
    let found = runtime.block_on(async { timeout(limit, tokio::net::lookup_host((host, 0))).await });
    let result = match found {
        Ok(Ok(addresses)) => Ok(addresses.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(Failure::Unresolved(error)),
        Err(_) => Err(Failure::Silent(limit)),
    };
    // The resolver of the system cannot be interrupted; whatever it finds later is of no use.
    runtime.shutdown_background();
    result
}

impl Client {
    /// Connects to the one address in `config`; TCP, TLS and login together take no longer than `limit`.
    pub(super) fn connect(config: &Config, tls: &Connector, limit: Duration) -> Result<Client, Failure> {
        let runtime = new_runtime().map_err(Failure::Unresolved)?;
        let connected = runtime.block_on(async { timeout(limit, config.connect(tls.clone())).await });
        let (requests, mut connection) = match connected {
            Ok(Ok(both)) => both,
            Ok(Err(error)) => return Err(Failure::Refused(error)),
            Err(_) => return Err(Failure::Silent(limit)),
        };
        let driver: Driver = Box::new(move |cx| connection.poll_message(cx));
        let wire = Wire { runtime, driver: Some(driver), notifications: 0 };
        Ok(Client { requests: Some(requests), wire })
    }

    pub(super) fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        self.run(async |client| client.prepare(sql).await)
    }

    pub(super) fn query(&mut self, sql: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.run(async |client| client.query(sql, params).await)
    }

    pub(super) fn execute(&mut self, sql: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.run(async |client| client.execute(sql, params).await)
    }

    pub(super) fn simple_query(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.run(async |client| client.simple_query(sql).await)
    }

    /// True when a notification came in time, false when none did or the connection is over.
    pub(super) fn wait_for_notification(&mut self, limit: Duration) -> Result<bool, Error> {
        self.wire.wait_for_notification(limit)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.wire.driver.is_none()
    }

    /// Something that cancels this session's statement from another thread, as encrypted as the session itself.
    pub(super) fn canceller(&self, tls: Connector, limit: Duration) -> impl Fn() -> Result<(), Failure> + Send + use<> {
        let token = self.requests().cancel_token();
        move || {
            let runtime = new_runtime().map_err(Failure::Unresolved)?;
            match runtime.block_on(async { timeout(limit, token.cancel_query(tls.clone())).await }) {
                Ok(answer) => answer.map_err(Failure::Refused),
                Err(_) => Err(Failure::Silent(limit)),
            }
        }
    }

    fn requests(&self) -> &tokio_postgres::Client {
        self.requests.as_ref().expect("there until the drop")
    }

    fn run<T>(&mut self, request: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T, Error>) -> Result<T, Error> {
        let client = self.requests.as_ref().expect("there until the drop");
        self.wire.drive(request(client))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.requests.take());
        let wire = &mut self.wire;
        let farewell = poll_fn(|cx| match poll_messages(&mut wire.driver, &mut wire.notifications, cx) {
            Ok(()) if wire.driver.is_some() => Poll::Pending,
            _ => Poll::Ready(()),
        });
        // Either way the connection is gone.
        let _ = wire.runtime.block_on(async { timeout(GOODBYE, farewell).await });
    }
}

impl Wire {
    fn drive<T>(&mut self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut request = pin!(request);
        let Wire { runtime, driver, notifications } = self;
        runtime.block_on(poll_fn(|cx| {
            if let Err(error) = poll_messages(driver, notifications, cx) {
                return Poll::Ready(Err(error));
            }
            request.as_mut().poll(cx)
        }))
    }

    fn wait_for_notification(&mut self, limit: Duration) -> Result<bool, Error> {
        let Wire { runtime, driver, notifications } = self;
        runtime.block_on(async {
            let mut timer = pin!(sleep(limit));
            let next = poll_fn(|cx| {
                if let Err(error) = poll_messages(driver, notifications, cx) {
                    return Poll::Ready(Err(error));
                }
                if *notifications > 0 {
                    *notifications -= 1;
                    return Poll::Ready(Ok(true));
                }
                if driver.is_none() {
                    return Poll::Ready(Ok(false));
                }
                timer.as_mut().poll(cx).map(|()| Ok(false))
            });
            next.await
        })
    }
}

/// Takes in everything that has come; the driver is gone afterwards if the connection has ended.
fn poll_messages(driver: &mut Option<Driver>, notifications: &mut u64, cx: &mut Context<'_>) -> Result<(), Error> {
    while let Some(poll) = driver {
        match poll(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Some(Ok(AsyncMessage::Notification(_)))) => *notifications += 1,
            Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                log::trace!(target: "pyreplica", "{}: {}", notice.severity(), notice.message());
            }
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => {
                *driver = None;
                return Err(error);
            }
            Poll::Ready(None) => *driver = None,
        }
    }
    Ok(())
}

fn new_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => match error.source() {
                Some(source) if !error.to_string().ends_with(&source.to_string()) => write!(f, "{error}: {source}"),
                _ => write!(f, "{error}"),
            },
            Failure::Silent(limit) => write!(f, "no answer within {} s", limit.as_secs()),
            Failure::Unresolved(error) => write!(f, "{error}"),
        }
    }
}
