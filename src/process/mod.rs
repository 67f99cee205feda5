//! What belongs to the process and not to a pair: signals, the log file, the terminal, the user it runs as.
//!
//! | file | what |
//! |---|---|
//! | `signals` | SIGTERM, SIGINT and SIGHUP, or Ctrl-C on Windows |
//! | `logger` | the log's lines, in the original's format |
//! | `output` | tables, JSON and progress of the verbs |
//! | `user` | `--user`: the process gives root's rights up |
//! | `failpoint` | a test stops the process at a named point; nothing happens in production |
//! | `foreground` | one piece of work in the foreground, which Ctrl-C ends |
//!
//! PostgreSQL calls a failpoint an injection point.

pub mod signals;
pub mod logger;
pub mod output;
pub mod user;
pub mod failpoint;
pub mod foreground;
