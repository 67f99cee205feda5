//! What verbs print: tables for people, JSON for programs. The only importer of serde_json.

use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::shown::{is_hidden, shown, shown_lines};
use crate::process::terminal::{self, Stream, fitting};
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod table;

pub use serde_json::{Value as Json, json};
pub use table::TextTable;

/// The time between two progress lines when stderr is not a terminal. Each is a line of its own there.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The same on a terminal, where each line overwrites the one before. Nobody could read faster updates.
const PROGRESS_REFRESH: Duration = Duration::from_millis(200);

/// How often a terminal with a progress line is asked for its width.
const WIDTH_INTERVAL: Duration = Duration::from_secs(1);

/// Before and behind a progress line on a terminal. It must not wrap, whatever has become of the width meanwhile, so wrapping is off for
/// as long as it is drawn. The cursor waits at its beginning: if the terminal breaks the line because it has become narrower, the
/// next one begins there, and erases what is below.
const BEGIN_LINE: &str = "\r\x1b[?7l";
const END_LINE: &str = "\x1b[J\x1b[?7h\r";

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

    /// The same with a text that is made for the room that there is, in columns.
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
        warn_raw(&format!("{BEGIN_LINE}{}{END_LINE}", fitting(&text, room)));
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
            warn_raw("\r\x1b[J");
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
}
