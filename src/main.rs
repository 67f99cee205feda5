//! `pyreplica`: the passwords out of sight, then what the arguments say.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = pyreplica::arguments();
    let code = pyreplica::cli::main(arguments, |name| std::env::var(name).ok());
    ExitCode::from(code as u8)
}
