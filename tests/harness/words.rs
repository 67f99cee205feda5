//! What pyreplica says at its end, and what it must say.

use super::{Finished, Pair};

/// The error and its hint, as somebody at the terminal sees them last.
pub fn final_words(finished: &Finished) -> String {
    let lines = finished.output.lines().filter(|line| line.starts_with("pyreplica: ") || line.starts_with("hint: "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Each of the parts stands in the text.
#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

/// Drains and fails because of a change; what was said about it at the end.
#[track_caller]
pub fn refusal(pair: &Pair) -> String {
    let finished = pair.try_once();
    assert_eq!(finished.code(), 6, "{}", finished.output);
    pair.assert_no_prepared();
    final_words(&finished)
}
