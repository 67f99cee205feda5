//! The house rules that a grep can check: who imports what, how long a file may be, which floors have threads, what
//! only one operating system has.

use std::fs;
use std::path::{Path, PathBuf};

/// Each crate and the one module that may know it.
const OWNERS: &[(&str, &str)] = &[
    ("postgres::", "db"),
    ("fallible_iterator::", "db"),
    ("rustls::", "tls"),
    ("tokio_postgres_rustls::", "tls"),
    ("rustls_native_certs::", "tls"),
    ("x509_cert::", "tls"),
    ("env_logger::", "logger"),
    ("chrono::", "logger"),
    ("signal_hook::", "signals"),
    ("ctrlc::", "signals"),
    ("lettre::", "mail"),
    ("serde_json::", "output"),
];

const LONGEST_FILE: usize = 400;

/// A line of the code map in lib.rs.
enum MapLine {
    Floor(String),
    Module(String),
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn map() -> Vec<MapLine> {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let line = |line: &str| {
        let module = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'));
        let floor = line.strip_prefix("// ").or_else(|| line.strip_prefix("//! Ground")).map(|_| line);
        module.map(|name| MapLine::Module(name.into())).or(floor.map(|title| MapLine::Floor(title.into())))
    };
    text.lines().filter_map(line).collect()
}

fn modules() -> Vec<String> {
    let name = |line| match line {
        MapLine::Module(name) => Some(name),
        MapLine::Floor(_) => None,
    };
    map().into_iter().filter_map(name).collect()
}

/// The files of a module, its private submodules included.
fn files_of(module: &str) -> Vec<PathBuf> {
    let mut files = vec![source().join(format!("{module}.rs"))];
    if let Ok(entries) = fs::read_dir(source().join(module)) {
        files.extend(entries.map(|entry| entry.unwrap().path()));
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

#[test]
fn a_module_uses_only_what_the_map_lists_above_it() {
    let modules = modules();
    for (index, module) in modules.iter().enumerate() {
        for file in files_of(module) {
            let code = code_of(&file);
            for later in &modules[index + 1..] {
                let uses = code.contains(&format!("crate::{later}::")) || code.contains(&format!("crate::{later};"));
                assert!(!uses, "{} uses {later}, which the map lists below it", file.display());
            }
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
                assert!(!uses || module == *owner, "{} uses {name}, which belongs to {owner}", file.display());
            }
        }
    }
}

#[test]
fn only_the_loop_and_the_shell_spawn_threads_or_sleep() {
    for line in map() {
        match line {
            MapLine::Floor(title) if title.contains("Loop") => return,
            MapLine::Floor(_) => {}
            MapLine::Module(module) => {
                for file in files_of(&module) {
                    let code = code_of(&file);
                    let has_threads =
                        ["thread::spawn", "thread::Builder", "thread::sleep"].iter().any(|call| code.contains(call));
                    assert!(!has_threads, "{} spawns a thread or sleeps", file.display());
                }
            }
        }
    }
    panic!("the map in lib.rs has no floor called Loop");
}

#[test]
fn files_stay_short() {
    for module in modules() {
        for file in files_of(&module) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= LONGEST_FILE, "{} has {lines} lines", file.display());
        }
    }
}

#[test]
fn every_module_is_on_the_map() {
    let modules = modules();
    for entry in fs::read_dir(source()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(["lib", "main"].contains(&name) || modules.iter().any(|module| module == name), "{name} is not on it");
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
    for module in modules() {
        for file in files_of(&module) {
            let text = fs::read_to_string(&file).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("os::unix")) {
                let place = format!("{}:{}", file.display(), index + 1);
                assert!(is_for_unix_only(&lines, index), "{place} is compiled on Windows too: {}", line.trim());
            }
        }
    }
}
