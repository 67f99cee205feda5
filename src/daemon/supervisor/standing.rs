//! What the service manager is told of the pairs: how many replicate, and which do not.

use super::Pair;
use crate::process::service;

/// How a pair is doing, as far as its last attempt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has replayed all that was pending, and has not failed since.
    Replicating,
    Failing,
    /// It has just started, and done neither.
    Starting,
}

/// The status that was told last.
pub(super) struct Announcer {
    told: String,
    bad_files: usize,
}

impl Announcer {
    /// The pairs have been started. `bad_files` is the number of config files with an error.
    pub(super) fn ready(pairs: &[Pair], bad_files: usize) -> Announcer {
        let told = text(pairs, bad_files);
        service::ready(&told);
        Announcer { told, bad_files }
    }

    /// The config files have been read again.
    pub(super) fn ready_again(&mut self, pairs: &[Pair], bad_files: usize) {
        *self = Announcer::ready(pairs, bad_files);
    }

    /// Tells the status if it has changed.
    pub(super) fn update(&mut self, pairs: &[Pair]) {
        let text = text(pairs, self.bad_files);
        if text != self.told {
            service::status(&text);
            self.told = text;
        }
    }

    pub(super) fn bad_files(&self) -> usize {
        self.bad_files
    }
}

pub(super) fn note(pairs: &mut [Pair], name: &str, standing: Standing) {
    for pair in pairs.iter_mut().filter(|pair| !pair.has_ended && pair.config.name == name) {
        pair.standing = standing;
    }
}

/// One line. The errors themselves are in the log only: they can hold values, and everybody may read a service's status.
fn text(pairs: &[Pair], bad_files: usize) -> String {
    let names = |wanted: Standing| -> Vec<&str> {
        let all = pairs.iter().filter(|pair| !pair.has_ended && pair.standing == wanted);
        all.map(|pair| pair.config.name.as_str()).collect()
    };
    let mut text = format!("{} replicating", names(Standing::Replicating).len());
    for (names, what) in [(names(Standing::Starting), "starting"), (names(Standing::Failing), "failing")] {
        if !names.is_empty() {
            text += &format!(", {} {what} ({})", names.len(), names.join(", "));
        }
    }
    if bad_files > 0 {
        text += &format!(", config files with errors: {bad_files}");
    }
    text
}
