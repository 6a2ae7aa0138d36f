//! Rows of files: for references and for producing, so that both see the same values.
//!
//! - CSV is read twice: a column's type is decided by all of its cells. JSON-lines carry their types.
//! - A reference takes one more reading where not all values are within [`Limits`]: the first finds the bins, the second counts in them
//!   ([`leeway_topology::reference::ReferenceBuilder`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use leeway_topology::binning::Binning;
use leeway_topology::decoder::Picker;
use leeway_topology::field::Pointer;
use leeway_topology::json::{Scalar, scan_object};
use leeway_topology::reference::{Cell, ColumnType, ColumnTyper, Limits, Pass, Recount, Reference, ReferenceBuilder, ReferenceError, Warning};

mod parquet;
pub mod synthetic;
#[cfg(test)]
mod tests;
pub mod topic;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// RFC 4180, with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet: columns of scalars.
    Parquet,
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

/// A format with columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// [`Format::Csv`].
    Csv,
    /// [`Format::Parquet`].
    Parquet,
}

impl Format {
    /// Itself, if it has columns; JSON-lines have fields, row by row.
    #[must_use]
    pub fn as_table(self) -> Option<Table> {
        match self {
            Self::Csv => Some(Table::Csv),
            Self::Parquet => Some(Table::Parquet),
            Self::Jsonl => None,
        }
    }

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
            "parquet" | "pq" => Ok(Self::Parquet),
            _ => Err(SourceError::Format {
                path: path.to_owned(),
                fault: "its name does not say what it is: use .csv, .jsonl or .parquet, or give --format".to_owned(),
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

/// The columns of a table with their types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Those that may be features, in their order.
    pub known: Vec<(String, ColumnType)>,
    /// Those that are neither numbers, booleans nor texts, with what they are.
    pub unsupported: Vec<(String, String)>,
}

impl Columns {
    /// Refuses a column that is asked for and cannot be a feature.
    ///
    /// # Errors
    /// Naming the column and its type.
    pub fn refuse_unsupported<'n>(&self, path: &Path, wanted: impl IntoIterator<Item = &'n str>) -> Result<(), SourceError> {
        let of_name = |name: &str| self.unsupported.iter().find(|(column, _)| column == name);
        match wanted.into_iter().find_map(of_name) {
            None => Ok(()),
            Some((name, what)) => Err(SourceError::Format {
                path: path.to_owned(),
                fault: format!("column {name:?} is of type {what}: a feature is a number, a boolean or a text"),
            }),
        }
    }
}

/// The columns of a CSV or Parquet file.
///
/// # Errors
/// When the file cannot be read or is not of this format.
pub fn table_columns(path: &Path, format: Table) -> Result<Columns, SourceError> {
    match format {
        Table::Csv => Ok(Columns {
            known: csv_columns(path)?,
            unsupported: Vec::new(),
        }),
        Table::Parquet => parquet::columns(path),
    }
}

/// Visits the rows of a CSV or Parquet file, as cells of its columns.
///
/// # Errors
/// When the file cannot be read or is not of this format, or the visit fails.
pub fn table_rows<E: From<SourceError>>(
    path: &Path,
    format: Table,
    columns: &[(String, ColumnType)],
    visit: impl FnMut(&[Cell<'_>]) -> Result<(), E>,
) -> Result<(), E> {
    match format {
        Table::Csv => csv_rows(path, columns, visit),
        Table::Parquet => parquet::rows(path, columns, visit),
    }
}

/// The columns of a CSV file with their types: its first reading.
fn csv_columns(path: &Path) -> Result<Vec<(String, ColumnType)>, SourceError> {
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

fn csv_rows<E: From<SourceError>>(
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

/// Visits the lines of an input, without their line feeds; the last one may lack it. `failed`: what it is that the input cannot be read.
///
/// # Errors
/// When the input cannot be read, or the visit fails.
pub fn lines<E>(mut input: impl BufRead, failed: impl Fn(std::io::Error) -> E, mut visit: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).map_err(&failed)? == 0 {
            return Ok(());
        }
        visit(line.strip_suffix(b"\n").unwrap_or(&line))?;
    }
}

/// Visits the lines of a file.
///
/// # Errors
/// When the file cannot be read, or the visit fails.
pub fn file_lines<E: From<SourceError>>(path: &Path, visit: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let failed = |error| {
        let path = path.to_owned();
        SourceError::File { path, error }.into()
    };
    lines(open(path)?, failed, visit)
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
    /// Features that are not the top-level fields of their names. Of JSON only: a column is found by its name.
    pub paths: BTreeMap<String, Pointer>,
    /// What may be kept in memory.
    pub limits: Limits,
}

impl BuildOptions {
    fn builder(&self, columns: &[(String, ColumnType)]) -> Result<ReferenceBuilder, ReferenceError> {
        let builder = ReferenceBuilder::new(&self.monitor, columns, &self.binning, &self.overrides, self.max_categories)?;
        Ok(builder.within(self.limits))
    }
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

/// Builds a reference from a file, which is read up to three times.
///
/// # Errors
/// When the file cannot be read, or no reference can be made of it.
pub fn build_reference(path: &Path, format: Format, options: &BuildOptions) -> Result<Built, SourceError> {
    refuse_stream(path)?;
    let Some(table) = format.as_table() else {
        return build_reference_of_rows(path, options, |visit| {
            file_lines(path, |line| {
                visit(line);
                Ok(())
            })
        });
    };
    let columns = table_columns(path, table)?;
    columns.refuse_unsupported(path, options.overrides.iter().map(|(name, _)| name.as_str()))?;
    let mut builder = options.builder(&columns.known).map_err(reference_error(path))?;
    table_rows(path, table, &columns.known, |cells| {
        builder.push_row(cells.iter().copied());
        Ok::<_, SourceError>(())
    })?;
    let again = |recount: &mut Recount| {
        table_rows(path, table, &columns.known, |cells| {
            recount.push_row(cells.iter().copied());
            Ok(())
        })
    };
    let mut built = built::<SourceError>(path, builder, 0, again)?;
    let unsupported = columns.unsupported.into_iter().map(|(name, what)| format!("{name} ({what})"));
    built.left_out.extend(unsupported);
    Ok(built)
}

/// Builds a reference from JSON objects. `name`: what errors call them.
///
/// # Errors
/// When no reference can be made of them.
pub fn build_reference_of_records(name: &Path, records: &[Vec<u8>], options: &BuildOptions) -> Result<Built, SourceError> {
    build_reference_of_rows(name, options, |visit| {
        records.iter().for_each(|record| visit(record));
        Ok(())
    })
}

fn reference_error(path: &Path) -> impl Fn(ReferenceError) -> SourceError {
    let path = path.to_owned();
    move |error| SourceError::Reference { path: path.clone(), error }
}

/// Refuses what gives its rows only once, as a pipe and standard input do: they would be missing at the second reading.
fn refuse_stream(path: &Path) -> Result<(), SourceError> {
    let path = path.to_owned();
    match std::fs::metadata(&path) {
        Err(error) => Err(SourceError::File { path, error }),
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(SourceError::Format {
            path,
            fault: "this is no regular file, and a reference takes reading its rows more than once: write them to a file first".to_owned(),
        }),
    }
}

/// The reference of these rows, and, if it takes them once more, of what `again` visits.
fn built<E: From<SourceError>>(
    path: &Path,
    builder: ReferenceBuilder,
    invalid: u64,
    again: impl FnOnce(&mut Recount) -> Result<(), E>,
) -> Result<Built, E> {
    let left_out = builder.left_out().to_vec();
    let (reference, warnings) = match builder.end().map_err(reference_error(path))? {
        Pass::Built(reference, warnings) => (reference, warnings),
        Pass::Again(mut recount) => {
            again(&mut recount)?;
            recount.finish().map_err(reference_error(path))?
        }
    };
    Ok(Built {
        reference,
        warnings,
        left_out,
        invalid,
    })
}

/// Builds a reference from JSON objects that can be visited again: once for their columns and types, then for their values, and once more where their
/// quantiles are sketched. `path`: what errors call them.
///
/// # Errors
/// When they cannot be visited, or no reference can be made of them.
pub fn build_reference_of_rows<E: From<SourceError>>(
    path: &Path,
    options: &BuildOptions,
    rows: impl Fn(&mut dyn FnMut(&[u8])) -> Result<(), E>,
) -> Result<Built, E> {
    let (mut columns, mut places) = (Vec::<(String, ColumnTyper)>::new(), BTreeMap::<String, usize>::new());
    let mut invalid = 0;
    let mut reader = JsonReader::new(&options.paths);
    rows(&mut |value| {
        let Some(row) = reader.row(value) else {
            invalid += 1;
            return;
        };
        for (name, _) in &row.fields {
            if !places.contains_key(&**name) {
                places.insert(name.to_string(), columns.len());
                columns.push((name.to_string(), ColumnTyper::default()));
            }
        }
        for (name, cell) in row.cells() {
            if let Some((_, typer)) = places.get(name).and_then(|place| columns.get_mut(*place)) {
                typer.observe(&cell);
            }
        }
    })?;
    let columns: Vec<_> = columns.into_iter().map(|(name, typer)| (name, typer.column_type())).collect();
    let mut builder = options.builder(&columns).map_err(reference_error(path))?;
    rows(&mut |value| {
        if let Some(row) = reader.row(value) {
            builder.push_row(row.cells_of(&columns));
        }
    })?;
    built(path, builder, invalid, |recount| {
        rows(&mut |value| {
            if let Some(row) = reader.row(value) {
                recount.push_row(row.cells_of(&columns));
            }
        })
    })
}

/// A line that is a JSON object: its fields in order, and what each holds.
struct JsonRow<'a> {
    fields: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// A field's value, as a cell is made of it.
enum Value<'a> {
    Missing,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
}

impl JsonRow<'_> {
    /// A cell per column.
    fn cells_of<'r>(&'r self, columns: &'r [(String, ColumnType)]) -> impl Iterator<Item = Cell<'r>> {
        let cells = self.cells();
        columns
            .iter()
            .map(move |(name, _)| cells.get(name.as_str()).copied().unwrap_or(Cell::Missing))
    }

    /// By name; of a field that stands there twice the last one, as in a record.
    fn cells(&self) -> BTreeMap<&str, Cell<'_>> {
        let cell = |value| match value {
            &Value::Missing => Cell::Missing,
            &Value::Bool(value) => Cell::Bool(value),
            &Value::Number(number) => Cell::Number(number),
            Value::Text(text) => Cell::Text(text),
        };
        self.fields.iter().map(|(name, value)| (&**name, cell(value))).collect()
    }
}

/// Reads rows by the rules for records.
struct JsonReader<'p> {
    paths: &'p BTreeMap<String, Pointer>,
    picker: Picker,
}

