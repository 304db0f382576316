//! One direction's compressed messages (RFC 7692 7.2.2).

use std::fmt;

use miniz_oxide::{
    DataFormat, MZError, MZFlush, MZStatus,
    inflate::{
        TINFLStatus,
        stream::{InflateState, MinReset, inflate},
    },
};

use super::{Undecoded, frame};

/// What a sender leaves off the end of each message.
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];
/// As large as the window, so that all that was inflated before corrupt data is given out.
const SCRATCH: usize = 32 * 1024;
/// Bytes that the mask is taken off at once.
const PIECE: usize = 4096;

/// Inflates messages, with or without the context of those before.
pub(super) struct Inflater {
    takeover: bool,
    /// Most bytes that a message is inflated to.
    most: u64,
    /// Window and tables, from the first compressed message on.
    state: Option<Box<InflateState>>,
    /// While a message passes.
    scratch: Vec<u8>,
    /// Of the message that passes.
    length: u64,
    lost: bool,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater")
            .field("takeover", &self.takeover)
            .field("window", &self.state.is_some())
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Inflater {
    pub(super) fn new(takeover: bool, most: u64) -> Self {
        Self { takeover, most, state: None, scratch: Vec::new(), length: 0, lost: false }
    }

    /// True where no compressed message can be read any more.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Bytes that the message was inflated to so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of memory between calls.
    pub(super) fn holds(&self) -> usize {
        self.scratch.capacity() + self.state.as_ref().map_or(0, |_| size_of::<InflateState>())
    }

    /// True while a window is held.
    #[cfg(test)]
    pub(super) fn holds_window(&self) -> bool {
        self.state.is_some()
    }

    /// Some of a message. What fits below `cap` goes to `kept`.
    pub(super) fn feed(
        &mut self,
        mask: Option<[u8; 4]>,
        passed: u64,
        piece: &[u8],
        kept: &mut Vec<u8>,
        cap: usize,
    ) -> Result<(), Undecoded> {
        let Some(mask) = mask else {
            return self.inflate(piece, kept, cap);
        };
        let mut plain = [0; PIECE];
        let mut passed = passed;
        for masked in piece.chunks(PIECE) {
            let (plain, _) = plain.split_at_mut(masked.len());
            plain.copy_from_slice(masked);
            frame::unmask(mask, passed, plain);
            passed += masked.len() as u64;
            self.inflate(plain, kept, cap)?;
        }
        Ok(())
    }

    /// The end of a message.
    pub(super) fn end(&mut self, kept: &mut Vec<u8>, cap: usize) -> Result<(), Undecoded> {
        self.inflate(TAIL, kept, cap)
    }

    /// The message will not be read to its end.
    pub(super) fn abandon(&mut self) {
        self.state = None;
        self.lost |= self.takeover;
    }

    /// After the end of a message.
    pub(super) fn next(&mut self) {
        self.length = 0;
        self.scratch = Vec::new();
        if !self.takeover {
            self.state = None;
        }
    }

    fn inflate(&mut self, mut input: &[u8], kept: &mut Vec<u8>, cap: usize) -> Result<(), Undecoded> {
        self.scratch.resize(SCRATCH, 0);
        let state = self.state.get_or_insert_with(|| InflateState::new_boxed(DataFormat::Raw));
        loop {
            let result = inflate(state, input, &mut self.scratch, MZFlush::None);
            input = input.get(result.bytes_consumed..).unwrap_or_default();
            let piece = self.scratch.get(..result.bytes_written).unwrap_or_default();
            let room = cap.saturating_sub(kept.len());
            kept.extend_from_slice(piece.get(..room).unwrap_or(piece));
            self.length += piece.len() as u64;
            if self.length > self.most {
                self.length = self.most;
                self.abandon();
                return Err(Undecoded::TooLarge);
            }
            match result.status {
                // A block with BFINAL: the next one begins anew (RFC 7692 7.2.3.4). The window is that of this
                // sender, whatever is left in it.
                Ok(MZStatus::StreamEnd) => state.reset_as(MinReset),
                Ok(MZStatus::Ok | MZStatus::NeedDict) => {}
                // Neither input nor output to go on with.
                Err(MZError::Buf) if input.is_empty() => return Ok(()),
                Err(_) => {
                    self.abandon();
                    return Err(Undecoded::Corrupt);
                }
            }
            // At the end of its window it stops, however much room there is behind.
            let more = result.bytes_written == SCRATCH || state.last_status() == TINFLStatus::HasMoreOutput;
            if input.is_empty() && !more {
                return Ok(());
            }
        }
    }
}
