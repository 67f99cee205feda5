pub mod sql;
pub mod libpq;
pub mod tls;
pub mod session;
pub mod checks;
pub mod connect;
pub mod connect_pair;