impl<'p> JsonReader<'p> {
    fn new(paths: &'p BTreeMap<String, Pointer>) -> Self {
        Self {
            paths,
            picker: Picker::new(paths.values()),
        }
    }

    /// Its top-level fields, then those that are found by their paths and stand in for them; `None`: it is no JSON object.
    fn row<'a>(&mut self, line: &'a [u8]) -> Option<JsonRow<'a>>
    where
        'p: 'a,
    {
        let mut row = JsonRow { fields: Vec::new() };
        scan_object(line, |name, scalar| {
            let name = name.content();
            if !self.paths.contains_key(&*name) {
                row.fields.push((name, Value::of(scalar)));
            }
        })
        .ok()?;
        if !self.paths.is_empty() {
            let picked = self.picker.pick(line).ok()?;
            let values = picked.into_iter().map(|scalar| scalar.map_or(Value::Missing, Value::of));
            row.fields.extend(self.paths.keys().map(|name| Cow::Borrowed(name.as_str())).zip(values));
        }
        Some(row)
    }
}

impl<'a> Value<'a> {
    fn of(scalar: Scalar<'a>) -> Self {
        match scalar {
            Scalar::Null | Scalar::Nested => Self::Missing,
            Scalar::Bool(value) => Self::Bool(value),
            // One outside the finite doubles is missing, and its row stays.
            Scalar::Number(number) => Some(number.value())
                .filter(|number| number.is_finite())
                .map_or(Self::Missing, Self::Number),
            Scalar::Text(text) => Self::Text(text.content()),
        }
    }
}
