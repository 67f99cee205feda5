//! `--user`: a process that root starts drops root's rights before it reads a config file or opens a connection.
//!
//! It executes itself again as the other user, with the same process id. `exec` with another user and group drops all
//! supplementary groups, and no file that root had opened stays open.

use crate::base::error::{Error, Kind, Result};
use std::path::Path;

/// Returns at once if the process already runs as that user. Otherwise it returns only if it fails. It creates the file
/// `log` first, because the user may have no right to create files in that directory.
#[cfg(unix)]
pub fn become_user(name: &str, log: Option<&Path>) -> Result<()> {
    use unix::{Account, execute_again, own_uid, prepare_log};
    let refuse = |why: String| Error::new(Kind::Usage, None, format!("run as user {name}"), why);
    let account = Account::find(name)
        .ok_or_else(|| refuse("there is no such user".into()).with_hint("/etc/passwd lists the users"))?;
    let own = own_uid().ok_or_else(|| refuse("/proc/self/status does not show who runs this process".into()))?;
    if own == account.uid {
        return Ok(());
    }
    if own != 0 {
        return Err(refuse("only root can become another user".into()).with_hint("start it as root, or without --user"));
    }
    if let Some(path) = log {
        prepare_log(path, &account)
            .map_err(|e| Error::new(Kind::Config, None, "create the log file", format!("{}: {e}", path.display())))?;
    }
    let failure = execute_again(&account);
    Err(refuse(failure.to_string()).with_hint("that user must be able to execute this program"))
}

#[cfg(windows)]
pub fn become_user(name: &str, _log: Option<&Path>) -> Result<()> {
    Err(Error::new(Kind::Usage, None, format!("run as user {name}"), "Windows has no --user")
        .with_hint("register the service or the task with the account that it should run as"))
}

#[cfg(unix)]
mod unix {
    use crate::process::logger::NEW_FILE_MODE;
    use std::fs::{OpenOptions, read_to_string};
    use std::io;
    use std::os::unix::fs::{OpenOptionsExt, fchown};
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    pub struct Account {
        pub uid: u32,
        gid: u32,
        name: String,
        home: String,
    }

    impl Account {
        /// Looks in `/etc/passwd` only, because a static program cannot use the name services.
        pub fn find(name: &str) -> Option<Account> {
            Account::parse(&read_to_string("/etc/passwd").ok()?, name)
        }

        pub fn parse(passwd: &str, name: &str) -> Option<Account> {
            passwd.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                match fields[..] {
                    [listed, _, uid, gid, _, home, ..] if listed == name => Some(Account {
                        uid: uid.parse().ok()?,
                        gid: gid.parse().ok()?,
                        name: name.to_string(),
                        home: home.to_string(),
                    }),
                    _ => None,
                }
            })
        }
    }

    /// The effective user id, for which std has no function. The owner of `/proc/self` is not the same: it is also root
    /// when the user of the process may not read the program's file.
    pub fn own_uid() -> Option<u32> {
        let status = read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Creates the log file for the user. An existing file keeps its owner, and a symbolic link is not followed.
    pub fn prepare_log(path: &Path, account: &Account) -> io::Result<()> {
        match OpenOptions::new().append(true).create_new(true).mode(NEW_FILE_MODE).open(path) {
            Ok(file) => fchown(file, Some(account.uid), Some(account.gid)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Executes this program again as the user. It sets HOME so that `~/.pgpass` is the user's file. Passwords are in
    /// the environment by then (`arguments.rs`), and stay there.
    pub fn execute_again(account: &Account) -> io::Error {
        let mut words = std::env::args_os();
        let program = match std::env::current_exe() {
            Ok(program) => program,
            Err(e) => return e,
        };
        let mut command = Command::new(program);
        if let Some(name) = words.next() {
            command.arg0(name);
        }
        command.args(words).uid(account.uid).gid(account.gid);
        command.env("HOME", &account.home).env("USER", &account.name).env("LOGNAME", &account.name).exec()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::unix::{Account, own_uid};

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\njoe2:x:1:1::/:\njoe:x:1000:100:Joe:/home/joe:/bin/sh\nbad:x:y:1::/:\n";
        let uid = |name| Account::parse(passwd, name).map(|account| account.uid);
        assert_eq!([uid("root"), uid("joe"), uid("jo"), uid("bad"), uid("")], [Some(0), Some(1000), None, None, None]);
    }

    #[test]
    fn the_process_knows_its_user() {
        assert!(own_uid().is_some() || !cfg!(target_os = "linux"));
    }
}
