//! The terminal: whether a stream is one, what it obeys, how many columns it has, and how many a text takes. The only importer of
//! unicode_width.

use std::io::{self, IsTerminal};
use unicode_width::UnicodeWidthChar;

/// What is written for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Where nothing says how wide a terminal is.
const USUAL_COLUMNS: usize = 80;

/// Whether the stream is a terminal that obeys escape sequences.
pub fn obeys(stream: Stream) -> bool {
    is_terminal(stream) && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// Whether the stream may have colours: NO_COLOR is how people refuse them (no-color.org).
pub fn has_colours(stream: Stream) -> bool {
    obeys(stream) && std::env::var_os("NO_COLOR").is_none_or(|refused| refused.is_empty())
}

/// How many columns the terminal has at this moment. None if the stream is no terminal: no line is too long for a file.
pub fn columns(stream: Stream) -> Option<usize> {
    let is_real = |columns: &usize| *columns > 0;
    if !is_terminal(stream) {
        return None;
    }
    let set = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(is_real);
    Some(set.or_else(|| asked(stream).filter(is_real)).unwrap_or(USUAL_COLUMNS))
}

/// How many columns a text takes. As in xterm, tmux and psql, each character counts by itself: most of Chinese, Japanese and Korean
/// and emoji take two, and what is drawn upon the character before takes none.
pub fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

/// The beginning of a text that takes at most so many columns.
pub fn fitting(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let is_beyond = |c: char| {
        taken += width_of(c);
        taken > columns
    };
    &text[..text.find(is_beyond).unwrap_or(text.len())]
}

/// A text with blanks behind it up to so many columns.
pub fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

fn width_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

fn is_terminal(stream: Stream) -> bool {
    match stream {
        Stream::Stdout => io::stdout().is_terminal(),
        Stream::Stderr => io::stderr().is_terminal(),
    }
}

/// Asks `stty`, which prints rows and columns of its standard input: std cannot ask.
#[cfg(unix)]
fn asked(stream: Stream) -> Option<usize> {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};
    let terminal = match stream {
        Stream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
        Stream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
    };
    let output =
        Command::new("stty").arg("size").stdin(Stdio::from(terminal.ok()?)).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(windows)]
fn asked(_stream: Stream) -> Option<usize> {
    None
}
