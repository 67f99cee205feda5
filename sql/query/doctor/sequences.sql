-- The last value of each sequence of the applications.
select format('%I.%I', schemaname, sequencename) as name, last_value, increment_by > 0 as rises
  from pg_sequences
 where last_value is not null
   and (schemaname, sequencename) not in (('public', 'replica_log_id_seq'), ('public', 'replica_batch_seq'),
                                          ('public', 'py_log_filter_id_seq'), ('public', 'py_log_transform_id_seq'))
 order by 1
