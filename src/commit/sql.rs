//! Statements of two-phase commit, and of its substitute.

pub const NEXT_BATCH: &str = "select nextval('public.replica_batch_seq')";

pub const COMMITTED_BATCH: &str = "select batch from public.replica_slave where field = $1::text::name";

pub const PREPARED: &str = "select gid, database::text, owner::text, \
     extract(epoch from now() - prepared)::bigint as age, database = current_database() as here \
     from pg_prepared_xacts order by prepared";

pub const PROGRESS: &str = "select batch, position from public.replica_progress where master = $1";

pub const PROGRESS_ROW: &str = "insert into public.replica_progress (master, batch, position) values ($1, 0, '') \
     on conflict (master) do nothing";

/// Only if the row still says what the daemon believes: a commit that was under way when a connection broke is waited
/// for here, and then seen.
pub const NOTE_PROGRESS: &str = "update public.replica_progress set batch = $2, position = $3, ts = now() \
     where master = $1 and batch = $4";
