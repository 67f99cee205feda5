pub mod signals;
pub mod logger;
pub mod output;
pub mod user;
pub mod failpoint;
pub mod foreground;
