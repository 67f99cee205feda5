//! `pyreplica doctor` checks on both sides what replication needs, and prints the statements that fix it.

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Result};
use crate::base::shown::{shown, shown_statement};
use crate::config::files::LoadedConfigs;
use crate::config::settings::Config;
use crate::daemon::mail::{Mail, Mailer};
use crate::health::doctor::{Finding, Level, diagnose};
use crate::process::output::{self, Json, json};
use crate::process::terminal::{padded, width};
use crate::server::connect_pair::{self, BothSides};
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words};
use std::path::PathBuf;

pub const VERB: Verb = Verb {
    name: "doctor",
    help: HELP,
    options: &[JSON, Opt { name: "--brief", value: Value::None }, Opt { name: "--mail", value: Value::None }],
    words: Words::Pairs,
    run,
};

const HELP: &str = "\
pyreplica doctor checks everything that replication needs, on both sides

usage:
  pyreplica doctor [OPTIONS] [FILE.conf... | DIR | DSN0 DSN1]

It changes nothing. Each line is ok, a note, a warning or a failure. Below it
are the statements that fix it, with the side to run them on. It checks what it
can also if one side is down, nothing is installed yet, or the role has few
rights.

options:
  --brief       leave out what is ok
  --mail        also send a mail to the recipients of [SMTP], as a test
  --json        one document for programs instead of lines for people

exit codes: 0 nothing worse than a note, 8 warnings, 9 failures, 3 no config
file can be used

example:
  pyreplica doctor /etc/pyreplica/shop.conf
";

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let LoadedConfigs { configs, files, errors, .. } = call.some_pairs()?;
    let mut worst = if errors.is_empty() { Level::Ok } else { Level::Failure };
    let mut documents: Vec<Json> = Vec::new();
    for (index, config) in configs.iter().enumerate() {
        let BothSides { master, slave, config: directed, roles } = connect_pair::open(config, "doctor", control);
        let source = call.words_for(config, files.get(index).map(PathBuf::as_path));
        let mut findings = diagnose(&directed, &source, roles.as_ref(), master, slave);
        if call.has("--mail") {
            findings.push(test_mail(config));
        }
        control.check()?;
        worst = worst.max(findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok));
        if call.has("--json") {
            documents.push(as_json(config, &findings));
        } else {
            output::print_findings(&as_text(&directed, &findings, call.has("--brief")))?;
        }
    }
    if call.has("--json") {
        let unusable: Vec<String> = errors.iter().map(Error::to_string).collect();
        output::print_json(&json!({ "level": worst.to_string(), "pairs": documents, "unusable": unusable }))?;
    } else {
        errors.iter().try_for_each(|error| output::print_findings(&format!("failure  {error}\n")))?;
    }
    Ok(match worst {
        Level::Ok | Level::Note => ExitCode::Success,
        Level::Warning => ExitCode::Warned,
        Level::Failure => ExitCode::Faulty,
    })
}

/// Sends a mail as the daemon does, and says what the mail server answered.
fn test_mail(config: &Config) -> Finding {
    let (level, text, advice) = match &config.smtp {
        None => (Level::Warning, "no mail is sent".to_string(), Some("the config file has no [SMTP] section")),
        Some(smtp) => {
            let mail = Mail {
                subject: format!("pyreplica: a test mail of {}", config.name),
                body: "Somebody has run pyreplica doctor --mail. Mails of the daemon arrive like this one.\n"
                    .to_string(),
            };
            match Mailer::new(smtp.clone()).send(&mail) {
                Ok(refused) if refused.is_empty() => {
                    (Level::Ok, format!("a test mail was sent to {}", smtp.to_addrs.join(", ")), None)
                }
                Ok(refused) => {
                    let text = format!("the mail server refuses recipients: {}", refused.join("; "));
                    (Level::Warning, text, Some("correct TO_ADDRS"))
                }
                Err(error) => {
                    let text = format!("cannot send a mail by {}:{}: {error}", smtp.host, smtp.port);
                    (
                        Level::Failure,
                        text,
                        Some("look at the section [SMTP], and whether the mail server is reached from here"),
                    )
                }
            }
        }
    };
    let advice = advice.map(str::to_string);
    Finding { level, side: None, subject: "mail".to_string(), text, fixes: Vec::new(), advice }
}

fn as_text(config: &Config, findings: &[Finding], is_brief: bool) -> String {
    let mut text = format!("{}\n", shown(&format!("{}: {} -> {}", config.name, config.master, config.slave)));
    let chosen: Vec<&Finding> = findings.iter().filter(|finding| !is_brief || finding.level > Level::Ok).collect();
    let widest = chosen.iter().map(|finding| width(&finding.subject)).max().unwrap_or(0);
    for finding in chosen {
        let side = finding.side.map_or("both".to_string(), |side| side.to_string());
        let subject = padded(&finding.subject, widest);
        let line = format!("{:<7}  {side:<6}  {subject}  {}", finding.level.to_string(), finding.text);
        text += &format!("{}\n", shown(&line));
        for fix in &finding.fixes {
            text += &match shown_statement(fix) {
                Some(fix) => format!("           {side}=> {fix}\n"),
                None => format!("           {side}: a statement that cannot be shown as it is: {}\n", shown(fix)),
            };
        }
        if let Some(advice) = &finding.advice {
            text += &format!("           hint: {}\n", shown(advice));
        }
    }
    text
}

fn as_json(config: &Config, findings: &[Finding]) -> Json {
    let checks: Vec<Json> = findings
        .iter()
        .map(|finding| {
            json!({
                "level": finding.level.to_string(),
                "side": finding.side.map(|side| side.to_string()),
                "check": finding.subject,
                "text": finding.text,
                "fixes": finding.fixes,
                "hint": finding.advice,
            })
        })
        .collect();
    json!({ "pair": config.name, "checks": checks })
}
