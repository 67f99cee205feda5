//! Statements that list what can be compared.

use crate::server::sql::with_own;
use std::sync::LazyLock;

pub const COMPARABLE: &str = include_str!("../../sql/query/comparable.sql");
pub static REPLICATED: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/replicated.sql")));
pub const PENDING: &str = include_str!("../../sql/query/underway.sql");
