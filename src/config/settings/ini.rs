//! The syntax of a config file. It is that of Python's SafeConfigParser, which the original used.

use super::faults::{ConfigError, Faults};
use crate::base::phrases::did_you_mean;

/// One `KEY=value` with its section and line number. The key is in upper case.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub section: String,
    pub key: String,
    pub value: String,
    pub line: usize,
}

/// Where a line stands.
enum Place {
    BeforeSections,
    In(String, &'static [&'static str]),
    /// Nobody knows which keys it has.
    InUnknown,
}

/// What a file says.
pub(super) struct Parsed {
    pub entries: Vec<Entry>,
    /// False if a section is not known. Then nothing is known of what is missing.
    pub is_understood: bool,
}

/// Parses a file. `sections` has the keys of each section.
pub(super) fn parse(text: &str, sections: &[(&'static str, &'static [&'static str])], faults: &mut Faults) -> Parsed {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut entries: Vec<Entry> = Vec::new();
    let mut place = Place::BeforeSections;
    let mut is_understood = true;
    // Whether the line before belongs to a key. Only then may an indented line continue it.
    let mut open = false;
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let content = raw.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = section_name(content) {
            place = find_section(name, sections, line, faults);
            is_understood &= matches!(place, Place::In(..));
            open = false;
            continue;
        }
        let (section, keys) = match &place {
            Place::In(section, keys) => (section, *keys),
            Place::InUnknown => continue,
            Place::BeforeSections => {
                faults.add(ConfigError::new(line, "", "expected a section, [MAIN], before anything else"));
                (place, is_understood) = (Place::InUnknown, false);
                continue;
            }
        };
        if open && raw.starts_with([' ', '\t']) {
            let last = entries.last_mut().expect("a key is open");
            faults.or(continue_value(last, content, keys, line), ());
            continue;
        }
        let entry = faults.or(parse_entry(section, content, line).map(Some), None);
        open = entry.is_some();
        if let Some(entry) = entry.as_ref().filter(|entry| !keys.contains(&entry.key.as_str())) {
            let meant = did_you_mean(&entry.key, keys.iter().copied());
            faults.add(ConfigError::new(line, &*entry.key, format!("unknown key in [{section}]{meant}")));
        }
        entries.extend(entry);
    }
    let keys_of = |name: &str| sections.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, keys)| keys);
    entries.retain(|entry| keys_of(&entry.section).contains(&entry.key.as_str()));
    report_duplicates(&entries, faults);
    let entries = entries.into_iter().filter_map(|entry| faults.or(unescape(entry).map(Some), None)).collect();
    Parsed { entries, is_understood }
}

