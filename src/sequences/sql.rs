//! Statements about sequences.

use crate::server::sql::with_own;
use std::sync::LazyLock;

pub static SEQUENCES: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/sequences.sql")));

pub const MOVED: &str = include_str!("../../sql/query/moved.sql");

/// Changes with every sequence that is created, altered, renamed or dropped, and every right to one.
pub const CATALOG: &str = "select count(*), sum(c.xmin::text::bigint + s.xmin::text::bigint)::text \
     from pg_sequence s join pg_class c on c.oid = s.seqrelid";

/// Begins a look at sequences, or setting them. No view is read, which may have got the name of a sequence. The session may
/// plan for other tables, where no more than an index is worth reading.
const BEGIN: &str = "begin; set local statement_timeout = '60s'; set local enable_seqscan = on; \
     set local enable_hashjoin = on; set local enable_bitmapscan = on; \
     select set_config(name, 'view, foreign-table', true) from pg_settings where name = 'restrict_nonsystem_relation_kind'";

/// Somebody may hold a lock on a sequence for long: the daemon does not wait for that. Nor is there a deadlock with an
/// application, since this session gives up first.
const HURRY: &str = "set local lock_timeout = '200ms'";

/// Begins a transaction that waits for locks as the session does, or hardly at all.
pub fn begin(waits: bool) -> String {
    if waits { BEGIN.to_string() } else { format!("{BEGIN}; {HURRY}") }
}

/// The names of these sequences, now that reading them has locked them.
pub const NAMES: &str = "select c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) from pg_class c \
     join pg_namespace n on n.oid = c.relnamespace where c.oid = any ($1::oid[]) and c.relkind = 'S'";

/// Sets sequences by their numbers: their owner may give a name to something else at any moment.
pub const SET: &str = "select setval(s.oid::regclass, s.value, s.is_called) \
     from unnest($1::oid[], $2::bigint[], $3::boolean[]) s (oid, value, is_called)";

/// Whether changes may be replayed under the name of a table.
pub const KNOWS: &str = "select public.py_log_knows($1, $2)";

/// Whether a daemon replays from there to the database $1. One that has not replayed a batch yet has not said where to. A row
/// without a history was only prepared, for a switchover.
pub const IS_FED_BACK: &str = "select exists (select from public.replica_slave s \
     where coalesce(to_jsonb(s) ->> 'slave', $1) = $1 and to_jsonb(s) ->> 'history' is not null)";
