//! The rules of the house that a program can check: which room uses which, who imports which crate, how long a file may be,
//! who starts threads, what only one operating system has, what the master's script is made from, that no file of tests is
//! forgotten, that no link of the documentation leads nowhere.

use std::fs;
use std::path::{Path, PathBuf};

/// Each crate, and the one module that imports it; for one crate there are two.
const OWNERS: &[(&str, &str)] = &[
    ("postgres::", "server::session"),
    ("fallible_iterator::", "server::session"),
    ("tokio::", "server::session"),
    // Both clients take streams with its traits.
    ("tokio::", "daemon::mail"),
    ("rustls::", "server::tls"),
    ("tokio_rustls::", "server::tls"),
    ("ring::", "server::tls"),
    ("rustls_native_certs::", "server::tls"),
    ("x509_cert::", "server::tls"),
    ("env_logger::", "process::logger"),
    ("chrono::", "process::logger"),
    ("signal_hook::", "process::signals"),
    ("ctrlc::", "process::signals"),
    ("lettre::", "daemon::mail"),
    ("serde_json::", "process::output"),
    ("unicode_width::", "process::terminal"),
];

/// Rooms and modules that start threads or sleep. Everything else runs on the thread of its caller.
const WITH_THREADS: &[&str] = &[
    "process::foreground",
    "server::session",
    "server::connect",
    "server::connect_pair",
    "backlog::prefetch",
    "compare::servers",
    "pair",
    "copy",
    "health::observer",
    "health::metrics",
    "daemon",
    "verbs",
];

const LONGEST_FILE: usize = 400;

/// Of the parts of `sql/master-install.sql`.
const LONGEST_PART: usize = 250;

/// A file of a room, with the files of a folder of its name.
#[derive(Clone, PartialEq)]
struct Module {
    room: String,
    name: String,
}

impl Module {
    fn path(&self) -> String {
        format!("{}::{}", self.room, self.name)
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules that a file declares, in its order.
fn declared(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let name = |line: &str| {
        let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_string)
    };
    text.lines().filter_map(name).collect()
}

/// From the ground up, as lib.rs lists them.
fn rooms() -> Vec<String> {
    declared(&source().join("lib.rs"))
}

/// All modules, rooms from the ground up, and in a room as its mod.rs lists them.
fn modules() -> Vec<Module> {
    let of = |room: String| {
        let names = declared(&source().join(&room).join("mod.rs"));
        names.into_iter().map(move |name| Module { room: room.clone(), name })
    };
    rooms().into_iter().flat_map(of).collect()
}

/// The files of a module, its private submodules included.
fn files_of(module: &Module) -> Vec<PathBuf> {
    let room = source().join(&module.room);
    let mut files = vec![room.join(format!("{}.rs", module.name))];
    if let Ok(entries) = fs::read_dir(room.join(&module.name)) {
        files.extend(
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "rs")),
        );
    }
    files
}

/// Without its tests, which may do what the module itself may not.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let is_tests = file.file_name().is_some_and(|name| name == "tests.rs");
    match text.split_once("mod tests {") {
        _ if is_tests => String::new(),
        Some((code, _)) => code.to_string(),
        None => text,
    }
}

fn uses(code: &str, path: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(path).any(|(at, _)| is_end(&code[at + path.len()..]))
}

#[test]
fn a_room_uses_only_the_rooms_that_lib_rs_lists_above_it() {
    let rooms = rooms();
    assert!(rooms.len() > 9, "lib.rs lists the rooms: {rooms:?}");
    for module in modules() {
        let floor = rooms.iter().position(|room| *room == module.room).unwrap();
        for file in files_of(&module) {
            let code = code_of(&file);
            for higher in &rooms[floor + 1..] {
                let uses = uses(&code, &format!("crate::{higher}"));
                assert!(!uses, "{} uses the room {higher}, which lib.rs lists below its own", file.display());
            }
        }
    }
}

#[test]
fn a_file_uses_only_the_files_of_its_room_that_mod_rs_lists_above_it() {
    let modules = modules();
    for (index, module) in modules.iter().enumerate() {
        for file in files_of(module) {
            let code = code_of(&file);
            for later in modules[index + 1..].iter().filter(|later| later.room == module.room) {
                let uses = uses(&code, &format!("crate::{}", later.path()));
                assert!(!uses, "{} uses {}, which mod.rs lists below it", file.display(), later.name);
            }
            let braces = format!("crate::{}::{{", module.room);
            assert!(
                !code.contains(&braces),
                "{}: a use for each module, so that this test can read it",
                file.display()
            );
        }
    }
}

