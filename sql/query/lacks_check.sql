-- Whether there is such a table or domain that lacks this check.
--   $1  text  its schema
--   $2  text  its name
--   $3  text  the name of the check
select exists (select from pg_namespace n
                 left join pg_class c on c.relnamespace = n.oid and c.relname = $2::text and c.relkind in ('r', 'p')
                 left join pg_type t on t.typnamespace = n.oid and t.typname = $2::text and t.typtype = 'd'
                where n.nspname = $1::text and coalesce(c.oid, t.oid) is not null
                  and not exists (select from pg_constraint o
                                   where o.conname = $3::text and (o.conrelid = c.oid or o.contypid = t.oid)))
