//! `leeway audit`: proves the drift events of an application from its input.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Context, EXIT_MISMATCH};
use crate::audit::{Audit, Of, PANE, Report};
use crate::broker::kafka::KafkaBroker;
use crate::config::ConfigFlags;
use crate::reference_topic;

/// How to print the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A few lines.
    #[default]
    Text,
    /// One object.
    Json,
}

/// Arguments of `leeway audit`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Workers may go on meanwhile: what they do is not looked at. The configuration has to be theirs.

Exit code: 0 right, 3 not, 1 it cannot be judged.

Examples:
  leeway audit
  leeway audit --config leeway.toml --format json"
)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Wrong sequences of events (a monitor, partition and feature each) whose first difference is told
    #[arg(long, default_value_t = 10, value_name = "N")]
    differences: usize,
}

/// Audits.
///
/// # Errors
/// When the configuration is not valid, or the events cannot be judged.
pub fn execute(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.load_config(&args.config)?;
    let monitors: Vec<Arc<_>> = config
        .monitors
        .iter()
        .map(|monitor| monitor.to_monitor().map(Arc::new))
        .collect::<Result<_, _>>()?;
    let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &config.kafka.properties).context("kafka.properties")?;
    let references = reference_topic::load(&broker, &config.application_id)?;
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {human_pos} records read, {per_sec}");
        ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
    });
    let audit = Audit {
        broker: &broker,
        application_id: &config.application_id,
        monitors: &monitors,
        references: &references.published,
        start: config.start(),
        differences_max: args.differences,
        progress: &|records| {
            if let Some(bar) = &bar {
                bar.inc(records);
            }
        },
    };
    let report = audit.run()?;
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let text = match args.format {
        Format::Text => text(&report),
        Format::Json => json(&report),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if report.wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_MISMATCH)
    })
}

fn text(report: &Report) -> String {
    let count = |number| HumanCount(number).to_string();
    let mut lines = vec![format!(
        "{} input records imply {} events; {} are there",
        count(report.records),
        count(report.expected),
        count(report.found)
    )];
    if report.later > 0 {
        lines.push(format!(
            "{} events of records beyond the committed offsets were not looked at",
            count(report.later)
        ));
    }
    if report.foreign > 0 {
        lines.push(format!("{} records are no events of this application", count(report.foreign)));
    }
    lines.extend(report.differences.iter().map(|difference| format!("wrong: {difference}")));
    lines.push(match report.wrong {
        0 => "right: each of them once, in order, byte for byte".to_owned(),
        wrong => format!("WRONG: {wrong} sequences of events or panes differ from what the input implies"),
    });
    lines.join("\n") + "\n"
}

fn json(report: &Report) -> String {
    let differences: Vec<_> = report
        .differences
        .iter()
        .map(|difference| {
            json!({
                "monitor": &*difference.sequence.monitor,
                "scope": match difference.sequence.of {
                    Of::Partition(_) | Of::Panes(_) => "partition",
                    Of::WholeTopic => "global",
                },
                "partition": match difference.sequence.of {
                    Of::Partition(partition) | Of::Panes(partition) => Some(partition.0),
                    Of::WholeTopic => None,
                },
                "is_pane": matches!(difference.sequence.of, Of::Panes(_)),
                "feature": &*difference.sequence.feature,
                "event_kind": (difference.sequence.kind != PANE).then_some(difference.sequence.kind),
                "number": difference.number,
                "kind": difference.kind.name(),
                "expected_event_id": difference.expected,
                "found_topic": difference.found_at.as_ref().map(|(at, _)| &*at.topic),
                "found_partition": difference.found_at.as_ref().map(|(at, _)| at.partition.0),
                "found_offset": difference.found_at.as_ref().map(|(_, offset)| offset.0),
                "text": difference.to_string(),
            })
        })
        .collect();
    let object = json!({
        "right": report.wrong == 0,
        "records": report.records,
        "expected_events": report.expected,
        "found_events": report.found,
        "later_events": report.later,
        "foreign_records": report.foreign,
        "wrong_sequences": report.wrong,
        "differences": differences,
    });
    format!("{object}\n")
}
