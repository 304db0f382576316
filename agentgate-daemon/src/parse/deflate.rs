//! Inflating (RFC 1951) in steps whose output is all there is so far, up to the byte that is corrupt.
//!
//! On `miniz_oxide`'s core rather than its stream: with a fault the stream keeps back what is in its window
//! and found no room in the output, and how much that is depends on how the input was cut.

use std::fmt;

use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, decompress_with_limit, inflate_flags},
};

/// The farthest that deflate refers back.
pub(crate) const WINDOW: usize = 32 * 1024;

/// What the data is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Raw,
    /// RFC 1950, whose checksum is verified.
    Zlib,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// All input is read, and all that it gives is out.
    NeedsInput,
    /// There may be more output, even without input.
    HasOutput,
    /// The last block, or the checksum behind it, has ended.
    Ended,
    /// Not deflate's data, or a wrong checksum. Whatever came before is out.
    Corrupt,
}

/// A decompressor and its window.
pub(crate) struct Inflate {
    decompressor: Box<DecompressorOxide>,
    window: Vec<u8>,
    /// Where in the window the next byte goes.
    at: usize,
    flags: u32,
}

impl fmt::Debug for Inflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflate").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Inflate {
    /// Bytes of memory on the heap.
    pub(crate) const HOLDS: usize = WINDOW + size_of::<DecompressorOxide>();

    pub(crate) fn new(format: Format) -> Self {
        let flags = match format {
            Format::Raw => inflate_flags::TINFL_FLAG_IGNORE_ADLER32,
            Format::Zlib => {
                inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER | inflate_flags::TINFL_FLAG_COMPUTE_ADLER32
            }
        };
        Self {
            decompressor: Box::default(),
            window: vec![0; WINDOW],
            at: 0,
            flags: flags | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT,
        }
    }

    /// Reads of `input` and gives at most `most` bytes: how many were read, and what they gave.
    pub(crate) fn step(&mut self, input: &[u8], most: usize) -> (usize, &[u8], Status) {
        let from = self.at;
        let (status, read, written) =
            decompress_with_limit(&mut self.decompressor, input, &mut self.window, from, most, self.flags);
        let end = from + written;
        self.at = end % WINDOW;
        let status = match status {
            TINFLStatus::NeedsMoreInput => Status::NeedsInput,
            TINFLStatus::HasMoreOutput => Status::HasOutput,
            TINFLStatus::Done => Status::Ended,
            TINFLStatus::Failed
            | TINFLStatus::Adler32Mismatch
            | TINFLStatus::BadParam
            | TINFLStatus::FailedCannotMakeProgress
            | _ => Status::Corrupt,
        };
        (read, self.window.get(from..end).unwrap_or_default(), status)
    }

    /// Begins with a first block again, which may refer to what came before.
    pub(crate) fn go_on(&mut self) {
        self.decompressor.init();
    }

    /// Begins with a first block again, and nothing before it.
    pub(crate) fn reset(&mut self) {
        self.decompressor.init();
        self.window.fill(0);
        self.at = 0;
    }
}
