//! Rows of a Parquet file: one by one, so that memory does not grow with them.
//!
//! A column at the top that holds numbers (decimals too), booleans or texts may be a feature. Times, binary data, lists, maps and groups may not. A null
//! is missing, and so is a number that is not finite.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use leeway_topology::reference::{Cell, ColumnType};
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::{Columns, SourceError};

fn open(path: &Path) -> Result<SerializedFileReader<File>, SourceError> {
    let file = File::open(path).map_err(|error| SourceError::File {
        path: path.to_owned(),
        error,
    })?;
    SerializedFileReader::new(file).map_err(fault(path))
}

fn fault(path: &Path) -> impl Fn(ParquetError) -> SourceError {
    let path = path.to_owned();
    move |error| SourceError::Format {
        path: path.clone(),
        fault: error.to_string(),
    }
}

fn fields(reader: &SerializedFileReader<File>) -> &[Arc<Type>] {
    reader.metadata().file_metadata().schema().get_fields()
}

/// The columns of a file, as its schema has them.
pub(super) fn columns(path: &Path) -> Result<Columns, SourceError> {
    let reader = open(path)?;
    let mut columns = Columns::default();
    for field in fields(&reader) {
        let name = field.name().to_owned();
        match column_type(field) {
            Ok(known) => columns.known.push((name, known)),
            Err(what) => columns.unsupported.push((name, what)),
        }
    }
    Ok(columns)
}

/// What a column is; the error says what it is instead.
fn column_type(field: &Type) -> Result<ColumnType, String> {
    let info = field.get_basic_info();
    let logical = info.logical_type_ref();
    if !field.is_primitive() || info.has_repetition() && info.repetition() == parquet::basic::Repetition::REPEATED {
        return Err(logical.map_or_else(|| "GROUP".to_owned(), name_of));
    }
    let other = || Err(logical.map_or_else(|| format!("{:?}", info.converted_type()), name_of));
    match (field.get_physical_type(), logical, info.converted_type()) {
        (_, Some(LogicalType::Decimal { .. }), _) | (_, None, ConvertedType::DECIMAL) => Ok(ColumnType::Number),
        (_, Some(LogicalType::String | LogicalType::Enum | LogicalType::Json), _)
        | (_, None, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON) => Ok(ColumnType::Text),
        (PhysicalType::BOOLEAN, _, _) => Ok(ColumnType::Bool),
        (PhysicalType::FLOAT | PhysicalType::DOUBLE, _, _) | (_, Some(LogicalType::Integer { .. } | LogicalType::Float16), _) => {
            Ok(ColumnType::Number)
        }
        (PhysicalType::INT32 | PhysicalType::INT64, None, converted) if is_integer(converted) => Ok(ColumnType::Number),
        (physical, None, ConvertedType::NONE) => Err(physical.to_string()),
        _ => other(),
    }
}

fn is_integer(converted: ConvertedType) -> bool {
    matches!(
        converted,
        ConvertedType::NONE
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64
            | ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64
    )
}

