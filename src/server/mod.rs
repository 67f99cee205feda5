//! A session on one of the two servers: how it is opened, secured and set up, and what is checked before it is used.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements about a server |
//! | `libpq` | what a connection string leaves out: service files, environment, `~/.pgpass` |
//! | `tls` | TLS as psql does it, with rustls |
//! | `session` | one session: queries, messages, transactions, COPY; the only importer of the postgres crate |
//! | `checks` | what must be so before replication starts |
//! | `connect` | connecting within a limit |
//! | `connect_pair` | both servers of a pair, for a verb |
//!
//! PostgreSQL's counterpart is libpqwalreceiver: the one place that talks to the other server.

pub mod sql;
pub mod libpq;
pub mod tls;
pub mod session;
pub mod checks;
pub mod connect;
pub mod connect_pair;
