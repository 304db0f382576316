//! Apache Parquet: the columns of [`super::columns`], for DuckDB, pandas, Spark and their like.
//!
//! Text is UTF-8 (`STRING`), numbers are `INT64`, times are microseconds in UTC (`TIMESTAMP(MICROS,true)`);
//! bodies are bytes, decoded as far as their content coding is known. Every column may be null. Rows are
//! gathered by the group and given out when one is full, so memory is that of one group.

use std::sync::Arc;

use ::parquet::{
    basic::{Compression, GzipLevel},
    column::writer::ColumnWriter,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    errors::{ParquetError, Result},
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};

use super::{
    FormatError, Row,
    columns::{COLUMNS, Cell, Type},
};

/// Rows and bytes after which a group is written.
const ROWS: usize = 16 * 1024;
const BYTES: usize = 32 << 20;
/// Bytes of a value that its column's statistics keep.
const STATISTICS: usize = 64;

/// Values of one column in the group under way; which rows have one is told by the levels.
#[derive(Debug)]
enum Values {
    Numbers(Vec<i64>),
    Bytes(Vec<ByteArray>),
}

#[derive(Debug)]
struct Gathered {
    values: Values,
    levels: Vec<i16>,
}

impl Gathered {
    fn of(kind: Type) -> Self {
        let values = match kind {
            Type::Text => Values::Bytes(Vec::new()),
            Type::Number | Type::Time => Values::Numbers(Vec::new()),
        };
        Self { values, levels: Vec::new() }
    }

    /// One row's; returns the bytes it takes.
    fn push(&mut self, cell: Cell<'_>) -> usize {
        match (&mut self.values, cell) {
            (Values::Bytes(values), Cell::Text(text)) => {
                self.levels.push(1);
                let length = text.len();
                values.push(ByteArray::from(text.into_owned().into_bytes()));
                length
            }
            // What is above the largest is a number that somebody else made up: it stays the largest.
            (Values::Numbers(values), Cell::Number(number)) => {
                self.levels.push(1);
                values.push(i64::try_from(number).unwrap_or(i64::MAX));
                8
            }
            (Values::Numbers(values), Cell::Time(time)) => {
                self.levels.push(1);
                values.push(time.0);
                8
            }
            (Values::Bytes(_) | Values::Numbers(_), _) => {
                self.levels.push(0);
                0
            }
        }
    }

    fn push_bytes(&mut self, bytes: Option<Vec<u8>>) -> usize {
        let length = bytes.as_ref().map_or(0, Vec::len);
        self.levels.push(i16::from(bytes.is_some()));
        if let (Values::Bytes(values), Some(bytes)) = (&mut self.values, bytes) {
            values.push(ByteArray::from(bytes));
        }
        length
    }

    fn write(&mut self, group: &mut SerializedRowGroupWriter<'_, Vec<u8>>) -> Result<()> {
        let mut column = group.next_column()?.ok_or_else(|| wrong("a column is not in the schema"))?;
        match (&mut self.values, column.untyped()) {
            (Values::Numbers(values), ColumnWriter::Int64ColumnWriter(_)) => {
                column.typed::<Int64Type>().write_batch(values, Some(&self.levels), None)?;
                values.clear();
            }
            (Values::Bytes(values), ColumnWriter::ByteArrayColumnWriter(_)) => {
                column.typed::<ByteArrayType>().write_batch(values, Some(&self.levels), None)?;
                values.clear();
            }
            (Values::Numbers(_) | Values::Bytes(_), _) => return Err(wrong("a column has another type")),
        }
        self.levels.clear();
        column.close()
    }
}

