//! The initial copy of tables to a slave, while the master works.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of the initial copy |
//! | `plan` | which tables and columns, in which format |
//! | `script` | takes a script of pg_restore apart |
//! | `remaining` | what of the schema is made after the rows |
//! | `schema` | creates tables, by pg_dump and pg_restore |
//! | `copier` | copies all tables, or single ones while the daemon runs |
//! | `precheck` | what would stop a copy, before anything is installed for it |
//!
//! PostgreSQL: `tablesync.c`. Slony-I: the copy of SUBSCRIBE SET. pgcopydb: `clone`.

pub mod sql;
pub mod plan;
pub mod script;
pub mod remaining;
pub mod schema;
pub mod copier;
pub mod precheck;
