//! Content codings undone (RFC 9110 8.4): gzip, deflate, br, zstd, and stacks of them.
//!
//! [`Decoder`] takes bytes as they come and gives decoded ones as soon as there are any; [`decode`] is the
//! same for a captured prefix. Both go as far as the bytes go and say how it ended. What they cost is
//! bounded: output stops at the cap to the byte, windows have a limit, and a stack has at most four codings.
//!
//! gzip and deflate are `miniz_oxide` and br is `brotli-decompressor`, both without unsafe code. zstd is
//! libzstd, which is C: the decoder in safe Rust gives nothing out before a whole window is full, so neither
//! a live stream nor a cut body would be readable. Its legacy formats are not compiled in.

use std::fmt;

mod gzip;
mod stage;
#[cfg(test)]
mod tests;

use stage::{SCRATCH, Stage, Step};

/// Most codings on one body. Real ones have one, rarely two.
pub const MOST_CODINGS: usize = 4;

/// One content coding, `identity` aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952; `x-gzip` is the same.
    Gzip,
    /// RFC 1950, and the bare RFC 1951 that some origins send under this name.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878, window as in RFC 9659.
    Zstd,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Why a body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedCoding {
    /// As sent, cut and without control characters.
    #[error("content coding {0:?} is not known")]
    Unknown(String),
    #[error("more than {MOST_CODINGS} content codings")]
    TooMany,
}

/// The codings of a body, in the order in which they were applied. Empty: identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codings(Vec<Coding>);

impl Codings {
    /// From the values of all `Content-Encoding` fields, in order.
    ///
    /// # Errors
    /// A coding that is not known, or too many of them.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, UnsupportedCoding> {
        let mut codings = Vec::new();
        for name in values.into_iter().flat_map(|value| value.split(|byte| *byte == b',')) {
            let name = name.trim_ascii();
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            let coding = if name.is_empty() || is("identity") {
                continue;
            } else if is("gzip") || is("x-gzip") {
                Coding::Gzip
            } else if is("deflate") {
                Coding::Deflate
            } else if is("br") {
                Coding::Brotli
            } else if is("zstd") {
                Coding::Zstd
            } else {
                let shown = name.get(..32).unwrap_or(name).escape_ascii().to_string();
                return Err(UnsupportedCoding::Unknown(shown));
            };
            if codings.len() == MOST_CODINGS {
                return Err(UnsupportedCoding::TooMany);
            }
            codings.push(coding);
        }
        Ok(Self(codings))
    }

    /// True where the body is as it is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Codings {
    /// As in the header field: `gzip, br`; `identity` where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("identity");
        }
        for (index, coding) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            f.write_str(coding.as_str())?;
        }
        Ok(())
    }
}

/// What decoding may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most decoded bytes given out, over the decoder's life.
    pub output: u64,
    /// Largest zstd window, as a power of two.
    pub zstd_window_log: u32,
}

impl Limits {
    /// RFC 9659: eight megabytes are what every receiver of `zstd` has to take, and senders keep to.
    const ZSTD_WINDOW_LOG: u32 = 23;

    /// Limits for an output of at most `output` bytes.
    #[must_use]
    pub fn of(output: u64) -> Self {
        Self { output, zstd_window_log: Self::ZSTD_WINDOW_LOG }
    }

    /// What one coding of a stack may give the next: codings hardly ever grow what is coded already.
    fn between(self) -> u64 {
        self.output.saturating_mul(2).saturating_add(64 * 1024)
    }
}

/// What was wrong with coded bytes. What stands before the fault was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{} data is corrupt", .0.as_str())]
    Corrupt(Coding),
    #[error("the checksum of {} data is wrong", .0.as_str())]
    Checksum(Coding),
    #[error("{} data needs a dictionary that is not in it", .0.as_str())]
    Dictionary(Coding),
    #[error("{} data wants a larger window than is given", .0.as_str())]
    Window(Coding),
    /// Clients differ: some ignore it, some fail.
    #[error("bytes follow the end of {} data", .0.as_str())]
    Trailing(Coding),
    /// A stack whose outer codings give out far more than the cap.
    #[error("{} data gives the next coding more than is allowed", .0.as_str())]
    Between(Coding),
}

/// How decoding stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every coding came to its end.
    Whole,
    /// Coded bytes are missing at the end.
    Cut,
    /// The cap was reached.
    Capped,
    Faulty(Fault),
}

/// Why no more bytes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Capped,
    Faulty(Fault),
}

