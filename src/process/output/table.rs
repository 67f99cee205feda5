//! Tables for people: aligned, and as wide as the terminal.

use crate::base::shown::shown;
use crate::process::terminal::{self, Stream, fitting, padded, width};

/// So much of a cell stands on a line, however narrow the terminal is.
const LEAST_ROOM: usize = 20;

/// Rows under headings, each column as wide as its widest cell.
pub struct TextTable {
    headings: Vec<String>,
    /// Whether each column is aligned to the right.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A heading that begins with `>` makes its column right-aligned, for numbers.
    pub fn new(headings: &[&str]) -> TextTable {
        TextTable {
            headings: headings.iter().map(|heading| heading.trim_start_matches('>').to_string()).collect(),
            right: headings.iter().map(|heading| heading.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl ToString>) {
        // A line feed in a name would break the table, and an escape sequence could change the terminal.
        self.rows.push(cells.into_iter().map(|cell| shown(&cell.to_string()).into_owned()).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as the terminal has room for it: the last column over several lines, or the cells below each other. What no person
    /// looks at has a line for each row.
    pub fn text(&self) -> String {
        self.text_within(terminal::columns(Stream::Stdout))
    }

    /// The same; but if there is no room for all columns side by side, and there is for these, only these.
    pub fn text_or(&self, headings: &[&str]) -> String {
        self.text_or_within(headings, terminal::columns(Stream::Stdout))
    }

    fn text_or_within(&self, headings: &[&str], columns: Option<usize>) -> String {
        let room = columns.unwrap_or(usize::MAX);
        let narrow = self.only(headings);
        if self.width() > room && narrow.width() <= room { narrow.lines(room) } else { self.text_within(columns) }
    }

    fn only(&self, headings: &[&str]) -> TextTable {
        let kept: Vec<usize> =
            (0..self.headings.len()).filter(|column| headings.contains(&self.headings[*column].as_str())).collect();
        let chosen = |row: &Vec<String>| kept.iter().filter_map(|column| row.get(*column).cloned()).collect();
        TextTable {
            headings: chosen(&self.headings),
            right: kept.iter().map(|column| self.right[*column]).collect(),
            rows: self.rows.iter().map(chosen).collect(),
        }
    }

    fn text_within(&self, columns: Option<usize>) -> String {
        let columns = columns.unwrap_or(usize::MAX);
        let last = self.widths().last().copied().unwrap_or(0);
        let is_last_text = self.right.last() == Some(&false);
        match self.width() {
            width if width <= columns => self.lines(last),
            width if is_last_text && width - last + LEAST_ROOM <= columns => self.lines(columns + last - width),
            _ => self.records(columns),
        }
    }

    fn widths(&self) -> Vec<usize> {
        let lines = || std::iter::once(&self.headings).chain(&self.rows);
        let widest = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| width(cell)).max();
        (0..self.headings.len()).map(|column| widest(column).unwrap_or(0)).collect()
    }

    fn width(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
    }

    /// Each cell on a line of its own, behind its heading, and an empty line between two rows. A long cell has several lines.
    fn records(&self, columns: usize) -> String {
        let indent = self.headings.iter().map(|heading| width(heading)).max().unwrap_or(0) + 2;
        let room = columns.saturating_sub(indent).max(LEAST_ROOM);
        let records = self.rows.iter().map(|row| {
            let mut text = String::new();
            for (heading, cell) in self.headings.iter().zip(row) {
                let mut head = heading.as_str();
                for piece in pieces(cell, room) {
                    text += format!("{head:indent$}{piece}").trim_end();
                    text.push('\n');
                    head = "";
                }
            }
            text
        });
        records.collect::<Vec<String>>().join("\n")
    }

    /// A line for each row, or several if the last cell has no room in one.
    fn lines(&self, room: usize) -> String {
        let lines = || std::iter::once(&self.headings).chain(&self.rows);
        let widths = self.widths();
        let mut text = String::new();
        for line in lines() {
            let mut row = String::new();
            for (column, cell) in line.iter().enumerate() {
                row += if column > 0 { "  " } else { "" };
                if column + 1 == self.headings.len() && !self.right[column] {
                    let indent = width(&row);
                    row += &pieces(cell, room).join(&format!("\n{:indent$}", ""));
                } else {
                    let padding = widths[column] - width(cell);
                    row += &if self.right[column] { " ".repeat(padding) + cell } else { padded(cell, widths[column]) };
                }
            }
            text += row.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Divides a text into pieces of at most so many columns, at blanks if there are any. There is at least one.
fn pieces(text: &str, room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        // One character at least, however wide it is.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = fitting(rest, room).len().max(first);
        if end == rest.len() {
            pieces.push(rest.to_string());
            return pieces;
        }
        let up_to = end + usize::from(rest[end..].starts_with(' '));
        let blank = rest[..up_to].rfind(' ').filter(|blank| *blank > 0);
        let (piece, behind) = rest.split_at(blank.unwrap_or(end));
        pieces.push(piece.to_string());
        rest = if blank.is_some() { &behind[1..] } else { behind };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_no_cell_breaks_it() {
        let mut table = TextTable::new(&["TABLE", ">ROWS", "STATE"]);
        table.row(["public.a", "7", "ok"]);
        table.row(["public.\u{e9}tag\u{e8}re\n", "1000", ""]);
        assert_eq!(
            table.text(),
            "TABLE             ROWS  STATE\npublic.a             7  ok\npublic.\u{e9}tag\u{e8}re\\n  1000\n"
        );
    }

    #[test]
    fn a_table_that_is_wider_than_the_terminal_has_more_lines() {
        let mut table = TextTable::new(&[">ID", "STATE", "SQL"]);
        table.row(["7", "", "insert into t values (1, 2)"]);
        table.row(["8", "waits", "x"]);
        assert_eq!(table.text_within(Some(42)), table.text_within(None));
        assert_eq!(
            table.text_within(Some(34)),
            "ID  STATE  SQL\n 7         insert into t values\n           (1, 2)\n 8  waits  x\n"
        );
        assert_eq!(pieces("abcdef g", 3), ["abc", "def", "g"]);
        assert_eq!(table.text_or_within(&["ID", "STATE"], Some(20)), "ID  STATE\n 7\n 8  waits\n");
        assert_eq!(table.text_or_within(&["ID", "STATE"], Some(5)), table.text_within(Some(5)));
        assert_eq!(
            table.text_within(Some(27)),
            "ID     7\nSTATE\nSQL    insert into t values\n       (1, 2)\n\nID     8\nSTATE  waits\nSQL    x\n"
        );
    }

    #[test]
    fn a_wide_character_takes_two_columns_and_one_that_is_drawn_upon_another_takes_none() {
        // A word of three wide characters, one with a combining accent, and an emoji.
        let (wide, combined, emoji) = ("\u{6ce8}\u{6587}\u{8868}", "cafe\u{301}", "\u{1f418}");
        assert_eq!([wide, combined, emoji].map(width), [6, 4, 2]);
        let mut table = TextTable::new(&["TABLE", ">ROWS", "NOTES"]);
        for name in [wide, combined, emoji, "t"] {
            table.row([name, "7", wide]);
        }
        let lines = |name: &str, blanks: usize| format!("{name}{}     7  {wide}\n", " ".repeat(blanks));
        assert_eq!(
            table.text_within(None),
            "TABLE   ROWS  NOTES\n".to_string()
                + &lines(wide, 0)
                + &lines(combined, 2)
                + &lines(emoji, 4)
                + &lines("t", 5)
        );
        assert!(table.text_within(Some(20)).lines().all(|line| width(line) <= 20));
        assert_eq!(pieces(wide, 3), ["\u{6ce8}", "\u{6587}", "\u{8868}"]);
        assert_eq!(pieces(&format!("{combined} {emoji}"), 4), [combined, emoji]);
        assert_eq!((pieces(wide, 1).len(), pieces("", 1)), (3, vec![String::new()]));
        assert_eq!(fitting("cafe\u{301}s", 4), combined);
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        let table = TextTable::new(&["A", ">B"]);
        assert!(table.is_empty());
        assert_eq!(table.text(), "A  B\n");
    }
}
