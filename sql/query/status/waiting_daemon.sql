-- Whether a daemon of this pair waits for its next try. Such a one keeps a session on the master that listens, and nothing else. A name
-- alone proves nothing: the session's role must be one that may write the slave's position.
--   $1  text  the pair's name
select exists (select from pg_stat_activity a
                where a.datname = current_database() and a.pid <> pg_backend_pid()
                  and a.application_name = left('pyreplica ' || $1::text || ' waiting', 63)
                  and exists (select from pg_roles r where pg_has_role(a.usesysid, r.oid, 'member')
                                 and has_table_privilege(r.oid, to_regclass('public.replica_slave')::oid, 'update')))
