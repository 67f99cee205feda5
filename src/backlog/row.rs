//! One logged row as text.
//!
//! The daemon spends most of its own CPU time on reading rows. So the rows of a table share one list of column names,
//! and a row stores all its values in one string.

use crate::server::session;
use std::collections::HashMap;
use std::sync::Arc;

/// The names of a row's columns. Two rows of a table mostly share the list, so comparing the pointers is enough.
pub type ColumnNames = Arc<[String]>;

#[derive(Clone, Debug)]
pub struct Row {
    names: ColumnNames,
    text: Text,
    /// Where each value begins and ends in the text. A NULL begins at `NULL`.
    places: Vec<(u32, u32)>,
}

/// No value begins there: no text is that long.
const NULL: u32 = u32::MAX;

#[derive(Clone, Debug)]
enum Text {
    Own(String),
    /// A column of a row as the server has sent it, in hstore's binary form.
    Sent(Arc<session::Row>, usize),
}

impl Row {
    pub fn new<'a>(names: ColumnNames, values: impl Iterator<Item = Option<&'a str>> + Clone) -> Row {
        let length = values.clone().map(|value| value.map_or(0, str::len)).sum();
        let (mut places, mut text) = (Vec::with_capacity(names.len()), String::with_capacity(length));
        for value in values {
            let start = text.len() as u32;
            text.push_str(value.unwrap_or_default());
            places.push((if value.is_some() { start } else { NULL }, text.len() as u32));
        }
        assert_eq!(names.len(), places.len(), "each column has a value");
        Row { names, text: Text::Own(text), places }
    }

    /// A row that is not copied out of what the server has sent: `column` there has hstore's binary form, and `values` are its
    /// values. For large rows. The memory of a small one would be that of all that was sent with it.
    pub fn sent(names: ColumnNames, sent: &Arc<session::Row>, column: usize, values: &[Option<&str>]) -> Row {
        let base = bytes_of(sent, column).as_ptr() as usize;
        let place = |value: &Option<&str>| match value {
            Some(text) => {
                let start = text.as_ptr() as usize - base;
                (start as u32, (start + text.len()) as u32)
            }
            None => (NULL, NULL),
        };
        let places: Vec<(u32, u32)> = values.iter().map(place).collect();
        assert_eq!(names.len(), places.len(), "each column has a value");
        Row { names, text: Text::Sent(Arc::clone(sent), column), places }
    }

    /// How much memory the values take.
    pub fn bytes(&self) -> usize {
        match &self.text {
            Text::Own(text) => text.len(),
            Text::Sent(sent, column) => bytes_of(sent, *column).len(),
        }
    }

    pub fn names(&self) -> &ColumnNames {
        &self.names
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The value at a place among the names; `None` is NULL.
    pub fn at(&self, place: usize) -> Option<&str> {
        let (start, end) = self.places[place];
        if start == NULL {
            return None;
        }
        let (start, end) = (start as usize, end as usize);
        Some(match &self.text {
            Text::Own(text) => &text[start..end],
            Text::Sent(sent, column) => {
                std::str::from_utf8(&bytes_of(sent, *column)[start..end]).expect("it was text when the row was made")
            }
        })
    }

    /// The value of a column, if the row has it.
    pub fn get(&self, name: &str) -> Option<Option<&str>> {
        self.names.iter().position(|known| known == name).map(|place| self.at(place))
    }

    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, Option<&str>)> {
        self.names.iter().enumerate().map(|(place, name)| (name, self.at(place)))
    }

    /// The row with other names for its columns, and without those that get none.
    pub fn renamed(&self, name: impl Fn(&str) -> Option<String>) -> Row {
        self.iter().filter_map(|(old, value)| Some((name(old)?, value))).collect()
    }
}

fn bytes_of(sent: &session::Row, column: usize) -> &[u8] {
    sent.get::<_, Option<&[u8]>>(column).unwrap_or_default()
}

/// Reads hstore's binary form: the number of pairs, then of each pair the name and the value, each after its length.
pub fn unpack(bytes: &[u8]) -> Option<Vec<(&str, Option<&str>)>> {
    let mut rest = bytes;
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let pairs = length(&mut rest)?;
    let mut unpacked = Vec::with_capacity(usize::try_from(pairs).ok()?.min(bytes.len() / 8));
    for _ in 0..pairs {
        let name = text(&mut rest)??;
        unpacked.push((name, text(&mut rest)?));
    }
    rest.is_empty().then_some(unpacked)
}

