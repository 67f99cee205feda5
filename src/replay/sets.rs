//! Statements that replay many changes of one shape at once. The values of a column are sent as one array, or as a single
//! value if it is the same in all rows.

use crate::backlog::change::Event;
use crate::base::names::{quote_ident, quote_literal};
use crate::replay::table::Table;
use crate::replay::whole_row::{self, Value, Wanted};

/// A row's values, each with the position of its column.
pub type RowValues<'a> = Vec<(u16, Option<&'a str>)>;

/// With fewer rows, every column is sent as an array: a single value needs another statement to be prepared.
const MIN_ROWS_FOR_SINGLE_VALUES: usize = 100;

/// What distinguishes one prepared statement over a set of rows from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetShape {
    table: u32,
    /// The number of the table's key that finds the rows. None: they are found by all values of `guards`.
    key: Option<u16>,
    pub event: Event,
    /// Columns that are written.
    pub written: Vec<u16>,
    /// Columns whose old values an UPDATE or DELETE compares.
    pub guards: Vec<u16>,
    /// The numbers of the parameters that are single values.
    single_values: Vec<usize>,
    /// If no key finds the rows: the columns by which they are looked up before they are compared. None of the values is NULL.
    probes: Vec<u16>,
}

impl SetShape {
    pub fn of(table: u32, key: Option<u16>, event: Event) -> SetShape {
        let (written, guards, probes) = Default::default();
        SetShape { table, key, event, written, guards, single_values: Vec::new(), probes }
    }

    /// The settings with which the statement has to be planned, and those after it.
    pub fn planning(&self, table: &Table) -> Option<(&'static str, &'static str)> {
        let is_found_whole = self.key.is_none() && self.event != Event::Insert;
        let settings = if self.index_column(table).is_some() { whole_row::BY_INDEX } else { whole_row::BY_SCAN };
        is_found_whole.then_some((settings, whole_row::AS_BEFORE))
    }

    fn index_column(&self, table: &Table) -> Option<u16> {
        table.indexed.iter().find(|p| self.probes.contains(p)).copied()
    }

    /// The shape for these rows: if `UPDATE t SET state = 'done', changed = now()` writes the same values to many rows,
    /// each of them is sent once.
    pub fn with_single_values(&self, table: &Table, rows: &[Vec<Option<&str>>]) -> SetShape {
        let mut shape = self.clone();
        if self.key.is_none() && self.event != Event::Insert {
            let places = self.guards.iter().zip(self.written.len()..);
            let is_usable =
                |(p, n): &(&u16, usize)| table.column(**p).is_probe && rows.iter().all(|row| row[*n].is_some());
            shape.probes = places.filter(is_usable).map(|(p, _)| *p).collect();
        }
        if rows.len() >= MIN_ROWS_FOR_SINGLE_VALUES {
            // The key, and the first column of an INSERT, stay arrays: they tell how many rows there are.
            let (first, count) =
                if self.event == Event::Insert { (0, 1) } else { (self.written.len(), self.key(table).len().max(1)) };
            let is_single_value = |place: &usize| rows.iter().all(|row| row[*place] == rows[0][*place]);
            let places = (0..rows[0].len()).filter(|place| !(first..first + count).contains(place));
            shape.single_values = places.filter(is_single_value).collect();
        }
        shape
    }

    fn key<'a>(&'a self, table: &'a Table) -> &'a [u16] {
        match self.key {
            Some(key) if self.event != Event::Insert => &table.keys[usize::from(key)],
            _ => &[],
        }
    }