#[test]
fn each_crate_has_one_importer() {
    for module in modules() {
        for file in files_of(&module) {
            let code = code_of(&file);
            for (name, owner) in OWNERS {
                let uses = code.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
                    line.match_indices(name)
                        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
                });
                let owns = OWNERS.contains(&(*name, &*module.path()));
                assert!(!uses || owns, "{} uses {name}, which belongs to {owner}", file.display());
            }
        }
    }
}

#[test]
fn only_the_modules_listed_here_start_threads_or_sleep() {
    let may = |module: &Module| WITH_THREADS.contains(&module.room.as_str()) || WITH_THREADS.contains(&&*module.path());
    for module in modules().iter().filter(|module| !may(module)) {
        for file in files_of(module) {
            let code = code_of(&file);
            let has_threads = ["thread::spawn", "thread::Builder", "thread::scope", "thread::sleep"];
            assert!(
                !has_threads.iter().any(|call| code.contains(call)),
                "{} starts a thread or sleeps",
                file.display()
            );
        }
    }
}

#[test]
fn the_header_of_a_room_names_each_of_its_files() {
    let modules = modules();
    for room in rooms() {
        let header = fs::read_to_string(source().join(&room).join("mod.rs")).unwrap();
        for module in modules.iter().filter(|module| module.room == room) {
            let is_named =
                header.lines().any(|line| line.starts_with("//! |") && line.contains(&format!("`{}`", module.name)));
            assert!(is_named, "the header of {room} says nothing about {}", module.name);
        }
    }
}

#[test]
fn files_stay_short() {
    for file in modules().iter().flat_map(files_of) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", file.display());
    }
}

/// Is the line inside of something that only Unix compiles? Everything that it is nested in stands above it and further
/// to the left, below its attributes.
fn is_for_unix_only(lines: &[&str], index: usize) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut innermost = usize::MAX;
    for at in (0..=index).rev().filter(|at| !lines[*at].trim().is_empty()) {
        if indent(lines[at]) >= innermost {
            continue;
        }
        innermost = indent(lines[at]);
        let above = lines[..at].iter().rev().map(|line| line.trim_start());
        let mut attributes = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        if attributes.any(|line| line.starts_with("#[cfg(") && line.contains("unix")) {
            return true;
        }
    }
    false
}

#[test]
fn what_only_unix_has_stands_behind_cfg_unix() {
    for file in modules().iter().flat_map(files_of) {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("os::unix")) {
            let place = format!("{}:{}", file.display(), index + 1);
            assert!(is_for_unix_only(&lines, index), "{place} is compiled on Windows too: {}", line.trim());
        }
    }
}

/// Anybody who can log in may take any advisory lock, and keep it. One may be tried, and that is all.
#[test]
fn nothing_waits_for_an_advisory_lock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("sql")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let waits = ["pg_advisory_lock", "pg_advisory_xact_lock"].iter().any(|call| text.contains(call));
            assert!(!waits, "{} waits for an advisory lock", path.display());
            files += 1;
        }
    }
    assert!(files > 99);
}

#[test]
fn the_scripts_of_the_master_are_made_from_their_parts() {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let read = |file: &Path| fs::read_to_string(file).unwrap();
    let shape = read(&sql.join("query/shape.sql"));
    for (folder, script) in [("master", "master-install.sql"), ("master-ddl", "master-install-ddl.sql")] {
        let mut parts: Vec<PathBuf> =
            fs::read_dir(sql.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        parts.retain(|part| part.extension().is_some_and(|e| e == "sql"));
        parts.sort();
        let text = read(&sql.join(script));
        let (origin, text) = text.split_once('\n').unwrap();
        assert!(read(&sql.join("make.sh")).contains(origin), "{script} starts with a line that make.sh writes");
        let whole: String = parts.iter().map(|part| format!("\n{}", read(part))).collect();
        // assert_eq would print both, 3,000 lines.
        assert!(text == whole.replace("@shape@\n", &shape), "sql/{script} is not what its parts make: run sql/make.sh");
        for part in parts {
            let lines = read(&part).lines().count();
            assert!(lines <= LONGEST_PART, "{} has {lines} lines", part.display());
        }
    }
}

#[test]
fn the_changelogs_begin_with_the_version() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let headings = read("CHANGELOG.md");
    let headings: Vec<&str> = headings.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(headings[0] == "Unreleased" && headings[1].starts_with(&format!("{version} (20")), "{headings:?}");
    assert!(read("debian/changelog").starts_with(&format!("pyreplica ({version}) ")));
}

