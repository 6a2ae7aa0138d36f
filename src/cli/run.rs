//! `leeway run`: the stream processor.

use std::io::Write as _;
use std::process::ExitCode;

use super::Context;
use crate::config::ConfigFlags;

/// Arguments of `leeway run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Command line before environment before file before default.

Examples:
  leeway run --topic drift-data --reference reference.json
  leeway run --config leeway.toml --window-size 5000 --window-every 500
  leeway run --config leeway.toml --check-config")]
pub struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// Validates the configuration, prints it with secrets masked, and ends
    #[arg(long)]
    check_config: bool,
}

/// Runs until it is told to stop, or checks the configuration.
///
/// # Errors
/// When the configuration is not valid, or the stream processor fails.
pub fn execute(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.load_config(&args.config)?;
    if args.check_config {
        std::io::stdout().write_all(config.effective_toml().as_bytes())?;
    } else {
        crate::telemetry::logging::init(&config.log, config.log_format, !context.no_color())?;
        crate::run::run(config)?;
    }
    Ok(ExitCode::SUCCESS)
}
