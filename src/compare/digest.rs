//! One side of a table that is compared: the queries that digest ranges of its keys, and those that read single rows.
//!
//! A row's digest is computed from the row's text, which both sides write alike: columns by name, in the master's order.
//! The digests of a range are added up, so the order in which a server reads the rows does not matter.
//!
//! The ranges cover all keys: each reaches from above one key up to the next, the first begins below the lowest key, and
//! the last has no end. If the sides sort keys differently after all, each row of the slave still falls into at least one
//! range, so equal sums of all ranges still mean equal rows. Only the division into ranges becomes less useful.

use crate::base::names::{quote_ident, quote_literal};

/// The values of a row's key, as text.
pub type Key = Vec<String>;

/// How a row's text becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// PostgreSQL's own hash function, if both servers compute the same with it.
    Fast,
    Md5,
    /// For servers with different encodings: both digest the text in UTF-8.
    Md5OfUtf8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    pub name: String,
    /// The type without modifier; of a domain, the type beneath it.
    pub base_type: String,
    /// The schema of the type's operators, quoted.
    pub operators: String,
    /// The sides sort its values differently, so values are compared by their bytes.
    pub by_bytes: bool,
    /// Somebody has made a cast from text to the type, which would run his function.
    pub runs_casts: bool,
}

/// Keys above `above` and up to `up_to`; without a bound, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub above: Option<Key>,
    pub up_to: Option<Key>,
}

#[derive(Clone, Debug)]
pub struct DigestSource {
    /// No key tells the rows apart. A row's digest is its key, and what is compared is how many rows have it.
    pub is_by_digest: bool,
    /// Quoted and qualified, with ONLY where the table can have children that are tables of their own.
    pub target: String,
    pub key: Vec<KeyColumn>,
    /// The columns that are compared.
    pub columns: Vec<String>,
    /// The types of these columns, if a text may be cast to each: no function but the type's own for input is called for that.
    pub types: Option<Vec<String>>,
    pub hash: Hash,
    /// Which rows are compared: a condition on "t".
    pub condition: Option<String>,
}

impl DigestSource {
    /// Selects (number of rows, sum of their digests).
    pub fn digest(&self, range: &Range) -> String {
        format!(
            "SELECT count(*), coalesce(sum({}), 0) FROM {} AS t{}",
            self.hash(),
            self.target,
            self.where_clause(range)
        )
    }

    /// Selects the key of the range's row with this number, if the range has so many rows.
    pub fn key_at(&self, range: &Range, rows: u64) -> String {
        format!(
            "SELECT {} FROM {} AS t{} ORDER BY {} OFFSET {} LIMIT 1",
            self.key_names(),
            self.target,
            self.where_clause(range),
            self.key_order("t."),
            rows.saturating_sub(1)
        )
    }

    /// Selects the key of every n-th row, n = `rows`.
    pub fn keys_at_every(&self, range: &Range, rows: u64) -> String {
        format!(
            "SELECT {} FROM (SELECT {}, row_number() OVER (ORDER BY {}) AS \"pyreplica n\" FROM {} AS t{}) t \
             WHERE \"pyreplica n\" % {rows} = 0 ORDER BY \"pyreplica n\"",
            self.key_names(),
            self.key_names(),
            self.key_order("t."),
            self.target,
            self.where_clause(range)
        )
    }

    /// Selects (key, digest) of every row.
    pub fn rows(&self, range: &Range) -> String {
        format!("SELECT {}, {} FROM {} AS t{}", self.key_names(), self.hash(), self.target, self.where_clause(range))
    }

    /// Selects (number of the key, digest, version) of the rows that exist. A row's version changes when the row is
    /// written.
    pub fn look_up(&self, keys: &[Key]) -> String {
        if self.is_by_digest {
            return format!(
                "SELECT c.n, count(*), string_agg(t.tableoid::text || ' ' || t.ctid::text || ' ' || t.xmin::text, ' ' \
                 ORDER BY t.tableoid, t.ctid) FROM {} GROUP BY c.n",
                self.rows_of(keys)
            );
        }
        format!(
            "SELECT c.n, {}, t.tableoid::text || ' ' || t.ctid::text || ' ' || t.xmin::text FROM {}",
            self.hash(),
            self.rows_of(keys)
        )
    }

    /// Selects (number of the key, value, value, ...) of the rows that exist. Where the digest is the key, the number of its
    /// rows comes before the values.
    pub fn values(&self, keys: &[Key]) -> String {
        let columns: String = self.columns.iter().map(|name| format!(", t.{}", quote_ident(name))).collect();
        if self.is_by_digest {
            let rows = self.rows_of(keys);
            return format!(
                "SELECT DISTINCT ON (c.n) c.n, count(*) OVER (PARTITION BY c.n){columns} FROM {rows} ORDER BY c.n"
            );
        }
        format!("SELECT c.n{columns} FROM {}", self.rows_of(keys))
    }

