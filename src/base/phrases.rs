//! Small parts of messages: a number of things, the word that was meant, a reason without its number.

use std::borrow::Cow;
use std::fmt::Display;

/// `1 change`, `2 changes`.
pub fn counted(number: impl Display, what: &str) -> String {
    let number = number.to_string();
    let s = if number == "1" { "" } else { "s" };
    format!("{number} {what}{s}")
}

/// `1 change was`, `2 changes were`.
pub fn were(number: impl Display, what: &str) -> String {
    let text = counted(number, what);
    let were = if text.starts_with("1 ") { "was" } else { "were" };
    format!("{text} {were}")
}

/// `: did you mean WORD?` with the known word that is most like this one. Empty if none is like it.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let wanted = word.to_lowercase();
    let distances = known.into_iter().map(|known| (distance(&wanted, &known.to_lowercase()), known));
    match distances.min_by_key(|(distance, _)| *distance) {
        Some((distance, known)) if distance <= most(&wanted) => format!(": did you mean {known}?"),
        _ => String::new(),
    }
}

/// A reason of the operating system's without the number that Rust adds: the words say the same.
pub fn without_number(reason: &str) -> Cow<'_, str> {
    const MARK: &str = " (os error ";
    let mut text = Cow::Borrowed(reason);
    while let Some(at) = text.find(MARK) {
        let number = &text[at + MARK.len()..];
        let Some(end) = number.find(')').filter(|end| number[..*end].parse::<i32>().is_ok()) else { break };
        text = Cow::Owned(format!("{}{}", &text[..at], &number[end + 1..]));
    }
    text
}

/// How many typing errors a word of this length may have.
fn most(word: &str) -> usize {
    match word.trim_start_matches('-').chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

/// How many letters have to be added, removed, replaced, or exchanged with the next one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "row")), ["0 rows", "1 row", "2 rows"]);
        assert_eq!([0, 1, 2].map(|number| were(number, "row")), ["0 rows were", "1 row was", "2 rows were"]);
    }

    #[test]
    fn a_word_with_a_typing_error_is_recognized_and_another_word_is_not() {
        let known = ["status", "doctor", "--json", "--table", "DSN0", "DSN1", "NAME"];
        let meant = |word| did_you_mean(word, known);
        assert_eq!(meant("docter"), ": did you mean doctor?");
        assert_eq!(meant("statsu"), ": did you mean status?");
        assert_eq!(meant("--jsno"), ": did you mean --json?");
        assert_eq!(meant("--tables"), ": did you mean --table?");
        assert_eq!(meant("nam"), ": did you mean NAME?");
        for other in ["me", "--foo", "x", "", "secret"] {
            assert_eq!(meant(other), "", "{other}");
        }
    }

    #[test]
    fn a_reason_has_no_number() {
        let reason = std::io::Error::from_raw_os_error(2).to_string();
        assert!(reason.contains("(os error 2)"));
        assert!(!without_number(&format!("{reason}; {reason}, again")).contains("os error"));
        assert_eq!(without_number("x (os error y)"), "x (os error y)");
    }
}
