//! The sequences of the master, which no trigger logs: reads them on both sides, and sets those of the slave.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements about sequences |
//! | `sequence` | the sequences of one side, read page by page |
//! | `known` | which sequences of the master have moved since the last look, cheaply |
//! | `decision` | whether a sequence of the slave is to be set, and if not, why |
//! | `setting` | sets the slave's sequences: all of them once, exactly |
//! | `follower` | lets them follow while the pair runs |
//! | `comparison` | how far the slave's are, for status and doctor |
//!
//! PostgreSQL's logical replication copies sequences on request only, from version 19 on. Slony-I reads all of them with each
//! SYNC.

pub mod sql;
pub mod sequence;
pub mod known;
pub mod decision;
pub mod setting;
pub mod follower;
pub mod comparison;