/// Undoes codings as bytes come.
#[derive(Debug)]
pub struct Decoder {
    /// The last coding applied comes first.
    stages: Vec<Stage>,
    limits: Limits,
    given: u64,
    received: bool,
    stopped: Option<Stop>,
}

impl Decoder {
    /// A decoder for a body of these codings. Allocates windows with the first byte.
    #[must_use]
    pub fn new(codings: &Codings, limits: Limits) -> Self {
        let stages = codings.0.iter().rev().map(|coding| Stage::new(*coding)).collect();
        Self { stages, limits, given: 0, received: false, stopped: None }
    }

    /// Takes the next bytes and hands on what they decode to, in pieces of at most 32 KiB, or as they came
    /// where there is no coding. False once nothing more will be decoded: the cap is reached, or a fault.
    pub fn push(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) -> bool {
        if self.stopped.is_some() || bytes.is_empty() {
            return self.stopped.is_none();
        }
        self.received = true;
        let limits = self.limits;
        let given = &mut self.given;
        let mut capped = |piece: &[u8]| {
            let left = usize::try_from(limits.output.saturating_sub(*given)).unwrap_or(usize::MAX);
            let (now, over) = piece.split_at_checked(left).unwrap_or((piece, &[]));
            *given = given.saturating_add(now.len() as u64);
            if !now.is_empty() {
                sink(now);
            }
            if over.is_empty() { Ok(()) } else { Err(Stop::Capped) }
        };
        self.stopped = run(&mut self.stages, bytes, limits, &mut capped).err();
        self.stopped.is_none()
    }

    /// True where every coding's data may end here: nothing decoded is missing.
    fn is_at_end(&self) -> bool {
        // A body of no bytes is whole whatever its coding: answers to HEAD name one too.
        !self.received || self.stages.iter().all(Stage::is_at_end)
    }

    /// Decoded bytes given out so far.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.given
    }

    /// How it stands, were the body to end here.
    #[must_use]
    pub fn ended(&self) -> Ended {
        match self.stopped {
            Some(Stop::Capped) => Ended::Capped,
            Some(Stop::Faulty(fault)) => Ended::Faulty(fault),
            None if self.is_at_end() => Ended::Whole,
            None => Ended::Cut,
        }
    }
}

/// Feeds `input` to the first stage, and what comes out of it to the rest.
fn run(
    stages: &mut [Stage],
    mut input: &[u8],
    limits: Limits,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let Some((stage, rest)) = stages.split_first_mut() else {
        return sink(input);
    };
    // Of this call alone: between calls a stage holds no more than its window.
    let mut scratch = vec![0; SCRATCH];
    loop {
        let Step { read, written, fault } = stage.step(input, &mut scratch, limits);
        let over = if rest.is_empty() { 0 } else { stage.given.saturating_sub(limits.between()) };
        // The next coding gets all that is allowed, however it was cut.
        let allowed = written.saturating_sub(usize::try_from(over).unwrap_or(usize::MAX));
        if let Some(piece) = scratch.get(..allowed).filter(|piece| !piece.is_empty()) {
            run(rest, piece, limits, sink)?;
        }
        if over > 0 {
            return Err(Stop::Faulty(Fault::Between(stage.coding)));
        }
        if let Some(fault) = fault {
            return Err(Stop::Faulty(fault));
        }
        input = input.get(read..).unwrap_or_default();
        // Output that filled the scratch may have more behind it, though no input is left.
        if input.is_empty() && written < SCRATCH {
            return Ok(());
        }
    }
}

/// A captured prefix, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub bytes: Vec<u8>,
    /// True where more would follow: coded bytes are missing, the cap was reached, or there is a fault.
    pub truncated: bool,
    /// What was wrong; empty where nothing was.
    pub faults: Vec<Fault>,
}

/// Decodes as far as the bytes go.
#[must_use]
pub fn decode(codings: &Codings, coded: &[u8], limits: Limits) -> Decoded {
    let mut decoder = Decoder::new(codings, limits);
    let mut bytes = Vec::new();
    decoder.push(coded, &mut |piece| bytes.extend_from_slice(piece));
    let ended = decoder.ended();
    let (truncated, faults) = match ended {
        Ended::Whole => (false, Vec::new()),
        Ended::Cut | Ended::Capped => (true, Vec::new()),
        // What follows the end is not of the body, unless the coding within is not at its end.
        Ended::Faulty(fault @ Fault::Trailing(_)) => (!decoder.is_at_end(), vec![fault]),
        Ended::Faulty(fault) => (true, vec![fault]),
    };
    Decoded { bytes, truncated, faults }
}
