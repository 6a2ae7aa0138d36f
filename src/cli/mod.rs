//! The command line: which command, with what around it, and how its end is told.
//!
//! Exit codes: 0 fine, 1 failed while running, 2 bad arguments or configuration, 3 drift or a mismatch found. An error is one plain line `error: ...`, a
//! configuration with several faults one line each; never a backtrace.
//!
//! Not here: what the commands do; each has a file of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config, ConfigError, ConfigFlags};

pub mod alert;
pub mod audit;
pub mod check;
pub mod dashboard;
pub mod demo;
pub mod metrics;
pub mod produce;
pub mod reference;
pub mod reset;
pub mod run;
#[cfg(feature = "rocksdb")]
pub mod state;
#[cfg(test)]
mod tests;
pub mod topology;

/// Exit code of a failure while running.
pub const EXIT_FAILED: u8 = 1;

/// Exit code of bad arguments or configuration.
pub const EXIT_USAGE: u8 = 2;

/// Exit code of an audit that found a difference, and of a check that found drift.
pub const EXIT_MISMATCH: u8 = 3;

#[derive(Debug, Parser)]
#[command(name = "leeway", version, about, max_term_width = 120, arg_required_else_help = true)]
#[command(after_help = "Examples:
  leeway demo
  leeway reference build --input train.csv --output reference.json
  leeway run --topic drift-data --reference reference.json")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole system in one process on an embedded broker: no Kafka, no configuration, nothing left behind
    Demo(demo::Args),
    /// The stream processor; start more of them with the same application id to share the partitions
    Run(Box<run::Args>),
    /// Sends rows of a file, standard input or a synthetic stream to a topic
    Produce(produce::Args),
    /// Makes references and looks at them
    Reference(reference::Args),
    /// Whether the rows of a file have drifted from a reference: as a table, as JSON or as an HTML report
    Check(check::Args),
    /// Tells Slack, a webhook, Alertmanager, a CSV log or the terminal when drift begins, gets worse and ends
    Alert(Box<alert::Args>),
    /// The drift events as metrics for Prometheus, where workers are not scraped
    Metrics(Box<metrics::Args>),
    /// The drift events as a web page
    Dashboard(Box<dashboard::Args>),
    /// Proves the drift events from the input: each there once, with the right values, and no other
    Audit(Box<audit::Args>),
    /// What a state directory holds; a worker may go on with it meanwhile
    #[cfg(feature = "rocksdb")]
    State(Box<state::Args>),
    /// Begins anew: deletes offsets, internal topics and local state
    Reset(Box<reset::Args>),
    /// Prints the processing graph
    Topology(Box<topology::Args>),
}

/// What a command is run in.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The environment's variables.
    pub environment: BTreeMap<String, String>,
}

impl Context {
    /// That of this process. What is not UTF-8 keeps its place with replacement characters, so that it is refused where it matters.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        Self {
            environment: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
        }
    }

    /// The configuration: flags, environment, and `--config` or `./leeway.toml` if it is there.
    ///
    /// # Errors
    /// Every fault of it, or the file that cannot be read.
    pub fn load_config(&self, flags: &ConfigFlags) -> Result<Config, ConfigError> {
        let path = flags.config.as_deref().unwrap_or(Path::new(config::DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && flags.config.is_none() => None,
            Err(error) => {
                let source = if flags.config.is_some() { " (--config)" } else { "" };
                let fault = format!("configuration file {}{source} cannot be read: {error}", path.display());
                return Err(ConfigError { faults: vec![fault] });
            }
        };
        config::load(flags, &self.environment, text.as_deref().map(|text| (path, text)))
    }

    /// Whether the user asked for output without colours (<https://no-color.org>).
    #[must_use]
    pub fn no_color(&self) -> bool {
        self.environment.get("NO_COLOR").is_some_and(|value| !value.is_empty())
    }
}

/// The binary's `main`.
#[must_use]
pub fn main() -> ExitCode {
    execute(std::env::args_os(), &Context::of_process(), &mut io::stderr())
}

/// Runs a command line and tells errors on `stderr`.
pub fn execute(args: impl IntoIterator<Item = OsString>, context: &Context, stderr: &mut dyn Write) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, stderr),
    };
    let result = match cli.command {
        Command::Demo(args) => demo::execute(args, context),
        Command::Run(args) => run::execute(&args, context),
        Command::Produce(args) => produce::execute(args, context),
        Command::Reference(args) => reference::execute(args, context),
        Command::Check(args) => check::execute(&args, context),
        Command::Alert(args) => alert::execute(&args, context),
        Command::Metrics(args) => metrics::execute(&args, context),
        Command::Dashboard(args) => dashboard::execute(&args, context),
        Command::Audit(args) => audit::execute(&args, context),
        #[cfg(feature = "rocksdb")]
        Command::State(args) => state::execute(&args, context),
        Command::Reset(args) => reset::execute(&args, context),
        Command::Topology(args) => topology::execute(&args, context),
    };
    result.unwrap_or_else(|error| tell(&error, stderr))
}

/// Help and version go to standard output and are no error; the rest is a usage error.
fn usage(error: &clap::Error, stderr: &mut dyn Write) -> ExitCode {
    // A closed terminal is nobody's error.
    if error.use_stderr() {
        write!(stderr, "{}", error.render()).unwrap_or_default();
        ExitCode::from(EXIT_USAGE)
    } else {
        error.print().unwrap_or_default();
        ExitCode::SUCCESS
    }
}

fn tell(error: &anyhow::Error, stderr: &mut dyn Write) -> ExitCode {
    if let Some(ConfigError { faults }) = error.chain().find_map(|cause| cause.downcast_ref()) {
        for fault in faults {
            line(stderr, fault);
        }
        return ExitCode::from(EXIT_USAGE);
    }
    if is_closed_pipe(error) {
        // `leeway topology | head`: the reader has what it wanted.
        return ExitCode::SUCCESS;
    }
    line(stderr, &format!("{error:#}"));
    ExitCode::from(EXIT_FAILED)
}

fn line(stderr: &mut dyn Write, text: &str) {
    // There is nowhere left to say that standard error is closed.
    writeln!(stderr, "error: {}", text.trim_end().replace('\n', "; ")).unwrap_or_default();
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
