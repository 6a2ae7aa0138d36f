//! `leeway dashboard`: the drift events as a web page.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::Context;
use crate::broker::kafka::KafkaBroker;
use crate::config::{Config, ConfigFlags};
use crate::consumers::dashboard::{Dashboard, Limits, Settings};
use crate::http::Listen;

/// Arguments of `leeway dashboard`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It reads the events from the start of their topic and keeps the latest in memory; nothing is written anywhere. The configuration is
that of the workers: monitors, topics and thresholds come from it.

Examples:
  leeway dashboard
  leeway dashboard --config leeway.toml --dashboard-port 8080
  leeway dashboard --bootstrap-servers kafka:9092 --dashboard-host 0.0.0.0"
)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// Checks kept of each partition, segment and feature
    #[arg(long, value_name = "N", default_value_t = Limits::default().series_points, value_parser = positive)]
    keep_series: usize,
    /// Checks kept in all, some 250 bytes each; the oldest leave first
    #[arg(long, value_name = "N", default_value_t = Limits::default().points, value_parser = positive)]
    keep: usize,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("must be a whole number from 1 on".to_owned()),
    }
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the configuration is not valid, or the address cannot be bound. A Kafka that is away is waited for.
pub fn execute(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.load_config(&args.config)?;
    crate::telemetry::logging::init(&config.log, config.log_format, !context.no_color())?;
    let limits = Limits {
        series_points: args.keep_series,
        points: args.keep,
        ..Limits::default()
    };
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = tokio.block_on(serve(&config, limits));
    // A question to a Kafka that is away is not waited for.
    tokio.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(config: &Config, limits: Limits) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let monitors = config
        .monitors
        .iter()
        .map(|monitor| monitor.to_monitor().map(Arc::new))
        .collect::<Result<_, _>>()?;
    let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &config.kafka.properties).context("kafka.properties")?;
    let settings = Settings {
        application_id: config.application_id.clone(),
        monitors,
        listen: Listen {
            section: "dashboard",
            host: config.dashboard.host.clone(),
            port: config.dashboard.port,
            port_is_set: config.dashboard.port_is_set,
        },
        limits,
    };
    let dashboard = Dashboard::start(broker, settings).await?;
    let address = dashboard.address();
    writeln!(std::io::stdout(), "dashboard  http://{address}")?;
    info!(application_id = %config.application_id, dashboard = %address, "started");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    dashboard.shutdown().await;
    Ok(())
}
