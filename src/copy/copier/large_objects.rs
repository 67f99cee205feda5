//! Copies large objects, once: nothing logs their changes. Those that the slave has already stay as they are, so a copy that is
//! run again goes on.

use super::CopyEvent;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::quote_ident;
use crate::copy::sql;
use crate::server::session::Session;
use std::collections::HashSet;

/// What is in memory at a time, in bytes.
const CHUNK: i32 = 1 << 20;

/// So many objects are created in one transaction: each holds a lock.
const AT_A_TIME: usize = 100;

/// Copies those that the snapshot of `master` shows and the slave lacks. They keep their owners, if the slave has the roles and
/// this one is a superuser, unless the operator wants `no_owner`.
pub(super) fn copy_all(
    master: &mut Session,
    slave: &mut Session,
    no_owner: bool,
    control: &Control,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<()> {
    let rows = slave.query("look for large objects", sql::LARGE_OBJECTS, &[])?;
    let there: HashSet<u32> = rows.iter().map(|row| row.get("oid")).collect();
    let is_superuser: bool = slave.query_one("look at the role", sql::IS_SUPERUSER, &[])?.get(0);
    let rows = master.query("look for large objects", sql::LARGE_OBJECTS, &[])?;
    let all: Vec<(u32, String)> = rows.iter().map(|row| (row.get("oid"), row.get("owner"))).collect();
    let missing: Vec<&(u32, String)> = all.iter().filter(|(oid, _)| !there.contains(oid)).collect();
    let owners: Vec<&str> = missing.iter().map(|(_, owner)| owner.as_str()).collect();
    let lacking: Vec<String> = slave.query_one("look for the roles", sql::MISSING_ROLES, &[&owners])?.get(0);
    for objects in missing.chunks(AT_A_TIME) {
        slave.transaction("BEGIN", |slave| {
            for (oid, owner) in objects {
                copy_one(master, slave, *oid, control)?;
                if is_superuser && !no_owner && !lacking.contains(owner) {
                    let statement = format!("ALTER LARGE OBJECT {oid} OWNER TO {}", quote_ident(owner));
                    slave.message("set the owner of a large object", &statement)?;
                }
            }
            Ok(())
        })?;
    }
    report(CopyEvent::Note(format!(
        "copied {} large objects; {} were on the slave already, and are left as they are",
        missing.len(),
        all.len() - missing.len()
    )));
    Ok(())
}

fn copy_one(master: &mut Session, slave: &mut Session, oid: u32, control: &Control) -> Result<()> {
    let mut place = 0_i64;
    loop {
        if control.is_stopping() {
            return Err(Error::new(Kind::Stopped, None, "copy large objects", "stopped by a signal"));
        }
        let row = master.query_one("read a large object", sql::READ_LARGE_OBJECT, &[&oid, &place, &CHUNK])?;
        let chunk: &[u8] = row.get(0);
        if place == 0 {
            slave.query("write a large object", sql::CREATE_LARGE_OBJECT, &[&oid, &chunk])?;
        } else {
            slave.query("write a large object", sql::WRITE_LARGE_OBJECT, &[&oid, &place, &chunk])?;
        }
        place += chunk.len() as i64;
        if chunk.len() < CHUNK as usize {
            return Ok(());
        }
    }
}
