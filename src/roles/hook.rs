//! Runs a command of the operator's, which tells a pooler or a name server of the new master.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::config::arguments::PASSWORD;
use std::env;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Runs a command line by the shell, at most so long. What it prints goes to the error output. `variables` are set in its environment.
pub fn run(option: &str, line: &str, variables: &[(&str, String)], limit: Duration, control: &Control) -> Result<()> {
    let failed = |why: &str| {
        Error::new(Kind::Setup, None, format!("run the command of {option}"), why).with_hint(format!("it is: {line}"))
    };
    let mut command = match cfg!(windows) {
        true => Command::new("cmd"),
        false => Command::new("sh"),
    };
    command.args([if cfg!(windows) { "/C" } else { "-c" }, line]).stdin(Stdio::null()).stdout(io::stderr());
    // A group of its own, so that all of it can be ended, and not only the shell.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    // A password of the command line is nothing for the operator's command.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(PASSWORD)) {
        command.env_remove(name);
    }
    command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
    let end = Instant::now() + limit;
    loop {
        match child.try_wait().map_err(|error| failed(&error.to_string()))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(failed(&format!("it ended with {status}"))),
            None if control.is_stopping() || Instant::now() >= end => {
                end_all(&mut child);
                control.check()?;
                return Err(failed(&format!("it did not end within {:.1} s", limit.as_secs_f64())));
            }
            None => drop(control.pause(PAUSE)),
        }
    }
}

/// Ends the shell and all that it has started. Any of them may have ended by itself meanwhile.
fn end_all(child: &mut Child) {
    let id = child.id();
    let mut kill = match cfg!(windows) {
        true => Command::new("taskkill"),
        false => Command::new("sh"),
    };
    match cfg!(windows) {
        true => kill.args(["/T", "/F", "/PID", &id.to_string()]),
        false => kill.args(["-c", &format!("kill -s KILL -- -{id}")]),
    };
    let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = child.kill();
    let _ = child.wait();
}
