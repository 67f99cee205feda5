pub mod recovery;
pub mod twophase;
