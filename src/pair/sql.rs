//! Statements of a running pair: locks, signals, holds, an initial copy that is not finished.

pub const LISTEN: &str = "listen replicas";

/// For changes that a daemon replays, the trigger sends no NOTIFY, because a transaction with a NOTIFY cannot be prepared.
/// The daemon sends it to the slave's own replicas, once the changes are committed.
pub const NOTIFY: &str = "notify replicas";

/// For a daemon that waits for its next try after a failure. No trigger sends this signal, only an operator who has fixed
/// something, by a verb.
pub const LISTEN_FOR_RETRY: &str = "listen replica_retry";

pub const NOTIFY_RETRY: &str = "notify replica_retry";

/// Whether the trigger tries this slave's lock; makes it do so if possible.
pub const CAN_WAKE: &str = "select public.py_log_can_wake($1::text)";

/// 0x70797267 is "pyrg". The trigger tries the same lock in shared mode.
pub const LOCK_SLEEP: &str = "select pg_try_advisory_lock(1887007335, hashtext($1))";

pub const UNLOCK_SLEEP: &str = "select pg_advisory_unlock(1887007335, hashtext($1))";

pub const KEEPALIVE: &str = "select now()::text";

/// Forgets the names of tables that are gone.
pub const FORGET_NAMES: &str = "select public.py_log_forget()";

pub const LOG_SIZE: &str = "select pg_total_relation_size('public.replica_log')";

/// With asynchronous commit, a crash could lose this side's commit after the other side has committed.
pub const COMMIT_DURABLY: &str = "select set_config('synchronous_commit', 'on', false) \
     where current_setting('synchronous_commit') = 'off'";

pub const SLAVE_COPY: &str = include_str!("../../sql/slave-copy.sql");

/// The tables of a copy of all tables. Until all of them are loaded, no daemon replicates.
pub const UNFINISHED_COPY: &str = "select count(*) as tables, count(*) filter (where state = 'loaded') as loaded, \
     min(ts)::timestamptz(0)::text as since from public.replica_copy where master = $1 and state in ('wanted', 'loaded')";

/// Whether there may be rows in it, which everybody may ask.
pub const HAS_SCHEMA_NOTES: &str =
    "select coalesce(pg_relation_size(to_regclass('public.replica_copy_schema')) > 0, false)";

pub const COUNT_SCHEMA_NOTES: &str = "select count(*) from public.replica_copy_schema where master = $1";

pub const COPIED: &str = "select relation, state, whole, batch, snapshot, rows from public.replica_copy \
     where master = $1 order by relation";

pub const FORGET_COPIES: &str = "delete from public.replica_copy where master = $1 and relation = any ($2)";

/// Once it is granted, no batch is in progress, and every later batch sees what is written under it.
pub const LOCK: &str = "lock table public.replica_hold in access exclusive mode";

pub const HOLD: &str = "insert into public.replica_hold (master, relation, why) values ($1, $2, $3) \
     on conflict (master, relation) do nothing";

pub const END_HOLD: &str = "delete from public.replica_hold where master = $1 and relation = $2";

/// Only one session at a time replays held changes. Daemons hold others meanwhile.
pub const LOCK_RELEASE: &str = "lock table public.replica_held in share update exclusive mode";

/// All but the newest conflicts of a pair.
pub const FORGET_CONFLICTS: &str = "delete from public.replica_conflict where master = $1 \
     and id <= (select max(id) - $2 from public.replica_conflict where master = $1)";

/// The next held changes of a table, and about how large each is.
pub const NEXT_HELD: &str = "select place, coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0) \
     + pg_column_size(sql) as size from public.replica_held \
     where master = $1 and relation = $2 and why <> 'quarantined' order by place limit $3";

/// The same for the changes of a transaction in quarantine; $4 is the place of the one before.
pub const NEXT_QUARANTINED: &str = "select place, coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0) \
     + pg_column_size(sql) as size from public.replica_held \
     where master = $1 and txid = $2::text::xid8 and why = 'quarantined' and place > $4 order by place limit $3";

pub const FORGET_HELD: &str = "delete from public.replica_held where place = any ($1)";

/// Drops the held changes that a copy of the table contains already.
pub const DROP_VISIBLE: &str = "delete from public.replica_held where master = $1 and relation = $2 \
     and why <> 'quarantined' and pg_visible_in_snapshot(txid, $3::text::pg_snapshot)";

/// An earlier transaction in quarantine on which this one depends.
pub const WAITS_FOR: &str = "select e.txid::text::bigint as txid from public.replica_held h \
     join public.replica_held e on e.master = h.master and e.why = 'quarantined' and e.txid <> h.txid \
         and e.place < h.place and e.keys && h.needs \
     where h.master = $1 and h.why = 'quarantined' and h.txid = $2::text::xid8 order by e.place limit 1";

