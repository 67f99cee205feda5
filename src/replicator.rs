//! One pair: connect, recover, listen, drain, wait.

use crate::config::Config;
use crate::control::Control;
use crate::error::Result;

/// Replicates until the control says stop, or until something fails; the caller decides about another try.
/// `connected` is called once per successful connection (both sides checked and recovered).
pub fn run(config: &Config, control: &Control, connected: &mut dyn FnMut()) -> Result<()> {
    let _ = (config, control, connected);
    todo!()
}

/// Replays everything that is pending now and returns how many changes that were.
pub fn once(config: &Config, control: &Control) -> Result<u64> {
    let _ = (config, control);
    todo!()
}
