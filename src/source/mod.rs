//! Rows of files: for references and for producing, so that both see the same values.
//!
//! CSV is read twice: a column's type is decided by all of its cells. JSON-lines carry their types.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use leeway_topology::binning::Binning;
use leeway_topology::reference::{Cell, ColumnType, ColumnTyper, Reference, ReferenceBuilder, ReferenceError, Warning};
use serde_json::Value;

pub mod synthetic;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// RFC 4180, with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// Why rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Its format.
    #[error("{path}: {fault}")]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        fault: String,
    },
    /// What stands in it.
    #[error("{path}: {error}")]
    Reference {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: ReferenceError,
    },
}

impl Format {
    /// By the file's name.
    ///
    /// # Errors
    /// When the name does not say.
    pub fn of(path: &Path) -> Result<Self, SourceError> {
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default()
            .to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Ok(Self::Csv),
            "jsonl" | "ndjson" | "jsonlines" => Ok(Self::Jsonl),
            "parquet" => Err(SourceError::Format {
                path: path.to_owned(),
                fault: "Parquet is not read yet: convert it to CSV or JSON-lines".to_owned(),
            }),
            _ => Err(SourceError::Format {
                path: path.to_owned(),
                fault: "its name does not say what it is: use .csv or .jsonl, or give --format".to_owned(),
            }),
        }
    }
}

fn open(path: &Path) -> Result<BufReader<File>, SourceError> {
    let file = File::open(path).map_err(|error| SourceError::File {
        path: path.to_owned(),
        error,
    })?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// A CSV reader past a byte order mark.
fn csv_reader<R: Read>(mut input: BufReader<R>) -> std::io::Result<csv::Reader<BufReader<R>>> {
    if input.fill_buf()?.starts_with("\u{feff}".as_bytes()) {
        input.consume(3);
    }
    Ok(csv::ReaderBuilder::new().flexible(false).from_reader(input))
}

fn csv_fault(path: &Path, error: &csv::Error) -> SourceError {
    SourceError::Format {
        path: path.to_owned(),
        fault: error.to_string(),
    }
}

/// The columns of a CSV file with their types: its first reading.
///
/// # Errors
/// When the file cannot be read or is no CSV.
pub fn csv_columns(path: &Path) -> Result<Vec<(String, ColumnType)>, SourceError> {
    let mut reader = csv_reader(open(path)?).map_err(|error| SourceError::File {
        path: path.to_owned(),
        error,
    })?;
    let names: Vec<String> = reader
        .headers()
        .map_err(|error| csv_fault(path, &error))?
        .iter()
        .map(str::to_owned)
        .collect();
    let mut types = vec![ColumnTyper::default(); names.len()];
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(|error| csv_fault(path, &error))? {
        for (typer, raw) in types.iter_mut().zip(&row) {
            typer.observe(&Cell::of_csv(raw));
        }
    }
    Ok(names.into_iter().zip(types.into_iter().map(ColumnTyper::column_type)).collect())
}

/// Visits the rows of a CSV file, as cells of its columns.
///
/// # Errors
/// When the file cannot be read or is no CSV, or the visit fails.
pub fn csv_rows<E: From<SourceError>>(
    path: &Path,
    columns: &[(String, ColumnType)],
    mut visit: impl FnMut(&[Cell<'_>]) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = csv_reader(open(path)?).map_err(|error| SourceError::File {
        path: path.to_owned(),
        error,
    })?;
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(|error| csv_fault(path, &error))? {
        let cells: Vec<Cell<'_>> = row
            .iter()
            .zip(columns)
            .map(|(raw, (_, column))| Cell::of_csv_column(raw, *column))
            .collect();
        visit(&cells)?;
    }
    Ok(())
}

/// Visits the lines of a file, without their line feeds; the last one may lack it.
///
/// # Errors
/// When the input cannot be read, or the visit fails.
pub fn lines<E: From<std::io::Error>>(mut input: impl BufRead, mut visit: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        visit(line.strip_suffix(b"\n").unwrap_or(&line))?;
    }
}

/// How a reference is built.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// Whose reference it is.
    pub monitor: String,
    /// For features that are not named.
    pub binning: Binning,
    /// For those that are.
    pub overrides: Vec<(String, Binning)>,
    /// Categories with a bin of their own.
    pub max_categories: usize,
}

/// A reference and what the user should know of it.
pub struct Built {
    /// The reference.
    pub reference: Reference,
    /// What looks odd.
    pub warnings: Vec<Warning>,
    /// Columns left out by their name.
    pub left_out: Vec<String>,
    /// Lines that are no JSON object.
    pub invalid: u64,
}

/// Builds a reference from a file.
///
/// # Errors
/// When the file cannot be read, or no reference can be made of it.
pub fn build_reference(path: &Path, format: Format, options: &BuildOptions) -> Result<Built, SourceError> {
    let reference_error = |error| SourceError::Reference {
        path: path.to_owned(),
        error,
    };
    let builder = |columns: &[(String, ColumnType)]| {
        ReferenceBuilder::new(&options.monitor, columns, &options.binning, &options.overrides, options.max_categories).map_err(reference_error)
    };
    let (builder, invalid) = match format {
        Format::Csv => {
            let columns = csv_columns(path)?;
            let mut builder = builder(&columns)?;
            csv_rows(path, &columns, |cells| {
                builder.push_row(cells.iter().copied());
                Ok::<_, SourceError>(())
            })?;
            (builder, 0)
        }
        Format::Jsonl => {
            let mut columns: Vec<(String, ColumnTyper)> = Vec::new();
            let mut invalid = 0;
            json_objects(path, &mut invalid, |object| {
                for (name, value) in object {
                    let typer = match columns.iter_mut().find(|(known, _)| known == name) {
                        Some((_, typer)) => typer,
                        None => {
                            columns.push((name.clone(), ColumnTyper::default()));
                            match columns.last_mut() {
                                Some((_, typer)) => typer,
                                None => continue,
                            }
                        }
                    };
                    typer.observe(&json_cell(value));
                }
            })?;
            let columns: Vec<_> = columns.into_iter().map(|(name, typer)| (name, typer.column_type())).collect();
            let mut builder = builder(&columns)?;
            let mut again = 0;
            json_objects(path, &mut again, |object| {
                builder.push_row(columns.iter().map(|(name, _)| object.get(name).map_or(Cell::Missing, json_cell)));
            })?;
            (builder, invalid)
        }
    };
    let left_out = builder.left_out().to_vec();
    let (reference, warnings) = builder.finish().map_err(reference_error)?;
    Ok(Built {
        reference,
        warnings,
        left_out,
        invalid,
    })
}

fn json_objects(path: &Path, invalid: &mut u64, mut visit: impl FnMut(&serde_json::Map<String, Value>)) -> Result<(), SourceError> {
    lines(open(path)?, |line| {
        match serde_json::from_slice(line) {
            Ok(Value::Object(object)) => visit(&object),
            _ => *invalid += 1,
        }
        Ok::<_, std::io::Error>(())
    })
    .map_err(|error| SourceError::File {
        path: path.to_owned(),
        error,
    })
}

fn json_cell(value: &Value) -> Cell<'_> {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => Cell::Missing,
        Value::Bool(value) => Cell::Bool(*value),
        Value::Number(number) => number.as_f64().filter(|number| number.is_finite()).map_or(Cell::Missing, Cell::Number),
        Value::String(text) => Cell::Text(text),
    }
}
