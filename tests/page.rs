//! The status page: what it shows, and that nobody who can write into a database can put anything into it but text.

use crate::harness::http::{free_port, get};
use crate::harness::{Daemon, Pair, assert_says, wait_until};
use std::io::Write;
use std::process::{Command, Stdio};

/// It would change the title, if a browser took any of it for more than text.
const HOSTILE: &str =
    "</p></style><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">";

struct Shown {
    pair: Pair,
    _daemon: Daemon,
    port: u16,
}

/// A tenant has given a table a name and made the slave refuse a row with a message.
fn hostile() -> Shown {
    let pair = Pair::new().with_a_table();
    let name = HOSTILE.replace('"', "\"\"");
    pair.run(&format!("create table \"{}\" (a int)", &name[..60]));
    pair.run_on_slave(&format!(
        "create function refuse() returns trigger language plpgsql as $f$ begin raise exception '%', $h${HOSTILE}$h$; end $f$;
         create trigger refuse before insert on t for each row execute function refuse();
         alter table t enable always trigger refuse"
    ));
    let port = free_port();
    let mut daemon = pair.start_with(&format!("METRICS=127.0.0.1:{port}"));
    daemon.wait_log("Serving http://127.0.0.1:");
    pair.run("insert into t values (1, 'one')");
    let shown = Shown { pair, _daemon: daemon, port };
    wait_until("doctor and status have told", || {
        let page = get(shown.port, "/");
        page.contains("failing since ") && page.contains("has no primary key")
    });
    shown
}

#[test]
fn it_shows_who_is_the_master_what_is_wrong_and_what_helps_and_text_is_only_text() {
    let shown = hostile();
    let answer = get(shown.port, "/");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert_says(head, &["HTTP/1.1 200 OK", "text/html; charset=utf-8", "X-Content-Type-Options: nosniff"]);
    let dsn = |database: String| format!(" dbname={database}");
    assert_says(
        page,
        &[
            &format!("<h2>{}</h2><span class=\"state bad\">failing</span>", shown.pair.name),
            &dsn(shown.pair.master_db()),
            &dsn(shown.pair.slave_db()),
            "<span>master</span><b>",
            "<svg ",
            "failing since ",
            "<h3>Doctor <span>",
            "&lt;script&gt;document.title = &#39;owned&#39;",
        ],
    );
    for bad in ["<script", "<img", "owned'", "href=\"http", "src=\"", " style=", "onerror=\""] {
        assert!(!page.contains(bad), "{bad} is in {page}");
    }
    // The head allows this style sheet and nothing else.
    let style = page.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).unwrap().0;
    let policy = head.lines().find_map(|line| line.strip_prefix("Content-Security-Policy: ")).unwrap();
    assert_says(policy, &["default-src 'none'", &format!("style-src 'sha256-{}';", digest(style))]);
}

/// SHA-256 in base64.
fn digest(text: &str) -> String {
    let program = "openssl dgst -sha256 -binary | openssl base64 -A";
    let mut child =
        Command::new("sh").args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn a_browser_shows_it_with_its_style_and_runs_nothing() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    }) else {
        eprintln!("skipped: no Chromium here");
        return;
    };
    let shown = hostile();
    let profile = shown.pair.dir().join("browser");
    let words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"];
    let output = Command::new(browser)
        .args(words)
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://127.0.0.1:{}/", shown.port))
        .output()
        .unwrap();
    let (dom, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_says(&dom, &["<title>(1) pyreplica</title>", "</svg>", "&lt;script&gt;document.title"]);
    assert!(!dom.contains("<script") && !dom.contains("<img"), "{dom}");
    // It tells what the policy forbids: the style sheet is not among that.
    assert!(!said.contains("Content Security Policy"), "{said}");
}