fn wrong(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

/// Names of the columns that bodies add.
const BODIES: [&str; 2] = ["request_body", "response_body"];

/// A table under way.
pub struct Table {
    /// `None` once it is closed.
    writer: Option<SerializedFileWriter<Vec<u8>>>,
    columns: Vec<Gathered>,
    bodies: bool,
    rows: usize,
    bytes: usize,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// The schema, as Parquet writes schemas down.
fn schema(bodies: bool) -> String {
    let mut text = "message agentgate {\n".to_owned();
    for column in COLUMNS {
        let (physical, logical) = match column.kind {
            Type::Text => ("BYTE_ARRAY", " (STRING)"),
            Type::Number => ("INT64", ""),
            Type::Time => ("INT64", " (TIMESTAMP(MICROS,true))"),
        };
        text.push_str(&format!("  OPTIONAL {physical} {}{logical};\n", column.name));
    }
    for name in BODIES.into_iter().filter(|_| bodies) {
        text.push_str(&format!("  OPTIONAL BYTE_ARRAY {name};\n"));
    }
    text + "}"
}

impl Table {
    /// One with columns for bodies, or without.
    ///
    /// # Errors
    /// [`FormatError::Parquet`].
    pub fn new(bodies: bool) -> std::result::Result<Self, FormatError> {
        let schema = Arc::new(parse_message_type(&schema(bodies))?);
        let properties = WriterProperties::builder()
            .set_created_by(concat!("agentgate ", env!("CARGO_PKG_VERSION")).to_owned())
            // Of what every reader knows, the one whose code is in this program already.
            .set_compression(Compression::GZIP(GzipLevel::try_new(6)?))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_statistics_truncate_length(Some(STATISTICS))
            .build();
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        let columns = COLUMNS.iter().map(|column| column.kind);
        let columns = columns.chain(BODIES.iter().filter(|_| bodies).map(|_| Type::Text));
        Ok(Self {
            writer: Some(writer),
            columns: columns.map(Gathered::of).collect(),
            bodies,
            rows: 0,
            bytes: 0,
        })
    }

    /// Takes one record, and appends a group where one is full.
    pub(super) fn row(&mut self, row: &Row, out: &mut Vec<u8>) -> std::result::Result<(), FormatError> {
        let mut columns = self.columns.iter_mut();
        for (column, gathered) in COLUMNS.iter().zip(&mut columns) {
            self.bytes += gathered.push((column.of)(row));
        }
        if self.bodies {
            for (content, gathered) in row.contents().into_iter().zip(columns) {
                self.bytes += gathered.push_bytes(content.map(|content| content.bytes));
            }
        }
        self.rows += 1;
        if self.rows >= ROWS || self.bytes >= BYTES {
            self.write(out)?;
        }
        Ok(())
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let writer = self.writer.as_mut().ok_or_else(|| wrong("the file is closed"))?;
        if self.rows > 0 {
            let mut group = writer.next_row_group()?;
            for gathered in &mut self.columns {
                gathered.write(&mut group)?;
            }
            group.close()?;
            (self.rows, self.bytes) = (0, 0);
        }
        writer.flush()?;
        // Places in the file are counted, not looked up: what was written can go.
        out.append(writer.inner_mut());
        Ok(())
    }

    /// Appends what is left, and the footer.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> std::result::Result<(), FormatError> {
        self.write(out)?;
        if let Some(writer) = self.writer.take() {
            out.append(&mut writer.into_inner()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ::parquet::{
        file::reader::{FileReader as _, SerializedFileReader},
        record::{Field, RowAccessor as _},
    };

    use super::*;
    use crate::export::samples;

    #[test]
    fn what_is_written_is_read_back_in_groups() {
        let rows = samples::all();
        let mut table = Table::new(true).unwrap();
        let mut file = Vec::new();
        let mut most = 0;
        let many = 2 * ROWS + 5;
        for at in 0..many {
            let mut row = rows[at % rows.len()].clone();
            row.n = at as u64;
            table.row(&row, &mut file).unwrap();
            most = most.max(table.writer.as_ref().unwrap().inner().len());
        }
        assert_eq!(&file[..4], b"PAR1", "what is whole is given out before the end");
        table.end(&mut file).unwrap();
        assert_eq!(most, 0, "nothing written is kept");
        let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
        assert_eq!(reader.num_row_groups(), 3);
        assert_eq!(reader.metadata().file_metadata().num_rows(), many as i64);
        for (at, row) in reader.get_row_iter(None).unwrap().enumerate() {
            let row = row.unwrap();
            assert_eq!(row.get_long(0).unwrap(), at as i64);
            let expect = &rows[at % rows.len()];
            let field = |name: &str| {
                let found = row.get_column_iter().find(|(found, _)| *found == name).unwrap().1;
                found.clone()
            };
            let text = |text: &str| Field::Str(text.to_owned());
            assert_eq!(field("kind"), text(expect.record.kind.as_str()));
            assert_eq!(field("started"), Field::TimestampMicros(expect.record.started.0));
            match expect.url() {
                Some(url) => assert_eq!(field("url"), text(&url)),
                None => assert_eq!(field("url"), Field::Null),
            }
            let expect_facts = match expect.record.facts.is_empty() {
                true => Field::Null,
                false => text(&expect.facts().to_string()),
            };
            assert_eq!(field("facts"), expect_facts);
            if at % rows.len() == 0 {
                let expect = ByteArray::from("data: hello\n\n");
                assert_eq!(field("response_body"), Field::Bytes(expect), "the coding is undone");
            }
        }
    }

    #[test]
    fn a_table_without_rows_is_a_file() {
        let mut table = Table::new(false).unwrap();
        let mut file = Vec::new();
        table.end(&mut file).unwrap();
        let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
        assert_eq!(reader.metadata().file_metadata().schema_descr().num_columns(), COLUMNS.len());
    }
}
