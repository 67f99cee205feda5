//! Reads the config files again while the pairs run. The pair of a new file starts, and that of a removed file ends.
//! The pair of a changed file finishes its batch and restarts with the new settings. All other pairs go on. If a file
//! has an error now, its pair goes on with the old settings, and the log says what is wrong. The name of the file
//! identifies the pair.

use super::{Event, FINISH_TIME, Pair, Plan, Stage, Task, start};
use crate::base::control::Control;
use crate::config::files::LoadedConfigs;
use crate::process::logger::{self, OWN_TARGET};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

/// Starts, restarts and ends pairs according to the files. Returns how many mail threads have started.
pub(super) fn apply(pairs: &mut Vec<Pair>, loaded: LoadedConfigs, task: &Task, sender: &Sender<Event>) -> usize {
    log::info!(target: OWN_TARGET, "Reading the config files again");
    loaded.errors.iter().for_each(|error| logger::error(OWN_TARGET, error));
    let levels = loaded.configs.iter().map(|config| (config.name.clone(), config.debug_level));
    let former = pairs.iter().map(|pair| (pair.config.name.clone(), pair.config.debug_level));
    // If there are two levels for one name, the later one wins.
    let levels: Vec<(String, u8)> = former.chain(levels).collect();
    logger::set_levels(levels.iter().map(|(name, level)| (name.as_str(), *level)));
    for pair in pairs.iter_mut().filter(|pair| !pair.has_ended) {
        let Some(file) = &pair.file else { continue };
        match loaded.files.iter().position(|known| known == file) {
            Some(index) => apply_file(pair, &loaded, index),
            None if is_bad(file, &loaded) && !is_removed(file) => {
                log::warn!(target: &pair.config.name, "Keeping the old settings: the config file has an error");
            }
            None => {
                log::info!(target: &pair.config.name, "Ending: {} was removed", file.display());
                pair.plan = Plan::End;
                end_soon(&pair.control);
            }
        }
    }
    let mut started = 0;
    for (config, file) in loaded.configs.into_iter().zip(loaded.files) {
        let runs = |pair: &Pair| !pair.has_ended && pair.file.as_deref() == Some(&*file);
        if !pairs.iter().any(runs) {
            log::info!(target: &config.name, "Starting: {}", file.display());
            let pair = start(pairs.len(), config, Some(file), Arc::default(), task, sender);
            started += usize::from(pair.outbox.sends_mails());
            pairs.push(pair);
        }
    }
    started
}

/// Restarts a pair that has ended, if the last reload asked for that. True if that has started a mail thread.
pub(super) fn restart(pairs: &mut [Pair], number: usize, stage: &Stage, task: &Task, sender: &Sender<Event>) -> bool {
    let pair = &mut pairs[number];
    let plan = std::mem::replace(&mut pair.plan, Plan::Run);
    if matches!(plan, Plan::Run) || !matches!(stage, Stage::Running) {
        return false;
    }
    pair.outbox.close();
    let Plan::Restart(config) = plan else { return false };
    let file = pair.file.take();
    *pair = start(number, *config, file, pair.control.tally().clone(), task, sender);
    pair.outbox.sends_mails()
}

/// Restarts the pair if its file has other settings now.
fn apply_file(pair: &mut Pair, loaded: &LoadedConfigs, index: usize) {
    let config = &loaded.configs[index];
    match &pair.plan {
        // It is ending already.
        Plan::Restart(_) | Plan::End => pair.plan = Plan::Restart(Box::new(config.clone())),
        Plan::Run if *config == pair.config => {}
        Plan::Run => {
            log::info!(target: &pair.config.name, "Restarting: the config file has changed");
            pair.plan = Plan::Restart(Box::new(config.clone()));
            end_soon(&pair.control);
        }
    }
}

/// Whether the file, or the directory that it is in, has an error.
fn is_bad(file: &Path, loaded: &LoadedConfigs) -> bool {
    loaded.bad.iter().any(|bad| file.starts_with(bad))
}

/// Whether the file is gone from a directory that is still there. An empty directory counts as an error when files are read.
fn is_removed(file: &Path) -> bool {
    let is_missing = fs::metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    is_missing && file.parent().is_some_and(|directory| fs::read_dir(directory).is_ok())
}

/// Lets a pair finish its batch. After `FINISH_TIME` it cancels the pair's statements.
fn end_soon(control: &Control) {
    control.stop();
    let control = control.clone();
    let cancel = move || {
        thread::sleep(FINISH_TIME);
        control.cancel();
    };
    if let Err(e) = thread::Builder::new().name("cancel".into()).spawn(cancel) {
        log::warn!(target: OWN_TARGET, "cannot cancel the running statements: {e}");
    }
}
