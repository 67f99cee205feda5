//! Statements that read the log, move the position and set the flags.

use crate::backlog::position::Position;
use crate::backlog::snapshot::Snapshot;
use crate::base::names::{BatchNumber, fully_quoted, quote_ident, quote_literal};

/// The log is read by its index and in the order of that, however small the planner believes it to be. As that is known, no
/// look is planned anew, which takes longer than the look.
pub const READ_BY_INDEX: &str =
    "set enable_seqscan = off; set enable_bitmapscan = off; set plan_cache_mode = force_generic_plan";

/// Slaves come and go by columns of the log: none does while rows are being marked or deleted, which waits for nobody for
/// long, nor for the disk: if it gets lost, it is done again.
pub const BEGIN_MARKING: &str = "begin; set local lock_timeout = '1s'; set local synchronous_commit = off; \
     lock table public.replica_purged in row exclusive mode; lock table public.replica_log in row exclusive mode";

/// Of several slaves' daemons that find the log restored, one takes care of it.
pub const BEGIN_ADOPTING: &str = "begin; lock table public.replica_slave in share update exclusive mode";

pub const CURRENT_SNAPSHOT: &str = "select pg_current_snapshot()::text";

pub const TRANSACTION_OF: &str = "select txid::text::bigint from public.replica_log where id = $1";

pub const HIGHEST_ID: &str = "select coalesce(max(id), 0) from public.replica_log";

pub const KEEP_FLOOR: &str = "update public.replica_slave set floor = $3, flagged = $4 where field = $1::text::name and batch = $2 \
     returning ctid::text || ' ' || xmin";

pub const POSITION: &str = include_str!("../../sql/query/position.sql");

/// The master begins another life, as far as this slave knows: $2 says why the former one has ended. A slave from a copy of
/// the former one may have batches that this master lacks.
pub const BEGIN_HISTORY: &str = "with ended as (insert into public.replica_history (field, history, up_to, why) \
         select field, history, batch, $2 from public.replica_slave where field = $1::text::name and history is not null \
         on conflict (field, history) do update set up_to = excluded.up_to), \
     kept as (delete from public.replica_history h where h.field = $1::text::name and h.ended < \
         (select ended from public.replica_history where field = $1::text::name order by ended desc offset 1000 limit 1)) \
     update public.replica_slave set history = replace(gen_random_uuid()::text, '-', ''), life = $3 \
     where field = $1::text::name";

/// A transaction of our own, and its number.
pub const OWN_TRANSACTION: &str = "select pg_current_xact_id()::text::bigint";

/// Has the log been restored from a cluster with other transaction numbers?
pub const RESTORED: &str = include_str!("../../sql/query/restored.sql");
pub const RENUMBER: &str = include_str!("../../sql/query/renumber.sql");

/// The slaves whose position is about another database than this one.
pub const FOREIGN_POSITIONS: &str = "select field::text from public.replica_slave where identity is distinct from $1 \
     and (base is not null or current is not null) order by field";

pub const FORGET_POSITIONS: &str = "update public.replica_slave set identity = $1, base = null, current = null, \
     last = null, highest = null, floor = null where identity is distinct from $1 \
     and (base is not null or current is not null or field = $2::text::name)";

/// The queries that read the log, with the slave's own column in the place of "l.replicated".
#[derive(Clone)]
pub struct ReadQueries {
    pub pending: String,
    pub page: String,
    pub fetch: String,
    pub fetch_escaped: String,
}

/// Passes over a long backlog.
pub const CLOSE: &str = include_str!("../../sql/query/close.sql");

pub fn spread(field: &str) -> String {
    own(field, include_str!("../../sql/query/spread.sql"))
}

impl ReadQueries {
    /// `hstore_schema`: where the extension is installed; `packed`: in its binary form.
    pub fn new(field: &str, hstore_schema: &str, packed: bool) -> ReadQueries {
        let form = format!("{}.{}", quote_ident(hstore_schema), if packed { "hstore_send" } else { "hstore_to_array" });
        let own = |sql| own(field, sql).replace("public.hstore_send", &form);
        ReadQueries {
            pending: own(include_str!("../../sql/query/pending.sql")),
            page: own(include_str!("../../sql/query/page.sql")),
            fetch: own(include_str!("../../sql/query/fetch.sql")),
            fetch_escaped: self::own(field, include_str!("../../sql/query/fetch_escaped.sql"))
                .replace("public.each", &format!("{}.each", quote_ident(hstore_schema))),
        }
    }

