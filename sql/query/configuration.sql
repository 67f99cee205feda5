-- What a dump of the database would have besides the schema and the rows of tables: the tables of extensions that hold rows of the
-- application, each with the query for these, and how many large objects there are.
select 'table' as kind, format('%I.%I', n.nspname, c.relname) as name,
       format('SELECT * FROM %I.%I %s', n.nspname, c.relname, x.extcondition[a.place::int]) as rows
  from pg_extension x
 cross join unnest(x.extconfig) with ordinality a (oid, place)
  join pg_class c on c.oid = a.oid and c.relkind in ('r', 'p') and pg_relation_size(c.oid) > 0
  join pg_namespace n on n.oid = c.relnamespace
union all
select 'objects', count(*)::text, '' from pg_largeobject_metadata having count(*) > 0
