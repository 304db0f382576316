//! The audit log in other forms, and from one place to another.
//!
//! A [`Row`] is one entry of the log, as formats get it; [`Formatter`] makes bytes of rows: `jsonl` with one
//! bare record a line, [`csv`], [`har`], [`ocsf`] and [`parquet`]. Everything here streams: a formatter holds
//! a row, parquet a group of rows. Command lines are masked, bodies are decoded as far as their content
//! coding is known; the verifiable form of the log, which is neither, is `chain::line`'s.

pub mod columns;
pub mod csv;
pub mod har;
pub mod mirror;
pub mod ocsf;
mod opened;
pub mod pages;
pub mod parquet;
pub mod row;

#[cfg(test)]
pub(crate) mod samples;

use std::{fmt, str::FromStr};

pub use row::Row;

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One bare record a line.
    Jsonl,
    Csv,
    Har,
    Ocsf,
    Parquet,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Jsonl, Self::Csv, Self::Har, Self::Ocsf, Self::Parquet];

    /// Its name in settings and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Har => "har",
            Self::Ocsf => "ocsf",
            Self::Parquet => "parquet",
        }
    }

    /// Whether it is read line by line, so that it can be followed and cut anywhere between two lines.
    #[must_use]
    pub fn is_lines(self) -> bool {
        match self {
            Self::Jsonl | Self::Csv | Self::Ocsf => true,
            Self::Har | Self::Parquet => false,
        }
    }

    /// Whether it is text.
    #[must_use]
    pub fn is_text(self) -> bool {
        match self {
            Self::Jsonl | Self::Csv | Self::Ocsf | Self::Har => true,
            Self::Parquet => false,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| "jsonl, ocsf, csv, har or parquet".to_owned())
    }
}

/// Why a row has no form.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("record {id}: {source}")]
    Json { id: crate::model::RecordId, source: serde_json::Error },
    #[error("parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

/// Makes bytes of rows.
#[derive(Debug)]
pub enum Formatter {
    Jsonl { bodies: bool },
    Csv(csv::Table),
    Har(har::Archive),
    Ocsf { bodies: bool },
    Parquet(Box<parquet::Table>),
}

impl Formatter {
    /// One for `format`, with captured bodies or without.
    ///
    /// # Errors
    /// [`FormatError`] where parquet cannot begin.
    pub fn new(format: Format, bodies: bool) -> Result<Self, FormatError> {
        Ok(match format {
            Format::Jsonl => Self::Jsonl { bodies },
            Format::Csv => Self::Csv(csv::Table::new(bodies)),
            Format::Har => Self::Har(har::Archive::new(bodies)),
            Format::Ocsf => Self::Ocsf { bodies },
            Format::Parquet => Self::Parquet(Box::new(parquet::Table::new(bodies)?)),
        })
    }

    /// What stands before all rows.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Jsonl { .. } | Self::Ocsf { .. } | Self::Parquet(_) => {}
            Self::Csv(table) => table.header(out),
            Self::Har(archive) => archive.begin(out),
        }
    }

    /// Appends what there is to write of `row`; false where the format has no place for it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn row(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool, FormatError> {
        match self {
            Self::Jsonl { bodies } => row.plain(*bodies, out)?,
            Self::Csv(table) => table.row(row, out),
            Self::Har(archive) => return archive.row(row, out),
            Self::Ocsf { bodies } => ocsf::event(row, *bodies, out)?,
            Self::Parquet(table) => table.row(row, out)?,
        }
        Ok(true)
    }

    /// What stands after all rows.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        match self {
            Self::Jsonl { .. } | Self::Csv(_) | Self::Ocsf { .. } => Ok(()),
            Self::Har(archive) => {
                archive.end(out);
                Ok(())
            }
            Self::Parquet(table) => table.end(out),
        }
    }
}

#[cfg(test)]
mod tests;
