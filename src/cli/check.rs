//! `leeway check`: whether the rows of a file have drifted from a reference, and whether too many of their values are faulty.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use leeway_topology::drift::{Criteria, Thresholds};
use leeway_topology::metric::Metric;
use leeway_topology::quality::{ByViolation, Quality, Violation};
use leeway_topology::reference::Reference;

use super::reference::{BinningArgs, PathArgs, read};
use super::{Context, EXIT_MISMATCH};
use crate::check::{self, html, table};
use crate::config::ConfigError;
use crate::source::{self, Format};

/// Rows between two steps of the progress bar.
const PROGRESS_EACH: u64 = 4096;

/// How to print the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table, worst feature first.
    #[default]
    Table,
    /// One object, with the field names of a drift event.
    Json,
}

/// Arguments of `leeway check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The numbers are those that a window in the stream has over the same rows; min_samples does not apply.

Exit code: 0 no feature drifts, 3 one does or the summary, or violates a threshold of quality, 1 it cannot be judged, 2 bad arguments.

Examples:
  leeway check --reference reference.json --current today.csv
  leeway check --reference train.csv --current today.csv --feature age=edges:18,30,50 --html report.html
  leeway check --reference reference.json --current today.jsonl --format json --drift 0.3
  leeway check --reference reference.json --current today.jsonl --path age=/payload/age
  leeway check --reference reference.json --current today.csv --metrics js,ks
  leeway check --reference reference.json --current today.csv --missing 0.05 --other 0.1"
)]
pub struct Args {
    /// A reference (.json), or the data to make one of (.csv, .parquet or .jsonl)
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    /// The rows to check (.csv, .parquet or .jsonl)
    #[arg(long, value_name = "FILE")]
    current: PathBuf,
    /// The format of --current, if its name does not say
    #[arg(long, value_enum, value_name = "FORMAT")]
    current_format: Option<Format>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Output,
    /// Where to write a report to mail around, one HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// PSI from which on it is possible drift
    #[arg(long, value_name = "PSI", default_value_t = Thresholds::default().possible_drift)]
    possible_drift: f64,
    /// PSI from which on it is drift
    #[arg(long, value_name = "PSI", default_value_t = Thresholds::default().drift)]
    drift: f64,
    /// What to measure beside PSI: js, ks, wasserstein, chi2
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    metrics: Vec<Metric>,
    /// Level of the check as a whole; 0: every PSI is taken for what it is
    #[arg(long, value_name = "P", default_value_t = 0.001)]
    significance: f64,
    /// Floor of a bin's share
    #[arg(long, value_name = "SHARE", default_value_t = 1e-4)]
    epsilon: f64,
    /// Share of a feature's values from which on too many are missing
    #[arg(long, value_name = "SHARE")]
    missing: Option<f64>,
    /// Share of its values that are there from which on too many are none that the reference names
    #[arg(long, value_name = "SHARE")]
    other: Option<f64>,
    /// The same, of numbers below and above the reference's range
    #[arg(long, value_name = "SHARE")]
    out_of_range: Option<f64>,
    #[command(flatten)]
    binning: BinningArgs,
    #[command(flatten)]
    paths: PathArgs,
}

