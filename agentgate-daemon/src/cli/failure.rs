//! How a subcommand fails, and the exit code that says so.

use std::{io, path::PathBuf};

use crate::{
    control::{client::ClientError, wire::ErrorCode},
    detach::DetachError,
    export::FormatError,
    launch::command::LaunchError,
    selftest::SelftestError,
    store::StoreError,
};

/// Why a subcommand did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No answer, or a refusal.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// An answer to another question.
    #[error("agentgated gave an answer that does not belong to the question")]
    Unexpected,
    /// What was given is not valid; the message has been said already where this is `None`.
    #[error("{}", .0.as_deref().unwrap_or_default())]
    Invalid(Option<String>),
    /// `status --check`; the answer itself has said why.
    #[error("the gate is not as it should be")]
    Unhealthy,
    /// `audit reconcile`; the answer itself has said where.
    #[error("the audit log does not balance with the kernel's counters")]
    Unbalanced,
    /// `audit export`: entries that could not be read, or were gone when their turn came.
    #[error("{0} entries are missing in what was written: they cannot be read, or are pruned")]
    Incomplete(u64),
    /// `audit export`: told to stop before all was written. What to do next was said.
    #[error("stopped before all was written")]
    Interrupted,
    /// A row has no form.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A store file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file that was named cannot be used.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// `audit import`: why it stopped. The message has been said already where this is `None`.
    #[error("nothing was imported: {}", .0.as_deref().unwrap_or_default())]
    NotImported(Option<String>),
    /// `audit verify`; the answer itself has said where.
    #[error("the audit log is not whole")]
    NotWhole,
    /// `audit verify`: it cannot be told.
    #[error("cannot be verified: {0}")]
    Unverified(String),
    /// `detach`.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// `run`.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// `selftest` could not be run, or was told to run what there is not.
    #[error(transparent)]
    Selftest(#[from] SelftestError),
    /// `selftest`: so many attempts got through.
    #[error("{0} of the attempts got through")]
    Leaked(usize),
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// The reader of standard output has seen enough, as `head` does.
    #[error("")]
    ReaderGone,
}

impl Failure {
    /// What to say on standard error; `None` for nothing.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        match self {
            Self::ReaderGone
            | Self::Unhealthy
            | Self::Unbalanced
            | Self::NotWhole
            | Self::NotImported(None)
            | Self::Invalid(None) => None,
            Self::Daemon(_)
            | Self::Unexpected
            | Self::Unverified(_)
            | Self::Detach(_)
            | Self::Incomplete(_)
            | Self::Interrupted
            | Self::Format(_)
            | Self::Store(_)
            | Self::File { .. }
            | Self::Invalid(Some(_))
            | Self::NotImported(Some(_))
            | Self::Launch(_)
            | Self::Selftest(_)
            | Self::Leaked(_)
            | Self::Output(_) => Some(self.to_string()),
        }
    }

    /// As `--help` lists them.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Daemon(ClientError::Refused(error))
                if matches!(error.code, ErrorCode::Invalid | ErrorCode::PolicyInvalid) =>
            {
                2
            }
            Self::Daemon(ClientError::Refused(_) | ClientError::Protocol(_))
            | Self::Unexpected
            | Self::Unhealthy
            | Self::Unbalanced
            | Self::NotWhole
            | Self::NotImported(_)
            | Self::Detach(_)
            | Self::Incomplete(_)
            | Self::Interrupted
            | Self::Format(_)
            | Self::Store(_)
            | Self::File { .. }
            | Self::Leaked(_)
            | Self::Output(_) => 1,
            Self::Invalid(_) | Self::Unverified(_) | Self::Selftest(SelftestError::NoSuchAttempt(_)) => 2,
            Self::Selftest(_) => 4,
            Self::Daemon(
                ClientError::NotRunning { .. }
                | ClientError::Permission { .. }
                | ClientError::Timeout { .. }
                | ClientError::Io(_),
            ) => 3,
            Self::Launch(error) => error.exit_code(),
        }
    }
}

impl From<io::Error> for Failure {
    /// For writes to standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::ReaderGone } else { Self::Output(error) }
    }
}
