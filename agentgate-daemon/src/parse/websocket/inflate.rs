//! One direction's compressed messages (RFC 7692 7.2.2).

use std::fmt;

use super::{Undecoded, frame};
use crate::parse::deflate::{Format, Inflate, Status, WINDOW};

/// What a sender leaves off the end of each message.
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];
/// Bytes that the mask is taken off at once.
const PIECE: usize = 4096;

/// Inflates messages, with or without the context of those before.
pub(super) struct Inflater {
    takeover: bool,
    /// Most bytes that a message is inflated to.
    most: u64,
    /// Window and tables, from the first compressed message on.
    state: Option<Inflate>,
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
        Self { takeover, most, state: None, length: 0, lost: false }
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
        self.state.as_ref().map_or(0, |_| Inflate::HOLDS)
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
        if !self.takeover {
            self.state = None;
        }
    }

    fn inflate(&mut self, mut input: &[u8], kept: &mut Vec<u8>, cap: usize) -> Result<(), Undecoded> {
        let state = self.state.get_or_insert_with(|| Inflate::new(Format::Raw));
        loop {
            let (read, piece, status) = state.step(input, WINDOW);
            input = input.get(read..).unwrap_or_default();
            let room = cap.saturating_sub(kept.len());
            kept.extend_from_slice(piece.get(..room).unwrap_or(piece));
            self.length += piece.len() as u64;
            if self.length > self.most {
                self.length = self.most;
                self.abandon();
                return Err(Undecoded::TooLarge);
            }
            match status {
                Status::NeedsInput => return Ok(()),
                Status::HasOutput => {}
                // A block with BFINAL: the next one begins anew (RFC 7692 7.2.3.4), in the same window.
                Status::Ended => {
                    state.go_on();
                    if input.is_empty() {
                        return Ok(());
                    }
                }
                Status::Corrupt => {
                    self.abandon();
                    return Err(Undecoded::Corrupt);
                }
            }
        }
    }
}
