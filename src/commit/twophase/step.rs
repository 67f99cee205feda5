//! The steps of the protocol, at which a test can stop the daemon.

use std::fmt;

/// The points of the protocol at which a test can stop the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Begun,
    Replayed,
    Prepared,
    SlaveCommitted,
    MasterCommitted,
    /// Without two-phase commit, or if all changes are to be skipped.
    Noted,
}

impl Step {
    /// The steps of two-phase commit.
    pub const ALL: [Step; 5] =
        [Step::Begun, Step::Replayed, Step::Prepared, Step::SlaveCommitted, Step::MasterCommitted];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Begun => "begun",
            Step::Replayed => "replayed",
            Step::Prepared => "prepared",
            Step::SlaveCommitted => "slave-committed",
            Step::MasterCommitted => "master-committed",
            Step::Noted => "noted",
        })
    }
}