/// Checks.
///
/// # Errors
/// When an argument makes no sense, a file cannot be read or written, or there are no rows.
pub fn execute(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let criteria = args.criteria()?;
    let quality = args.quality()?;
    let format = args.current_format.map_or_else(|| Format::of(&args.current), Ok)?;
    let is_json_lines = |format: Format| format.as_table().is_none();
    if !is_json_lines(format) && !Format::of(&args.reference).is_ok_and(is_json_lines) {
        args.paths.refuse_table(&args.current)?;
    }
    let reference = Arc::new(args.reference()?);
    let paths = args.paths.by_name();
    reference.require(paths.keys()).context("--path")?;
    let progress = Progress::begin();
    let rows = check::Rows {
        path: &args.current,
        format,
        paths: &paths,
    };
    let looked_for = check::Criterion {
        drift: &criteria,
        quality: &quality,
    };
    let report = check::check(rows, &reference, looked_for, &|| progress.row())?;
    progress.end();

    let mut errors = std::io::stderr().lock();
    if report.rejected > 0 {
        writeln!(
            errors,
            "skipped: {} lines of {} that are no JSON object",
            report.rejected,
            args.current.display()
        )?;
    }
    for feature in report.never_there() {
        writeln!(
            errors,
            "warning: no row of {} has {:?}: it counts as missing in all of them",
            args.current.display(),
            &**feature.name()
        )?;
    }
    for violation in Violation::ALL {
        let is_of_none = report.quality.iter().all(|found| found.limits.get(violation).is_none());
        if quality.limits.get(violation).is_some() && is_of_none {
            let flag = violation.as_str().replace('_', "-");
            writeln!(errors, "warning: --{flag} applies to no feature of the reference")?;
        }
    }
    if let Some(path) = &args.html {
        let sources = html::Sources {
            reference: &name(&args.reference),
            current: &name(&args.current),
            criteria: &criteria,
        };
        let page = html::render(&report, sources).context("the HTML report: this is a fault of Leeway")?;
        std::fs::write(path, page).with_context(|| path.display().to_string())?;
        writeln!(errors, "report: {}", path.display())?;
    }
    let mut out = std::io::stdout().lock();
    let text = match args.format {
        Output::Json => report.to_json(),
        Output::Table => table::render(&report, std::io::stdout().is_terminal() && !context.no_color()),
    };
    out.write_all(text.as_bytes())?;
    Ok(if report.is_drift() || report.violated() > 0 {
        ExitCode::from(EXIT_MISMATCH)
    } else {
        ExitCode::SUCCESS
    })
}

impl Args {
    /// The settings, as those of a monitor: refused by the same rules.
    fn criteria(&self) -> Result<Criteria, ConfigError> {
        let criteria = Criteria {
            thresholds: Thresholds {
                possible_drift: self.possible_drift,
                drift: self.drift,
            },
            metrics: self.metrics.iter().copied().collect(),
            epsilon: self.epsilon,
            significance: self.significance,
            ..Criteria::default()
        };
        match criteria.validate() {
            Ok(()) => Ok(criteria),
            Err(fault) => Err(ConfigError {
                faults: vec![fault.to_string()],
            }),
        }
    }

    /// Thresholds of all features, refused by the rules of a monitor's.
    fn quality(&self) -> Result<Quality, ConfigError> {
        let quality = Quality {
            limits: ByViolation {
                missing: self.missing,
                other: self.other,
                out_of_range: self.out_of_range,
            },
            ..Quality::default()
        };
        match quality.validate() {
            Ok(()) => Ok(quality),
            Err(fault) => Err(ConfigError {
                faults: vec![fault.to_string()],
            }),
        }
    }

    fn reference(&self) -> anyhow::Result<Reference> {
        let extension = self.reference.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if extension.eq_ignore_ascii_case("json") {
            if self.binning.is_given() {
                let fault = format!(
                    "{} is a reference and has its bins: --bins, --binning, --feature and --max-categories are for data (.csv, .jsonl)",
                    self.reference.display()
                );
                return Err(ConfigError { faults: vec![fault] }.into());
            }
            return read(&self.reference);
        }
        let options = self.binning.options("default", self.paths.by_name())?;
        let built = source::build_reference(&self.reference, Format::of(&self.reference)?, &options)?;
        let mut errors = std::io::stderr().lock();
        if !built.left_out.is_empty() {
            writeln!(errors, "left out: {} (name them with --feature to keep them)", built.left_out.join(", "))?;
        }
        if built.invalid > 0 {
            writeln!(
                errors,
                "skipped: {} lines of {} that are no JSON object",
                built.invalid,
                self.reference.display()
            )?;
        }
        for warning in &built.warnings {
            writeln!(errors, "warning: {warning}")?;
        }
        Ok(built.reference)
    }
}

/// What a reader of the report calls the file.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Rows so far, on a terminal only.
struct Progress {
    bar: Option<ProgressBar>,
    rows: Cell<u64>,
}

impl Progress {
    fn begin() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {human_pos} rows checked, {per_sec}");
            ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        Self { bar, rows: Cell::new(0) }
    }

    fn row(&self) {
        let rows = self.rows.get() + 1;
        self.rows.set(rows);
        if let Some(bar) = &self.bar
            && rows.is_multiple_of(PROGRESS_EACH)
        {
            bar.set_position(rows);
        }
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
