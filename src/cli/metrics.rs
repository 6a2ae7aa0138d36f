//! `leeway metrics`: what the drift events say, for Prometheus.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::Context;
use crate::broker::kafka::KafkaBroker;
use crate::config::{Config, ConfigFlags};
use crate::consumers::metrics::{Exporter, Settings};

/// Arguments of `leeway metrics`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It reads the drift events from the start of their topic, and serves them at /metrics when it has: one place that speaks of all partitions,
for those who do not scrape the workers. Nothing is written anywhere. The configuration is that of the workers: monitors and topics come from it.

Examples:
  leeway metrics
  leeway metrics --config leeway.toml --http-port 8001
  leeway metrics --bootstrap-servers kafka:9092 --http-host 0.0.0.0
  curl -s localhost:8001/metrics | grep leeway_drift_status"
)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFlags,
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the configuration is not valid, or the address cannot be bound. A Kafka that is away is waited for.
pub fn execute(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.load_config(&args.config)?;
    crate::telemetry::logging::init(&config.log, config.log_format, !context.no_color())?;
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = tokio.block_on(serve(&config));
    // A question to a Kafka that is away is not waited for.
    tokio.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(config: &Config) -> anyhow::Result<()> {
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
        max_series: config.max_series,
        http: config.http.clone(),
    };
    let exporter = Exporter::start(broker, settings).await?;
    let address = exporter.address();
    writeln!(std::io::stdout(), "metrics    http://{address}/metrics")?;
    info!(application_id = %config.application_id, http = %address, "started");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    exporter.shutdown().await;
    Ok(())
}
