-- What identifies a row of a table on the master: the arguments of a trigger made by hand, and the primary key.
--   $1  text[]  quoted and qualified names
select r.name as relation, k.names as key,
       -- The arguments end in a zero byte each; the first is the table's name.
       (select array_agg(convert_from(decode(m[1], 'hex'), getdatabaseencoding()) order by n)
          from regexp_matches(encode(t.tgargs, 'hex'), '((?:[1-9a-f].|0[1-9a-f])*)00', 'g') with ordinality x (m, n)
         where n > 1) as arguments
  from unnest($1::text[]) r (name)
  left join lateral (
      select array_agg(a.attname::text order by k.n) as names
        from pg_index i
        cross join unnest(i.indkey) with ordinality k (attnum, n)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
       where i.indrelid = to_regclass(r.name) and i.indisprimary) k on true
  left join lateral (
      select t.tgargs from pg_trigger t
       where t.tgrelid = to_regclass(r.name) and t.tgfoid = to_regprocedure('public.py_log_replica()')
         and t.tgname !~ '^!replica_' and t.tgnargs > 1
       limit 1) t on true
