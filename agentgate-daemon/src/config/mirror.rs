//! `[audit.mirror]`: a continuous copy of the log in files.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::paths;
use crate::model::Compress;

/// A copy of the log as lines in a file that is rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mirror {
    /// The file that is written to; empty for no mirror.
    #[serde(with = "paths::optional")]
    pub path: Option<PathBuf>,
    pub format: MirrorFormat,
    /// Bytes after which the file is closed and the next begun; 0: never.
    pub rotate_bytes: u64,
    /// Hours after which it is; 0: never.
    pub rotate_hours: u64,
    /// What closed files are compressed with.
    pub compress: Compress,
    /// Closed files that are kept; 0: all.
    pub keep: usize,
    /// With captured bodies, which are not masked.
    pub bodies: bool,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            path: None,
            format: MirrorFormat::default(),
            rotate_bytes: 100 << 20,
            rotate_hours: 24,
            compress: Compress::default(),
            keep: 30,
            bodies: false,
        }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorFormat {
    /// A record.
    #[default]
    Jsonl,
    /// An event of OCSF.
    Ocsf,
    /// Columns.
    Csv,
}
