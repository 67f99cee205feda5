pub mod sql;
pub mod notices;
pub mod mail;
pub mod outbox;
pub mod report;
pub mod supervisor;
