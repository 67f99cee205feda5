-- Records a failure on the master, where status finds it. "since" is the time of the first failure after a recovery, and
-- "attempts" counts the failures since then.
--   $1  text    the slave's column
--   $2  text    the pair
--   $3  text    the side that has failed, or NULL
--   $4  text    what failed
--   $5  text    what to do, or NULL
--   $6  bigint  the change that can't be replayed, or NULL
insert into public.replica_error as e (field, pair, side, message, hint, change)
values ($1::text::name, $2, $3, $4, $5, $6)
on conflict (field) do update
   set pair = excluded.pair, side = excluded.side, message = excluded.message, hint = excluded.hint,
       change = excluded.change, last = now(), recovered = null,
       since = case when e.recovered is null then e.since else now() end,
       attempts = case when e.recovered is null then e.attempts + 1 else 1 end
