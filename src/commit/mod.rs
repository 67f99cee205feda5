pub mod sql;
pub mod recovery;
pub mod twophase;
