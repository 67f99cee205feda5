pub mod sql;
pub mod diagnosis;
pub mod vitals;
pub mod metrics;
