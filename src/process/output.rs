//! What verbs print: tables for people, JSON for programs. The only importer of serde_json.

use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::shown::{is_hidden, shown, shown_lines};
use crate::process::terminal::{self, Stream};
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use serde_json::{Value as Json, json};

/// The time between two progress lines when stderr is not a terminal. Each is a line of its own there.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The same on a terminal, where each line overwrites the one before. Nobody could read faster updates.
const PROGRESS_REFRESH: Duration = Duration::from_millis(200);

/// How often a terminal with a progress line is asked for its width.
const WIDTH_INTERVAL: Duration = Duration::from_secs(1);

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
        let width = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        (0..self.headings.len()).map(|column| width(column).unwrap_or(0)).collect()
    }

    fn width(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
    }

    /// Each cell on a line of its own, behind its heading, and an empty line between two rows. A long cell has several lines.
    fn records(&self, columns: usize) -> String {
        let indent = self.headings.iter().map(|heading| heading.chars().count()).max().unwrap_or(0) + 2;
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
                let padding = " ".repeat(widths[column] - cell.chars().count());
                row += if column > 0 { "  " } else { "" };
                if column + 1 == self.headings.len() && !self.right[column] {
                    let indent = row.chars().count();
                    row += &pieces(cell, room).join(&format!("\n{:indent$}", ""));
                } else {
                    row += &if self.right[column] { padding + cell } else { cell.clone() + &padding };
                }
            }
            text += row.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Divides a text into pieces of at most so many characters, at blanks if there are any. There is at least one.
fn pieces(text: &str, room: usize) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    let mut rest = &letters[..];
    while rest.len() > room.max(1) {
        let blank = rest[..=room.max(1)].iter().rposition(|c| *c == ' ').filter(|blank| *blank > 0);
        let (piece, behind) = rest.split_at(blank.unwrap_or(room.max(1)));
        pieces.push(piece.iter().collect());
        rest = if blank.is_some() { &behind[1..] } else { behind };
    }
    pieces.push(rest.iter().collect());
    pieces
}

/// Writes lines to stdout, of which nothing but text reaches the terminal. The caller escapes what stands within a
/// line, by `shown`: a line feed in a name would begin a line. If the reader has closed the pipe, it returns `Kind::Stopped`, and
/// the verb ends: nobody would read the rest. Any other error has its reason.
pub fn print(text: &str) -> Result<()> {
    write(&shown_lines(text))
}

/// Prints lines that begin with the level of what they say, in its colour on a terminal.
pub fn print_findings(text: &str) -> Result<()> {
    if !terminal::has_colours(Stream::Stdout) {
        return print(text);
    }
    let painted = shown_lines(text).split_inclusive('\n').map(painted).collect::<String>();
    write(&painted)
}

fn painted(line: &str) -> String {
    let levels = [("failure", "31"), ("warning", "33"), ("ok", "32")];
    let found = levels.iter().find_map(|(level, colour)| Some((level, colour, line.strip_prefix(level)?)));
    match found {
        Some((level, colour, rest)) if rest.starts_with(' ') => format!("\x1b[{colour}m{level}\x1b[0m{rest}"),
        _ => line.to_string(),
    }
}

fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| {
        let kind = if e.kind() == io::ErrorKind::BrokenPipe { Kind::Stopped } else { Kind::Setup };
        Error::new(kind, None, "write the output", e)
    })
}

/// Prints one JSON document, for programs.
pub fn print_json(document: &Json) -> Result<()> {
    HAS_DOCUMENT.store(true, Ordering::Relaxed);
    write(&format!("{}\n", json_text(document)))
}

/// Prints the error with which a verb ends, in one form for all verbs. Does nothing if the verb has printed its document.
pub fn print_json_error(error: &Error) -> Result<()> {
    if HAS_DOCUMENT.load(Ordering::Relaxed) {
        return Ok(());
    }
    print_json_so_far(json!({}), Some(error))
}

/// Prints what a verb has done for several pairs, with the error that has ended it before the last one.
pub fn print_json_so_far(mut document: Json, error: Option<&Error>) -> Result<()> {
    if let Some(error) = error {
        document["error"] = json!({
            "message": error.to_string(), "side": error.side().map(|side| side.to_string()), "operation": error.operation(),
            "detail": error.detail(), "hint": error.hint(), "sqlstate": error.code(),
            "change": error.change().map(|(id, _)| id.0),
        });
        document["exit_code"] = json!(exit_code(error) as u8);
    }
    print_json(&document)
}

/// The exit code of a verb that ends with this error. If the operator has pressed Ctrl-C or closed the pipe, that is no success.
pub fn exit_code(error: &Error) -> ExitCode {
    if error.kind() == Kind::Stopped { ExitCode::Interrupted } else { error.exit_code() }
}

/// Whether this process has printed a document.
static HAS_DOCUMENT: AtomicBool = AtomicBool::new(false);

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
    if terminal::obeys(Stream::Stdout) { write("\x1b[H\x1b[2J") } else { Ok(()) }
}

/// Shows the progress of long work. It writes to stderr, so that stdout has the result only.
pub struct ProgressLine {
    shown: Option<Instant>,
    is_terminal: bool,
    /// The room in a line, and when it was asked for.
    room: Option<(usize, Instant)>,
}

impl Default for ProgressLine {
    fn default() -> ProgressLine {
        ProgressLine { shown: None, is_terminal: terminal::obeys(Stream::Stderr), room: None }
    }
}

impl ProgressLine {
    /// Shows the line that `text` returns, if it is time for the next line.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        self.show_within(|_| text());
    }

    /// The same with a text that is made for the room that there is, in characters.
    pub fn show_within(&mut self, text: impl FnOnce(usize) -> String) {
        let pause = if self.is_terminal { PROGRESS_REFRESH } else { PROGRESS_INTERVAL };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let room = self.room();
        let text = text(room);
        let text = shown(&text);
        if !self.is_terminal {
            return warn_raw(&format!("{text}\n"));
        }
        warn_raw(&format!("\r{}\x1b[K", text.chars().take(room).collect::<String>()));
    }

    /// A line on a terminal is overwritten, so it must be one, and the cursor needs a place. Somebody may resize the terminal.
    fn room(&mut self) -> usize {
        if !self.is_terminal {
            return usize::MAX;
        }
        let known = self.room.filter(|(_, asked)| asked.elapsed() < WIDTH_INTERVAL).map(|(room, _)| room);
        known.unwrap_or_else(|| {
            let room = terminal::columns(Stream::Stderr).map_or(usize::MAX, |columns| columns.saturating_sub(1));
            self.room = Some((room, Instant::now()));
            room
        })
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
    fn only_the_level_has_a_colour() {
        assert_eq!(painted("failure  warning\n"), "\x1b[31mfailure\x1b[0m  warning\n");
        assert_eq!(["  ok x\n", "okay\n", "note  ok\n"].map(painted), ["  ok x\n", "okay\n", "note  ok\n"]);
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