/// A table of this transaction in quarantine that is on hold.
pub const TABLE_ON_HOLD: &str = "select h.relation from public.replica_held h \
     join public.replica_hold o on o.master = h.master and o.relation in (h.relation, '') \
     where h.master = $1 and h.why = 'quarantined' and h.txid = $2::text::xid8 limit 1";

pub const FORGET_QUARANTINED: &str =
    "delete from public.replica_held where master = $1 and why = 'quarantined' and txid = $2::text::xid8";

pub const NOTE_HELD_ERROR: &str = "update public.replica_held set error = $3 \
     where master = $1 and why = 'quarantined' and txid = $2::text::xid8";

/// Gives up held changes, and records by whom and why.
pub const SKIP_HELD: &str = "with given_up as (delete from public.replica_held where master = $1 and place = any ($2) \
         returning *) \
     insert into public.replica_skipped (master, id, txid, relation, event, old, new, sql, error, reason) \
     select master, id, txid, relation, event, old, new, sql, error, $3 from given_up order by place";

/// The partitions that were attached after their root got the trigger.
pub const ATTACHED: &str = include_str!("../../sql/query/attached.sql");

/// Other numbers whenever a partition is attached or detached.
pub const INHERITS: &str = "select count(*), coalesce(sum(xmin::text::bigint), 0)::bigint from pg_inherits";

pub const BEGIN_LOOK: &str = "BEGIN; SET LOCAL lock_timeout = '100ms'";

/// The unlogged tables of a server that was started since the last batch.
pub const EMPTIED: &str = include_str!("../../sql/query/emptied.sql");

/// Those of these tables that have pyreplica's trigger on the master.
pub const ARE_CAPTURED: &str = "select r.name from unnest($1::text[]) r (name) \
     join pg_namespace n on n.nspname = (parse_ident(r.name))[1]::name \
     join pg_class c on c.relnamespace = n.oid and c.relname = (parse_ident(r.name))[2]::name \
     where exists (select from pg_trigger t join pg_proc p on p.oid = t.tgfoid join pg_namespace f on f.oid = p.pronamespace \
         where t.tgrelid = c.oid and t.tgtype & 1 = 1 and t.tgenabled <> 'D' \
         and (f.nspname, p.proname) in (('public', 'py_log_replica'), ('pyreplica', 'by_partition')))";

/// Whether a table's files hold anything, which everybody may ask, and whether the role may read the table.
pub const HAS_PAGES: &str = "select exists (select from (select c.oid union select relid from pg_partition_tree(c.oid)) p (relid) \
         where pg_relation_size(p.relid) > 0) as has_pages, \
         coalesce(has_table_privilege(c.oid, 'select') and has_schema_privilege(n.oid, 'usage'), false) as readable, \
         c.relkind = 'p' as is_partitioned from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where n.nspname = (parse_ident($1))[1]::name and c.relname = (parse_ident($1))[2]::name";

/// Whether the server was started since the last batch, by its own clock. No row if there was none.
pub const MASTER_WAS_STARTED: &str =
    "select pg_postmaster_start_time() > ts from public.replica_slave where field = $1::text::name";
pub const SLAVE_WAS_STARTED: &str =
    "select pg_postmaster_start_time() > ts from public.replica_progress where master = $1";

/// Notes this database's role: field, other database, pair, role, epoch, where clients find the other one, and which other
/// database the row named before.
pub const SET_ROLE: &str = "with former as (delete from public.replica_role where field = $1::text::name and peer = $7 and peer <> $2) \
     insert into public.replica_role (field, peer, pair, role, epoch, peer_at) \
     values ($1::text::name, $2, $3, $4, $5, $6) on conflict (field, peer) do update set pair = excluded.pair, \
     role = excluded.role, epoch = excluded.epoch, peer_at = excluded.peer_at, batch = null, token = null, since = now()";

/// Notes that the other slaves of this database, which is not the master any more, were not taken along: field of the one that has become
/// the master, that database, pair, epoch, and where that is.
pub const OTHERS_MOVED: &str = "insert into public.replica_role (field, peer, pair, role, epoch, peer_at) \
     select field, $2, $3, 'moved', $4, $5 from public.replica_slave where field <> $1::text::name \
     on conflict (field, peer) do update set pair = excluded.pair, role = excluded.role, epoch = excluded.epoch, \
         peer_at = excluded.peer_at, token = null, since = now()";

/// Whether there is a table for the daemon's failures, and the role may write to it.
pub const MAY_RECORD_ERRORS: &str = "select count(*) = 3 from unnest(array['select', 'insert', 'update']) privilege \
     where has_table_privilege(to_regclass('public.replica_error')::oid, privilege)";

pub const RECORD_RECOVERY: &str = "update public.replica_error set recovered = now() \
     where field = $1::text::name and recovered is null";
