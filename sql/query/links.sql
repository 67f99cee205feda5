-- The foreign keys of some tables on the slave, and the foreign keys of other tables that refer to them.
--   $1  text[]  quoted and qualified names
select r.name as relation,
       -- For each foreign key: the table that it refers to, the own columns, and the columns that they refer to, in the order
       -- of the latter's names. They are separated by a byte that should be in no name.
       (select array_agg(u.names) from (
           select format(e'%I.%I\x01', n.nspname, p.relname) || string_agg(a.attname, e'\x01' order by b.attname collate "C")
                      || e'\x01' || string_agg(b.attname, e'\x01' order by b.attname collate "C") as names
             from pg_constraint o
             join pg_class p on p.oid = o.confrelid
             join pg_namespace n on n.oid = p.relnamespace
             cross join unnest(o.conkey, o.confkey) k (own, theirs)
             join pg_attribute a on a.attrelid = o.conrelid and a.attnum = k.own
             join pg_attribute b on b.attrelid = o.confrelid and b.attnum = k.theirs
            where o.conrelid = c.oid and o.contype = 'f' and o.conparentid = 0
            group by o.oid, n.nspname, p.relname) u) as refers,
       (select array_agg(u.names) from (
           select string_agg(b.attname, e'\x01' order by b.attname collate "C") as names
             from pg_constraint o
             join pg_attribute b on b.attrelid = o.confrelid and b.attnum = any (o.confkey)
            where o.confrelid = c.oid and o.contype = 'f' and o.conparentid = 0
            group by o.oid) u) as referred
  from unnest($1::text[]) r (name)
  join pg_class c on c.oid = to_regclass(r.name) and c.relkind in ('r', 'p')
