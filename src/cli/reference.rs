//! `leeway reference`: makes references and looks at them.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use leeway_topology::binning::Binning;
use leeway_topology::field::{InvalidPointer, Pointer};
use leeway_topology::processor::References as _;
use leeway_topology::reference::{FeatureReference, Limits, Reference};

use super::Context;
use crate::broker::kafka::KafkaBroker;
use crate::config::{ConfigError, ConfigFlags};
use crate::reference_topic::{self, Published};
use crate::source::topic::{FirstRecords, first_records};
use crate::source::{self, BuildOptions, Built, Format};

/// Arguments of `leeway reference`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a reference of a CSV, Parquet or JSON-lines file, or of a topic's first records
    #[command(after_help = "Examples:
  leeway reference build --input train.csv --output reference.json
  leeway reference build --input train.jsonl --output reference.json --feature age=edges:18,30,50 --feature plan=categorical
  leeway reference build --input train.jsonl --output reference.json --path age=/payload/age
  leeway reference build --first 10000 --topic drift-data --bootstrap-servers kafka:9092 --output reference.json")]
    Build(BuildArgs),
    /// Makes a reference the current one of its monitor: workers that run take it over after their next check
    #[command(after_help = "Examples:
  leeway reference publish reference.json --bootstrap-servers kafka:9092")]
    Publish(PublishArgs),
    /// Shows the bins of a reference: of a file, or the published one
    #[command(after_help = "Examples:
  leeway reference show reference.json
  leeway reference show --monitor fraud --format json")]
    Show(ShowArgs),
    /// Lists the published references
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
struct BuildArgs {
    /// The training data: .csv, .parquet or .jsonl
    #[arg(long, value_name = "FILE", required_unless_present = "first")]
    input: Option<PathBuf>,
    /// Instead of a file: so many of the topic's first valid records, taken in turn from its partitions
    #[arg(long, value_name = "N", conflicts_with_all = ["input", "format"], value_parser = clap::value_parser!(u64).range(1..))]
    first: Option<u64>,
    /// Where the reference goes
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The input's format, if its name does not say
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Whose reference it is
    #[arg(long, default_value = "default")]
    monitor: String,
    #[command(flatten)]
    binning: BinningArgs,
    #[command(flatten)]
    paths: PathArgs,
    #[command(flatten)]
    config: ConfigFlags,
}

/// Where features are found in JSON.
#[derive(Debug, clap::Args)]
pub(super) struct PathArgs {
    /// Takes a feature from within JSON-lines: NAME=/payload/age, a JSON pointer
    #[arg(long = "path", value_name = "NAME=POINTER", value_parser = path)]
    paths: Vec<(String, Pointer)>,
}

impl PathArgs {
    /// Of a name that is given twice the last one counts.
    pub(super) fn by_name(&self) -> BTreeMap<String, Pointer> {
        self.paths.iter().cloned().collect()
    }

    /// Refuses paths where they would say nothing.
    pub(super) fn refuse_table(&self, file: &Path) -> Result<(), ConfigError> {
        match self.paths.first() {
            None => Ok(()),
            Some((name, _)) => Err(ConfigError {
                faults: vec![format!(
                    "--path {name}: {} is a table, whose columns are found by their names; paths are for JSON-lines",
                    file.display()
                )],
            }),
        }
    }
}

/// How a reference is binned.
#[derive(Debug, clap::Args)]
pub(super) struct BinningArgs {
    /// Bins of a numeric feature, where --binning does not say [default: 10]
    #[arg(long)]
    bins: Option<usize>,
    /// How features are binned: auto, quantile, uniform, discrete or categorical [default: auto]
    #[arg(long)]
    binning: Option<String>,
    /// Binning of one feature: NAME=quantile:20, uniform:10, edges:0.5,1,2, discrete, categorical
    #[arg(long = "feature", value_name = "NAME=BINNING", value_parser = feature)]
    features: Vec<(String, Binning)>,
    /// Categories with a bin of their own [default: 50]
    #[arg(long)]
    max_categories: Option<usize>,
}

