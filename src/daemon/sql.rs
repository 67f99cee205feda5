//! Statements by which the daemon leaves its failures on the master.

pub const NOTE_ERROR: &str = include_str!("../../sql/query/status/note_error.sql");

pub const NOTE_RECOVERY: &str = "update public.replica_error set recovered = now() \
     where field = $1::text::name and recovered is null";
