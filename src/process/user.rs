//! `--user`: started as root, the process gives up root's rights before it reads a config file or opens a connection.
//!
//! It starts itself anew as the other user, under the same process id: `exec` changes group and user on the way and
//! leaves no supplementary group, and nothing that root had opened survives it.

use crate::base::error::{Error, Kind, Result};
use std::path::Path;

/// Returns at once when the process runs as that user already. Otherwise it returns only if it fails; `log` is created
/// before, since the user may not be able to create files where it is.
#[cfg(unix)]
pub fn become_user(name: &str, log: Option<&Path>) -> Result<()> {
    use unix::{Account, own_uid, prepare_log, start_anew};
    let refuse = |why: String| Error::new(Kind::Usage, None, format!("run as user {name}"), why);
    let account = Account::find(name)
        .ok_or_else(|| refuse("there is no such user".into()).with_hint("/etc/passwd lists those there are"))?;
    let own = own_uid().ok_or_else(|| refuse("/proc does not tell who runs this process".into()))?;
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
    let failure = start_anew(&account);
    Err(refuse(failure.to_string()).with_hint("that user must be able to execute this program"))
}

#[cfg(windows)]
pub fn become_user(name: &str, _log: Option<&Path>) -> Result<()> {
    Err(Error::new(Kind::Usage, None, format!("run as user {name}"), "Windows has no --user")
        .with_hint("register the service or the task with the account that is to run it"))
}

#[cfg(unix)]
mod unix {
    use std::fs::{OpenOptions, read_to_string};
    use std::io;
    use std::os::unix::fs::{OpenOptionsExt, fchown};
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    /// A new log file can be read by the user's group, and by nobody else.
    const LOG_MODE: u32 = 0o640;

    pub struct Account {
        pub uid: u32,
        gid: u32,
        name: String,
        home: String,
    }

    impl Account {
        /// From `/etc/passwd` alone: a static program cannot ask the name services.
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

    /// The effective user id; std has no call for it. The owner of `/proc/self` would not do: that is root also when the
    /// program's file cannot be read by its user.
    pub fn own_uid() -> Option<u32> {
        let status = read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// A file that is there already keeps its owner; a link is not followed.
    pub fn prepare_log(path: &Path, account: &Account) -> io::Result<()> {
        match OpenOptions::new().append(true).create_new(true).mode(LOG_MODE).open(path) {
            Ok(file) => fchown(file, Some(account.uid), Some(account.gid)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// `~/.pgpass` is to be the user's, hence HOME. Passwords are in the environment by now, and stay there.
    pub fn start_anew(account: &Account) -> io::Error {
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
    fn the_process_knows_whose_it_is() {
        assert!(own_uid().is_some() || !cfg!(target_os = "linux"));
    }
}
