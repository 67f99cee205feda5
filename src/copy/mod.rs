pub mod sql;
pub mod plan;
pub mod schema;
pub mod copier;
