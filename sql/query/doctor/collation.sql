-- Has the operating system's collation changed since the indexes were built? A database records that from PostgreSQL 15 on.
select 'warning' as level, 'collation' as subject,
       format('the database was built with collation version %s, and the system has %s: indexes may be wrong, unique ones too',
              datcollversion, pg_database_collation_actual_version(oid)) as text,
       array[format('REINDEX DATABASE %I;', datname), format('ALTER DATABASE %I REFRESH COLLATION VERSION;', datname)] as fixes,
       null as advice
  from pg_database
 where datname = current_database() and datcollversion <> pg_database_collation_actual_version(oid)
