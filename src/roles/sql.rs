//! Statements about locks, objects and roles.

use crate::backlog::sql::own;
use crate::server::sql::with_own;
use std::sync::LazyLock;

pub const MASTER_INSTALL: &str = include_str!("../../sql/master-install.sql");

pub const MASTER_INSTALL_DDL: &str = include_str!("../../sql/master-install-ddl.sql");

pub const MASTER_UNINSTALL: &str = include_str!("../../sql/master-uninstall.sql");

pub const SLAVE_UNINSTALL: &str = include_str!("../../sql/slave-uninstall.sql");

pub static UNINSTALL_OBJECTS: LazyLock<String> =
    LazyLock::new(|| with_own(include_str!("../../sql/query/uninstall/objects.sql")));

pub const UNINSTALL_SESSIONS: &str = include_str!("../../sql/query/uninstall/sessions.sql");

/// How many changes the log holds, at most $1 and one more.
pub const COUNT_LOG: &str = "select count(*) from (select from public.replica_log limit $1::bigint + 1) x";

/// The warnings of the first script.
pub const WARNINGS: &str = "select array(select jsonb_array_elements_text(coalesce(nullif(current_setting('pyreplica.told', true), ''), '[]')::jsonb))";

/// The tables that get the trigger, and whether they have it.
pub static TO_INSTALL: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/install.sql")));

/// Creates the triggers on one table. A partitioned table passes its trigger on to its partitions.
pub const CREATE_TRIGGERS: &str = "select public.py_log_create_tg($1::text, $2::text)";

/// Sets the search path of pyreplica's sessions again, in a session that has reset it.
pub const OWN_SESSION_PATH: &str = "set search_path = pg_catalog, pg_temp";

/// Others wait behind a session that waits for a lock. Returns the setting before.
pub const LOCK_BRIEFLY: &str = "select current_setting('lock_timeout'), set_config('lock_timeout', '100ms', false)";

pub const LOCK_TIMEOUT: &str = "select set_config('lock_timeout', $1, false)";

pub const BLOCKERS: &str = include_str!("../../sql/query/roles/blockers.sql");

pub static OBJECTS: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/roles/objects.sql")));

/// The other slaves of this master: field, last batch's token, the slave's database, and whether anything is pending for it.
pub const OTHER_SLAVES: &str = "select field::text, token, slave, batch from public.replica_slave \
     where field <> $1::text::name and token is not null order by field";

/// What replicates from this database by this field already, apart from these databases ($2).
pub const OTHER_USE: &str = "select slave from public.replica_slave \
     where field = $1::text::name and token is not null and (slave = any ($2)) is not true";

pub const ADD_SLAVE: &str = "select public.py_log_add_slave($1::text)";

pub const GRANT_DAEMON: &str = "select public.py_log_grant(current_user::text)";

/// What keeps the slave from being complete: changes in quarantine or held, and what is on hold.
pub const HELD: &str = "select (select count(*) from public.replica_held where master = $1), \
     coalesce((select string_agg(case relation when '' then 'the whole pair' else relation end, ', ') \
               from public.replica_hold where master = $1), '')";

/// Those of these tables whose files hold anything, which everybody may ask.
pub const WITH_ROWS: &str = "select r.name from unnest($1::text[]) r (name) \
     join pg_namespace n on n.nspname = (parse_ident(r.name))[1]::name \
     join pg_class c on c.relnamespace = n.oid and c.relname = (parse_ident(r.name))[2]::name \
     where exists (select from (select c.oid union select relid from pg_partition_tree(c.oid)) p (relid) \
         where pg_relation_size(p.relid) > 0) order by 1";

/// The tables whose copy is unfinished.
pub const COPYING: &str = "select coalesce(string_agg(relation, ', ' order by relation), '') from public.replica_hold \
     where master = $1 and why = 'copying'";

pub const MAY_NOTE_PROGRESS: &str = "select coalesce(has_table_privilege(to_regrole(quote_ident($1))::oid, to_regclass('public.replica_progress')::oid, 'update'), false)";

/// Gives up all held changes of a pair that has ended, and keeps them as skipped.
pub const GIVE_UP_HELD: &str = "with given_up as (delete from public.replica_held where master = $1 returning *) \
     insert into public.replica_skipped (master, id, txid, relation, event, old, new, sql, error, reason) \
     select master, id, txid, relation, event, old, new, sql, error, 'pyreplica failback' from given_up order by place";

pub const END_HOLDS: &str = "delete from public.replica_hold where master = $1";

pub const END_COPIES: &str = "delete from public.replica_copy where master = $1";

/// The filters and transforms of a master, by table.
pub const FILTERS: &str = "select relname::text from public.py_log_filter \
     union select relname::text from public.py_log_transform order by 1";

/// A name for a pair whose roles are exchanged for the first time.
pub const NAME_PAIR: &str = "select replace(gen_random_uuid()::text, '-', '')";

/// The snapshot of this moment, and the end of the log.
pub const NOW: &str = "select pg_current_snapshot()::text, (select coalesce(max(id), 0) from public.replica_log)";

pub const HISTORY: &str = "select history from public.replica_slave where field = $1::text::name";

/// Notes that a slave asks this database, which is not its master any more: field, other database, pair, epoch, where that is, and
/// the token if the slave was taken along.
pub const MOVED: &str = "insert into public.replica_role (field, peer, pair, role, epoch, peer_at, token) \
     values ($1::text::name, $2, $3, 'moved', $4, $5, $6) on conflict (field, peer) do update set pair = excluded.pair, \
     role = excluded.role, epoch = excluded.epoch, peer_at = excluded.peer_at, token = excluded.token, since = now()";

/// The pair's other database is another one since: its rows about the former ones go, or nobody could tell this one's role while the other
/// cannot be reached.
pub const FORGET_PEERS: &str =
    "delete from public.replica_role where field = $1::text::name and pair = $2 and peer <> $3";

/// This database is the master of this slave again.
pub const NOT_MOVED: &str = "delete from public.replica_role where field = $1::text::name and role = 'moved'";

pub fn lost(field: &str) -> String {
    own(field, include_str!("../../sql/query/roles/lost.sql"))
}

/// Whether the log has all that the slave's last batch has.
pub const SHOWS_BATCH: &str = include_str!("../../sql/query/roles/shows_batch.sql");

pub const LAST_VALUES: &str = include_str!("../../sql/query/roles/last_values.sql");

/// Moves a sequence on: $1 the sequence, $2 the outermost value of its column, $3 how many numbers to leave out, unless its end is
/// nearer.
pub const MOVE_ON: &str = include_str!("../../sql/query/roles/move_on.sql");

/// What the slave has replayed last for a field: one row for each master.
pub const LAST_REPLAYED: &str = "select master, batch, token, identity, position, ts::timestamptz(0)::text as ts \
     from public.replica_progress where right(master, -17) = $1 and token is not null order by ts desc";

/// Notes the last batch that a failover found.
pub const SET_LAST: &str = "update public.replica_role set batch = $3, token = $4 \
     where field = $1::text::name and peer = $2";

pub const FORGET_HISTORIES: &str = "delete from public.replica_history where field = $1::text::name";
