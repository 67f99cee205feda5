-- The tables on the slave that a copy fills. A missing table has no row.
--   $1  text[]  quoted and qualified names
select r.name as relation, c.relkind = 'p' as partitioned, a.names, a.type_oids, a.modifiers, a.generated,
       -- Whether there are triggers, of the application or of a foreign key. They run unless the session is in the replica role.
       exists (select from pg_trigger t
                where t.tgrelid = any (array(select c.oid union select relid from pg_partition_tree(c.oid))) and t.tgenabled = 'O'
                  and t.tgname !~ '^!replica_') as watched
  from unnest($1::text[]) r (name)
  join pg_class c on c.oid = to_regclass(r.name) and c.relkind in ('r', 'p')
  cross join lateral (
      select coalesce(array_agg(a.attname::text order by a.attnum), '{}') as names,
             coalesce(array_agg(a.atttypid::bigint order by a.attnum), '{}') as type_oids,
             coalesce(array_agg(a.atttypmod order by a.attnum), '{}') as modifiers,
             coalesce(array_agg(a.attgenerated <> '' order by a.attnum), '{}') as generated
        from pg_attribute a
       where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) a
