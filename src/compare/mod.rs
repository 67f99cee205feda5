pub mod sql;
pub mod servers;
pub mod digest;
pub mod comparison;
pub mod repair;
