//! Log lines to standard error, where systemd's journal takes them: one format, one filter.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

/// The filter could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("log.filter {filter:?}: {detail}")]
pub struct FilterError {
    pub filter: String,
    pub detail: String,
}

/// Installs the subscriber, once per process; `log` records (aya's, among others) reach it too.
///
/// # Errors
/// [`FilterError`].
pub fn install(filter: &str) -> Result<(), FilterError> {
    let fail = |detail: String| FilterError { filter: filter.to_owned(), detail };
    let parsed = EnvFilter::try_new(filter).map_err(|error| fail(error.to_string()))?;
    let terminal = std::io::stderr().is_terminal();
    fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(true)
        .try_init()
        .map_err(|error| fail(error.to_string()))
}
