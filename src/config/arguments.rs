//! Keeps passwords out of the process list, where every user of the machine can read the command line of every process.
//!
//! A process cannot change its own command line. So it executes itself again, with the same process id, and passes the
//! passwords in the environment, which only the same user and root can read. Until then the passwords are visible for
//! some milliseconds. Passwords in the variables DSN0 and DSN1, in a config file or in ~/.pgpass are never visible.

use crate::base::phrases::without_number;
use crate::config::dsn::Dsn;
use std::ffi::OsString;

/// The arguments as the operator typed them, with passwords that were moved to the environment put back.
pub fn arguments() -> Vec<OsString> {
    let typed: Vec<OsString> = std::env::args_os().collect();
    let hidden = hide(&typed);
    if !hidden.passwords.is_empty() {
        execute_again(&hidden);
        return typed.into_iter().skip(1).collect();
    }
    restore(typed, |variable| std::env::var(variable).ok()).into_iter().skip(1).collect()
}

/// A command line without passwords, and the variables that hold them.
struct Hidden {
    words: Vec<OsString>,
    passwords: Vec<(String, String)>,
}

/// The names of these variables begin with it.
pub const PASSWORD: &str = "PYREPLICA_PASSWORD";

fn variable(position: usize) -> String {
    format!("{PASSWORD}{position}")
}

fn as_dsn(word: &OsString) -> Option<Dsn> {
    word.to_str().filter(|word| Dsn::looks_like(word)).and_then(|word| Dsn::parse(word).ok())
}

fn hide(typed: &[OsString]) -> Hidden {
    let mut hidden = Hidden { words: typed.to_vec(), passwords: Vec::new() };
    for (position, word) in typed.iter().enumerate().skip(1) {
        let Some(dsn) = as_dsn(word) else { continue };
        let secret = dsn.only_password();
        if secret != Dsn::default() {
            hidden.passwords.push((variable(position), secret.to_conninfo()));
            hidden.words[position] = as_word(&dsn.without_password());
        }
    }
    hidden
}

fn restore(mut words: Vec<OsString>, look_up: impl Fn(&str) -> Option<String>) -> Vec<OsString> {
    for (position, word) in words.iter_mut().enumerate().skip(1) {
        let secret = look_up(&variable(position)).and_then(|secret| Dsn::parse(&secret).ok());
        if let (Some(dsn), Some(secret)) = (as_dsn(word), secret) {
            *word = as_word(&dsn.merged(&secret));
        }
    }
    words
}

/// A connection string that had nothing but the password becomes an empty URL, so that it is still recognized as a
/// connection string.
fn as_word(dsn: &Dsn) -> OsString {
    if *dsn == Dsn::default() { "postgresql://".into() } else { dsn.to_conninfo().into() }
}

/// Returns only if it failed. Then it prints that the password stays visible, and the program goes on.
#[cfg(unix)]
fn execute_again(hidden: &Hidden) {
    use std::os::unix::process::CommandExt;
    let failure = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program)
            .arg0(&hidden.words[0])
            .args(&hidden.words[1..])
            .envs(hidden.passwords.iter().cloned())
            .exec(),
        Err(e) => e,
    };
    let failure = failure.to_string();
    eprintln!("pyreplica: cannot remove the password from the process list: {}", without_number(&failure));
}

/// On Windows, other users cannot read the command line.
#[cfg(windows)]
fn execute_again(_hidden: &Hidden) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn passwords_leave_the_words_and_come_back() {
        let typed = words(&["pyreplica", "host=a password='x y'", "postgres://u:hunter2@b/d", "--once"]);
        let hidden = hide(&typed);
        assert_eq!(hidden.words, words(&["pyreplica", "host=a", "user=u host=b dbname=d", "--once"]));
        let find = |name: &str| hidden.passwords.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let restored = restore(hidden.words.clone(), find);
        for (typed, restored) in typed.iter().zip(&restored) {
            let password = |word| as_dsn(word).and_then(|dsn| dsn.get("password").map(str::to_string));
            assert_eq!(password(typed), password(restored));
        }
    }

    #[test]
    fn a_dsn_that_has_only_a_password_is_still_recognized_without_it() {
        let hidden = hide(&words(&["pyreplica", "install", "password=x"]));
        assert_eq!(hidden.words[2], "postgresql://");
        assert_eq!(hidden.passwords, [("PYREPLICA_PASSWORD2".to_string(), "password=x".to_string())]);
    }

    #[test]
    fn nothing_is_hidden_where_there_is_no_password() {
        assert!(hide(&words(&["pyreplica", "host=a", "x.conf", "--log", "a=b"])).passwords.is_empty());
    }
}
