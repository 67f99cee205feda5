-- Moves a sequence on beyond the outermost value of a column, and beyond where it is, by some numbers: unless its end is nearer.
--   $1  text    the sequence, qualified and quoted
--   $2  bigint  the outermost value
--   $3  bigint  how many numbers to leave out
with at as (
    select s.seqrelid, s.seqincrement as step, s.seqmin, s.seqmax,
           case when s.seqincrement > 0 then greatest($2::bigint, pg_sequence_last_value(s.seqrelid))
                else least($2::bigint, pg_sequence_last_value(s.seqrelid)) end as outermost
      from pg_sequence s where s.seqrelid = $1::text::regclass
)
select setval(seqrelid, case when outermost::numeric + step::numeric * $3::bigint between seqmin and seqmax
                             then outermost + step * $3::bigint else outermost end)
  from at where outermost between seqmin and seqmax
