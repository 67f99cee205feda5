pub mod table;
pub mod statements;
pub mod sets;
pub mod net_effect;
pub mod table_cache;
pub mod conflict;
pub mod hold;
pub mod replayer;
