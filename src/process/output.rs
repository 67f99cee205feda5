//! What verbs print: tables for people, JSON for programs. The only importer of serde_json.

use crate::base::error::{Error, Kind, Result};
use crate::base::shown::{is_hidden, shown, shown_lines};
use std::io::{self, BufRead, IsTerminal, Write};
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
        self.rows.push(cells.into_iter().map(|cell| shown(&cell.to_string()).into_owned()).collect());
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

/// Writes lines to stdout, of which nothing but text reaches the terminal. The caller escapes what stands within a
/// line, by `shown`: a line feed in a name would begin a line. If the reader has closed the pipe, it returns an error instead of a panic, and the verb ends:
/// nobody would read the rest.
pub fn print(text: &str) -> Result<()> {
    write(&shown_lines(text))
}

fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| Error::new(Kind::Stopped, None, "print", e))
}

/// Prints one JSON document, for programs.
pub fn print_json(document: &Json) -> Result<()> {
    write(&format!("{}\n", json_text(document)))
}

/// JSON escapes some characters that a terminal would obey. Here the others are escaped as well, in its way.
fn json_text(document: &Json) -> String {
    let text = format!("{document:#}");
    if !text.contains(|c| c != '\n' && is_hidden(c)) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if c != '\n' && is_hidden(c) => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped += &format!("\\u{unit:04x}"));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Asks a question that is answered by y or n, at a terminal.
pub fn ask(question: &str) -> Result<bool> {
    print(question)?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| Error::new(Kind::Stopped, None, "read the answer", e))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Writes lines to stderr as `print` does to stdout, and ignores errors of that.
pub fn complain(text: &str) {
    warn_raw(&shown_lines(text));
}

fn warn_raw(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Clears the terminal before new output. Does nothing if stdout is not a terminal.
pub fn clear() -> Result<()> {
    if io::stdout().is_terminal() { write("\x1b[H\x1b[2J") } else { Ok(()) }
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
        let text = text();
        let text = shown(&text);
        warn_raw(&if self.is_terminal { format!("\r{text}\x1b[K") } else { format!("{text}\n") });
    }

    /// Removes the line from the terminal, before the verb prints its result or an error.
    pub fn end(&mut self) {
        if self.shown.take().is_some() && self.is_terminal {
            warn_raw("\r\x1b[K");
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
            "TABLE             ROWS  STATE\npublic.a             7  ok\npublic.\u{e9}tag\u{e8}re\\n  1000\n"
        );
    }

    #[test]
    fn a_document_is_read_back_as_it_was_and_moves_no_cursor() {
        let document = json!({ "name\u{202e}": "a\n\u{1b}\u{7f}\u{9b}\u{2028}\u{e0041}" });
        let text = json_text(&document);
        assert!(!text.contains(|c| c != '\n' && is_hidden(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), document);
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        let table = TextTable::new(&["A", ">B"]);
        assert!(table.is_empty());
        assert_eq!(table.text(), "A  B\n");
    }
}
