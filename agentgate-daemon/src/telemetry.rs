//! Log lines to standard error, where systemd's journal takes them: one line an
//! event, as text or as JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

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
pub fn install(filter: &str, format: LogFormat) -> Result<(), FilterError> {
    let fail = |detail: String| FilterError { filter: filter.to_owned(), detail };
    let parsed = EnvFilter::try_new(filter).map_err(|error| fail(error.to_string()))?;
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(terminal && format == LogFormat::Text)
        .with_target(true);
    match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    }
    .map_err(|error| fail(error.to_string()))
}