    /// `(VALUES (0, 'a'::type), ...) AS c (n, k0)`
    pub fn key_list(&self, keys: &[Key]) -> String {
        let rows: Vec<String> = keys
            .iter()
            .enumerate()
            .map(|(n, key)| {
                let values: String =
                    key.iter().enumerate().map(|(k, value)| format!(", {}", self.literal(k, value))).collect();
                format!("({n}{values})")
            })
            .collect();
        let names: String = (0..self.key.len()).map(|n| format!(", k{n}")).collect();
        format!("(VALUES {}) AS c (n{names})", rows.join(", "))
    }

    /// The condition that a row has this key.
    pub fn key_condition(&self, key: &Key) -> String {
        let terms: Vec<String> = (self.key.iter().zip(key).enumerate())
            .map(|(n, (column, value))| {
                format!("{} {} {}", quote_ident(&column.name), column.operator("="), self.literal(n, value))
            })
            .collect();
        terms.join(" AND ")
    }

    /// Selects (group, number of rows, sum of their digests) for groups of digests that begin with the same bits.
    pub fn groups(&self, bits: u32) -> String {
        format!("SELECT x.h >> {}, count(*), sum(x.h) FROM {} GROUP BY 1", 64 - bits, self.all_digests())
    }

    /// Selects (digest, number of rows) of some of these groups.
    pub fn digests(&self, bits: u32, groups: &[String]) -> String {
        let groups = groups.join(", ");
        format!(
            "SELECT x.h, count(*) FROM {} WHERE x.h >> {} IN ({groups}) GROUP BY x.h",
            self.all_digests(),
            64 - bits
        )
    }

    fn all_digests(&self) -> String {
        format!("(SELECT {} AS h FROM {} AS t{}) x", self.hash(), self.target, self.where_clause(&Range::default()))
    }

    /// The statement that deletes so many of the rows with each of these digests.
    pub fn delete_some(&self, surplus: &[(&Key, i64)]) -> String {
        let rows: Vec<String> =
            surplus.iter().map(|(key, count)| format!("({}, {count})", self.literal(0, &key[0]))).collect();
        format!(
            "DELETE FROM {0} WHERE (tableoid, ctid) IN (SELECT z.tab, z.at FROM (SELECT t.tableoid AS tab, t.ctid AS at, c.surplus, \
             row_number() OVER (PARTITION BY c.h) AS n FROM (VALUES {1}) c (h, surplus) JOIN {0} AS t ON {2} = c.h) z \
             WHERE z.n <= z.surplus)",
            self.target,
            rows.join(", "),
            self.hash()
        )
    }

    fn rows_of(&self, keys: &[Key]) -> String {
        let own = |column: &KeyColumn| {
            if self.is_by_digest { self.hash() } else { format!("t.{}", quote_ident(&column.name)) }
        };
        let terms: Vec<String> = self
            .key
            .iter()
            .enumerate()
            .map(|(n, column)| format!("{} {} c.k{n}", own(column), column.operator("=")))
            .collect();
        format!(
            "{} JOIN {} AS t ON {}{}",
            self.key_list(keys),
            self.target,
            terms.join(" AND "),
            self.condition.as_ref().map(|condition| format!(" AND {condition}")).unwrap_or_default()
        )
    }

    fn hash(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|name| format!("t.{}", quote_ident(name))).collect();
        self.hash_of(&columns)
    }

    /// The digest of a row of these values.
    pub fn hash_of(&self, columns: &[String]) -> String {
        let row = format!("ROW({})::text", columns.join(", "));
        match self.hash {
            Hash::Fast => format!("hashtextextended({row} COLLATE \"C\", 0)"),
            Hash::Md5 => format!("('x' || left(md5({row}), 16))::bit(64)::bigint"),
            Hash::Md5OfUtf8 => format!("('x' || left(md5(convert_to({row}, 'UTF8')), 16))::bit(64)::bigint"),
        }
    }

    /// A bound of keys whose types have their operators in different schemas: a comparison of rows has only one operator.
    /// The first term lets PostgreSQL use an index.
    fn bound_of_several(&self, operator: &str, values: &[String]) -> String {
        let term = |n: usize, operator: &str| {
            let column = &self.key[n];
            let left = format!("t.{}{}", quote_ident(&column.name), collation(column));
            format!("{left} {} {}", column.operator(operator), values[n])
        };
        let (strict, last) = (operator.trim_end_matches('='), values.len() - 1);
        let rest = (0..last)
            .rev()
            .fold(term(last, operator), |rest, n| format!("({} OR {} AND ({rest}))", term(n, strict), term(n, "=")));
        format!("{} AND {rest}", term(0, &format!("{strict}=")))
    }

    fn key_names(&self) -> String {
        let texts: Vec<String> = self.key.iter().map(|column| format!("t.{}", quote_ident(&column.name))).collect();
        texts.join(", ")
    }

    fn key_order(&self, prefix: &str) -> String {
        let columns: Vec<String> = self
            .key
            .iter()
            .map(|column| format!("{prefix}{}{}", quote_ident(&column.name), collation(column)))
            .collect();
        columns.join(", ")
    }

    fn literal(&self, n: usize, value: &str) -> String {
        format!("{}::{}", quote_literal(value), self.key[n].base_type)
    }

    fn where_clause(&self, range: &Range) -> String {
        let bound = |operator: &str, key: &Key| {
            let values: Vec<String> = key.iter().enumerate().map(|(n, value)| self.literal(n, value)).collect();
            if self.key.iter().any(|column| column.operators != self.key[0].operators) {
                return self.bound_of_several(operator, &values);
            }
            let (left, operator, right) = (self.key_order("t."), self.key[0].operator(operator), values.join(", "));
            if key.len() == 1 { format!("{left} {operator} {right}") } else { format!("({left}) {operator} ({right})") }
        };
        let above = range.above.as_ref().map(|key| bound(">", key));
        let up_to = range.up_to.as_ref().map(|key| bound("<=", key));
        let terms: Vec<String> = [above, up_to, self.condition.clone()].into_iter().flatten().collect();
        if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) }
    }
}

