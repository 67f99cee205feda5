//! How a session reads transaction ids.

use postgres::types::{FromSql, Type};

/// A transaction id, read in the server's binary form. A cast to bigint on the server goes through text, which would
/// take a third of the time for reading the log.
pub struct Xid8(pub i64);

impl<'a> FromSql<'a> for Xid8 {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Xid8, Box<dyn std::error::Error + Sync + Send>> {
        i64::from_sql(&Type::INT8, raw).map(Xid8)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::XID8
    }
}
