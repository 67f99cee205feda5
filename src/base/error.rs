//! Errors as the operator needs them: which operation failed, on which side, why, and what to do now.

use crate::base::names::{LogId, Side, Txid};
use crate::base::phrases::without_number;
use crate::base::shown::shown;
use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// What sort of failure it is. The exit code follows from it, and whether another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line makes no sense.
    Usage,
    /// A config file or connection string cannot be read or understood.
    Config,
    /// The server cannot be reached, or the connection broke.
    Connection,
    /// The server refuses the login: password, pg_hba.conf, role or database.
    Login,
    /// Something that replication needs is missing: a table, a column, a setting, a right.
    Setup,
    /// Another daemon replicates this pair.
    Busy,
    /// One change cannot be replayed. Everything before it has been replayed.
    Change,
    /// A lock was not granted in time, or there was a deadlock. The next try may succeed.
    Contention,
    /// The two servers do not mean the same last batch: one of them was restored, or is another one.
    Apart,
    /// The operator has paused the pair.
    Paused,
    /// The other database is the master now: connect again in the other direction.
    Switched,
    /// The operator asked the daemon to stop.
    Stopped,
    /// A bug in pyreplica, or an answer of the server that pyreplica does not expect.
    Internal,
}

/// The exit codes. They are stable, and the README lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Success = 0,
    Internal = 1,
    Usage = 2,
    Config = 3,
    Master = 4,
    Slave = 5,
    Change = 6,
    Busy = 7,
    /// A verb found something that works but needs attention.
    Warned = 8,
    /// A verb found something that does not work, or not as it should.
    Faulty = 9,
    /// A signal or a closed pipe stopped a verb before its end.
    Interrupted = 130,
}

/// What tells an operator where the values are that `without_values` leaves out.
const LEFT_OUT: &str = " (values are left out: pyreplica pending shows them, DEBUG_LEVEL=2 logs them)";

pub const ON_PRIMARY: &str = "(on its primary: this server is a standby)";

/// Whether a hint or a statement is one that a standby refuses to run. ALTER SYSTEM is not, for example.
pub fn is_for_primary(text: &str) -> bool {
    let writes = ["GRANT ", "REVOKE ", "CREATE ", "DROP ", "UPDATE ", "DELETE ", "py_log_", ".sql"];
    let alters = text.match_indices("ALTER ").any(|(at, word)| !text[at + word.len()..].starts_with("SYSTEM"));
    (alters || writes.iter().any(|word| text.contains(word))) && !text.contains(ON_PRIMARY)
}

/// An error with everything that an operator needs. `Display` prints one line without a full stop and without the hint.
/// The parts are boxed so that a `Result` stays small when nothing goes wrong.
#[derive(Debug)]
pub struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: Kind,
    side: Option<Side>,
    operation: String,
    detail: String,
    /// The same without the values of rows, if they have some.
    bare_operation: Option<String>,
    bare_detail: Option<String>,
    hint: Option<String>,
    code: Option<String>,
    change: Option<(LogId, Txid)>,
    is_premature: bool,
    is_of_standby: bool,
}

impl Error {
    /// `operation` says what was attempted ("connect", "prepare the batch"), `detail` why it failed. Both, and the hint, may hold
    /// names, values and messages of the servers: they are escaped here, so that they are one line each wherever they are shown.
    pub fn new(kind: Kind, side: Option<Side>, operation: impl Into<String>, detail: impl fmt::Display) -> Self {
        Error(Box::new(Parts {
            kind,
            side,
            operation: shown(&operation.into()).into_owned(),
            detail: shown(&without_number(&detail.to_string())).into_owned(),
            bare_operation: None,
            bare_detail: None,
            hint: None,
            code: None,
            change: None,
            is_premature: false,
            is_of_standby: false,
        }))
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(shown(&hint.into()).into_owned());
        let is_standby = self.0.is_of_standby;
        self.of_standby(is_standby)
    }

    /// Statements that its hint has cannot be run on a standby.
    #[must_use]
    pub fn of_standby(mut self, is_standby: bool) -> Self {
        self.0.is_of_standby = is_standby;
        if let Some(hint) = self.0.hint.as_mut().filter(|hint| is_standby && is_for_primary(hint)) {
            *hint = format!("{hint} {ON_PRIMARY}");
        }
        self
    }

