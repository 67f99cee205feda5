//! `pyreplica`: the passwords out of sight, then what the arguments say.

use pyreplica::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = pyreplica::arguments();
    let code = match cli::parse(arguments, |name| std::env::var(name).ok()) {
        Ok(command) => cli::run(command),
        Err(error) => cli::report(&error),
    };
    ExitCode::from(code as u8)
}
