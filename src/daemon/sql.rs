//! Statements with which the daemon records its failures on the master.

pub const RECORD_ERROR: &str = include_str!("../../sql/query/status/note_error.sql");

pub const RECORD_RECOVERY: &str = "update public.replica_error set recovered = now() \
     where field = $1::text::name and recovered is null";

pub const SESSION_STATE: &str = "select coalesce(state, '') as state, wait_event_type as kind, wait_event as event \
     from pg_stat_activity where pid = $1";

pub const TERMINATE: &str = "select pg_terminate_backend($1)";