    /// Has what an initial copy has brought of a table passed over: each table and the snapshot that its rows are from.
    pub fn pass_over(&mut self, copied: &[(String, Snapshot)]) {
        let case = |(relation, snapshot): &(String, Snapshot)| {
            // Older rows may have each name in quotes.
            [relation, &fully_quoted(relation)]
                .map(|name| {
                    format!(" when {} then {}::pg_snapshot", quote_literal(name), quote_literal(snapshot.as_str()))
                })
                .concat()
        };
        let cases: String = copied.iter().map(case).collect();
        let skip = format!("coalesce(pg_visible_in_snapshot(l.txid, case l.relation{cases} end), false) as skip");
        for query in [&mut self.pending, &mut self.page] {
            let place = query.find(") as skip").expect("the query tells which rows are passed over") + 1;
            query.replace_range(place..place + " as skip".len(), &format!("\n             or {skip}"));
        }
    }
}

/// What sets the flags of one slave, and what deletes the rows that every slave has replayed.
pub struct FlagQueries {
    /// The rows whose flag is to be set.
    pub due: String,
    pub stuck: String,
    /// Sets flags, or deletes rows instead if every slave has replayed them and none is to be kept.
    pub mark: Vec<String>,
    /// The rows that every slave has replayed some time ago.
    pub old: String,
    pub purge: Vec<String>,
    /// For each slave's column: since when its oldest change waits, if one does.
    pub waiting: Vec<(String, String)>,
}

impl FlagQueries {
    /// `fields`: the columns of all slaves; `seconds`: how long changes stay in the log after every slave has replayed them.
    pub fn new(field: &str, fields: &[String], seconds: u64) -> FlagQueries {
        let all = passed_by(fields.iter());
        let purge = purge(&all);
        FlagQueries {
            due: own(field, include_str!("../../sql/query/due.sql")),
            stuck: own(field, include_str!("../../sql/query/stuck.sql")),
            mark: marks(field, fields, seconds),
            old: include_str!("../../sql/query/old.sql").replace("l.replicated", &format!("({all})")),
            purge: vec![purge],
            waiting: fields.iter().map(|field| (field.clone(), waiting(field))).collect(),
        }
    }
}

/// Have all these slaves replayed the row? By the flag, or by the position, which the flag follows when there is time. Of a
/// drain in progress it says no up to its end: rows are deleted by this, and `py_log_is_replayed` without a list of the
/// transactions beyond the position would say yes too early.
pub fn passed_by<'a>(fields: impl Iterator<Item = &'a String>) -> String {
    let passed = |field: &String| {
        let base = format!("select base from public.replica_slave where field = {}", quote_literal(field));
        format!("({} or coalesce(pg_visible_in_snapshot(l.txid, ({base})), false))", flag(field))
    };
    fields.map(passed).collect::<Vec<_>>().join(" and ")
}

/// Deletes rows, and notes how far: a slave that was restored may need one of them.
fn purge(condition: &str) -> String {
    format!(
        "with gone as (delete from public.replica_log l where id = any ($1) and {condition} returning id, txid) \
         insert into public.replica_purged (id, txid) \
         select max(id), max(txid::text::bigint)::text::xid8 from gone having count(*) > 0 \
         on conflict (only_row) do update set ts = now(), id = greatest(replica_purged.id, excluded.id), \
             txid = greatest(replica_purged.txid::text::bigint, excluded.txid::text::bigint)::text::xid8"
    )
}

/// The lowest id that a slave has not replayed if its flags tell; $1 is a snapshot.
pub fn first_pending(field: &str) -> String {
    format!(
        "select min(id) from public.replica_log l where not {} \
         and pg_visible_in_snapshot(txid, (select $1::text::pg_snapshot))",
        flag(field)
    )
}

/// Sets the flags of what a slave's position says is replayed.
pub fn passed(field: &str) -> String {
    own(field, include_str!("../../sql/query/passed.sql"))
}