impl KeyColumn {
    /// A digest in the place of a key.
    pub fn digest() -> KeyColumn {
        let (name, base_type, operators) = ("row".into(), "bigint".into(), "pg_catalog".into());
        KeyColumn { name, base_type, operators, by_bytes: false, runs_casts: false }
    }

    /// An operator of the type. The session searches PostgreSQL's own schema only.
    pub fn operator(&self, operator: &str) -> String {
        if self.operators == "pg_catalog" {
            operator.to_string()
        } else {
            format!("OPERATOR({}.{operator})", self.operators)
        }
    }
}

fn collation(column: &KeyColumn) -> &'static str {
    if column.by_bytes { " COLLATE \"C\"" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> DigestSource {
        let column = |name: &str, base_type: &str, by_bytes| KeyColumn {
            name: name.into(),
            base_type: base_type.into(),
            operators: "pg_catalog".into(),
            by_bytes,
            runs_casts: false,
        };
        DigestSource {
            is_by_digest: false,
            types: None,
            target: "ONLY \"public\".\"t\"".into(),
            key: vec![column("id", "integer", false), column("Name", "text", true)],
            columns: vec!["id".into(), "Name".into(), "v".into()],
            hash: Hash::Fast,
            condition: None,
        }
    }

    fn key(id: &str, name: &str) -> Key {
        vec![id.into(), name.into()]
    }

    #[test]
    fn a_range_is_above_one_key_and_up_to_another() {
        let range = Range { above: Some(key("1", "a'b")), up_to: Some(key("2", "c")) };
        assert_eq!(
            source().digest(&range),
            "SELECT count(*), coalesce(sum(hashtextextended(ROW(t.\"id\", t.\"Name\", t.\"v\")::text COLLATE \"C\", 0)), 0) \
             FROM ONLY \"public\".\"t\" AS t WHERE (t.\"id\", t.\"Name\" COLLATE \"C\") > ('1'::integer, 'a''b'::text) \
             AND (t.\"id\", t.\"Name\" COLLATE \"C\") <= ('2'::integer, 'c'::text)"
        );
        assert!(source().digest(&Range::default()).ends_with(" AS t"));
    }

    #[test]
    fn types_with_operators_of_their_own_are_compared_by_these() {
        let mut source = source();
        source.key[1].operators = "\"Own\"".into();
        source.key[1].by_bytes = false;
        let range = Range { above: None, up_to: Some(key("1", "b")) };
        assert!(source.digest(&range).ends_with(
            " WHERE t.\"id\" <= '1'::integer AND (t.\"id\" < '1'::integer OR t.\"id\" = '1'::integer \
             AND (t.\"Name\" OPERATOR(\"Own\".<=) 'b'::text))"
        ));
        source.key.remove(0);
        assert_eq!(source.key_condition(&vec!["b".into()]), "\"Name\" OPERATOR(\"Own\".=) 'b'::text");
    }

    #[test]
    fn keys_are_looked_up_by_their_own_type() {
        let sql = source().look_up(&[key("1", "a"), key("2", "b")]);
        assert!(sql.contains("(VALUES (0, '1'::integer, 'a'::text), (1, '2'::integer, 'b'::text)) AS c (n, k0, k1)"));
        assert!(sql.ends_with("JOIN ONLY \"public\".\"t\" AS t ON t.\"id\" = c.k0 AND t.\"Name\" = c.k1"), "{sql}");
        assert_eq!(source().key_condition(&key("1", "a")), "\"id\" = '1'::integer AND \"Name\" = 'a'::text");
    }
}
