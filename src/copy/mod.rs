//! The initial copy of tables to a slave, while the master works.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of the initial copy |
//! | `plan` | which tables and columns, in which format |
//! | `not_valid` | checks that rows may violate: they are added after the rows |
//! | `schema` | creates tables and indexes, by pg_dump and pg_restore |
//! | `copier` | copies all tables, or single ones while the daemon runs |
//!
//! PostgreSQL: `tablesync.c`. Slony-I: the copy of SUBSCRIBE SET. pgcopydb: `clone`.

pub mod sql;
pub mod plan;
pub mod not_valid;
pub mod schema;
pub mod copier;
