//! Sessions on the two servers: opens, encrypts and sets them up, and checks both servers before replication starts.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements about a server |
//! | `libpq` | completes a connection string from service files, the environment and `~/.pgpass` |
//! | `tls` | TLS as psql does it, with rustls |
//! | `session` | one session: queries, messages, transactions, COPY; bounds what a server sends; the only importer of the postgres crate |
//! | `ours` | which of pyreplica's tables a database has, and whether their owners are trusted |
//! | `checks` | what replication needs before it starts |
//! | `connect` | connects within a time limit |
//! | `role` | which of the two databases is the master |
//! | `fence` | keeps writers off the database that is not |
//! | `connect_pair` | connects to both servers of a pair, for a verb, in the direction in force |
//!
//! In PostgreSQL, libpqwalreceiver does this: it is the one place that talks to the other server.

pub mod sql;
pub mod libpq;
pub mod tls;
pub mod session;
pub mod ours;
pub mod checks;
pub mod connect;
pub mod role;
pub mod fence;
pub mod connect_pair;