fn find_section(
    name: &str,
    sections: &[(&'static str, &'static [&'static str])],
    line: usize,
    faults: &mut Faults,
) -> Place {
    match sections.iter().find(|(known, _)| *known == name) {
        Some((_, keys)) => Place::In(name.to_string(), keys),
        None => {
            let known: Vec<String> = sections.iter().map(|(known, _)| format!("[{known}]")).collect();
            let name = format!("[{name}]");
            let meant = did_you_mean(&name, known.iter().map(String::as_str));
            faults.add(ConfigError::new(line, name, format!("unknown section{meant}")));
            Place::InUnknown
        }
    }
}

fn section_name(content: &str) -> Option<&str> {
    content.strip_prefix('[')?.split_once(']').map(|(name, _)| name.trim())
}

fn parse_entry(section: &str, content: &str, line: usize) -> Result<Entry, ConfigError> {
    // The error does not repeat the line, because it may be the rest of a value with a password.
    let (key, value) =
        content.split_once(['=', ':']).ok_or_else(|| ConfigError::new(line, "", "expected KEY=value"))?;
    let key = key.trim().to_uppercase();
    let value = match strip_comment(value.trim()) {
        "\"\"" => "",
        value => value,
    };
    Ok(Entry { section: section.to_string(), key, value: value.to_string(), line })
}

/// In the original's parser a `;` after a blank starts a comment. It looked at the first `;` only.
fn strip_comment(value: &str) -> &str {
    match value.split_once(';') {
        Some((before, _)) if before.ends_with(char::is_whitespace) => before.trim_end(),
        _ => value,
    }
}

/// A line that starts with a blank continues the value above it, for example a long connection string.
fn continue_value(entry: &mut Entry, content: &str, keys: &[&str], line: usize) -> Result<(), ConfigError> {
    let word = content.split(['=', ':']).next().unwrap_or_default().trim().to_uppercase();
    if keys.contains(&word.as_str()) {
        let what = format!("a line that starts with a blank continues {}; move it to the margin", entry.key);
        return Err(ConfigError::new(line, word, what));
    }
    entry.value.push(' ');
    entry.value.push_str(content);
    Ok(())
}

fn report_duplicates(entries: &[Entry], faults: &mut Faults) {
    for (index, entry) in entries.iter().enumerate() {
        let same = |other: &&Entry| (&other.section, &other.key) == (&entry.section, &entry.key);
        if let Some(first) = entries[..index].iter().find(same) {
            faults.add(ConfigError::new(entry.line, &*entry.key, format!("already set in line {}", first.line)));
        }
    }
}

/// The original's parser required `%%` for a percent sign. Here a single `%` is a percent sign too, so that a URL may
/// contain percent codes. `%(KEY)s`, with which the original inserted the value of another key, is an error, so that
/// nobody takes it for supported.
fn unescape(mut entry: Entry) -> Result<Entry, ConfigError> {
    if entry.value.replace("%%", "").contains("%(") {
        let what = "%(KEY)s is not replaced here: write the value out, or %%( for these two characters";
        return Err(ConfigError::new(entry.line, entry.key, what));
    }
    entry.value = entry.value.replace("%%", "%");
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTIONS: &[(&str, &[&str])] = &[("MAIN", &["NAME", "DSN0"])];

    fn values(text: &str) -> Vec<String> {
        let mut faults = Faults::default();
        let parsed = parse(text, SECTIONS, &mut faults);
        let entries = faults.end(parsed.entries).unwrap();
        entries.into_iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect()
    }

    fn error(text: &str) -> String {
        let mut faults = Faults::default();
        let parsed = parse(text, SECTIONS, &mut faults);
        faults.end(parsed.entries).unwrap_err().to_string()
    }

    #[test]
    fn keys_take_either_case_and_either_separator_and_values_are_trimmed() {
        assert_eq!(values("[MAIN]\nname : a b \nDsn0=host=x port:1\n"), ["NAME=a b", "DSN0=host=x port:1"]);
    }

    #[test]
    fn comments_blank_lines_a_byte_order_mark_and_carriage_returns_are_ignored() {
        assert_eq!(values("\u{feff}# c\r\n\r\n[MAIN]\r\n; c\r\nNAME=a\r\n  # c\r\n"), ["NAME=a"]);
    }

    #[test]
    fn a_semicolon_behind_a_blank_starts_a_comment_and_any_other_does_not() {
        assert_eq!(values("[MAIN]\nNAME=a ; the first"), ["NAME=a"]);
        assert_eq!(values("[MAIN]\nNAME=a;b ;c"), ["NAME=a;b ;c"]);
        assert_eq!(values("[MAIN]\nNAME=\"\""), ["NAME="]);
    }

    #[test]
    fn an_indented_line_continues_the_value_above_it() {
        assert_eq!(values("[MAIN]\nDSN0=host=x\n  user=y\n\tport=1"), ["DSN0=host=x user=y port=1"]);
    }

    #[test]
    fn an_indented_key_is_not_swallowed_by_the_value_above_it() {
        assert_eq!(
            error("[MAIN]\nNAME=a\n  DSN0=host=x"),
            "3: DSN0: a line that starts with a blank continues NAME; move it to the margin"
        );
    }

    #[test]
    fn percent_signs_may_be_doubled_as_in_the_original() {
        assert_eq!(values("[MAIN]\nNAME=100%%\nDSN0=postgres://%2Ftmp/d"), ["NAME=100%", "DSN0=postgres://%2Ftmp/d"]);
        assert!(error("[MAIN]\nNAME=%(dsn0)s").starts_with("2: NAME: %(KEY)s is not replaced here"));
    }

    #[test]
    fn a_syntax_error_is_reported_with_its_line() {
        assert_eq!(error("NAME=a"), "1: expected a section, [MAIN], before anything else");
        assert_eq!(error("\n[MAIM]"), "2: [MAIM]: unknown section: did you mean [MAIN]?");
        assert_eq!(error("[MAIN]\nNAM=a"), "2: NAM: unknown key in [MAIN]: did you mean NAME?");
        assert_eq!(error("[MAIN]\nhunter2"), "2: expected KEY=value");
        assert_eq!(error("[MAIN]\nNAME=a\nname=b"), "3: NAME: already set in line 2");
    }
}
