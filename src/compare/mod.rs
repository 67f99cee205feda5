pub mod sql;
pub mod digest;
pub mod comparison;
pub mod repair;
pub mod servers;
