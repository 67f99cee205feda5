//! What the binary prints about itself: the manual, completions, sample.conf and the SQL scripts.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn printed(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pyreplica")).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Another program with this input; None if it is not installed.
fn through(program: &str, words: &[&str], input: &str) -> Option<Output> {
    use std::io::Write;
    let piped =
        Command::new(program).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut process) = piped else {
        eprintln!("not checked: {program} is not installed");
        return None;
    };
    let mut stdin = process.stdin.take().unwrap();
    let input = input.to_string();
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = process.wait_with_output().unwrap();
    writer.join().unwrap();
    Some(output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_pages_of_the_manual_are_correct_and_complete() {
    for (page, parts) in [
        ("pyreplica.1", &["SYNOPSIS", "pyreplica switchover", "--take-slaves", "EXIT CODES"][..]),
        ("pyreplica.conf.5", &["SECTION [SMTP]", "RETENTION=86400", "LOG_WARNING=1024"]),
    ] {
        let source = printed(&["man", page]);
        assert!(source.starts_with(".TH ") && !source.contains("\t"), "{page}");
        if let Some(output) = through("mandoc", &["-Tlint", "-Wwarning"], &source) {
            assert!(output.status.success(), "{page}: {}", text(&output.stdout));
        }
        // It knows less, and most machines have it.
        if let Some(output) = through("groff", &["-man", "-Tascii", "-P-cbou", "-ww"], &source) {
            assert!(output.status.success() && output.stderr.is_empty(), "{page}: {}", text(&output.stderr));
            let rendered = text(&output.stdout);
            parts.iter().for_each(|part| assert!(rendered.contains(part), "{page} lacks {part}: {rendered}"));
        }
    }
    // Without a name, the first.
    assert_eq!(printed(&["man"]), printed(&["man", "pyreplica.1"]));
}

/// What bash offers for the last of these words.
fn offered(words: &[&str]) -> Option<Vec<String>> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "{}\ncomplete -p pyreplica >&2\ncompopt() {{ :; }}\nCOMP_WORDS=({}) COMP_CWORD={}\n_pyreplica\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        printed(&["completion", "bash"]),
        quoted.join(" "),
        words.len() - 1
    );
    let output = through("bash", &["-u"], &script)?;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "complete -F _pyreplica pyreplica\n");
    Some(text(&output.stdout).lines().map(str::to_string).collect())
}

#[test]
fn bash_completes_verbs_options_and_files_and_the_other_shells_read_theirs() {
    let directory = std::env::temp_dir().join(format!("pyreplica-completion-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("shop.conf"), "").unwrap();
    fs::write(directory.join("shop.txt"), "").unwrap();
    let shop = directory.join("sho");
    let is = |words: &[&str], expected: &[&str]| {
        if let Some(found) = offered(words) {
            assert_eq!(found, expected, "{words:?}");
        }
    };
    is(&["pyreplica", "swi"], &["switchover"]);
    is(&["pyreplica", "copy", "--in"], &["--install"]);
    is(&["pyreplica", "--o"], &["--once"]);
    is(&["pyreplica", "sql", "roles"], &["roles-install.sql"]);
    is(&["pyreplica", "completion", "f"], &["fish"]);
    is(&["pyreplica", "copy", "--jobs", ""], &[""]);
    is(&["pyreplica", "doctor", shop.to_str().unwrap()], &[directory.join("shop.conf").to_str().unwrap()]);
    fs::remove_dir_all(&directory).unwrap();
    for shell in ["zsh", "fish"] {
        if let Some(output) = through(shell, &["-n", "/dev/stdin"], &printed(&["completion", shell])) {
            assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", text(&output.stderr));
        }
    }
}

#[test]
fn the_sample_and_the_scripts_come_out_as_they_are_in_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(printed(&["sample"]), fs::read_to_string(root.join("sample.conf")).unwrap());
    let list = printed(&["sql"]);
    let mut scripts: Vec<String> = fs::read_dir(root.join("sql"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    scripts.retain(|name| name.ends_with(".sql"));
    assert_eq!(list.lines().count(), scripts.len(), "{list}");
    for name in scripts {
        assert!(list.lines().any(|line| line.starts_with(&name) && line.contains(" side: ")), "{name}: {list}");
        assert_eq!(printed(&["sql", &name]), fs::read_to_string(root.join("sql").join(&name)).unwrap());
    }
}
