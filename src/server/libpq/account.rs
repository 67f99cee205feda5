//! The user who runs this process. It does not call the C library for that, because in a static binary those functions
//! do not work everywhere.

use std::path::PathBuf;

/// The user's name in the operating system, and the home directory.
pub(super) struct Account {
    pub(super) user: Option<String>,
    pub(super) home: Option<PathBuf>,
}

#[cfg(unix)]
impl Account {
    /// The user id takes precedence over the variable USER, because an init script may change the user and not the
    /// variable.
    pub(super) fn of_this_process() -> Self {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let listed = own_uid().and_then(|uid| find_account(&passwd, uid));
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let (user, listed_home) = listed.unzip();
        Account {
            user: user.or_else(|| variable("USER")).or_else(|| variable("LOGNAME")),
            home: variable("HOME").or(listed_home).map(PathBuf::from),
        }
    }
}

#[cfg(windows)]
impl Account {
    pub(super) fn of_this_process() -> Self {
        Account { user: std::env::var("USERNAME").ok(), home: std::env::var_os("APPDATA").map(PathBuf::from) }
    }
}

/// The effective user id, for which std has no function. The user is the owner of the process's directory in /proc.
#[cfg(unix)]
fn own_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|meta| meta.uid())
}

/// Name and home directory of a user id, from the text of `/etc/passwd`.
#[cfg(unix)]
fn find_account(passwd: &str, uid: u32) -> Option<(String, String)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [name, _, id, _, _, home, ..] if id.parse() == Ok(uid) => Some((name.to_string(), home.to_string())),
            _ => None,
        }
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_user_id() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1000:Joe,,,:/home/joe:/bin/sh\n";
        assert_eq!(find_account(passwd, 1000), Some(("joe".into(), "/home/joe".into())));
        assert_eq!(find_account(passwd, 1), None);
    }

    #[test]
    fn this_process_has_a_user() {
        assert!(Account::of_this_process().user.is_some());
    }
}
