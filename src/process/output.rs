//! What verbs print: tables for people, JSON for programs. The only importer of serde_json.

use crate::base::error::{Error, Kind, Result};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

pub use serde_json::{Value as Json, json};

/// The time between two progress lines when stderr is not a terminal. Each is a line of its own there.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The same on a terminal, where each line overwrites the one before. Nobody could read faster updates.
const PROGRESS_REFRESH: Duration = Duration::from_millis(200);

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
        let clean = |cell: String| cell.replace(char::is_control, "?");
        self.rows.push(cells.into_iter().map(|cell| clean(cell.to_string())).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn text(&self) -> String {
        let lines = || std::iter::once(&self.headings).chain(&self.rows);
        let width = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.headings.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for line in lines() {
            let mut row = String::new();
            for (column, cell) in line.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.chars().count());
                row += if column > 0 { "  " } else { "" };
                row += &if self.right[column] { padding + cell } else { cell.clone() + &padding };
            }
            text += row.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Writes to stdout. If the reader has closed the pipe, it returns an error instead of a panic, and the verb ends:
/// nobody would read the rest.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| Error::new(Kind::Stopped, None, "print", e))
}

/// Prints one JSON document, for programs.
pub fn print_json(document: &Json) -> Result<()> {
    print(&format!("{document:#}\n"))
}

/// Writes to stderr, and ignores errors of that.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Clears the terminal before new output. Does nothing if stdout is not a terminal.
pub fn clear() -> Result<()> {
    if io::stdout().is_terminal() { print("\x1b[H\x1b[2J") } else { Ok(()) }
}

/// Shows the progress of long work. It writes to stderr, so that stdout has the result only.
pub struct ProgressLine {
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Default for ProgressLine {
    fn default() -> ProgressLine {
        ProgressLine { shown: None, is_terminal: io::stderr().is_terminal() }
    }
}

impl ProgressLine {
    /// Shows the line that `text` returns, if it is time for the next line.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let pause = if self.is_terminal { PROGRESS_REFRESH } else { PROGRESS_INTERVAL };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let text = text().replace(char::is_control, "?");
        complain(&if self.is_terminal { format!("\r{text}\x1b[K") } else { format!("{text}\n") });
    }

    /// Removes the line from the terminal, before the verb prints its result or an error.
    pub fn end(&mut self) {
        if self.shown.take().is_some() && self.is_terminal {
            complain("\r\x1b[K");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.end();
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
            "TABLE            ROWS  STATE\npublic.a            7  ok\npublic.\u{e9}tag\u{e8}re?  1000\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        let table = TextTable::new(&["A", ">B"]);
        assert!(table.is_empty());
        assert_eq!(table.text(), "A  B\n");
    }
}
