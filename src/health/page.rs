//! The status page for people: one document without scripts, with everything in it.
//!
//! Names, values and messages come from databases whose users need not be friends. So all text goes through `html`, and the head
//! allows nothing but the one style sheet, which it names by its digest.

use crate::base::shown::{shown, shown_statement};
use crate::health::doctor::{Finding, Level};
use crate::health::exposition::Checked;
use crate::health::observer::{Sample, Seen};
use crate::health::status::{Lag, PairStatus, Problem};
use crate::process::logger;
use std::time::{Duration, Instant, SystemTime};

/// A browser shows nothing else and connects nowhere, whatever has got into the page. A test computes the digest of `STYLE`.
pub const SECURITY_POLICY: &str = "default-src 'none'; style-src 'sha256-j5BUaYsGduKcr8GjrRtjlEdGJyPmcizI4UCOeUBxEDs='; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("page.css");

/// How often the browser asks again, in seconds.
const REFRESH: u32 = 15;

/// So many findings of a pair are shown, and statements of each.
const MOST_FINDINGS: usize = 25;

/// The picture of the lag: its units, and the time that it shows.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 72.0;
const SPAN: Duration = Duration::from_secs(3600);

/// Samples that are further apart are not connected.
const GAP: Duration = Duration::from_secs(100);

/// A smaller lag is no hill.
const LOWEST_TOP: f64 = 1.0;

pub fn page(pairs: &[Seen]) -> String {
    let mut sorted: Vec<(Health, &Seen)> = pairs.iter().map(|pair| (health(pair), pair)).collect();
    sorted.sort_by_key(|(health, _)| *health);
    let sections: String =
        sorted.iter().enumerate().map(|(number, (health, pair))| section(number, *health, pair)).collect();
    let overview = overview(&sorted);
    let nothing = if pairs.is_empty() { "<section><p>No pair has this address as METRICS.</p></section>" } else { "" };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH}\"><meta name=\"referrer\" content=\"no-referrer\">\n\
         <style>{STYLE}</style></head>\n<body><header><h1>pyreplica</h1><p>{summary}</p><p>{time}</p>{overview}</header>\n\
         <main>{sections}{nothing}</main>\n<footer>Version {version}. For programs: <a href=\"/metrics\">/metrics</a>, \
         <a href=\"/health\">/health</a>. The page is loaded again every {REFRESH} seconds.</footer></body></html>\n",
        title = html(&title(&sorted)),
        summary = html(&summary(pairs)),
        time = html(&logger::time()),
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// How a pair is, the worst first, as the style sheet names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Bad,
    Look,
    Good,
}

impl Health {
    fn class(self) -> &'static str {
        match self {
            Health::Bad => "bad",
            Health::Look => "look",
            Health::Good => "good",
        }
    }
}

fn health(pair: &Seen) -> Health {
    let status = &pair.status;
    let found = pair.by_daemon.checked.iter().flat_map(|checked| &checked.findings).map(|finding| finding.level).max();
    match status.state() {
        "failing" | "unknown" => Health::Bad,
        _ if status.problems.iter().any(|problem| problem.is_failure) => Health::Bad,
        "replicating" if status.problems.is_empty() && found < Some(Level::Failure) => Health::Good,
        _ => Health::Look,
    }
}

/// For the browser's tab: how many pairs need somebody, if any does.
fn title(pairs: &[(Health, &Seen)]) -> String {
    match pairs.iter().filter(|(health, _)| *health != Health::Good).count() {
        0 => "pyreplica".to_string(),
        ill => format!("({ill}) pyreplica"),
    }
}

/// Where there are several, a way to each.
fn overview(pairs: &[(Health, &Seen)]) -> String {
    if pairs.len() < 2 {
        return String::new();
    }
    let link = |(number, (health, pair)): (usize, &(Health, &Seen))| {
        let (class, name) = (health.class(), html(&pair.status.name));
        format!("<a class=\"state {class}\" href=\"#pair{number}\"><span>{name}</span></a> ")
    };
    format!("<nav>{}</nav>", pairs.iter().enumerate().map(link).collect::<String>())
}

