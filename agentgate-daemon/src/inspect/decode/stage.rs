//! One coding at work: bytes in, bytes out, state between.

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Coding, Fault, Limits, gzip::Gzip};
use crate::parse::deflate::{Format, Inflate, Status};

/// Room for one step's output.
pub(super) const SCRATCH: usize = 32 * 1024;

/// Most bytes that brotli's decoder is given at once.
const BROTLI_INPUT: usize = 1024;

/// What one step did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    pub(super) read: usize,
    pub(super) written: usize,
    pub(super) fault: Option<Fault>,
}

/// One coding of a body.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) coding: Coding,
    /// Bytes given out.
    pub(super) given: u64,
    engine: Engine,
}

enum Engine {
    /// Nothing came yet, and nothing is allocated.
    Fresh,
    Gzip(Gzip),
    /// `deflate`, of which two bytes say what it is.
    DeflateStart(Option<u8>),
    Deflate(Inflate),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(Zstd),
    Over,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fresh => "Fresh",
            Self::Gzip(_) => "Gzip",
            Self::DeflateStart(_) => "DeflateStart",
            Self::Deflate(_) => "Deflate",
            Self::Brotli(_) => "Brotli",
            Self::Zstd(_) => "Zstd",
            Self::Over => "Over",
        })
    }
}

impl Stage {
    pub(super) fn new(coding: Coding) -> Self {
        Self { coding, given: 0, engine: Engine::Fresh }
    }

    /// True where the coded data may end here.
    pub(super) fn is_at_end(&self) -> bool {
        match &self.engine {
            Engine::Over => true,
            Engine::Gzip(gzip) => gzip.is_at_end(),
            Engine::Zstd(zstd) => zstd.between,
            Engine::Fresh | Engine::DeflateStart(_) | Engine::Deflate(_) | Engine::Brotli(_) => false,
        }
    }

    /// Decodes some of `input` into `output`. All input is read unless `output` is full or there is a fault.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8], limits: Limits) -> Step {
        let mut done = Step::default();
        loop {
            let rest = input.get(done.read..).unwrap_or_default();
            let step = self.once(rest, output.get_mut(done.written..).unwrap_or_default(), limits);
            done.read += step.read;
            done.written += step.written;
            done.fault = step.fault;
            let idle = step.read == 0 && step.written == 0;
            if done.fault.is_none() && idle && !rest.is_empty() {
                // An engine that neither reads nor writes would be called for ever.
                done.fault = Some(Fault::Corrupt(self.coding));
            }
            if done.fault.is_some() || done.read == input.len() || done.written == output.len() {
                break;
            }
        }
        self.given = self.given.saturating_add(done.written as u64);
        done
    }

    /// One call of the engine, and what follows from how it ended.
    fn once(&mut self, input: &[u8], output: &mut [u8], limits: Limits) -> Step {
        if matches!(self.engine, Engine::Fresh) && !input.is_empty() {
            match Engine::start(self.coding, limits) {
                Ok(engine) => self.engine = engine,
                Err(fault) => return Step { fault: Some(fault), ..Step::default() },
            }
        }
        match &mut self.engine {
            Engine::Fresh => Step::default(),
            Engine::Gzip(gzip) => gzip.step(input, output),
            Engine::DeflateStart(first) => match (*first, input.first()) {
                (_, None) => Step::default(),
                (None, Some(byte)) => {
                    *first = Some(*byte);
                    Step { read: 1, ..Step::default() }
                }
                (Some(first), Some(second)) => {
                    let mut state = Inflate::new(deflate_format(first, *second));
                    // A header's byte, or the first bits of a block: nothing comes out of it alone.
                    let fault = inflated(&mut state, &[first], &mut []).fault;
                    self.engine = Engine::Deflate(state);
                    match fault {
                        Some(()) => Step { fault: Some(Fault::Corrupt(self.coding)), ..Step::default() },
                        None => self.once(input, output, limits),
                    }
                }
            },
            Engine::Deflate(state) => {
                let step = inflated(state, input, output);
                if step.ended {
                    self.engine = Engine::Over;
                }
                Step {
                    read: step.read,
                    written: step.written,
                    fault: step.fault.map(|()| Fault::Corrupt(Coding::Deflate)),
                }
            }
            Engine::Brotli(state) => {
                // A fault takes with it what the call decoded before it, so a call gets little.
                let input = input.get(..BROTLI_INPUT).unwrap_or(input);
                let (mut left, mut read, mut room, mut written, mut total) =
                    (input.len(), 0, output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left,
                    &mut read,
                    input,
                    &mut room,
                    &mut written,
                    output,
                    &mut total,
                    state,
                );
                let mut fault = None;
                match result {
                    BrotliResult::ResultSuccess => self.engine = Engine::Over,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                    BrotliResult::ResultFailure => fault = Some(Fault::Corrupt(Coding::Brotli)),
                }
                Step { read, written, fault }
            }
            Engine::Zstd(zstd) => zstd.step(input, output),
            Engine::Over if input.is_empty() => Step::default(),
            Engine::Over => Step { fault: Some(Fault::Trailing(self.coding)), ..Step::default() },
        }
    }
}