/// The name alone, without the parameters: `Timestamp`.
fn name_of(logical: &LogicalType) -> String {
    let text = format!("{logical:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_uppercase()
}

/// Visits the rows, as cells of these columns.
pub(super) fn rows<E: From<SourceError>>(
    path: &Path,
    columns: &[(String, ColumnType)],
    mut visit: impl FnMut(&[Cell<'_>]) -> Result<(), E>,
) -> Result<(), E> {
    let reader = open(path)?;
    let wanted = |field: &&Arc<Type>| columns.iter().any(|(name, _)| name == field.name());
    let projected = fields(&reader).iter().filter(wanted).cloned().collect();
    let schema = reader.metadata().file_metadata().schema();
    let projection = Type::group_type_builder(schema.name())
        .with_fields(projected)
        .build()
        .map_err(fault(path))?;
    for row in reader.get_row_iter(Some(projection)).map_err(fault(path))? {
        let row = row.map_err(fault(path))?;
        // In the schema's order, as the columns are.
        let cells: Vec<Cell<'_>> = row.get_column_iter().map(|(_, field)| cell(field)).collect();
        visit(&cells)?;
    }
    Ok(())
}

fn cell(field: &Field) -> Cell<'_> {
    let number = |number: f64| if number.is_finite() { Cell::Number(number) } else { Cell::Missing };
    match field {
        Field::Bool(value) => Cell::Bool(*value),
        Field::Byte(value) => number(f64::from(*value)),
        Field::Short(value) => number(f64::from(*value)),
        Field::Int(value) => number(f64::from(*value)),
        // The nearest double, as of a number in a record.
        Field::Long(value) => number(*value as f64),
        Field::UByte(value) => number(f64::from(*value)),
        Field::UShort(value) => number(f64::from(*value)),
        Field::UInt(value) => number(f64::from(*value)),
        Field::ULong(value) => number(*value as f64),
        Field::Float16(value) => number(f64::from(value.to_f32())),
        Field::Float(value) => number(f64::from(*value)),
        Field::Double(value) => number(*value),
        Field::Decimal(_) => field.to_string().parse().map_or(Cell::Missing, number),
        Field::Str(text) => Cell::Text(text),
        _ => Cell::Missing,
    }
}

#[cfg(test)]
mod tests {
    use parquet::column::writer::ColumnWriter;
    use parquet::data_type::ByteArray;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;
    use crate::source::{BuildOptions, Format, build_reference, table_columns};
    use leeway_topology::binning::Binning;

    const SCHEMA: &str = "message rows {
        optional double x;
        required int64 id;
        optional binary plan (UTF8);
        required boolean member;
        required int32 cents (DECIMAL(9, 2));
        required int64 at (TIMESTAMP(MILLIS, true));
        optional group tags (LIST) { repeated group list { optional binary element (UTF8); } }
    }";

    /// Rows (x, plan), of which some are null; the other columns follow from the row's number. In two row groups.
    fn file(directory: &Path, rows: &[(Option<f64>, Option<&str>)]) -> std::path::PathBuf {
        let path = directory.join("rows.parquet");
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, properties).unwrap();
        for (group, part) in rows.chunks(rows.len().div_ceil(2)).enumerate() {
            let first = group * rows.len().div_ceil(2);
            let mut row_group = writer.next_row_group().unwrap();
            let levels = |is_there: Vec<bool>| is_there.into_iter().map(i16::from).collect::<Vec<_>>();
            while let Some(mut column) = row_group.next_column().unwrap() {
                match column.untyped() {
                    ColumnWriter::DoubleColumnWriter(x) => {
                        let values: Vec<f64> = part.iter().filter_map(|(x, _)| *x).collect();
                        x.write_batch(&values, Some(&levels(part.iter().map(|(x, _)| x.is_some()).collect())), None)
                    }
                    ColumnWriter::Int64ColumnWriter(id) => {
                        let values: Vec<i64> = (0..part.len()).map(|row| (first + row) as i64).collect();
                        id.write_batch(&values, None, None)
                    }
                    ColumnWriter::BoolColumnWriter(member) => {
                        let values: Vec<bool> = (0..part.len()).map(|row| (first + row).is_multiple_of(2)).collect();
                        member.write_batch(&values, None, None)
                    }
                    ColumnWriter::Int32ColumnWriter(cents) => {
                        let values: Vec<i32> = (0..part.len()).map(|row| (first + row) as i32 * 25).collect();
                        cents.write_batch(&values, None, None)
                    }
                    ColumnWriter::ByteArrayColumnWriter(text) if text.get_descriptor().max_rep_level() == 0 => {
                        let values: Vec<ByteArray> = part.iter().filter_map(|(_, plan)| plan.map(ByteArray::from)).collect();
                        text.write_batch(&values, Some(&levels(part.iter().map(|(_, plan)| plan.is_some()).collect())), None)
                    }
                    ColumnWriter::ByteArrayColumnWriter(tags) => {
                        // No list anywhere.
                        tags.write_batch(&[], Some(&vec![0; part.len()]), Some(&vec![0; part.len()]))
                    }
                    _ => unreachable!("no such column"),
                }
                .unwrap();
                column.close().unwrap();
            }
            row_group.close().unwrap();
        }
        writer.close().unwrap();
        path
    }

    fn options(overrides: &[(&str, Binning)]) -> BuildOptions {
        BuildOptions {
            monitor: "default".to_owned(),
            binning: Binning::Auto { bins: 10 },
            overrides: overrides.iter().map(|(name, binning)| ((*name).to_owned(), binning.clone())).collect(),
            max_categories: 50,
            paths: std::collections::BTreeMap::new(),
            limits: leeway_topology::reference::Limits::default(),
        }
    }

    #[test]
    fn columns_have_the_types_of_the_schema_and_others_are_named_with_theirs() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), &[(Some(1.0), None), (None, Some("a"))]);
        let columns = table_columns(&path, crate::source::Table::Parquet).unwrap();
        let known: Vec<_> = columns.known.iter().map(|(name, known)| (name.as_str(), *known)).collect();
        assert_eq!(
            known,
            [
                ("x", ColumnType::Number),
                ("id", ColumnType::Number),
                ("plan", ColumnType::Text),
                ("member", ColumnType::Bool),
                ("cents", ColumnType::Number)
            ]
        );
        assert_eq!(
            columns.unsupported,
            [("at".to_owned(), "TIMESTAMP".to_owned()), ("tags".to_owned(), "LIST".to_owned())]
        );
    }

    #[test]
    fn rows_of_all_groups_are_visited_with_nulls_and_numbers_that_are_not_finite_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), &[(Some(1.5), Some("a")), (None, None), (Some(f64::NAN), Some(""))]);
        let columns = columns(&path).unwrap().known;
        let mut seen = Vec::new();
        rows(&path, &columns, |cells| {
            seen.push(format!("{cells:?}"));
            Ok::<_, SourceError>(())
        })
        .unwrap();
        assert_eq!(
            seen,
            [
                "[Number(1.5), Number(0.0), Text(\"a\"), Bool(true), Number(0.0)]",
                "[Missing, Number(1.0), Missing, Bool(false), Number(0.25)]",
                "[Missing, Number(2.0), Text(\"\"), Bool(true), Number(0.5)]"
            ]
        );
    }

    #[test]
    fn reference_is_built_of_what_may_be_a_feature_and_a_named_column_that_may_not_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let data: Vec<_> = (0..200).map(|row| (Some(f64::from(row)), Some(["a", "b"][row as usize % 2]))).collect();
        let path = file(directory.path(), &data);
        let built = build_reference(&path, Format::Parquet, &options(&[])).unwrap();
        let features: Vec<_> = built.reference.features().iter().map(|feature| feature.name().to_string()).collect();
        assert_eq!(features, ["x", "plan", "member", "cents"]);
        assert_eq!(built.left_out, ["id", "at (TIMESTAMP)", "tags (LIST)"]);
        let refused = build_reference(&path, Format::Parquet, &options(&[("at", Binning::Auto { bins: 10 })]));
        let text = refused.err().expect("refused").to_string();
        assert!(text.contains("column \"at\" is of type TIMESTAMP: a feature is a number"), "{text}");
    }

    #[test]
    fn what_is_no_parquet_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.parquet");
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        let text = columns(&path).unwrap_err().to_string();
        assert!(text.contains("rows.parquet") && text.contains("Parquet"), "{text}");
    }
}