fn length(rest: &mut &[u8]) -> Option<i32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(i32::from_be_bytes(*head))
}

/// A NULL has a length below zero.
fn text<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a str>> {
    let Ok(length) = usize::try_from(length(rest)?) else { return Some(None) };
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    std::str::from_utf8(text).ok().map(Some)
}

impl Default for Row {
    fn default() -> Row {
        Row::new(Arc::default(), std::iter::empty())
    }
}

impl<'a> FromIterator<(String, Option<&'a str>)> for Row {
    fn from_iter<I: IntoIterator<Item = (String, Option<&'a str>)>>(columns: I) -> Row {
        let (names, values): (Vec<String>, Vec<Option<&str>>) = columns.into_iter().unzip();
        Row::new(names.into(), values.into_iter())
    }
}

/// The lists of names in use, by table.
#[derive(Clone, Default)]
pub struct ColumnLists(HashMap<String, Vec<ColumnNames>>);

/// How many lists are kept for one table, and for how many tables. One table may have many lists, because large rows
/// are logged with the changed columns only.
const MAX_LISTS: usize = 16;
const MAX_TABLES: usize = 10_000;

impl ColumnLists {
    /// The shared list with these names.
    pub fn names<'a>(&mut self, relation: &str, names: impl Iterator<Item = &'a str> + Clone) -> ColumnNames {
        if !self.0.contains_key(relation) {
            if self.0.len() == MAX_TABLES {
                self.0.clear();
            }
            self.0.insert(relation.to_string(), Vec::new());
        }
        let lists = self.0.get_mut(relation).expect("it was put there");
        if let Some(list) = lists.iter().find(|list| list.iter().map(String::as_str).eq(names.clone())) {
            return list.clone();
        }
        if lists.len() == MAX_LISTS {
            lists.clear();
        }
        let list: ColumnNames = names.map(str::to_string).collect();
        lists.push(list.clone());
        list
    }
}

/// The text of an array, as PostgreSQL reads it.
pub fn text_array(values: impl Iterator<Item = Option<String>>) -> String {
    let quoted = |value: Option<String>| match value {
        Some(value) => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
        None => "NULL".to_string(),
    };
    format!("{{{}}}", values.map(quoted).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_null_and_the_empty_string_apart() {
        let row: Row = [("a", Some("x")), ("b", None), ("c", Some("")), ("d", Some("é"))]
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect();
        assert_eq!(row.iter().map(|(_, value)| value).collect::<Vec<_>>(), [Some("x"), None, Some(""), Some("é")]);
        assert_eq!((row.get("b"), row.get("c"), row.get("e")), (Some(None), Some(Some("")), None));
        let renamed = row.renamed(|name| (name != "a").then(|| name.to_uppercase()));
        assert_eq!((renamed.len(), renamed.get("D")), (3, Some(Some("é"))));
    }

    #[test]
    fn the_binary_form_of_hstore_is_taken_apart_or_refused() {
        let packed = b"\0\0\0\x02\0\0\0\x01a\0\0\0\x02\xc3\xa9\0\0\0\x01b\xff\xff\xff\xff";
        assert_eq!(unpack(packed), Some(vec![("a", Some("é")), ("b", None)]));
        assert_eq!(unpack(b""), Some(vec![]));
        (1..packed.len()).for_each(|end| assert_eq!(unpack(&packed[..end]), None));
        assert_eq!(unpack(b"\x7f\xff\xff\xff"), None);
    }

    #[test]
    fn rows_of_a_table_share_their_names() {
        let mut lists = ColumnLists::default();
        let first = lists.names("public.t", ["a", "b"].into_iter());
        assert!(Arc::ptr_eq(&first, &lists.names("public.t", ["a", "b"].into_iter())));
        assert!(!Arc::ptr_eq(&first, &lists.names("public.t", ["a"].into_iter())));
        assert_eq!(*lists.names("public.u", ["a"].into_iter()), ["a".to_string()]);
    }

    #[test]
    fn an_array_is_what_the_server_reads_back() {
        let values = [Some("a\"b\\".to_string()), None, Some("NULL".into()), Some(String::new())];
        assert_eq!(text_array(values.into_iter()), r#"{"a\"b\\",NULL,"NULL",""}"#);
        assert_eq!(text_array(std::iter::empty()), "{}");
    }
}
