//! Held changes that the slave's encoding has no characters for. They are stored in ASCII, and restored when they are read. The
//! first pair of such a row has the empty name, which no column can have.
//!
//! If a change comes from the master with its bytes escaped, because it has no form in UTF-8 either (`reader/unreadable.rs`),
//! it stays like that, and is never replayed.

use crate::backlog::change::Change;
use crate::backlog::row::{ColumnLists, Row, text_array};

const ESCAPED: &str = "escaped";

/// `\` twice, and what is not ASCII as `\u{20ac}`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            character if character.is_ascii() => escaped.push(character),
            character => escaped.extend(character.escape_unicode()),
        }
    }
    escaped
}

fn unescape(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.strip_prefix("u{").and_then(|code| code.split_once('}'));
        match code.and_then(|(code, rest)| Some((char::from_u32(u32::from_str_radix(code, 16).ok()?)?, rest))) {
            Some((character, after)) => {
                plain.push(character);
                rest = after;
            }
            None => {
                plain.push('\\');
                rest = after.strip_prefix('\\').unwrap_or(after);
            }
        }
    }
    plain + rest
}

/// A logged row as an array: name, value, name, value.
pub fn pairs(row: &Row) -> String {
    let is_escaped = row.has("");
    let mark = [Some(String::new()), Some(ESCAPED.to_string())].into_iter().filter(|_| !is_escaped);
    let columns = row.iter().flat_map(|(name, value)| match is_escaped {
        true => [Some(name.clone()), value.map(str::to_string)],
        false => [Some(escape(name)), value.map(escape)],
    });
    text_array(mark.chain(columns))
}

/// Makes a change what it was, if it has been stored like that.
pub fn restore(change: &mut Change, lists: &mut ColumnLists) {
    if change.old.get("").flatten() != Some(ESCAPED) {
        return;
    }
    change.relation = unescape(&change.relation);
    change.sql = unescape(&change.sql);
    for row in [&mut change.old, &mut change.new] {
        let pairs: Vec<(String, Option<String>)> = row
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, value)| (unescape(name), value.map(unescape)))
            .collect();
        let names = lists.names(&change.relation, pairs.iter().map(|(name, _)| name.as_str()));
        *row = Row::new(names, pairs.iter().map(|(_, value)| value.as_deref()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_escaped_is_restored() {
        for text in ["", "plain", "10 €", "a\\b\\\\", "\\u{41}", "ä\u{10ffff}\n"] {
            let escaped = escape(text);
            assert!(escaped.is_ascii(), "{escaped}");
            assert_eq!(unescape(&escaped), text);
        }
    }
}
