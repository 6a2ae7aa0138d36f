//! `leeway reset`: the application begins anew.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use super::Context;
use crate::broker::BrokerError;
use crate::broker::kafka::KafkaBroker;
use crate::config::ConfigFlags;
use crate::reset::{self, ResetError, Scope, Step};
use crate::state::directory::StateDirectory;

/// Arguments of `leeway reset`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Deletes the group's offsets, the changelogs of the configured topics and the state on this machine; refuses while workers run.
Input, drift events, dead letters and (without --references) references stay. Workers that start afterwards begin where monitor.start says, and
write the events of the same records again, under the same event ids. On other machines, delete the state directories yourself.

Examples:
  leeway reset --dry-run
  leeway reset --config leeway.toml"
)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete the published references too
    #[arg(long)]
    references: bool,
}

/// Resets.
///
/// # Errors
/// When the configuration is not valid, workers are running, or something cannot be deleted.
pub fn execute(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.load_config(&args.config)?;
    let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &config.kafka.properties).context("kafka.properties")?;
    let state_dirs = if !config.is_set("state_dir") {
        StateDirectory::existing(&config.state_dir, &config.application_id)?
    } else if config.state_dir.join("process.json").exists() {
        vec![config.state_dir.clone()]
    } else {
        Vec::new()
    };
    let mut inputs: Vec<String> = config.monitors.iter().map(|monitor| monitor.topic.clone()).collect();
    inputs.sort();
    inputs.dedup();
    let scope = Scope {
        application_id: config.application_id.clone(),
        inputs,
        references: args.references,
        state_dirs,
    };
    let in_words = |error: ResetError| match &error {
        ResetError::Broker {
            error: BrokerError::Unavailable(_),
            ..
        } => anyhow::Error::new(error).context(format!(
            "Kafka at {} cannot be asked; check kafka.bootstrap_servers",
            config.kafka.bootstrap_servers
        )),
        _ => error.into(),
    };
    let plan = reset::plan(&broker, &scope).map_err(in_words)?;
    let mut out = std::io::stdout().lock();
    if args.dry_run {
        for step in plan.steps() {
            writeln!(out, "would delete {}", text(step))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut printed = Ok(());
    plan.execute(&broker, |step, was_there| {
        let what = text(step);
        let line = if was_there {
            format!("deleted {what}")
        } else {
            format!("not there: {what}")
        };
        // The reset goes on when nobody listens any more.
        printed = writeln!(out, "{line}");
    })
    .map_err(in_words)?;
    printed?;
    Ok(ExitCode::SUCCESS)
}

fn text(step: &Step) -> String {
    match step {
        Step::Group(group) => format!("group {group} with its committed offsets"),
        Step::Topic(topic) => format!("topic {topic}"),
        Step::Directory(path) => format!("the state in {}", path.display()),
    }
}
