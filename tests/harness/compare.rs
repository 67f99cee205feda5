//! Are two databases equal? All tables but pyreplica's own, row by row, as text.

use postgres::{Client, SimpleQueryMessage};
use std::cmp::Ordering;
use std::fmt::Write;

/// How many differing rows of a table a failed test shows, for each side.
const SHOWN: usize = 5;

/// Tables by schema and name, with their columns in the order of their names: the order in the table may differ.
const TABLES: &str = "
    select format('%I.%I', n.nspname, c.relname),
           string_agg(quote_ident(a.attname), ', ' order by a.attname collate \"C\")
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema$)' and c.relname !~ '^(replica_|py_log_)'
    group by c.oid, n.nspname, c.relname
    order by format('%I.%I', n.nspname, c.relname) collate \"C\"";

/// Everything in which the two databases differ, for the reader of a failed test; empty when they are equal.
pub fn differences(master: &mut Client, slave: &mut Client) -> String {
    let (tables, slave_tables) = (rows(master, TABLES), rows(slave, TABLES));
    if tables != slave_tables {
        return format!("other tables or columns\nmaster: {tables:#?}\nslave: {slave_tables:#?}\n");
    }
    let mut text = String::new();
    for [table, columns] in tables.iter().map(|row| [&row[0], &row[1]]) {
        let content = format!("select row({columns})::text from only {table}");
        let sorted = |client: &mut Client| {
            let mut lines: Vec<String> = rows(client, &content).into_iter().map(|mut row| row.remove(0)).collect();
            // Here, not on the server: the two may sort text differently.
            lines.sort_unstable();
            lines
        };
        let (there, here) = (sorted(master), sorted(slave));
        if there != here {
            let (missing, surplus) = difference(&there, &here);
            let _ = writeln!(text, "{table} ({columns}): {} rows on master, {} on slave", there.len(), here.len());
            missing.iter().take(SHOWN).for_each(|row| _ = writeln!(text, "  only on master: {row}"));
            surplus.iter().take(SHOWN).for_each(|row| _ = writeln!(text, "  only on slave:  {row}"));
        }
    }
    text
}

/// What is only in the first and what is only in the second of two sorted lists, counting repeated rows.
fn difference<'a>(first: &'a [String], second: &'a [String]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut only_first, mut only_second) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < first.len() || j < second.len() {
        let order = match (first.get(i), second.get(j)) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        if order == Ordering::Less {
            only_first.push(first[i].as_str());
        } else if order == Ordering::Greater {
            only_second.push(second[j].as_str());
        }
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
    }
    (only_first, only_second)
}

fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("compare: {error}\n{sql}"));
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|i| row.get(i).unwrap_or("").to_owned()).collect()).collect()
}
