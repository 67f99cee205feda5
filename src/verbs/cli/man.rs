//! `pyreplica man` prints the manual pages, made from the help texts and from sample.conf.

use super::text::{self, Part};
use super::{VERBS, help};
use crate::base::control::Control;
use crate::base::error::{ExitCode, Result};
use crate::config::settings::SAMPLE;
use crate::process::output;
use crate::verbs::verb::{Call, PairSource, Verb, Words};

pub const VERB: Verb =
    Verb { name: "man", help: HELP, options: &[], words: Words::Topic(&["pyreplica.1", "pyreplica.conf.5"]), run };

const HELP: &str = "\
pyreplica man prints a page of the manual, for man

usage:
  pyreplica man [pyreplica.1 | pyreplica.conf.5]

pyreplica.1 is about the command line, pyreplica.conf.5 about config files.
Without a name it prints the first.

example:
  pyreplica man pyreplica.conf.5 | man -l -
";

fn run(call: &Call, _control: &Control) -> Result<ExitCode> {
    output::print(&match call.source {
        PairSource::Topic(Some("pyreplica.conf.5")) => config_page(),
        _ => program_page(),
    })?;
    Ok(ExitCode::Success)
}

fn program_page() -> String {
    let mut page = title("PYREPLICA", 1, &format!("pyreplica \\- {}", escaped(text::purpose(help::MAIN))));
    page += &body(help::MAIN, ".SH");
    page += ".SH VERBS IN DETAIL\n";
    for verb in VERBS {
        page += &format!(".SS pyreplica {}\nIt {}.\n", verb.name, escaped(text::purpose(verb.help)));
        page += &body(verb.help, ".PP\n.B");
    }
    page + ".SH FILES\n.TP\n.I /etc/pyreplica/*.conf\nthe pairs, see\n.BR pyreplica.conf (5)\n.SH SEE ALSO\n\
         .BR pyreplica.conf (5),\n.BR psql (1)\n"
}

/// Each part of a help text under its heading, which is set by the macro.
fn body(help: &str, heading: &str) -> String {
    let mut text = String::new();
    let mut after_options = false;
    for part in text::parts(help) {
        if !part.heading.is_empty() {
            let words = match part.heading {
                _ if heading != ".SH" => format!("{}:", part.heading),
                "usage" => "SYNOPSIS".to_string(),
                other => other.to_uppercase(),
            };
            text += &format!("{heading} {}\n", escaped(&words));
        } else if heading == ".SH" && !after_options {
            text += ".SH DESCRIPTION\n";
        } else {
            text += ".PP\n";
        }
        after_options |= part.heading.is_empty();
        text += &match part.heading {
            "" => part.lines.iter().map(|line| line_of(line)).collect(),
            name if name.starts_with("options") => options(&part),
            _ if heading == ".SH" => literal(&part.lines),
            _ => format!(".PP\n{}", literal(&part.lines)),
        };
    }
    text
}

fn options(part: &Part) -> String {
    let entry = |(name, lines): (&str, Vec<&str>)| {
        format!(".TP\n.B {}\n{}", escaped(name), lines.iter().map(|line| line_of(line)).collect::<String>())
    };
    text::entries(part).into_iter().map(entry).collect()
}

/// Lines that stay as they are.
fn literal(lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| line_of(line.strip_prefix("  ").unwrap_or(line))).collect();
    format!(".nf\n{lines}.fi\n")
}

fn config_page() -> String {
    let mut page = title("PYREPLICA.CONF", 5, "pyreplica.conf \\- one pair of a master and a slave");
    page += ".SH DESCRIPTION\n";
    let mut comment: Vec<&str> = Vec::new();
    let mut is_key_before = false;
    for line in SAMPLE.lines() {
        let key =
            line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase())).unwrap_or(line);
        if let Some(section) = line.strip_prefix('[') {
            // What stands above the first one is about the file, and above the second about that section.
            let about = comments(&std::mem::take(&mut comment));
            let heading = format!(".SH SECTION [{}\n", escaped(section));
            page += &if section.starts_with("MAIN") { about + &heading } else { heading + &about };
        } else if key.starts_with(|c: char| c.is_ascii_uppercase()) {
            let example = escaped(key);
            page += &match std::mem::take(&mut comment) {
                lines if lines.is_empty() && is_key_before => format!(".PP\n.B {example}\n"),
                lines => format!(".TP\n.B {example}\n{}", comments(&lines)),
            };
        } else if let Some(text) = line.strip_prefix('#') {
            comment.push(text.strip_prefix(' ').unwrap_or(text));
        } else if !comment.is_empty() {
            comment.push("");
        }
        is_key_before = !line.is_empty();
    }
    page + ".SH SEE ALSO\n.BR pyreplica (1)\n"
}

/// Paragraphs, and what is indented in them as it is.
fn comments(lines: &[&str]) -> String {
    let mut text = String::new();
    let mut is_literal = false;
    for line in lines {
        let indented = line.starts_with("  ");
        if indented != is_literal {
            text += if indented { ".nf\n" } else { ".fi\n" };
            is_literal = indented;
        }
        text += &if line.is_empty() { String::new() } else { line_of(line) };
    }
    text + if is_literal { ".fi\n" } else { "" }
}

fn title(name: &str, section: u8, purpose: &str) -> String {
    let (version, date) = (env!("CARGO_PKG_VERSION"), env!("PYREPLICA_DATE"));
    format!(".TH {name} {section} {date} \"pyreplica {version}\"\n.nh\n.ad l\n.SH NAME\n{purpose}\n")
}

/// A line of text, which no macro begins. An empty one is vertical space.
fn line_of(line: &str) -> String {
    let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
    match line {
        "" => ".sp\n".to_string(),
        _ => format!("{guard}{}\n", escaped(line)),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('`', "\\(ga")
        .replace('~', "\\(ti")
        .replace('^', "\\(ha")
}
