pub mod sql;
pub mod recovery;
pub mod prepared;
pub mod twophase;
