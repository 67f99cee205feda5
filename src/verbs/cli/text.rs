//! Reads the help texts, so that the manual and the completions need no second copy of them.

/// A part of a help text: `usage:` or `options:` with what is indented below, or paragraphs.
pub(super) struct Part<'a> {
    /// Without the colon. Empty for what is explained before or between the headings.
    pub heading: &'a str,
    pub lines: Vec<&'a str>,
}

/// What the verb does, as its help begins: `prepares a master`.
pub(super) fn purpose(help: &str) -> &str {
    let first = help.lines().next().unwrap_or_default();
    let mut words = first.splitn(3, ' ').skip(1);
    match (words.next(), words.next()) {
        // That of pyreplica itself has no verb: "pyreplica replicates ...".
        (Some("replicates"), _) | (_, None) => first.strip_prefix("pyreplica ").unwrap_or(first),
        (_, Some(rest)) => rest,
    }
}

/// All parts after the first line.
pub(super) fn parts(help: &str) -> Vec<Part<'_>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut is_new = true;
    for line in help.lines().skip(1) {
        let heading = line.strip_suffix(':').filter(|_| !line.starts_with(' '));
        match heading {
            Some(heading) => parts.push(Part { heading, lines: Vec::new() }),
            // A line that is not indented ends what stands below a heading.
            None if !line.is_empty() && !line.starts_with(' ') && (is_new || parts.is_empty()) => {
                parts.push(Part { heading: "", lines: vec![line] });
            }
            None => {
                if let Some(part) = parts.last_mut() {
                    part.lines.push(line);
                }
            }
        }
        is_new = line.is_empty();
    }
    parts.iter_mut().for_each(|part| {
        while part.lines.last().is_some_and(|line| line.is_empty()) {
            part.lines.pop();
        }
    });
    parts
}

/// The entries of a part whose lines are `  --jobs N      copy N tables`, with the lines that continue them.
pub(super) fn entries<'a>(part: &Part<'a>) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut entries: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in part.lines.iter().filter(|line| !line.trim().is_empty()) {
        let text = line.trim_start();
        match (line.len() - text.len(), entries.last_mut()) {
            (2, _) | (_, None) => {
                // A long name has one blank before its explanation.
                let (name, rest) = text.split_once("  ").or(split_after_value(text)).unwrap_or((text, ""));
                entries.push((name, if rest.trim().is_empty() { Vec::new() } else { vec![rest.trim()] }));
            }
            (_, Some((_, lines))) => lines.push(text),
        }
    }
    entries
}

/// `--reason TEXT the reason` is an option, its value in capitals, and what it is.
fn split_after_value(text: &str) -> Option<(&str, &str)> {
    let is_name = |word: &str| word.starts_with('-') || word.chars().all(|c| c.is_ascii_uppercase());
    let end =
        text.split_inclusive(' ').take_while(|word| is_name(word.trim_end_matches([' ', ',']))).map(str::len).sum();
    let (name, rest) = text.split_at_checked(end).filter(|(name, _)| !name.is_empty())?;
    Some((name.trim_end(), rest))
}

/// The explanation of an option, on one line.
pub(super) fn option(help: &str, name: &str) -> String {
    let is_it = |words: &str| words.split([' ', ',', '[', '=']).any(|word| word == name);
    let parts = parts(help);
    let all = parts.iter().filter(|part| part.heading.starts_with("options")).flat_map(entries);
    all.into_iter().find(|(words, _)| is_it(words)).map(|(_, lines)| lines.join(" ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{REPLICATION, VERBS, help};
    use super::*;

    #[test]
    fn every_verb_and_option_is_explained_by_its_help() {
        assert_eq!(purpose(help::MAIN), "replicates PostgreSQL databases from a master to a slave, by triggers");
        for verb in VERBS {
            assert!(!purpose(verb.help).is_empty() && !purpose(verb.help).starts_with("pyreplica"), "{}", verb.help);
            for declared in verb.options {
                assert!(!option(verb.help, declared.name).is_empty(), "{} {}: {}", verb.name, declared.name, verb.help);
            }
        }
        for declared in &REPLICATION {
            assert!(!option(help::MAIN, declared.name).is_empty(), "{}", declared.name);
        }
    }
}
