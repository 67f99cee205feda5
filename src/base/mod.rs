pub mod names;
pub mod backoff;
pub mod error;
pub mod control;