    /// The same error with another reason.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = shown(&without_number(&detail.into())).into_owned();
        self.0.bare_detail = None;
        self
    }

    /// What `without_values` says in place of the reason, which quotes values of rows.
    #[must_use]
    pub fn with_bare_detail(mut self, detail: &str) -> Self {
        self.0.bare_detail = Some(shown(detail).into_owned());
        self
    }

    /// What `without_values` says in place of the operation, which quotes values of rows.
    #[must_use]
    pub fn with_bare_operation(mut self, operation: &str) -> Self {
        self.0.bare_operation = Some(shown(operation).into_owned());
        self
    }

    /// The same error of another operation.
    #[must_use]
    pub fn with_operation(mut self, operation: impl Into<String>) -> Self {
        self.0.operation = shown(&operation.into()).into_owned();
        self.0.bare_operation = None;
        self
    }

    /// The same reason and hint, as an error of another kind: of a change, for example, that the server has refused.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same error for a log that is to have no values of rows.
    #[must_use]
    pub fn without_values(mut self) -> Self {
        let parts = &mut *self.0;
        let (operation, detail) = (parts.bare_operation.take(), parts.bare_detail.take());
        let has_values = operation.is_some() || detail.is_some();
        parts.operation = operation.unwrap_or_else(|| std::mem::take(&mut parts.operation));
        parts.detail = detail.unwrap_or_else(|| std::mem::take(&mut parts.detail));
        if has_values {
            parts.detail.push_str(LEFT_OUT);
        }
        self
    }

    /// Adds the SQLSTATE that the server gave.
    #[must_use]
    pub fn with_code(mut self, code: &str) -> Self {
        self.0.code = Some(code.to_string());
        self
    }

    /// Adds the change that cannot be replayed, and its transaction.
    #[must_use]
    pub fn with_change(mut self, id: LogId, txid: Txid) -> Self {
        self.0.change = Some((id, txid));
        self
    }

    /// A check at the end of a transaction has failed, which later changes may make succeed.
    #[must_use]
    pub fn premature(mut self) -> Self {
        self.0.is_premature = true;
        self
    }

    pub fn is_premature(&self) -> bool {
        self.0.is_premature
    }

    pub fn change(&self) -> Option<(LogId, Txid)> {
        self.0.change
    }

    /// Whether the same work may succeed in another try. A lost connection or a lock, for example, says nothing about
    /// the statements that were sent.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.0.kind,
            Kind::Connection
                | Kind::Login
                | Kind::Contention
                | Kind::Stopped
                | Kind::Busy
                | Kind::Paused
                | Kind::Switched
        )
    }

    /// The SQLSTATE, if a server reported the error.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// A server could not convert a text to the encoding that the other end has.
    pub fn is_of_encoding(&self) -> bool {
        matches!(self.code(), Some("22P05" | "22021"))
    }

    /// What was attempted, without the side.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// Why it failed, without the operation.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The same without values of rows.
    pub fn bare_detail(&self) -> &str {
        self.0.bare_detail.as_deref().unwrap_or(&self.0.detail)
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    pub fn side(&self) -> Option<Side> {
        self.0.side
    }

    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    pub fn exit_code(&self) -> ExitCode {
        match (self.0.kind, self.0.side) {
            (Kind::Usage, _) => ExitCode::Usage,
            (Kind::Config, _) => ExitCode::Config,
            (Kind::Change, _) => ExitCode::Change,
            (Kind::Busy | Kind::Paused | Kind::Switched, _) => ExitCode::Busy,
            (Kind::Stopped, _) => ExitCode::Success,
            (Kind::Internal, _) => ExitCode::Internal,
            (Kind::Apart, _) => ExitCode::Faulty,
            (_, Some(Side::Slave)) => ExitCode::Slave,
            (_, Some(Side::Master)) => ExitCode::Master,
            (_, None) => ExitCode::Config,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(side) = self.0.side {
            write!(f, "{side}: ")?;
        }
        write!(f, "cannot {}: {}", self.0.operation, self.0.detail)
    }
}

impl std::error::Error for Error {}
