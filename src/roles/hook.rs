//! Runs a command of the operator's, which tells a pooler or a name server of the new master.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use std::io;
use std::process::{Command, Stdio};
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
    command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
    let end = Instant::now() + limit;
    loop {
        match child.try_wait().map_err(|error| failed(&error.to_string()))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(failed(&format!("it ended with {status}"))),
            None if control.is_stopping() || Instant::now() >= end => {
                // It may have ended by itself meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                control.check()?;
                return Err(failed(&format!("it did not end within {:.1} s", limit.as_secs_f64())));
            }
            None => drop(control.pause(PAUSE)),
        }
    }
}
