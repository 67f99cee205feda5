-- One change, as plain ASCII: a text that has no form in the client's encoding can be read in no other way. Bytes above 127 are written
-- in octal, as encode(..., 'escape') does. The first pair of each row has the empty name, which no column can have, and says so.
-- "public" stands for hstore's own schema, "l.replicated" for the slave's own column.
--   $1  bigint  its id
select l.id, l.txid, l.event::text as event,
       coalesce(encode(convert_to(l.relation, getdatabaseencoding()), 'escape'), '') as relation,
       o.escaped as old, n.escaped as new,
       coalesce(encode(convert_to(l.sql, getdatabaseencoding()), 'escape'), '') as sql, l.origin, coalesce(l.replicated, true) as skip
  from public.replica_log l
 cross join lateral (
      select array['', 'bytes of ' || getdatabaseencoding()] || coalesce(array_agg(x.text order by e.key, x.place), '{}') as escaped
        from public.each(l.old) e
       cross join lateral (values (1, encode(convert_to(e.key, getdatabaseencoding()), 'escape')),
                                  (2, encode(convert_to(e.value, getdatabaseencoding()), 'escape'))) x (place, text)) o
 cross join lateral (
      select array['', 'bytes of ' || getdatabaseencoding()] || coalesce(array_agg(x.text order by e.key, x.place), '{}') as escaped
        from public.each(l.new) e
       cross join lateral (values (1, encode(convert_to(e.key, getdatabaseencoding()), 'escape')),
                                  (2, encode(convert_to(e.value, getdatabaseencoding()), 'escape'))) x (place, text)) n
 where l.id = $1
