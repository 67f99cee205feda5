//! Tells the options of a command line from its other words, and checks their values.

use super::{Opt, Split, Value, usage};
use crate::base::error::Result;
use crate::base::phrases::did_you_mean;
use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::path::Path;

/// Separates the options, which may be anywhere, from the other words, and checks their values.
pub fn split(arguments: Vec<OsString>, options: &'static [Opt]) -> Result<Split> {
    let mut split = Split::default();
    let mut rest = arguments.into_iter().peekable();
    while let Some(word) = rest.next() {
        let text = word.to_str().unwrap_or_default();
        if text == "--" && !split.has_ended_options {
            split.has_ended_options = true;
            continue;
        }
        if split.has_ended_options || !text.starts_with('-') {
            split.words.push(word);
            continue;
        }
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text, None),
        };
        match (name, options.iter().find(|option| option.name == name)) {
            (_, Some(option)) => {
                let value = match (&option.value, attached) {
                    (Value::None, Some(_)) => return Err(usage(format!("{name} takes no value"))),
                    (Value::None, None) => None,
                    // If the next word is a number in the range, it is the value, even if there is a file of that name.
                    (Value::Optional(range), None) if rest.peek().is_some_and(|word| is_value(word, range)) => {
                        Some(checked(name, &option.value, rest.next())?)
                    }
                    (Value::Optional(_), None) => None,
                    (kind, attached) => Some(checked(name, kind, attached.or_else(|| rest.next()))?),
                };
                split.options.push((option.name, value));
            }
            ("-h" | "--help", None) if attached.is_none() => split.help = true,
            ("-V" | "--version", None) if attached.is_none() => split.version = true,
            _ => {
                let known = options.iter().map(|option| option.name).chain(["--help", "--version"]);
                return Err(usage(format!("unknown option {name}{}", did_you_mean(name, known))));
            }
        }
    }
    Ok(split)
}

/// Whether the word after an option that may have a number is its value, right or wrong, and not a config file.
fn is_value(word: &OsStr, range: &RangeInclusive<u64>) -> bool {
    let is_number =
        word.to_str().is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok());
    is_number_in(word, range) || (is_number && !Path::new(word).exists())
}

fn is_number_in(word: &OsStr, range: &RangeInclusive<u64>) -> bool {
    word.to_str().and_then(|text| text.parse().ok()).is_some_and(|number| range.contains(&number))
}

fn checked(name: &str, kind: &Value, given: Option<OsString>) -> Result<OsString> {
    let text = given.as_deref().and_then(OsStr::to_str);
    let is_in = |range: &RangeInclusive<u64>| given.as_deref().is_some_and(|word| is_number_in(word, range));
    let (is_right, wanted) = match kind {
        Value::None => (false, "no value".to_string()),
        Value::Text(what) => (text.is_some_and(|text| !text.is_empty()), what.to_string()),
        Value::Path(what) => (given.as_deref().is_some_and(|path| !path.is_empty()), what.to_string()),
        Value::Number(range) | Value::Optional(range) => {
            (is_in(range), format!("a number from {} to {}", range.start(), range.end()))
        }
        Value::OneOf(words) => {
            let meant = did_you_mean(text.unwrap_or_default(), words.iter().copied());
            (text.is_some_and(|text| words.contains(&text)), format!("{}{meant}", words.join(" or ")))
        }
    };
    given.filter(|_| is_right).ok_or_else(|| usage(format!("{name} needs {wanted}")))
}
