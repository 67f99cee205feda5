//! Runs all pairs of a process, and sends mails about them.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements with which the daemon records its failures on the master |
//! | `notices` | decides which problems are worth a mail, and when |
//! | `mail` | sends a mail to the mail server; the only importer of lettre |
//! | `outbox` | a queue of mails that wait to be sent |
//! | `report` | records failures on the master, for `pyreplica status` |
//! | `watchdog` | notices a server that does not answer, and closes the connection |
//! | `supervisor` | a thread for each pair, which tries again after a failure |
//!
//! PostgreSQL's logical replication launcher starts its workers in the same way. In Slony-I, a slon is such a process
//! for one node.

pub mod sql;
pub mod notices;
pub mod mail;
pub mod outbox;
pub mod report;
pub mod watchdog;
pub mod supervisor;
