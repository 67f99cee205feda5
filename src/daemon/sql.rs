//! Statements with which the daemon records its failures on the master.

pub const RECORD_ERROR: &str = include_str!("../../sql/query/status/note_error.sql");

pub const RECORD_RECOVERY: &str = "update public.replica_error set recovered = now() \
     where field = $1::text::name and recovered is null";
