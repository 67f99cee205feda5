pub mod sql;
pub mod doctor;
pub mod status;
pub mod metrics;
