//! Log lines, to standard error: results go to standard output.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Why there will be no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter says nothing.
    #[error("log filter {filter:?}: {reason}; write, for example, `info` or `warn,leeway=debug`")]
    Filter {
        /// The text.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another subscriber is there.
    #[error("logging was started twice: this is a fault of Leeway")]
    StartedTwice,
}

/// Starts logging for the process; `colors` are used on a terminal only. Librdkafka's lines come along.
///
/// # Errors
/// When the filter is not valid, or logging was started before.
pub fn init(filter: &str, format: LogFormat, colors: bool) -> Result<(), LoggingError> {
    let filter = parse_filter(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colors && io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
    };
    started.map_err(|_| LoggingError::StartedTwice)
}

/// Reads a filter. Values of fields are texts and no patterns: building an automaton for a short one takes a second, or all memory.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    let fault = |reason: String| LoggingError::Filter {
        filter: filter.to_owned(),
        reason,
    };
    // The parser panics where it cuts a text within a character.
    if !filter.is_ascii() {
        return Err(fault("it has letters beyond ASCII".to_owned()));
    }
    EnvFilter::builder()
        .with_regex(false)
        .parse(filter)
        .map_err(|error| fault(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_says_nothing_is_refused_with_its_text() {
        assert!(parse_filter("warn,leeway=debug").is_ok());
        assert!(parse_filter("leeway=loud").unwrap_err().to_string().contains("\"leeway=loud\""));
    }
}
