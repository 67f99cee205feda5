//! All pairs of a process, and the mails about them.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements by which the daemon leaves its failures on the master |
//! | `notices` | what is worth a mail, and when |
//! | `mail` | hands a mail to the mail server; the only importer of lettre |
//! | `outbox` | mails that wait to be sent |
//! | `report` | leaves failures on the master, for `pyreplica status` |
//! | `supervisor` | a thread for each pair, started again after a failure |
//!
//! PostgreSQL's logical replication launcher starts its workers likewise; a slon is such a process for one node.

pub mod sql;
pub mod notices;
pub mod mail;
pub mod outbox;
pub mod report;
pub mod supervisor;