    /// The columns in the order of the parameters.
    fn columns<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = u16> + 'a {
        self.written.iter().chain(self.key(table)).chain(&self.guards).copied()
    }

    /// `PREPARE name (types) AS ...`
    pub fn prepare(&self, name: &str, table: &Table) -> String {
        let types = self.columns(table).map(|p| table.column(p).array_type.as_str()).enumerate();
        let types: Vec<&str> =
            types.map(|(place, array)| if self.is_single_value(place) { element(array) } else { array }).collect();
        let arrays = || (0..types.len()).filter(|place| !self.is_single_value(*place)).map(|place| place + 1);
        let values: Vec<String> = arrays().map(|n| format!("pg_catalog.unnest(${n})")).collect();
        let names: Vec<String> = arrays().map(|n| format!("p{n}")).collect();
        let from = format!("ROWS FROM ({}) AS x ({})", values.join(", "), names.join(", "));
        let body = match self.event {
            Event::Insert => {
                let columns: Vec<String> = self.written.iter().map(|p| quote_ident(&table.column(*p).name)).collect();
                let target = table.plain_target();
                let values = self.values(table, 1);
                format!(
                    "INSERT INTO {target} ({}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {from}",
                    columns.join(", ")
                )
            }
            _ if self.key.is_none() => self.by_whole_rows(table, from),
            Event::Delete => format!("DELETE FROM {} AS t USING {from} WHERE {}", table.target, self.condition(table)),
            _ => {
                let set = self.written.iter().zip(1..);
                let set: Vec<String> = set
                    .map(|(p, n)| format!("{} = {}", quote_ident(&table.column(*p).name), self.value(table, *p, n)))
                    .collect();
                let condition = self.condition(table);
                format!("UPDATE {} AS t SET {} FROM {from} WHERE {condition}", table.target, set.join(", "))
            }
        };
        format!("PREPARE {name} ({}) AS {body}", types.join(", "))
    }

    fn by_whole_rows(&self, table: &Table, from: String) -> String {
        let values = |columns: &[u16], first: usize| -> Vec<Value> {
            columns.iter().zip(first..).map(|(p, n)| (*p, self.value(table, *p, n))).collect()
        };
        let first = self.written.len() + 1;
        let by_index = self.index_column(table).and_then(|p| {
            let place = first + self.guards.iter().position(|known| *known == p)?;
            let (column, single) = (table.column(p), self.is_single_value(place - 1));
            let (name, full_type) = (quote_ident(&column.name), &column.full_type);
            Some(match single {
                true => format!("s.{name} OPERATOR(pg_catalog.=) ${place}::{full_type}"),
                false => format!("s.{name} OPERATOR(pg_catalog.=) ANY (${place}::{full_type}[])"),
            })
        });
        let (compared, written) = (values(&self.guards, first), values(&self.written, 1));
        let wanted = Wanted { from, compared: &compared, probes: &self.probes, by_index, written: &written };
        whole_row::set_statement(table, &wanted, self.event == Event::Delete)
    }

    /// The COPY that writes the same rows as the INSERT, and takes the slave less time per row.
    pub fn copy(&self, table: &Table) -> String {
        let columns: Vec<String> = self.written.iter().map(|p| quote_ident(&table.column(*p).name)).collect();
        format!("COPY {} ({}) FROM STDIN", table.plain_target(), columns.join(", "))
    }

    fn is_single_value(&self, place: usize) -> bool {
        self.single_values.contains(&place)
    }

    /// The n-th parameter's value for a row, in the type of the column.
    fn value(&self, table: &Table, position: u16, n: usize) -> String {
        let column = table.column(position);
        let value = if self.is_single_value(n - 1) { format!("${n}") } else { format!("x.p{n}") };
        if column.is_cast { format!("{value}::{}", column.base_type) } else { value }
    }

    fn values(&self, table: &Table, first: usize) -> String {
        let values: Vec<String> = self.written.iter().zip(first..).map(|(p, n)| self.value(table, *p, n)).collect();
        values.join(", ")
    }

    fn condition(&self, table: &Table) -> String {
        let key = self.key(table);
        let first = self.written.len() + 1;
        let name = |p: u16| format!("t.{}", quote_ident(&table.column(p).name));
        let is = |p: u16| table.column(p).operator("=");
        let found =
            key.iter().zip(first..).map(|(p, n)| format!("{} {} {}", name(*p), is(*p), self.value(table, *p, n)));
        let mut terms: Vec<String> = found.collect();
        if !self.guards.is_empty() {
            let (mut is, mut was) = (Vec::new(), Vec::new());
            for (p, n) in self.guards.iter().zip(first + key.len()..) {
                // A domain and the type that it is made of are dissimilar to this function.
                is.push(format!("{}::{}", name(*p), table.column(*p).full_type));
                was.push(format!("{}::{}", self.value(table, *p, n), table.column(*p).full_type));
            }
            // This compares the stored bytes, which is cheaper than comparing texts. If the bytes differ although the texts
            // are equal, the changes are replayed again by statements that compare the texts.
            let (is, was) = (is.join(", "), was.join(", "));
            terms.push(format!("pg_catalog.record_image_eq(ROW({is}), ROW({was}))"));
        }
        terms.join(" AND ")
    }

    /// `EXECUTE name (arrays)`
    pub fn execute(&self, name: &str, rows: &[Vec<Option<&str>>], message: &mut String) {
        message.push_str("EXECUTE ");
        message.push_str(name);
        let columns = rows.first().map_or(0, Vec::len);
        for column in 0..columns {
            message.push(if column == 0 { '(' } else { ',' });
            if self.is_single_value(column) {
                message.push_str(&rows[0][column].map_or("NULL".to_string(), quote_literal));
                continue;
            }
            message.push_str("'{");
            for (place, row) in rows.iter().enumerate() {
                if place > 0 {
                    message.push(',');
                }
                push_element(message, row[column]);
            }
            message.push_str("}'");
        }
        message.push(')');
    }
}

/// Rows in COPY's text format.
pub fn copy_rows(rows: &[Vec<Option<&str>>]) -> String {
    let mut text = String::new();
    for row in rows {
        for (place, value) in row.iter().enumerate() {
            if place > 0 {
                text.push('\t');
            }
            match value {
                Some(value) => push_field(&mut text, value),
                None => text.push_str("\\N"),
            }
        }
        text.push('\n');
    }
    text
}

fn push_field(text: &mut String, value: &str) {
    let mut rest = value;
    while let Some(place) = rest.find(['\\', '\t', '\n', '\r']) {
        text.push_str(&rest[..place]);
        text.push_str(match rest.as_bytes()[place] {
            b'\\' => "\\\\",
            b'\t' => "\\t",
            b'\n' => "\\n",
            _ => "\\r",
        });
        rest = &rest[place + 1..];
    }
    text.push_str(rest);
}

