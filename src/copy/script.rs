//! Takes a script of pg_restore apart into its entries, and each entry into its statements, as psql would.
//!
//! With --verbose, a comment stands above each entry: `-- TOC entry 3220 (class 2606 OID 16392)`. Constants and names in the
//! script are whatever the master's roles have chosen, lines like this one too. So the script is read as PostgreSQL's lexer
//! reads it: only a comment between two statements begins an entry, and only a semicolon outside of everything ends a statement.

use crate::base::error::{Error, Kind, Result};

/// An object of the dump, or something about one.
#[derive(Debug, Default, PartialEq)]
pub struct Entry {
    /// Its number in the list of the dump.
    pub number: u32,
    /// The catalog in which the master has it, and its oid there; zeros if it has none.
    pub class: u32,
    pub oid: u32,
    /// The numbers of what has to be there before.
    pub depends: Vec<u32>,
    /// The settings under which its statements have their meaning: SET LOCAL.
    pub settings: String,
    pub statements: Vec<String>,
}

/// What the reader has read of a statement.
#[derive(Default)]
struct Reader {
    parentheses: usize,
    /// The first letters of the first words, for a function whose body is of statements.
    initials: String,
    /// How deep in such a body: BEGIN ATOMIC, CASE.
    blocks: usize,
}

/// Settings that pg_restore changes between two entries.
const SETTINGS: [&str; 2] = ["default_tablespace", "default_table_access_method"];

/// The entries of a script, in its order.
pub fn entries(script: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut settings = [const { String::new() }; SETTINGS.len()];
    let mut rest = script;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(entries);
        }
        if rest.starts_with("--") || rest.starts_with('\\') {
            let (line, behind) = rest.split_once('\n').unwrap_or((rest, ""));
            rest = behind;
            if let Some((number, class, oid)) = heading(line) {
                entries.push(Entry { number, class, oid, settings: settings.concat(), ..Entry::default() });
            } else if let (Some(numbers), Some(entry)) = (line.strip_prefix("-- Dependencies: "), entries.last_mut()) {
                entry.depends = numbers.split(' ').filter_map(|number| number.parse().ok()).collect();
            }
            continue;
        }
        let length = Reader::default().statement(rest).ok_or_else(|| {
            Error::new(Kind::Internal, None, "read the schema", "pg_restore's script ends within a statement")
        })?;
        let (statement, behind) = rest.split_at(length);
        rest = &behind[1..];
        let set = SETTINGS.iter().position(|name| statement.starts_with(&format!("SET {name} = ")));
        match (set, entries.last_mut()) {
            (Some(place), _) => settings[place] = format!("SET LOCAL{};\n", &statement["SET".len()..]),
            (None, Some(entry)) => entry.statements.push(statement.to_string()),
            // The settings on top, which every session of ours has.
            (None, None) => {}
        }
    }
}

/// `-- TOC entry 3220 (class 2606 OID 16392)`
fn heading(line: &str) -> Option<(u32, u32, u32)> {
    let (number, rest) = line.strip_prefix("-- TOC entry ")?.split_once(" (class ")?;
    let (class, oid) = rest.strip_suffix(')')?.split_once(" OID ")?;
    Some((number.parse().ok()?, class.parse().ok()?, oid.parse().ok()?))
}

impl Reader {
    /// The length of the statement with which the text begins, without its semicolon. None if it does not end.
    fn statement(mut self, text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        let mut place = 0;
        while place < bytes.len() {
            let rest = &text[place..];
            place += match bytes[place] {
                b';' if self.parentheses == 0 && self.blocks == 0 => return Some(place),
                b'\'' => quoted(rest, false)?,
                b'"' => rest[1..].find('"')? + 2,
                b'-' if rest.starts_with("--") => rest.find('\n')?,
                b'/' if rest.starts_with("/*") => comment(rest)?,
                b'$' => dollar_quoted(rest)?,
                b'(' => {
                    self.parentheses += 1;
                    1
                }
                b')' => {
                    self.parentheses = self.parentheses.saturating_sub(1);
                    1
                }
                b'e' | b'E' if bytes.get(place + 1) == Some(&b'\'') => 1 + quoted(&rest[1..], true)?,
                byte if is_of_word(byte) => self.word(rest),
                _ => 1,
            };
        }
        None
    }