impl Engine {
    fn start(coding: Coding, limits: Limits) -> Result<Self, Fault> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(Gzip::new()),
            Coding::Deflate => Self::DeflateStart(None),
            Coding::Brotli => {
                // Strict: no windows beyond those of RFC 7932.
                let (bytes, words, codes) =
                    (StandardAlloc::default(), StandardAlloc::default(), StandardAlloc::default());
                Self::Brotli(Box::new(BrotliState::new_strict(bytes, words, codes)))
            }
            Coding::Zstd => Self::Zstd(Zstd::new(limits.zstd_window_log)?),
        })
    }
}

/// What `deflate` is. RFC 1950 2.2: method 8, a window of at most 32 KiB, and a multiple of 31; a bare
/// RFC 1951 has such a start only with a stored block of an unlikely length.
fn deflate_format(first: u8, second: u8) -> Format {
    let header = u16::from_be_bytes([first, second]);
    if first & 0x8f == 8 && header.is_multiple_of(31) { Format::Zlib } else { Format::Raw }
}

/// What a call of inflate did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inflated {
    pub(super) read: usize,
    pub(super) written: usize,
    pub(super) ended: bool,
    /// The data is not deflate's, or the checksum of zlib's format is wrong.
    pub(super) fault: Option<()>,
}

/// Inflates what there is, until the input is read and all that it gives is out, or `output` is full.
pub(super) fn inflated(state: &mut Inflate, input: &[u8], output: &mut [u8]) -> Inflated {
    let mut done = Inflated { read: 0, written: 0, ended: false, fault: None };
    loop {
        let room = output.get_mut(done.written..).unwrap_or_default();
        let (read, piece, status) = state.step(input.get(done.read..).unwrap_or_default(), room.len());
        if let Some(room) = room.get_mut(..piece.len()) {
            room.copy_from_slice(piece);
        }
        done.read += read;
        done.written += piece.len();
        match status {
            // At the end of its window it stops, however much room there is behind.
            Status::HasOutput if done.written < output.len() => continue,
            Status::HasOutput | Status::NeedsInput => {}
            Status::Ended => done.ended = true,
            Status::Corrupt => done.fault = Some(()),
        }
        return done;
    }
}

/// zstd frames, one after another.
struct Zstd {
    context: DCtx<'static>,
    /// True once a frame has ended.
    any: bool,
    /// True where the data may end.
    between: bool,
}

impl Zstd {
    fn new(window_log: u32) -> Result<Self, Fault> {
        let mut context = DCtx::try_create().ok_or(Fault::Window(Coding::Zstd))?;
        context
            .set_parameter(DParameter::WindowLogMax(window_log))
            .map_err(|_| Fault::Window(Coding::Zstd))?;
        Ok(Self { context, any: false, between: false })
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Step {
        // Asked for more without any input, libzstd would begin the next frame's header.
        if input.is_empty() && self.between {
            return Step::default();
        }
        let mut from = InBuffer::around(input);
        let mut into = OutBuffer::around(output);
        let result = self.context.decompress_stream(&mut into, &mut from);
        let fault = match result {
            Ok(hint) => {
                self.between = hint == 0;
                self.any |= self.between;
                None
            }
            Err(code) => Some(self.fault(code)),
        };
        Step { read: from.pos, written: into.pos(), fault }
    }

    /// Errors are the negated numbers of zstd_errors.h, which are stable.
    fn fault(&mut self, code: usize) -> Fault {
        match 0_usize.wrapping_sub(code) {
            // prefix_unknown: what follows a frame is no frame.
            10 if self.any => {
                self.between = true;
                Fault::Trailing(Coding::Zstd)
            }
            // frameParameter_windowTooLarge, memory_allocation
            16 | 64 => Fault::Window(Coding::Zstd),
            // checksum_wrong
            22 => Fault::Checksum(Coding::Zstd),
            // dictionary_wrong
            32 => Fault::Dictionary(Coding::Zstd),
            _ => Fault::Corrupt(Coding::Zstd),
        }
    }
}
