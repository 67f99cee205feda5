//! How text of others is shown: names, values and messages of the servers. Nothing in it moves the cursor, begins a line, or turns
//! the order of what is read; it is escaped instead.
//!
//! Escaped text is no longer the same text for a program. A statement that is to be run keeps its meaning: its constants and
//! names are written with escapes that PostgreSQL reads.

use std::borrow::Cow;
use std::fmt::Write;

/// So many are named in one line.
const MAX_LISTED: usize = 10;

/// Whether a terminal, an editor or a mail reader does something else with a character than to draw it: control characters, those
/// that set the direction of writing, other separators of lines, and those that cannot be seen.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The first of many, for one line.
pub fn listed(texts: &[String]) -> String {
    match texts.len().checked_sub(MAX_LISTED) {
        None | Some(0) => texts.join(", "),
        Some(more) => format!("{}, and {more} more", texts[..MAX_LISTED].join(", ")),
    }
}

/// For a place within a line.
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// For text that consists of lines of our own.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_hidden(c))
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' if is_bad(c) => shown.push_str("\\n"),
            '\t' if is_bad(c) => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if is_bad(c) => drop(write!(shown, "\\u{{{:x}}}", c as u32)),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// A statement that can be run as it is shown, and means the same: constants become `E''`, names `U&""`. None if something that
/// has to be escaped stands elsewhere, where PostgreSQL reads no escapes.
pub fn shown_statement(sql: &str) -> Option<Cow<'_, str>> {
    if !sql.contains(is_hidden) {
        return Some(Cow::Borrowed(sql));
    }
    let mut shown = String::with_capacity(sql.len() + 16);
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let before = shown.chars().next_back();
        let is_prefixed = before.is_some_and(|c| c.is_alphanumeric() || "_$&".contains(c));
        match first {
            '\'' | '"' => {
                let (inner, behind) = quoted(rest, first)?;
                // E'', U&"" and the like have escapes already, and end elsewhere.
                if is_prefixed && inner.contains('\\') {
                    return None;
                }
                match (inner.contains(is_hidden), first) {
                    (false, _) => shown.push_str(&rest[..rest.len() - behind.len()]),
                    (true, _) if is_prefixed => return None,
                    (true, '\'') => drop(write!(shown, "E'{}'", constant(inner))),
                    (true, _) => drop(write!(shown, "U&\"{}\"", name(inner))),
                }
                rest = behind;
            }
            // A comment or a dollar quote would have to be read to its end.
            '-' if rest.starts_with("--") => return None,
            '/' if rest.starts_with("/*") => return None,
            '$' if !before.is_some_and(char::is_alphanumeric) => return None,
            '\n' | '\t' | '\r' => {
                shown.push(' ');
                rest = &rest[1..];
            }
            c if is_hidden(c) => return None,
            c => {
                shown.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Some(Cow::Owned(shown))
}

/// A statement for people: one that means the same as it is shown, or one that is said to be another.
pub fn shown_sql(sql: &str) -> Cow<'_, str> {
    shown_statement(sql).unwrap_or_else(|| Cow::Owned(format!("(escaped) {}", shown(sql))))
}

/// What stands between quotes, its own quotes still doubled, and what follows.
fn quoted(text: &str, quote: char) -> Option<(&str, &str)> {
    let mut place = 1;
    loop {
        let end = place + text[place..].find(quote)?;
        match text[end + 1..].starts_with(quote) {
            true => place = end + 2,
            false => return Some((&text[1..end], &text[end + 1..])),
        }
    }
}

fn constant(inner: &str) -> String {
    let mut escaped = String::new();
    for c in inner.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\r' => escaped.push_str("\\r"),
            c if is_hidden(c) && (c as u32) < 0x80 => drop(write!(escaped, "\\x{:02x}", c as u32)),
            c if is_hidden(c) => drop(write!(escaped, "\\U{:08x}", c as u32)),
            c => escaped.push(c),
        }
    }
    escaped
}

fn name(inner: &str) -> String {
    let mut escaped = String::new();
    for c in inner.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            c if is_hidden(c) => drop(write!(escaped, "\\+{:06x}", c as u32)),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_drawn_is_escaped_and_the_rest_is_as_it_was() {
        assert_eq!(shown("\u{e9}t\u{e9} \\n \u{1f600}"), "\u{e9}t\u{e9} \\n \u{1f600}");
        assert_eq!(
            shown("a\n\tb\r\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}\u{2066}\u{e0041}"),
            "a\\n\\tb\\r\\u{1b}[2J\\u{7f}\\u{9b}\\u{202e}\\u{2028}\\u{2066}\\u{e0041}"
        );
        assert_eq!(shown_lines("a\n\tb\r\n"), "a\n\\tb\\r\n");
    }

    #[test]
    fn a_statement_means_the_same_or_is_not_shown() {
        let same = |sql: &str, expected: &str| assert_eq!(shown_statement(sql).as_deref(), Some(expected), "{sql:?}");
        same("DROP TABLE \"a\"\"b\";", "DROP TABLE \"a\"\"b\";");
        same(
            "ALTER TABLE s.\"a\"\"\n\\b\" ADD \"c\u{202e}\" text;",
            "ALTER TABLE s.U&\"a\"\"\\+00000a\\\\b\" ADD U&\"c\\+00202e\" text;",
        );
        same(
            "SELECT f('it''s \\ \u{1b}\n', 'x\\', '\u{85}')",
            "SELECT f(E'it''s \\\\ \\x1b\\n', 'x\\', E'\\U00000085')",
        );
        same("SELECT 1\n\tFROM t", "SELECT 1  FROM t");
        assert_eq!(shown_sql("SELECT 1 -- \n + 1"), "(escaped) SELECT 1 -- \\n + 1");
        for sql in ["SELECT 'a\n", "SELECT E'\\'\u{1b}'", "SELECT $$ \n $$", "-- '\n'", "U&\"\\000a\u{1b}\""] {
            assert_eq!(shown_statement(sql), None, "{sql:?}");
        }
    }
}