    /// A name, a keyword or a number. Returns its length.
    fn word(&mut self, text: &str) -> usize {
        let length = text.bytes().position(|byte| !is_of_word(byte) && byte != b'$').unwrap_or(text.len());
        let word = text[..length].to_ascii_lowercase();
        if self.initials.len() < 4 {
            self.initials.extend(word.chars().next());
        }
        let is_function = ["cf", "cp", "corf", "corp"].iter().any(|initials| self.initials.starts_with(initials));
        match &*word {
            "begin" if is_function && self.parentheses == 0 => self.blocks += 1,
            "case" if self.blocks > 0 && self.parentheses == 0 => self.blocks += 1,
            "end" if self.blocks > 0 && self.parentheses == 0 => self.blocks -= 1,
            _ => {}
        }
        length
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The length of a constant that begins with its quote.
fn quoted(text: &str, has_escapes: bool) -> Option<usize> {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((place, byte)) = bytes.next() {
        match byte {
            b'\\' if has_escapes => drop(bytes.next()?),
            b'\'' => return Some(place + 1),
            _ => {}
        }
    }
    None
}

fn comment(text: &str) -> Option<usize> {
    let (mut depth, mut place) = (0, 0);
    loop {
        let next = place + text[place..].find(['*', '/'])?;
        let pair = text.get(next..next + 2);
        place = next + if matches!(pair, Some("/*" | "*/")) { 2 } else { 1 };
        match pair {
            Some("/*") => depth += 1,
            Some("*/") if depth == 1 => return Some(place),
            Some("*/") => depth -= 1,
            _ => {}
        }
    }
}

/// The length of `$tag$...$tag$`, or of a dollar that is none, as in $1.
fn dollar_quoted(text: &str) -> Option<usize> {
    let Some(end) = text[1..].find(|c: char| !(c == '_' || c.is_ascii_alphanumeric() || !c.is_ascii())) else {
        return Some(1);
    };
    let tag = &text[..end + 2];
    if !tag.ends_with('$') || text.as_bytes()[1].is_ascii_digit() {
        return Some(1);
    }
    Some(tag.len() + text[tag.len()..].find(tag)? + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(script: &str) -> Vec<Vec<String>> {
        entries(script).unwrap().into_iter().map(|entry| entry.statements).collect()
    }

    #[test]
    fn a_script_is_taken_apart_into_its_entries() {
        let script = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET row_security = off;\n\
             SET default_tablespace = fast;\n\n--\n-- TOC entry 7 (class 1259 OID 16395)\n-- Dependencies: 3 3\n-- Name: i\n--\n\n\
             CREATE INDEX i ON t (a);\n\nALTER TABLE t CLUSTER ON i;\n\n\nSET default_tablespace = '';\n\n--\n\
             -- TOC entry 8 (class 0 OID 0)\n--\n\nCOMMENT ON INDEX i IS 'x';\n\n\\unrestrict abc\n";
        let [index, comment] = &entries(script).unwrap()[..] else { panic!("two entries") };
        assert_eq!((index.number, index.class, index.oid), (7, 1259, 16395));
        assert_eq!(index.depends, [3, 3]);
        assert_eq!(index.settings, "SET LOCAL default_tablespace = fast;\n");
        assert_eq!(index.statements, ["CREATE INDEX i ON t (a)", "ALTER TABLE t CLUSTER ON i"]);
        assert_eq!((comment.number, &*comment.settings), (8, "SET LOCAL default_tablespace = '';\n"));
    }

    /// Text of a tenant does not end the statement that it stands in, or else the rest would be another one.
    #[test]
    fn what_looks_like_an_entry_in_a_constant_is_none() {
        let head = "-- TOC entry 1 (class 1259 OID 1)\n";
        for hostile in [
            "'x\n--\n-- TOC entry 2 (class 1259 OID 2)\n--\n; drop table t;'",
            "'it''s; '';'",
            r"E'\'; drop table t; --'",
            r"e'\\'",
            r"'\'",
            "U&'\\0027; '",
            "\"a\n-- TOC entry 2 (class 0 OID 0)\n;\"\"';\"",
            "$$;'$$",
            "$a$; $$ ;$a$",
            "a$b$c",
            "$1",
            "/* ; /* ; */ ' */ 1",
            "-- ; '\n1",
            "(a; b)",
            "'\u{e9};'",
        ] {
            let script = format!("{head}SELECT {hostile};\nSELECT 2;");
            assert_eq!(statements(&script), [[format!("SELECT {hostile}"), "SELECT 2".to_string()]], "{hostile}");
        }
        let body =
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END";
        assert_eq!(statements(&format!("{head}{body};")), [[body]]);
        assert!(entries(&format!("{head}SELECT 'x;")).is_err());
    }
}
