//! `leeway state`: what a state directory holds.

use std::io::Write as _;
use std::process::ExitCode;

use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use indicatif::{HumanBytes, HumanCount};
use leeway_topology::state::{FeatureHead, FeatureQualityHead, SegmentsHead, WindowHead};
use serde_json::json;

use super::{Context, EXIT_MISMATCH};
use crate::config::ConfigFlags;
use crate::state::inspect::{self, Contents, Head, KeptWindow};

/// Rows of the table of quality, at most: there may be as many as there are segments.
const QUALITY_ROWS_MAX: usize = 50;

/// How to print it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    #[default]
    Text,
    /// One object.
    Json,
}

/// Arguments of `leeway state`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is changed: a worker may go on with the directory meanwhile.

Exit code: 0 fine, 3 something in it cannot be read, 1 it cannot be opened.

Examples:
  leeway state
  leeway state --state-dir /backup/leeway-state --format json")]
pub struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints what the state directory holds.
///
/// # Errors
/// When the configuration is not valid, or the directory cannot be read.
pub fn execute(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.load_config(&args.config)?;
    let contents = inspect::inspect(&config.state_dir)?;
    let text = match args.format {
        Format::Text => text(&contents),
        Format::Json => json(&contents),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if contents.unreadable.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_MISMATCH)
    })
}

fn text(contents: &Contents) -> String {
    let owner = &contents.owner;
    let mut lines = vec![format!(
        "application {}, process {}, format {}",
        owner.application_id, owner.process_id, owner.format_version
    )];
    if contents.tasks.is_empty() {
        lines.push("no task has kept anything here".to_owned());
    } else {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(["task", "next offset", "changelog offset", "records", "windows", "panes", "size"]);
        for (task, of_task) in &contents.tasks {
            let number = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
            table.add_row([
                task.to_string(),
                number(of_task.progress.as_ref().map(|progress| progress.next_offset.to_string())),
                number(of_task.checkpoint.as_ref().map(|checkpoint| checkpoint.changelog_offset.to_string())),
                number(of_task.progress.as_ref().map(|progress| HumanCount(progress.record_number).to_string())),
                of_task.windows.len().to_string(),
                of_task.panes.to_string(),
                HumanBytes(of_task.bytes).to_string(),
            ]);
        }
        lines.push(table.to_string());
    }
    lines.extend(quality_text(contents));
    lines.extend(contents.unreadable.iter().map(|what| format!("cannot be read: {what}")));
    lines.join("\n") + "\n"
}

/// The features that have a threshold of quality, window by window. None: no table.
fn quality_text(contents: &Contents) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["task", "window", "feature", "quality", "most frequent of other, since"]);
    let mut rows = 0;
    for (task, of_task) in &contents.tasks {
        for window in &of_task.windows {
            for feature in window.quality.iter().flat_map(|quality| &quality.features) {
                rows += 1;
                if rows <= QUALITY_ROWS_MAX {
                    let FeatureQualityHead { name, status, examples } = feature;
                    let examples: Vec<_> = examples
                        .iter()
                        .map(|example| format!("{:?} ({})", example.value, example.count))
                        .collect();
                    table.add_row([
                        task.to_string(),
                        window.key.clone(),
                        name.to_string(),
                        status.map_or("-", |status| status.as_str()).to_owned(),
                        examples.join(", "),
                    ]);
                }
            }
        }
    }
    let mut lines = Vec::new();
    if rows > 0 {
        lines.push(table.to_string());
    }
    if rows > QUALITY_ROWS_MAX {
        lines.push(format!(
            "and {} more: --format json has them all",
            HumanCount((rows - QUALITY_ROWS_MAX) as u64)
        ));
    }
    lines
}

