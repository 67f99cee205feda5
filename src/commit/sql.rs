//! Statements of two-phase commit, and of TWO_PHASE=false.

use crate::backlog::position::Position;
use crate::base::names::quote_literal;

/// A number and a token for the next batch.
pub const NEXT_BATCH: &str = "select nextval('public.replica_batch_seq'), replace(gen_random_uuid()::text, '-', '')";

pub const COMMITTED_BATCH: &str = "select batch from public.replica_slave where field = $1::text::name";

pub const PREPARED: &str = "select gid, database::text, owner::text, \
     extract(epoch from now() - prepared)::bigint as age, database = current_database() as here, \
     owner = current_user as own \
     from pg_prepared_xacts order by prepared";

/// The slave's row for this pair. $1 names the pair, $2 is the token and $3 the history of the master's row.
pub const PROGRESS: &str = "select master, batch, token, former, identity, history, position, ts::timestamptz(0)::text as ts \
     from public.replica_progress where master = $1 or token = $2 or history = $3 \
     order by master = $1 desc, ts desc limit 1";

pub const PROGRESS_ROW: &str = "insert into public.replica_progress (master, batch, position) values ($1, 0, '') \
     on conflict (master) do nothing";

/// Writes the slave's row after a repair or a copy of all tables.
pub const SET_PROGRESS: &str = "insert into public.replica_progress (master, batch, token, identity, history, position) \
     values ($1, $2, $3, $4, $5, $6) on conflict (master) do update set batch = excluded.batch, token = excluded.token, \
     former = null, identity = excluded.identity, history = excluded.history, position = excluded.position, ts = now()";

/// SQLSTATE of `note_progress` when the row is not as the last batch has left it. The statement divides by the number
/// of rows that it has updated.
pub const NOT_NOTED: &str = "22012";

/// Writes the slave's row, from `note_values`, if the batch with the token `before` has written it last. If a former connection's commit is
/// still in progress, it holds the row: the statement waits for it, and then finds another token.
pub fn note_progress(values: &[String; 8]) -> String {
    note(values, "true")
}

/// The types of the parameters of `note_progress_if`.
pub const NOTE_TYPES: &str = "bigint, text, text, text, text, text, text, text";

/// The same, to be prepared, and only if a condition is true.
pub fn note_progress_if(condition: &str) -> String {
    note(&["$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8"].map(str::to_string), condition)
}

/// What the statement writes and looks for, as literals.
pub fn note_values(key: &str, before: Option<&str>, row: &ProgressRow) -> [String; 8] {
    let text = |text: Option<&str>| text.map_or("null".to_string(), quote_literal);
    let ProgressRow { position, former, identity, history } = row;
    [
        position.batch.to_string(),
        text(position.token.as_deref()),
        text(former.as_deref()),
        quote_literal(identity),
        text(*history),
        quote_literal(&position.encode()),
        quote_literal(key),
        text(before),
    ]
}

fn note([batch, token, former, identity, history, position, key, before]: &[String; 8], condition: &str) -> String {
    format!(
        "with noted as (update public.replica_progress set batch = {batch}, token = {token}, former = {former}, \
         identity = {identity}, history = {history}, position = {position}, ts = pg_catalog.now() \
         where master operator(pg_catalog.=) {key} \
         and (token operator(pg_catalog.=) {before} or token is null and {before} is null) and {condition} returning 1) \
         select 1 operator(pg_catalog./) pg_catalog.count(*) from noted"
    )
}

/// What a batch writes into the slave's row.
pub struct ProgressRow<'a> {
    pub position: &'a Position,
    pub former: Option<String>,
    /// The master's database.
    pub identity: &'a str,
    pub history: Option<&'a str>,
}

/// A switchover holds this lock from before its first PREPARE until its last commit: nobody else settles what it prepares. If it is
/// stopped in between, the server takes the lock from it.
pub const HOLD_SWITCHOVER: &str = "begin; set local lock_timeout = '5s'; \
     set local idle_in_transaction_session_timeout = '5s'; \
     lock table public.replica_slave in share update exclusive mode";

/// Returns when no switchover is in progress.
pub const WAIT_FOR_SWITCHOVER: &str = "begin; lock table public.replica_slave in share update exclusive mode; commit";

/// Renames the pair in all tables of the slave. The name contains a digest of the log's database, and after a restore
/// in another cluster the log has another one.
pub const RENAME_PAIR: [&str; 5] = [
    "delete from public.replica_progress where master = $2 and token is null and exists \
         (select from public.replica_progress where master = $1)",
    "update public.replica_progress set master = $2 where master = $1",
    "update public.replica_hold set master = $2 where master = $1",
    "update public.replica_held set master = $2 where master = $1",
    "update public.replica_conflict set master = $2 where master = $1",
];

/// The statements that go back to a slave's own position. This one comes first: it keeps others from deleting rows of
/// the log meanwhile.
pub const KEEP_LOG: &str = "begin; lock table public.replica_purged in share row exclusive mode";

/// Whether rows may have been deleted that a position does not cover. $1 is the position's floor, $2 its base.
pub const IS_PURGED: &str = "select exists (select from public.replica_purged where id > $1 \
     and coalesce(txid >= pg_snapshot_xmin($2::text::pg_snapshot), true))";

/// From which id on flags are to be set.
pub const FLAGGED: &str = "update public.replica_slave set flagged = $2 where field = $1::text::name";

pub const GO_BACK: &str = include_str!("../../sql/query/go_back.sql");
