//! Changes who is the master: switchover, failover, failback; and the fence that protects a slave.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements about locks, objects and roles |
//! | `install` | prepares a database to be a master |
//! | `uninstall` | takes away what makes a database a master or a slave |
//! | `hook` | runs a command of the operator's |
//! | `lock` | keeps writers waiting, readers not |
//! | `sides` | the two databases of a pair, and what each has to know to exchange its role |
//! | `direction` | what a database writes when it becomes the master |
//! | `exchange` | the two transactions that exchange the roles, as a batch |
//! | `obstacles` | what keeps a slave from becoming the master |
//! | `switchover` | all of it, in order |
//! | `protect` | the fence on an ordinary slave |
//! | `failover` | makes the slave the master when the master is gone |
//! | `failback` | makes the former master the slave |
//!
//! Slony-I calls this MOVE SET and FAILOVER, Londiste takeover, Patroni switchover and failover.

pub mod sql;
pub mod install;
pub mod uninstall;
pub mod hook;
pub mod lock;
pub mod sides;
pub mod direction;
pub mod exchange;
pub mod obstacles;
pub mod switchover;
pub mod protect;
pub mod failover;
pub mod failback;