fn json(contents: &Contents) -> String {
    let tasks: Vec<_> = contents
        .tasks
        .iter()
        .map(|(task, of_task)| {
            let windows: Vec<_> = of_task.windows.iter().map(window).collect();
            json!({
                "store": &*task.store,
                "partition": task.partition.0,
                "next_offset": of_task.progress.as_ref().map(|progress| progress.next_offset.0),
                "record_number": of_task.progress.as_ref().map(|progress| progress.record_number),
                "stream_time_ms": of_task.progress.as_ref().and_then(|progress| progress.stream_time).map(|time| time.0),
                "epoch": of_task.progress.as_ref().map(|progress| progress.epoch),
                "committed_at_ms": of_task.progress.as_ref().map(|progress| progress.committed_at.0),
                "changelog_offset": of_task.checkpoint.as_ref().map(|checkpoint| checkpoint.changelog_offset.0),
                "windows": windows,
                "segments": of_task.segments.iter().map(|(key, head)| segments(key, head)).collect::<Vec<_>>(),
                "panes": of_task.panes,
                "keys": of_task.keys,
                "bytes": of_task.bytes,
            })
        })
        .collect();
    let object = json!({
        "format_version": contents.owner.format_version,
        "application_id": contents.owner.application_id,
        "process_id": contents.owner.process_id,
        "tasks": tasks,
        "unreadable": contents.unreadable,
    });
    format!("{object}\n")
}

fn segments(key: &str, head: &SegmentsHead) -> serde_json::Value {
    json!({
        "key": key,
        "segment_by": head.segment_by,
        "segments": head.segments,
        "record_number": head.record_number.0,
        "stream_time_ms": head.stream_time.map(|time| time.0),
        "reference_version": head.reference_version.as_deref(),
    })
}

fn window(KeptWindow { key, head, quality }: &KeptWindow) -> serde_json::Value {
    let mut object = head_of(key, head);
    object["quality"] = quality
        .as_ref()
        .map(|quality| quality.features.iter().map(quality_of).collect::<Vec<_>>())
        .into();
    object
}

fn quality_of(feature: &FeatureQualityHead) -> serde_json::Value {
    json!({"feature": &*feature.name, "status": feature.status, "examples": feature.examples})
}

fn head_of(key: &str, head: &Head) -> serde_json::Value {
    let features = |features: &[FeatureHead]| features.iter().map(|feature| feature.name.to_string()).collect::<Vec<_>>();
    let count = |head: &WindowHead| {
        json!({
            "key": key,
            "size": head.size,
            "every": head.every,
            "record_number": head.record_number.0,
            "start": head.start.0,
            "reference_version": &*head.reference_version,
            "features": features(&head.features),
        })
    };
    match head {
        Head::Count(head) => count(head),
        Head::Global(head) => count(&head.window),
        Head::GlobalTime(head) => json!({
            "key": key,
            "size_ms": head.size_ms,
            "every_ms": head.every_ms,
            "grace_ms": head.grace_ms,
            "open_windows": head.windows,
            "reference_version": head.measured.as_ref().map(|measured| &*measured.reference_version),
            "features": head.measured.as_ref().map(|measured| features(&measured.features)),
            "partitions": head.partitions.iter().map(|progress| json!({
                "partition": progress.partition.0,
                "record_number": progress.record_number.0,
                "is_idle": progress.is_idle,
            })).collect::<Vec<_>>(),
        }),
        Head::GlobalTimeSegment(head) => json!({
            "key": key,
            "last_window": head.last,
            "next_window": head.next,
            "record_number": head.record_numbers.iter().map(|(_, number)| number.0).sum::<u64>(),
            "reference_version": &*head.measured.reference_version,
            "features": features(&head.measured.features),
        }),
        Head::Time(head) => json!({
            "key": key,
            "size_ms": head.size_ms,
            "every_ms": head.every_ms,
            "grace_ms": head.grace_ms,
            "record_number": head.record_number.0,
            "next_window_start_ms": head.next * head.every_ms,
            "panes": head.panes,
            "records": head.records,
            "reference_version": &*head.reference_version,
            "features": features(&head.features),
        }),
    }
}
