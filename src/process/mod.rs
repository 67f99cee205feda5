//! What belongs to the whole process, not to one pair: signals, the log file, the terminal, the user it runs as.
//!
//! | file | what |
//! |---|---|
//! | `signals` | SIGTERM, SIGINT and SIGHUP, or Ctrl-C on Windows |
//! | `logger` | writes log lines, in the format of the Python original |
//! | `service` | tells systemd that the daemon is ready, and how it is doing |
//! | `terminal` | whether a stream is a terminal, how wide it is, and how wide a text is |
//! | `output` | tables, JSON and progress lines of the verbs |
//! | `usage` | what the process uses of the machine |
//! | `open_files` | how many files may be open, which limits the number of connections |
//! | `user` | `--user`: the process drops root's rights |
//! | `failpoint` | lets a test stop the process at a named point; does nothing in production |
//! | `foreground` | runs a verb so that Ctrl-C ends it |
//!
//! PostgreSQL calls a failpoint an injection point.

pub mod signals;
pub mod logger;
pub mod service;
pub mod terminal;
pub mod output;
pub mod usage;
pub mod open_files;
pub mod user;
pub mod failpoint;
pub mod foreground;