impl BinningArgs {
    /// Whether any of it was given.
    pub(super) fn is_given(&self) -> bool {
        self.bins.is_some() || self.binning.is_some() || !self.features.is_empty() || self.max_categories.is_some()
    }

    pub(super) fn options(&self, monitor: &str, paths: BTreeMap<String, Pointer>) -> anyhow::Result<BuildOptions> {
        let bins = self.bins.unwrap_or(leeway_topology::binning::DEFAULT_BINS);
        let binning = match self.binning.as_deref().unwrap_or("auto") {
            name @ ("discrete" | "categorical") => name.parse()?,
            name => format!("{name}:{bins}").parse()?,
        };
        Ok(BuildOptions {
            monitor: monitor.to_owned(),
            binning,
            overrides: self.features.clone(),
            max_categories: self.max_categories.unwrap_or(50),
            paths,
            limits: Limits::default(),
        })
    }
}

#[derive(Debug, clap::Args)]
struct PublishArgs {
    /// A reference file
    file: PathBuf,
    /// Publish it for this monitor instead of the file's
    #[arg(long)]
    monitor: Option<String>,
    #[command(flatten)]
    config: ConfigFlags,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// A reference file; left out: the published one
    file: Option<PathBuf>,
    /// Whose published reference
    #[arg(long, default_value = "default")]
    monitor: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: ShowFormat,
    #[command(flatten)]
    config: ConfigFlags,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigFlags,
}

/// How to print a reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ShowFormat {
    /// A table per feature.
    #[default]
    Table,
    /// The document.
    Json,
}

fn path(text: &str) -> Result<(String, Pointer), String> {
    let (name, pointer) = text.split_once('=').ok_or("expected NAME=POINTER, as in age=/payload/age")?;
    if name.is_empty() {
        return Err("the feature's name is missing".to_owned());
    }
    let pointer = pointer.parse().map_err(|error: InvalidPointer| error.to_string())?;
    Ok((name.to_owned(), pointer))
}

fn feature(text: &str) -> Result<(String, Binning), String> {
    let (name, binning) = text.split_once('=').ok_or("expected NAME=BINNING, as in age=quantile:20")?;
    if name.is_empty() {
        return Err("the feature's name is missing".to_owned());
    }
    Ok((
        name.to_owned(),
        binning
            .parse()
            .map_err(|error: leeway_topology::binning::InvalidBinning| error.to_string())?,
    ))
}

/// Runs the subcommand.
///
/// # Errors
/// When a file or the published references cannot be read or written.
pub fn execute(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match args.command {
        Command::Build(args) => build(&args, context, &mut out)?,
        Command::Publish(args) => {
            let config = context.load_config(&args.config)?;
            let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &config.kafka.properties)?;
            let mut reference = read(&args.file)?;
            if let Some(monitor) = &args.monitor {
                reference = reference.with_monitor(monitor);
            }
            let what = match reference_topic::publish(&broker, &config.application_id, &reference)? {
                Published::New => "is now the current reference",
                Published::Current | Published::Superseded => "is the current reference already",
            };
            writeln!(out, "version {} {what} of monitor {}", reference.version(), reference.monitor())?;
        }
        Command::Show(args) => {
            let reference = match &args.file {
                Some(file) => read(file)?,
                None => {
                    let config = context.load_config(&args.config)?;
                    let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &config.kafka.properties)?;
                    let references = reference_topic::load(&broker, &config.application_id)?;
                    let current = references.published.current(&args.monitor);
                    let missing = || {
                        format!(
                            "monitor {:?} of application {:?} has no published reference",
                            args.monitor, config.application_id
                        )
                    };
                    (*current.with_context(missing)?.reference).clone()
                }
            };
            match args.format {
                ShowFormat::Json => out.write_all(&reference.to_json())?,
                ShowFormat::Table => show(&reference, &mut out)?,
            }
        }
        Command::List(args) => {
            let config = context.load_config(&args.config)?;
            let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &config.kafka.properties)?;
            let references = reference_topic::load(&broker, &config.application_id)?;
            let mut table = Table::new();
            table
                .load_style(UTF8_BORDERS_ONLY)
                .set_header(["monitor", "version", "rows", "features", "current"]);
            for (monitor, (current, versions)) in &references.listed {
                for reference in versions {
                    let mark = if current.as_deref() == Some(reference.version()) { "yes" } else { "" };
                    table.add_row([
                        monitor,
                        reference.version(),
                        &reference.rows().to_string(),
                        &reference.features().len().to_string(),
                        mark,
                    ]);
                }
            }
            writeln!(out, "{table}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn read(path: &Path) -> anyhow::Result<Reference> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Reference::from_json(&bytes).with_context(|| path.display().to_string())
}