fn summary(pairs: &[Seen]) -> String {
    let mut states: Vec<(&str, usize)> = Vec::new();
    for pair in pairs {
        let state = pair.status.state();
        match states.iter_mut().find(|(known, _)| *known == state) {
            Some((_, count)) => *count += 1,
            None => states.push((state, 1)),
        }
    }
    states.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

fn section(number: usize, health: Health, pair: &Seen) -> String {
    let status = &pair.status;
    let [master, slave] = &pair.sides;
    let epoch = status.roles.as_ref().filter(|roles| roles.epoch > 0).map_or(String::new(), |roles| {
        format!("<span>epoch</span><b>{}, since {}</b>", roles.epoch, html(roles.since.as_deref().unwrap_or("?")))
    });
    format!(
        "<section id=\"pair{number}\"><div class=\"top\"><h2>{name}</h2><span class=\"state {class}\">{state}</span></div>\n\
         <p class=\"way\"><span>master</span><b>{master}</b><span>slave</span><b>{slave}</b>{epoch}</p>\n\
         {facts}{lag}{problems}{checked}</section>\n",
        name = html(&status.name),
        class = health.class(),
        state = status.state(),
        master = html(master),
        slave = html(slave),
        facts = facts(pair),
        lag = picture(&pair.history, Instant::now()),
        problems = problems(status),
        checked = pair.by_daemon.checked.as_deref().map_or(String::new(), doctor),
    )
}

/// Numbers, the important ones first. What is not known is left out, and what is nothing as it should be.
fn facts(pair: &Seen) -> String {
    let status = &pair.status;
    let lag = status.lag.as_ref();
    let records = &status.records;
    let mut facts = String::new();
    let mut add = |name: &str, value: Option<String>, class: &str| {
        if let Some(value) = value {
            facts += &format!("<div><dt>{name}</dt><dd{class}>{}</dd></div>", html(&value));
        }
    };
    let large = " class=\"large\"";
    add("Behind", lag.map(|lag| count(&lag.amount(), lag.changes, "change")), large);
    add("Lag", lag.map(|lag| seconds(lag.seconds)), large);
    add("Replayed since start", Some(pair.by_daemon.tally.replayed().to_string()), large);
    add("Last batch", lag.and_then(|lag: &Lag| lag.replayed_at.clone()), "");
    add("Log", lag.map(|lag| format!("{} MiB", lag.log_bytes >> 20)), "");
    let some = |number: Option<u64>| number.filter(|number| *number > 0).map(|number| number.to_string());
    add("In doubt", some(status.in_doubt.as_ref().map(|in_doubt| in_doubt.batches)), "");
    add("Held or in quarantine", some(records.held), "");
    add("Conflicts kept", some(records.conflicts), "");
    let answered = pair.by_daemon.answered.map(|at| format!("{} ago", age(at)));
    add("Last answer", answered.filter(|_| lag.is_none()), "");
    if facts.is_empty() { facts } else { format!("<dl>{facts}</dl>\n") }
}

fn count(amount: &str, number: u64, what: &str) -> String {
    format!("{amount} {what}{}", if number == 1 { "" } else { "s" })
}

fn problems(status: &PairStatus) -> String {
    let item = |problem: &Problem| {
        let class = if problem.is_failure { "bad" } else { "look" };
        let hint = problem.hint.as_ref().map_or(String::new(), |hint| format!("<p>{}</p>", html(hint)));
        format!("<li class=\"{class}\"><p>{}</p>{hint}</li>", html(&problem.text))
    };
    if status.problems.is_empty() {
        return String::new();
    }
    let items: String = status.problems.iter().take(MOST_FINDINGS).map(item).collect();
    format!("<h3>What is wrong</h3><ul>{items}</ul>\n")
}

fn doctor(checked: &Checked) -> String {
    // What fails now stands above.
    let of = |level| checked.findings.iter().filter(move |it| it.level == level && it.subject != "last error");
    let wrong: Vec<&Finding> = of(Level::Failure).chain(of(Level::Warning)).collect();
    let notes: Vec<&Finding> = of(Level::Note).collect();
    let list = |findings: &[&Finding]| {
        let items: String = findings.iter().take(MOST_FINDINGS).map(|finding| item(finding)).collect();
        let more = findings.len().saturating_sub(MOST_FINDINGS);
        let more = if more == 0 { String::new() } else { format!("<li><p>and {more} more: pyreplica doctor</p></li>") };
        format!("<ul>{items}{more}</ul>")
    };
    let named = [(of(Level::Failure).count(), "failure"), (of(Level::Warning).count(), "warning")];
    let named = named.iter().filter(|(number, _)| *number > 0);
    let named: Vec<String> = named.map(|(number, what)| count(&number.to_string(), *number as u64, what)).collect();
    let verdict = if named.is_empty() { "it finds nothing else".to_string() } else { named.join(", ") };
    let head = format!("<h3>Doctor <span>{} ago: {verdict}</span></h3>", age(checked.at));
    let wrong = if wrong.is_empty() { String::new() } else { list(&wrong) };
    let notes = match notes.len() {
        0 => String::new(),
        1 => format!("<details><summary>1 note</summary>{}</details>", list(&notes)),
        more => format!("<details><summary>{more} notes</summary>{}</details>", list(&notes)),
    };
    format!("{head}{wrong}{notes}\n")
}

fn item(finding: &Finding) -> String {
    let class = match finding.level {
        Level::Failure => " class=\"bad\"",
        Level::Warning => " class=\"look\"",
        Level::Note | Level::Ok => "",
    };
    let side = finding.side.map_or("both".to_string(), |side| side.to_string());
    let advice = finding.advice.as_ref().map_or(String::new(), |advice| format!("<p>{}</p>", html(advice)));
    let statement = |fix: &String| match shown_statement(fix) {
        Some(fix) => format!("<pre><span>{side}=&gt; </span>{}</pre>", html(&fix)),
        None => format!("<pre><span>{side}: not to be run as it is shown: </span>{}</pre>", html(fix)),
    };
    let fixes: String = finding.fixes.iter().map(statement).collect();
    let what = html(&format!("{side}, {}: ", finding.subject));
    format!("<li{class}><p><span class=\"what\">{what}</span>{}</p>{advice}{fixes}</li>", html(&finding.text))
}

/// The lag of the last hour. Where it was not known is a gap.
fn picture(history: &[Sample], now: Instant) -> String {
    let recent = history.iter().filter(|sample| now.saturating_duration_since(sample.at) <= SPAN);
    let highest = recent.clone().filter_map(|sample| sample.lag).fold(0.0, f64::max);
    let top = highest.max(LOWEST_TOP);
    let mut lines: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut last: Option<Instant> = None;
    for sample in recent {
        let Some(lag) = sample.lag else {
            last = None;
            continue;
        };
        let age = now.saturating_duration_since(sample.at).as_secs_f64();
        // A thin line needs some room above and below.
        let point = (WIDTH * (1.0 - age / SPAN.as_secs_f64()), (HEIGHT - 2.0) - (HEIGHT - 4.0) * lag / top);
        match (last.is_some_and(|last| sample.at.duration_since(last) <= GAP), lines.last_mut()) {
            (true, Some(line)) => line.push(point),
            _ => lines.push(vec![point]),
        }
        last = Some(sample.at);
    }
    let (mut areas, mut traces) = (String::new(), String::new());
    for line in &lines {
        let points: String = line.iter().map(|(x, y)| format!(" L{x:.1} {y:.1}")).collect();
        let ((first, height), (end, _)) = (line[0], line[line.len() - 1]);
        // A single point would not be drawn.
        traces += &format!("M{first:.1} {height:.1}{points} h.5 ");
        areas += &format!("M{first:.1} {HEIGHT}{points} L{end:.1} {HEIGHT} Z ");
    }
    let said = match (lines.is_empty(), highest > 0.0) {
        (true, _) => "lag not known yet".to_string(),
        (false, false) => "no lag".to_string(),
        (false, true) => format!("lag, {} at most", seconds(highest)),
    };
    format!(
        "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"The last hour: \
         {said}\"><path class=\"area\" d=\"{areas}\"/><path class=\"trace\" d=\"{traces}\"/></svg>\n\
         <figcaption><span>an hour ago</span><span>{said}</span><span>now</span></figcaption></figure>\n"
    )
}

/// A duration, as exact as people read it.
fn seconds(number: f64) -> String {
    match number {
        number if number <= 0.0 => "0 s".to_string(),
        number if number < 10.0 => format!("{number:.1} s"),
        number if number < 120.0 => format!("{number:.0} s"),
        number if number < 7200.0 => format!("{:.0} min", number / 60.0),
        number if number < 172_800.0 => format!("{:.0} h", number / 3600.0),
        number => format!("{:.0} days", number / 86_400.0),
    }
}

fn age(at: SystemTime) -> String {
    match at.elapsed().unwrap_or_default().as_secs() {
        whole if whole < 120 => format!("{whole} s"),
        whole => seconds(whole as f64),
    }
}

/// Text of anybody as text of a page, also within quotes.
fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 16);
    for c in shown(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_anybody_ends_text_or_an_attribute() {
        let hostile = "</p><script>alert('x')</script>&amp;\" onload=\"\u{202e}\n";
        let safe = html(hostile);
        assert!(!safe.contains(['<', '>', '"', '\'', '\u{202e}', '\n']), "{safe}");
        assert!(
            safe.starts_with("&lt;/p&gt;&lt;script&gt;alert(&#39;x&#39;)") && safe.contains("&amp;amp;&quot;"),
            "{safe}"
        );
    }

    #[test]
    fn the_picture_has_gaps_where_nothing_is_known_and_forgets_what_is_older_than_an_hour() {
        let now = Instant::now() + Duration::from_secs(10_000);
        let sample = |ago, lag| Sample { at: now - Duration::from_secs(ago), lag };
        assert!(picture(&[], now).contains("lag not known yet"));
        let samples = [sample(4000, Some(900.0)), sample(90, Some(0.0)), sample(60, None), sample(30, Some(38.4))];
        let drawn = picture(&samples, now);
        assert!(drawn.contains("lag, 38 s at most"), "{drawn}");
        let (_, trace) = drawn.split_once("class=\"trace\"").unwrap();
        assert_eq!(trace.matches('M').count(), 2, "{trace}");
        assert!(picture(&[sample(30, Some(0.0))], now).contains("no lag"));
    }
}