fn element(array_type: &str) -> &str {
    array_type.strip_suffix("[]").unwrap_or(array_type)
}

/// Appends an array's element, inside a string constant.
fn push_element(message: &mut String, value: Option<&str>) {
    let Some(text) = value else {
        message.push_str("NULL");
        return;
    };
    // A value of digits, '-' and '.' needs no quotes.
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b'.') {
        message.push_str(text);
        return;
    }
    message.push('"');
    let mut rest = text;
    while let Some(place) = rest.find(['"', '\\', '\'']) {
        let (plain, special) = rest.split_at(place);
        message.push_str(plain);
        // In an array's element a backslash escapes the next character; in a string constant a quote is doubled.
        message.push_str(match special.as_bytes()[0] {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            _ => "''",
        });
        rest = &special[1..];
    }
    message.push_str(rest);
    message.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::table::Column;

    fn column(name: &str, base: &str, is_cast: bool) -> Column {
        Column {
            name: name.into(),
            base_type: base.into(),
            full_type: format!("{base}(9)"),
            array_type: if is_cast { "pg_catalog.text[]".into() } else { format!("{base}[]") },
            operators: Some("pg_catalog".into()),
            is_cast,
            generated: false,
            identity_always: false,
            is_probe: false,
        }
    }

    #[test]
    fn a_set_is_one_statement_over_arrays() {
        let columns = vec![column("id", "integer", false), column("a", "varchar", false), column("b", "box", true)];
        let table = Table::new(3, String::new(), ("public", "test"), false, columns, &[vec!["id".into()]]);
        let mut shape = SetShape::of(3, Some(0), Event::Update);
        (shape.written, shape.guards) = (vec![1, 2], vec![1]);
        assert_eq!(
            shape.prepare("p", &table),
            "PREPARE p (varchar[], pg_catalog.text[], integer[], varchar[]) AS UPDATE ONLY \"public\".\"test\" AS t \
             SET \"a\" = x.p1, \"b\" = x.p2::box FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), \
             pg_catalog.unnest($3), pg_catalog.unnest($4)) AS x (p1, p2, p3, p4) WHERE t.\"id\" OPERATOR(pg_catalog.=) x.p3 AND \
             pg_catalog.record_image_eq(ROW(t.\"a\"::varchar(9)), ROW(x.p4::varchar(9)))"
        );
        let mut message = String::new();
        let rows =
            [vec![Some("it's \"\\"), None, Some("-1.5"), Some("")], vec![Some("null"), Some("(1,2)"), Some("2"), None]];
        shape.execute("p", &rows, &mut message);
        assert_eq!(message, r#"EXECUTE p('{"it''s \"\\","null"}','{NULL,"(1,2)"}','{-1.5,2}','{"",NULL}')"#);
    }

    #[test]
    fn what_is_the_same_in_many_rows_is_one_value() {
        let columns = vec![column("id", "bit", false), column("a", "text", false), column("b", "box", true)];
        let table = Table::new(3, String::new(), ("public", "test"), false, columns, &[vec!["id".into()]]);
        let mut shape = SetShape::of(3, Some(0), Event::Update);
        (shape.written, shape.guards) = (vec![1, 2], vec![1, 2]);
        let row = |old| vec![None, Some("it's"), Some("1"), old, Some("(1,2)")];
        let mut rows = vec![row(Some("x")); MIN_ROWS_FOR_SINGLE_VALUES];
        rows[0][3] = Some("y");
        // The key stays an array, although it is the same in all rows.
        let with_single_values = shape.with_single_values(&table, &rows);
        assert_eq!(
            with_single_values.prepare("p", &table),
            "PREPARE p (text, pg_catalog.text, bit[], text[], pg_catalog.text) AS UPDATE ONLY \"public\".\"test\" AS t \
             SET \"a\" = $1, \"b\" = $2::box FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4)) AS x (p3, p4) \
             WHERE t.\"id\" OPERATOR(pg_catalog.=) x.p3 AND \
             pg_catalog.record_image_eq(ROW(t.\"a\"::text(9), t.\"b\"::box(9)), ROW(x.p4::text(9), $5::box::box(9)))"
        );
        let mut message = String::new();
        with_single_values.execute("p", &rows[..2], &mut message);
        assert_eq!(message, r#"EXECUTE p(NULL,'it''s','{1,1}','{"y","x"}','(1,2)')"#);
        assert_eq!(shape.with_single_values(&table, &rows[1..]), shape, "of fewer rows each column is an array");
    }

    #[test]
    fn copied_rows_escape_what_ends_a_field() {
        let rows = [vec![Some("a\tb"), None, Some("")], vec![Some("\\N"), Some("it's\r\n"), Some("\\.")]];
        assert_eq!(copy_rows(&rows), "a\\tb\t\\N\t\n\\\\N\tit's\\r\\n\t\\\\.\n");
    }
}
