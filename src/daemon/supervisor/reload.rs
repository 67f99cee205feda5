//! Reading the config files again while the pairs run: new ones start, removed ones end, changed ones are started anew with
//! their new settings once they have ended in good order, all others are left alone. A pair whose file is bad by now runs on
//! as before, and the log says what is wrong. A pair goes by its file.

use super::{Event, FINISH_TIME, Pair, Stage, Task, Wish, start};
use crate::base::control::Control;
use crate::config::files::LoadedConfigs;
use crate::process::logger::{self, OWN_TARGET};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread;

/// Does what the files say now; how many pairs with mails have started.
pub(super) fn apply(pairs: &mut Vec<Pair>, loaded: LoadedConfigs, task: &Task, sender: &Sender<Event>) -> usize {
    log::info!(target: OWN_TARGET, "Reading the config files again");
    loaded.errors.iter().for_each(|error| logger::error(OWN_TARGET, error));
    let levels = loaded.configs.iter().map(|config| (config.name.clone(), config.debug_level));
    let former = pairs.iter().map(|pair| (pair.config.name.clone(), pair.config.debug_level));
    // The later of two for one name counts.
    let levels: Vec<(String, u8)> = former.chain(levels).collect();
    logger::set_levels(levels.iter().map(|(name, level)| (name.as_str(), *level)));
    for pair in pairs.iter_mut().filter(|pair| !pair.has_ended) {
        let Some(file) = &pair.file else { continue };
        match loaded.files.iter().position(|known| known == file) {
            Some(index) => want(pair, &loaded, index),
            None if is_bad(file, &loaded) => {
                log::warn!(target: &pair.config.name, "Going on with the settings of before: the config file is bad");
            }
            None => {
                log::info!(target: &pair.config.name, "Ending: {} is gone", file.display());
                pair.wish = Wish::End;
                end_soon(&pair.control);
            }
        }
    }
    let mut started = 0;
    for (config, file) in loaded.configs.into_iter().zip(loaded.files) {
        let runs = |pair: &Pair| !pair.has_ended && pair.file.as_deref() == Some(&*file);
        if !pairs.iter().any(runs) {
            log::info!(target: &config.name, "Starting: {}", file.display());
            let pair = start(pairs.len(), config, Some(file), task, sender);
            started += usize::from(pair.outbox.has_work());
            pairs.push(pair);
        }
    }
    started
}

/// A pair has ended. If that was to be started anew, it is; whether it sends mails then.
pub(super) fn go_on(pairs: &mut [Pair], number: usize, stage: &Stage, task: &Task, sender: &Sender<Event>) -> bool {
    let pair = &mut pairs[number];
    let wish = std::mem::replace(&mut pair.wish, Wish::Run);
    if matches!(wish, Wish::Run) || !matches!(stage, Stage::Running) {
        return false;
    }
    pair.outbox.close();
    let Wish::Restart(config) = wish else { return false };
    let file = pair.file.take();
    *pair = start(number, *config, file, task, sender);
    pair.outbox.has_work()
}

/// The pair is to run with these settings.
fn want(pair: &mut Pair, loaded: &LoadedConfigs, index: usize) {
    let config = &loaded.configs[index];
    match &pair.wish {
        // It is on its way out already.
        Wish::Restart(_) | Wish::End => pair.wish = Wish::Restart(Box::new(config.clone())),
        Wish::Run if *config == pair.config => {}
        Wish::Run => {
            log::info!(target: &pair.config.name, "Starting anew: the config file has changed");
            pair.wish = Wish::Restart(Box::new(config.clone()));
            end_soon(&pair.control);
        }
    }
}

/// The file itself, or the directory it stands in.
fn is_bad(file: &Path, loaded: &LoadedConfigs) -> bool {
    loaded.bad.iter().any(|bad| file.starts_with(bad))
}

/// Lets a pair finish its batch; then the servers are told to give it up.
fn end_soon(control: &Control) {
    control.stop();
    let control = control.clone();
    let cancel = move || {
        thread::sleep(FINISH_TIME);
        control.cancel();
    };
    if let Err(e) = thread::Builder::new().name("cancel".into()).spawn(cancel) {
        log::warn!(target: OWN_TARGET, "cannot cancel the statements in hand: {e}");
    }
}
