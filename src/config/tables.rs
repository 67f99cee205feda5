//! The setting TABLES: which tables of the master a pair replicates.
//!
//! ```text
//! TABLES = orders, sales.*, "My schema"."My table"
//! ```

use crate::config::names::{Word, parts, words};

/// All tables, if nothing is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    schema: String,
    /// None for all tables of the schema.
    table: Option<String>,
}

impl Tables {
    pub fn parse(text: &str) -> Result<Tables, String> {
        let words = words(text)?;
        let entries = words.split(|word| *word == Word::Mark(',')).map(|words| match words {
            [Word::Name(schema, _), Word::Mark('.'), Word::Name(all, false)] if all == "*" => {
                Ok(Entry { schema: schema.clone(), table: None })
            }
            [Word::Name(schema, _), Word::Mark('.'), Word::Name(table, _)] => {
                Ok(Entry { schema: schema.clone(), table: Some(table.clone()) })
            }
            [Word::Name(table, _)] if table != "*" => {
                Ok(Entry { schema: "public".to_string(), table: Some(table.clone()) })
            }
            _ => Err("must be tables with commas between them, each as table, schema.table or schema.*".to_string()),
        });
        entries.collect::<Result<Vec<Entry>, String>>().map(Tables)
    }

    /// Whether only some tables are replicated.
    pub fn is_limited(&self) -> bool {
        !self.0.is_empty()
    }

    /// `relation` is the name of a table, or of a sequence, as the log has it.
    pub fn has(&self, relation: &str) -> bool {
        !self.is_limited()
            || parts(relation).is_some_and(|(schema, name)| {
                self.0.iter().any(|entry| entry.schema == schema && entry.table.as_ref().is_none_or(|it| *it == name))
            })
    }

    /// A regular expression that the log's names of these tables match. None for all tables, also for what is no table's.
    pub fn pattern(&self) -> Option<String> {
        let entry = |entry: &Entry| {
            let table = entry.table.as_ref().map_or(String::new(), |table| format!("{}$", part(table)));
            format!("{}[.]{table}", part(&entry.schema))
        };
        self.is_limited().then(|| format!("^(?:{})", self.0.iter().map(entry).collect::<Vec<_>>().join("|")))
    }
}

/// One part of a name. The log quotes it where necessary: if it is a key word too, which is not known here.
fn part(name: &str) -> String {
    let is_plain =
        name.chars().enumerate().all(|(n, c)| matches!(c, 'a'..='z' | '_') || n > 0 && matches!(c, '0'..='9' | '$'));
    let escaped: String = name.replace('"', "\"\"").chars().map(escaped).collect();
    if is_plain { format!("\"?{escaped}\"?") } else { format!("\"{escaped}\"") }
}

fn escaped(c: char) -> String {
    if c.is_ascii_punctuation() && c != '_' { format!("\\{c}") } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_sql() {
        let tables = Tables::parse(r#"Orders, sales.*, "My ""schema"""."ta.ble""#).unwrap();
        for relation in
            ["public.orders", "public.\"orders\"", "sales.x", "sales.\"X y\"", r#""My ""schema"""."ta.ble""#]
        {
            assert!(tables.has(relation), "{relation}");
        }
        for relation in
            ["public.order", "other.orders", "\"Sales\".x", "public.\"Orders\"", "\"My \"\"schema\"\"\".table", ""]
        {
            assert!(!tables.has(relation), "{relation}");
        }
        assert_eq!(
            tables.pattern().unwrap(),
            r#"^(?:"?public"?[.]"?orders"?$|"?sales"?[.]|"My \"\"schema\"\""[.]"ta\.ble"$)"#
        );
        assert!(Tables::default().has("public.t") && Tables::default().pattern().is_none());
    }

    #[test]
    fn what_names_no_table_is_refused() {
        for text in ["", "a,", "*", "a.b.c", "a b", "*.*,", "newest(a)"] {
            assert!(Tables::parse(text).is_err(), "{text}");
        }
    }
}
