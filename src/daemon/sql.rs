//! Statements with which the daemon records its failures on the master.

pub const RECORD_ERROR: &str = include_str!("../../sql/query/status/note_error.sql");

pub const SESSION_STATE: &str = include_str!("../../sql/query/session_state.sql");

/// A transaction that waits for a synchronous standby is committed already: cancelled, it would not wait any more.
pub const CANCEL: &str = "select pg_cancel_backend(pid) from pg_stat_activity \
     where pid = $1 and wait_event is distinct from 'SyncRep'";

pub const TERMINATE: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
     where pid = $1 and wait_event is distinct from 'SyncRep'";