#[test]
fn the_list_of_our_own_tables_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    let scripts =
        ["sql/master-install.sql", "sql/slave-install.sql", "sql/slave-copy.sql", "sql/master-install-ddl.sql"]
            .map(read)
            .concat();
    let made = scripts.lines().filter_map(|line| line.strip_prefix("create table if not exists public."));
    let names: Vec<&str> = made.map(|rest| rest.split([' ', '(']).next().unwrap()).collect();
    assert!(names.len() > 9, "{names:?}");
    // As each writes a name.
    for (file, before, after) in [("src/server/sql.rs", "\"", "\""), ("sql/master/10-trigger.sql", "'public.", "'")] {
        let text = read(file);
        for name in &names {
            assert!(text.contains(&format!("{before}{name}{after}")), "{file} does not list {name}");
        }
    }
}

/// Uninstalling looks whose they are before it drops them.
#[test]
fn the_list_of_our_own_functions_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    let list = read("sql/query/uninstall/objects.sql");
    let scripts = ["sql/master-install.sql", "sql/master-install-ddl.sql", "sql/roles-install.sql"].map(read).concat();
    let made = scripts.lines().filter_map(|line| line.strip_prefix("create or replace function public."));
    let names: Vec<&str> = made.map(|rest| rest.split('(').next().unwrap()).collect();
    assert!(names.len() > 9, "{names:?}");
    for name in names {
        assert!(list.contains(&format!("'{name}'")), "sql/query/uninstall/objects.sql does not list {name}");
    }
}

#[test]
fn every_file_of_tests_is_a_module_of_main_rs() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let modules = declared(&tests.join("main.rs"));
    for file in fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let is_listed = name == "main" || modules.iter().any(|module| module == name);
        assert!(is_listed || file.extension().is_none_or(|e| e != "rs"), "main.rs does not list {}", file.display());
    }
}

/// The Markdown of the root, `docs` and the other folders that have some.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_folder = |folder: &str| fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = ["", "docs", "sql", "bench", "monitoring"].into_iter().flat_map(in_folder);
    let mut pages: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "md")).collect();
    pages.sort();
    pages
}

/// Without blocks of code, in which `](` and `#` mean something else.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    let outside = text.split("```").step_by(2);
    outside.collect::<Vec<_>>().join("\n")
}

/// What `#` may be followed by in a link to this page: the headings, as GitHub names them.
fn anchors(page: &Path) -> Vec<String> {
    let anchor = |line: &str| {
        let heading = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
    };
    prose(page).lines().filter_map(anchor).collect()
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = prose(&page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(file.exists(), "{}: nothing is at {target}", page.display());
            let leads = anchor.is_empty() || anchors(&file).iter().any(|known| known == anchor);
            assert!(leads, "{}: no heading is at {target}", page.display());
            links += 1;
        }
    }
    assert!(links > 99, "{links}");
}

#[test]
fn the_index_of_the_documentation_has_every_page_and_every_verb() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let index = fs::read_to_string(root.join("docs/README.md")).unwrap();
    for page in pages().iter().filter(|page| page.parent() == Some(&root.join("docs"))) {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(name == "README.md" || index.contains(&format!("]({name}")), "docs/README.md has no link to {name}");
    }
    let help = fs::read_to_string(root.join("src/verbs/cli/help.rs")).unwrap();
    let (_, verbs) = help.split_once("\nverbs:\n").unwrap();
    let (verbs, _) = verbs.split_once("\n\n").unwrap();
    let verbs = verbs.lines().filter_map(|line| line.strip_prefix("  pyreplica ")?.split(' ').next());
    let missing: Vec<&str> = verbs.clone().filter(|verb| !index.contains(&format!("`{verb}`"))).collect();
    assert!(verbs.count() > 20 && missing.is_empty(), "docs/README.md does not name {missing:?}");
}
