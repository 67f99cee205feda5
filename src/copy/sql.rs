//! Statements of the initial copy.

use crate::base::names::quote_ident;
use crate::server::sql::with_own;
use std::sync::LazyLock;

pub const CAPTURED: &str = include_str!("../../sql/query/captured.sql");
pub static UNLOGGED: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/unlogged.sql")));
pub static CANDIDATES: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/candidates.sql")));
pub const SOURCE: &str = include_str!("../../sql/query/source.sql");
pub const TARGET: &str = include_str!("../../sql/query/target.sql");

pub static OWN_OBJECTS: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/own.sql")));
/// The roles that a schema with owners and privileges needs.
pub static OWNERS: LazyLock<String> =
    LazyLock::new(|| include_str!("../../sql/query/owners.sql").replace("array['own objects']", &OWN_OBJECTS));

/// The roles of $1 that there are not, and whether this role is a superuser.
pub const MISSING_ROLES: &str = "select array(select r from unnest($1::text[]) r \
     where not exists (select from pg_roles where rolname = r)), \
     (select rolsuper from pg_roles where rolname = current_user)";

pub static TABLESPACES: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/tablespaces.sql")));

/// The tablespaces of $1 that there are not, or that this role may not create anything in.
pub const MISSING_TABLESPACES: &str = "select array(select r from unnest($1::text[]) r where not exists \
     (select from pg_tablespace where spcname = r and has_tablespace_privilege(oid, 'create')))";

pub const WITH_PARTITIONS: &str = include_str!("../../sql/query/partitions.sql");

/// What of the schema is made after the rows.
pub const POST_DATA: &str = include_str!("../../sql/query/post_data.sql");

/// What can be dropped before the rows, and made again.
pub const DROPPABLE: &str = include_str!("../../sql/query/droppable.sql");

pub const LARGE_OBJECTS: &str = "select m.oid, r.rolname::text as owner from pg_largeobject_metadata m \
     join pg_roles r on r.oid = m.lomowner order by m.oid";
pub const READ_LARGE_OBJECT: &str = "select lo_get($1::oid, $2::bigint, $3::int)";
pub const CREATE_LARGE_OBJECT: &str = "select lo_from_bytea($1::oid, $2::bytea)";
pub const WRITE_LARGE_OBJECT: &str = "select lo_put($1::oid, $2::bigint, $3::bytea)";
pub const IS_SUPERUSER: &str = "select rolsuper from pg_roles where rolname = current_user";

/// Tables of extensions that hold rows of the application, which a dump of the database would have.
pub const CONFIGURATION: &str = include_str!("../../sql/query/configuration.sql");

pub const REMAINING: &str = "select place, stage, name, relations, alone, size, statement \
     from public.replica_copy_schema where master = $1 order by place";
/// Roles that may write to it, but its owner, superusers and this role.
pub const SCHEMA_NOTES_WRITERS: &str = "select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end \
     from pg_class c cross join lateral (select c.relacl as acl union all select attacl from pg_attribute \
     where attrelid = c.oid) x cross join aclexplode(x.acl) a left join pg_roles r on r.oid = a.grantee \
     where c.oid = to_regclass('public.replica_copy_schema') and a.privilege_type in ('INSERT', 'UPDATE', 'TRIGGER') \
     and a.grantee <> c.relowner and not coalesce(r.rolsuper, false) and r.rolname is distinct from current_user order by 1";
pub const FORGET_REMAINING: &str = "delete from public.replica_copy_schema where master = $1 and place >= $2";
pub const HIGHEST_REMAINING: &str = "select coalesce(max(place), -1) from public.replica_copy_schema where master = $1";
pub const NOTE_REMAINING: &str = "insert into public.replica_copy_schema \
     (master, place, stage, name, relations, alone, size, statement) values ($1, $2, $3, $4, $5, $6, $7, $8)";
pub const END_REMAINING: &str = "delete from public.replica_copy_schema where master = $1 and place = $2";

/// As pg_restore has it, whose statements qualify every name.
pub const NO_SEARCH_PATH: &str = "set search_path = ''";

/// PostgreSQL's own value is too small to sort the keys of a large table. What somebody has set stays.
pub const MORE_MEMORY: &str = "select set_config(name, '256MB', false) from pg_settings \
     where name = 'maintenance_work_mem' and source = 'default'";

/// The materialized views that hold rows, quoted and qualified, each after those that it reads.
pub const MATERIALIZED: &str = include_str!("../../sql/query/materialized.sql");

pub const END_COPY: &str = "select pg_advisory_unlock_all(); notify replica_retry";

pub const WANT_COPY: &str = "insert into public.replica_copy (master, relation, state, whole, batch) \
     select $1, r, $5, $3, $4 from unnest($2::text[]) r \
     on conflict (master, relation) do update set state = $5, whole = $3, batch = $4, snapshot = null, \
     rows = null, ts = now()";

/// Waits for an earlier load of the table whose transaction has not ended yet.
pub const BEGIN_LOAD: &str = "select state from public.replica_copy where master = $1 and relation = $2 for update";

/// The same for a part of a table, beside others.
pub const BEGIN_PART: &str = "select state from public.replica_copy where master = $1 and relation = $2 for share";

/// The tables are loaded in parts: if the copy is interrupted, they hold some of their rows.
pub const BEGIN_PARTS: &str = "update public.replica_copy set snapshot = $3 where master = $1 and relation = any ($2) \
     and state = 'wanted'";

pub const END_LOAD: &str = "update public.replica_copy set state = $3, snapshot = $4, rows = $5, ts = now() \
     where master = $1 and relation = $2";

pub const PASS_COPIES: &str = "update public.replica_copy set state = 'passing' where master = $1 and state = 'loaded'";

/// A snapshot: its name for other sessions, and its text to be noted.
pub const EXPORT_SNAPSHOT: &str = "select pg_export_snapshot(), pg_current_snapshot()::text";

/// Gets a transaction number, and is on the disk once it is committed.
pub const WRITE_TO_DISK: &str = "select pg_logical_emit_message(true, 'pyreplica', 'copy')";

/// Whether a backend holds the lock under which a table is copied.
pub const HAS_LOCK: &str = "select exists (select from pg_locks where pid = $1 and locktype = 'relation' and granted \
     and database = (select oid from pg_database where datname = current_database()) \
     and relation = to_regclass($2) and mode = 'AccessShareLock')";

pub const ROLE_SETTING: &str = "select current_setting('session_replication_role')";

/// Counts the changes of a table that a snapshot shows and that the slave's position has not passed yet. It has passed a
/// transaction when it has passed the transaction's last change.
pub fn unpassed(field: &str) -> String {
    include_str!("../../sql/query/unpassed.sql").replace("l.replicated", &format!("l.{}", quote_ident(field)))
}

pub const MAY_DROP_HELD: &str =
    "select coalesce(has_table_privilege(to_regclass('public.replica_held'), 'delete'), false)";

/// Drops the held changes of a table that a copy of it contains.
pub const DROP_HELD: &str = "delete from public.replica_held where master = $1 and relation = $2 \
     and pg_visible_in_snapshot(txid, $3::text::pg_snapshot)";

/// A copy of all tables contains everything that was held before.
pub const DROP_ALL_HELD: &str = "delete from public.replica_held where master = $1";

pub const END_HOLDS: &str = "delete from public.replica_hold where master = $1 and why = 'copying'";

/// Whether there is a table of this name, with or without its schema.
pub const IS_TABLE: &str = "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where c.relkind in ('r', 'p') and $1::text in (c.relname::text, n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname)))";
