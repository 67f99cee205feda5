pub mod dsn;
pub mod conflict_policy;
pub mod settings;
pub mod files;
pub mod arguments;