/// Of the first records of the configuration's topic, with the paths of its monitor where none are given.
fn build_of_topic(args: &BuildArgs, first: u64, options: &BuildOptions, context: &Context) -> anyhow::Result<Built> {
    let config = context.load_config(&args.config)?;
    let mut options = options.clone();
    for (name, path) in config.monitors.first().into_iter().flat_map(|monitor| &monitor.paths) {
        options.paths.entry(name.clone()).or_insert_with(|| path.clone());
    }
    let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &config.kafka.properties)?;
    let topic = config.monitors.first().map(|monitor| monitor.topic.as_str()).unwrap_or_default();
    match first_records(&broker, topic, first)? {
        FirstRecords::Enough(values) => {
            let name = format!("the first {first} records of topic {topic:?}");
            Ok(source::build_reference_of_records(Path::new(&name), &values, &options)?)
        }
        FirstRecords::TooFew(found) => anyhow::bail!("topic {topic:?} has {found} valid records, {first} were asked for"),
    }
}

fn build(args: &BuildArgs, context: &Context, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let options = args.binning.options(&args.monitor, args.paths.by_name())?;
    let built = match (&args.input, args.first) {
        (Some(input), _) => {
            let format = args.format.map_or_else(|| Format::of(input), Ok)?;
            if format.as_table().is_some() {
                args.paths.refuse_table(input)?;
            }
            source::build_reference(input, format, &options)?
        }
        (None, first) => build_of_topic(args, first.unwrap_or_default(), &options, context)?,
    };
    std::fs::write(&args.output, built.reference.to_json()).with_context(|| args.output.display().to_string())?;
    if !built.left_out.is_empty() {
        writeln!(out, "left out: {} (name them with --feature to keep them)", built.left_out.join(", "))?;
    }
    if built.invalid > 0 {
        writeln!(out, "skipped: {} lines that are no JSON object", built.invalid)?;
    }
    for warning in &built.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["feature", "binning", "bins", "missing"]);
    for feature in built.reference.features() {
        let missing = feature.counts().last().copied().unwrap_or(0);
        table.add_row([
            &**feature.name(),
            feature.binning(),
            &feature.bin_count().to_string(),
            &missing.to_string(),
        ]);
    }
    writeln!(out, "{table}")?;
    writeln!(
        out,
        "{}: version {}, {} rows, {} features",
        args.output.display(),
        built.reference.version(),
        built.reference.rows(),
        built.reference.features().len()
    )?;
    Ok(())
}

/// Width of the largest bar.
const BAR: usize = 30;

fn show(reference: &Reference, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "monitor {}, version {}, {} rows",
        reference.monitor(),
        reference.version(),
        reference.rows()
    )?;
    for feature in reference.features() {
        writeln!(out, "\n{} ({})", feature.name(), feature.binning())?;
        writeln!(out, "{}", bins(feature))?;
    }
    if std::io::stdout().is_terminal() {
        writeln!(out)?;
    }
    Ok(())
}

fn bins(feature: &FeatureReference) -> Table {
    let total = feature.counts().iter().sum::<u64>().max(1);
    let largest = feature.counts().iter().max().copied().unwrap_or(0).max(1);
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["bin", "rows", "share", ""]);
    for (bin, count) in feature.counts().iter().enumerate() {
        let share = *count as f64 / total as f64;
        let bar = "█".repeat((*count as f64 / largest as f64 * BAR as f64).round() as usize);
        table.add_row([feature.label(bin), count.to_string(), format!("{:.2} %", share * 100.0), bar]);
    }
    table
}