/// SQLSTATE of `note_position` when the row is not as that batch has left it: a division by the number of rows.
pub const NOT_NOTED: &str = "22012";

/// Notes changes whose flags somebody has set: $2 are their ids, and $3 transactions of which any may be.
pub fn note_flagged(field: &str, hstore_schema: &str) -> String {
    let array = format!("{}.hstore_to_array", quote_ident(hstore_schema));
    own(
        field,
        &format!(
            "insert into public.replica_skipped (master, id, txid, relation, event, old, new, sql, who, reason) \
             select $1, l.id, l.txid, l.relation, l.event::text, {array}(l.old), {array}(l.new), l.sql, '', \
                 'its flag was set by hand' \
             from public.replica_log l where (l.id = any ($2) or l.txid = any ($3::text[]::xid8[])) and l.replicated \
             and not exists (select from public.replica_skipped k where k.master = $1 and k.id = l.id)"
        ),
    )
}

/// What goes into a slave's row.
pub struct Noted<'a> {
    pub field: &'a str,
    /// The master's database.
    pub identity: &'a str,
    /// The slave's.
    pub slave: &'a str,
    pub announced: Option<&'a str>,
    pub position: &'a Position,
}

/// Writes a slave's position, if `former` is the batch that wrote it last; the number of the transaction that does, and
/// where the row is now (its ctid and its xmin).
pub fn note_position(noted: &Noted, former: BatchNumber) -> String {
    note(&note_values(noted, former), "")
}

/// Prepares the same for `execute_note`: the next batches need no planning.
pub fn prepare_note(name: &str) -> String {
    let parameters = std::array::from_fn(|n| format!("${}", n + 1));
    format!(
        "prepare {name} (bigint, text, text, text, text, pg_snapshot, pg_snapshot, bigint, bigint, bigint, name, bigint, \
         tid, xid) as {}",
        note(&parameters, " and ctid = $13 and xmin = $14")
    )
}

/// `place`: where the row is. Without it the server walks over the row's former versions, and while a transaction stays open, every
/// batch leaves one. PostgreSQL before the fixes of November 2025 does not look at the ctid again when it has waited for another
/// transaction that changed the row, such as a skip. It does look at the transaction that has written the row.
pub fn execute_note(name: &str, noted: &Noted, former: BatchNumber, place: &str) -> String {
    let (ctid, writer) = place.split_once(' ').unwrap_or((place, ""));
    let values = note_values(noted, former).join(", ");
    format!("execute {name} ({values}, {}, {})", quote_literal(ctid), quote_literal(writer))
}

fn note_values(noted: &Noted, former: BatchNumber) -> [String; 12] {
    let Noted { field, identity, slave, announced, position } = noted;
    let text = |text: Option<&str>| text.map_or("null".to_string(), quote_literal);
    let snapshot = |snapshot: &Option<Snapshot>| text(snapshot.as_ref().map(Snapshot::as_str));
    [
        position.batch.to_string(),
        text(position.token.as_deref()),
        quote_literal(identity),
        quote_literal(slave),
        text(*announced),
        snapshot(&position.base),
        snapshot(&position.current),
        position.last.map_or("null".to_string(), |last| last.to_string()),
        position.highest.to_string(),
        position.floor.to_string(),
        quote_literal(field),
        former.to_string(),
    ]
}

fn note(values: &[String; 12], place: &str) -> String {
    let [batch, token, identity, slave, announced, base, current, last, highest, floor, field, former] = values;
    format!(
        "with noted as (update public.replica_slave set batch = {batch}, token = {token}, identity = {identity}, slave = {slave}, \
         announced = {announced}, base = {base}, current = {current}, last = {last}, highest = {highest}, floor = {floor}, ts = now() \
         where field = {field} and batch = {former}{place} \
         returning pg_current_xact_id()::text as ours, ctid::text || ' ' || xmin as place) \
         select max(ours), max(place), 1 / count(*) from noted"
    )
}

pub fn own(field: &str, sql: &str) -> String {
    let own = quote_ident(field);
    sql.replace("l.replicated", &format!("l.{own}")).replace("set replicated", &format!("set {own}"))
}

/// A NULL counts as replayed, as it did for the Python original.
fn flag(field: &str) -> String {
    format!("coalesce(l.{}, true)", quote_ident(field))
}

