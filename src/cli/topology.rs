//! `leeway topology`: prints the processing graph.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;
use leeway_topology::graph::Topology;

use super::Context;
use crate::config::ConfigFlags;

/// How to print the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As Kafka Streams' `Topology#describe`.
    #[default]
    Text,
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// Arguments of `leeway topology`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  leeway topology
  leeway topology --config leeway.toml --format dot | dot -Tsvg > topology.svg")]
pub struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints the graph of the configuration.
///
/// # Errors
/// When the configuration is not valid, or standard output is closed.
pub fn execute(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.load_config(&args.config)?;
    let monitors: Vec<Arc<_>> = config
        .monitors
        .iter()
        .map(|monitor| monitor.to_monitor().map(Arc::new))
        .collect::<Result<_, _>>()?;
    let topology = Topology::new(&config.application_id, &monitors);
    let text = match args.format {
        Format::Text => topology.describe(),
        Format::Mermaid => topology.mermaid(),
        Format::Dot => topology.dot(),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