/// A row that every slave has replayed, and that nobody wants to keep any longer, is deleted at once instead of being flagged.
/// READ COMMITTED looks again after a wait for another slave's mark of the same row, so of two slaves that mark it together
/// the second one deletes it.
fn marks(field: &str, fields: &[String], seconds: u64) -> Vec<String> {
    let (own, pending) = (quote_ident(field), format!("not {} and id = any ($1)", flag(field)));
    let others = passed_by(fields.iter().filter(|other| *other != field));
    let others = if others.is_empty() { "true".to_string() } else { others };
    let is_over = match seconds {
        0 => others,
        _ => format!("coalesce(l.ts < now() - make_interval(secs => {seconds}), true) and {others}"),
    };
    let mut statements =
        vec![format!("update public.replica_log l set {own} = true where {pending} and not ({is_over})")];
    if seconds == 0 {
        statements.push(purge(&format!("not {} and {is_over}", flag(field))));
    }
    statements
}

/// What neither the flag nor the position says is replayed; the position may be a moment behind. Of a transaction that goes on
/// beyond it only the further rows are found, which are as old.
pub fn waiting(field: &str) -> String {
    format!(
        "select l.ts::text from (select $1::text::name as field) f left join public.replica_slave s using (field) \
         join public.replica_log l on l.id > coalesce(s.floor, 0) and not {} \
         and not public.py_log_is_replayed(l.id, l.txid, s.base, s.current, s.last) order by l.id limit 1",
        flag(field)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 3] = ["replicated", "Slave 2", "slave3"];

    #[test]
    fn queries_read_and_mark_the_slaves_own_column_only() {
        let fields = FIELDS.map(String::from);
        let (log, marks) = (ReadQueries::new("Slave 2", "extensions", true), FlagQueries::new("Slave 2", &fields, 0));
        for sql in [&log.pending, &log.page, &log.fetch, &marks.due, &passed("Slave 2")] {
            let statement: String = sql.lines().filter(|line| !line.starts_with("--")).collect();
            assert!(statement.contains("l.\"Slave 2\"") && !statement.contains("replicated"), "{sql}");
        }
        assert!(log.fetch.contains("\"extensions\".hstore_send(l.old)"));
        let unpacked = ReadQueries::new("Slave 2", "extensions", false);
        assert!(unpacked.fetch.contains("\"extensions\".hstore_to_array(l.new)"));
    }

    #[test]
    fn what_a_copy_has_brought_is_passed_over_wherever_rows_are_listed() {
        let mut log = ReadQueries::new("replicated", "public", true);
        log.pass_over(&[("public.\"it's\"".to_string(), Snapshot::parse("7:9:7").unwrap())]);
        let skip = "case l.relation when 'public.\"it''s\"' then '7:9:7'::pg_snapshot \
                    when '\"public\".\"it''s\"' then '7:9:7'::pg_snapshot end), false) as skip";
        assert!(log.pending.contains(skip) && log.page.contains(skip));
        assert!(log.pending.contains("null::boolean as skip"), "{}", log.pending);
    }

    #[test]
    fn a_row_that_all_slaves_have_and_nobody_keeps_is_deleted_instead_of_flagged() {
        let fields = FIELDS.map(String::from);
        let own = "not coalesce(l.\"Slave 2\", true) and id = any ($1)";
        let flagged = format!("update public.replica_log l set \"Slave 2\" = true where {own} and not (");
        let [now, purge] = &FlagQueries::new("Slave 2", &fields, 0).mark[..] else { panic!("two statements") };
        assert!(
            now.starts_with(&flagged) && purge.contains("delete from public.replica_log l where id = any ($1) and not")
        );
        for other in ["replicated", "slave3"] {
            let passed =
                format!("(coalesce(l.\"{other}\", true) or coalesce(pg_visible_in_snapshot(l.txid, (select base");
            assert!(now.contains(&passed) && purge.contains(&passed), "{now}");
        }
        let [kept] = &FlagQueries::new("Slave 2", &fields, 60).mark[..] else { panic!("one statement") };
        assert!(kept.starts_with(&flagged) && kept.contains("make_interval(secs => 60)"), "{kept}");
    }
}
