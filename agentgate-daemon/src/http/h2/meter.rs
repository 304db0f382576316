//! Counts what a peer makes us do without carrying anything: frames that cost work or a record and
//! bring no message further. The `h2` crate has limits of its own for header lists, CONTINUATION, streams
//! reset before they are accepted, and small or empty DATA; PING, SETTINGS, PRIORITY, WINDOW_UPDATE,
//! frames of no known type, and streams opened and reset at leisure it answers without end. Only frame
//! heads are read here, nothing is changed, and what is no HTTP/2 is left to `h2` to refuse.

use std::time::{Duration, Instant};

/// Bytes of a frame's head (RFC 9113 4.1).
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
/// END_STREAM of DATA, ACK of SETTINGS and PING.
const FLAG_ONE: u8 = 1;

/// Frames without a message that may come at once. A bulk transfer with a WINDOW_UPDATE for each frame
/// stays far below, since what passes earns frames; see [`EARNS`].
const CHATTER: Rate = Rate { burst: 10_000, each_second: 1_000 };
/// Streams that may be opened and given up at once, and for ever (CVE-2023-44487); one answered earns one.
const RESETS: Rate = Rate { burst: 500, each_second: 50 };
/// So many bytes written to the peer earn it one frame of [`CHATTER`].
const EARNS: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    each_second: u32,
}

/// What is left of a [`Rate`].
#[derive(Debug)]
struct Allowance {
    rate: Rate,
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(rate: Rate) -> Self {
        Self { rate, left: rate.burst, since: Instant::now() }
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.rate.burst);
    }

    /// False when it is used up. The clock is read only then.
    fn spend(&mut self, cost: u32) -> bool {
        if self.left < cost {
            let now = Instant::now();
            self.refill(now.saturating_duration_since(self.since));
            self.since = now;
        }
        let enough = self.left >= cost;
        self.left = self.left.saturating_sub(cost);
        enough
    }

    fn refill(&mut self, passed: Duration) {
        let earned = passed.as_millis().saturating_mul(u128::from(self.rate.each_second)) / 1000;
        self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
    }
}

/// Why a peer is told to calm down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flood {
    #[error("a flood of frames that carry no message")]
    Chatter,
    #[error("a flood of streams that are reset")]
    Resets,
}

/// Follows the frames of one direction of one connection.
#[derive(Debug)]
pub struct Meter {
    /// Bytes still to pass before the next frame's head.
    skip: u64,
    head: [u8; HEAD],
    have: usize,
    chatter: Allowance,
    resets: Allowance,
    written: usize,
    flood: Option<Flood>,
}

impl Meter {
    /// For what comes after `preface` bytes that are no frames.
    #[must_use]
    pub fn after(preface: usize) -> Self {
        Self {
            skip: preface as u64,
            head: [0; HEAD],
            have: 0,
            chatter: Allowance::new(CHATTER),
            resets: Allowance::new(RESETS),
            written: 0,
            flood: None,
        }
    }

    /// What came of the peer, in pieces of any size.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                self.skip -= passed as u64;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            let wanted = (HEAD - self.have).min(bytes.len());
            let (part, rest) = bytes.split_at(wanted);
            if let Some(room) = self.head.get_mut(self.have..self.have + wanted) {
                room.copy_from_slice(part);
            }
            self.have += wanted;
            bytes = rest;
            if self.have == HEAD {
                self.have = 0;
                self.frame();
            }
        }
    }

    fn frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.skip = u64::from(length);
        let flagged = flags & FLAG_ONE != 0;
        let calm = match kind {
            DATA if length > 0 => {
                self.chatter.earn(1);
                true
            }
            DATA if flagged => true,
            HEADERS | PUSH_PROMISE => true,
            SETTINGS | PING if flagged => true,
            RST_STREAM => {
                if !self.resets.spend(1) {
                    self.flood.get_or_insert(Flood::Resets);
                }
                true
            }
            // Long ones cost more: SETTINGS for each of its parameters, others for their bytes.
            _ => self.chatter.spend(1 + length / 64),
        };
        if !calm {
            self.flood.get_or_insert(Flood::Chatter);
        }
    }

    /// So many bytes went to the peer: it has to account for them.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= EARNS {
            self.chatter.earn(u32::try_from(self.written / EARNS).unwrap_or(u32::MAX));
            self.written %= EARNS;
        }
    }

    /// A stream was answered to its end.
    pub fn answered(&mut self) {
        self.resets.earn(1);
    }

    /// The first flood that there was.
    #[must_use]
    pub fn flood(&self) -> Option<Flood> {
        self.flood
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD + payload, 0xff);
        bytes
    }

    fn check(what: &str, frames: &[Vec<u8>], times: usize, expect: Option<Flood>) {
        // Cut at every place, frames must be found again.
        for piece in [1, 7, 9, 10, 4096] {
            let mut meter = Meter::after(24);
            meter.read(&[b'P'; 24]);
            for _ in 0..times {
                for bytes in frames {
                    bytes.chunks(piece).for_each(|piece| meter.read(piece));
                }
            }
            assert_eq!(meter.flood(), expect, "{what} in pieces of {piece}");
        }
    }

    #[test]
    fn floods_are_told_from_traffic() {
        let (ping, ack) = (frame(PING, 0, 8), frame(PING, 1, 8));
        check("pings", std::slice::from_ref(&ping), 5_000, None);
        check("a flood of pings", std::slice::from_ref(&ping), 30_000, Some(Flood::Chatter));
        check("acknowledgements", &[ack], 30_000, None);
        check("pings with data", &[ping, frame(DATA, 0, 5)], 30_000, None);
        check("settings", &[frame(SETTINGS, 0, 0)], 30_000, Some(Flood::Chatter));
        check("long settings", &[frame(SETTINGS, 0, 16_380)], 200, Some(Flood::Chatter));
        check("priorities", &[frame(2, 0, 5)], 30_000, Some(Flood::Chatter));
        check("window updates", &[frame(8, 0, 4)], 30_000, Some(Flood::Chatter));
        check("unknown frames", &[frame(0xfa, 0, 1)], 30_000, Some(Flood::Chatter));
        check("empty data", &[frame(DATA, 0, 0)], 30_000, Some(Flood::Chatter));
        check("requests", &[frame(HEADERS, 5, 20)], 30_000, None);
        let rapid = [frame(HEADERS, 5, 20), frame(RST_STREAM, 0, 4)];
        check("some cancelled", &rapid, 400, None);
        check("rapid reset", &rapid, 2_000, Some(Flood::Resets));
    }

    #[test]
    fn what_is_taken_earns_frames() {
        let mut meter = Meter::after(0);
        for _ in 0..100_000 {
            meter.wrote(16_384);
            meter.read(&frame(8, 0, 4));
            meter.read(&frame(8, 0, 4));
        }
        assert_eq!(meter.flood(), None);
        let mut meter = Meter::after(0);
        for _ in 0..10_000 {
            meter.read(&frame(HEADERS, 5, 20));
            meter.read(&frame(RST_STREAM, 0, 4));
            meter.answered();
        }
        assert_eq!(meter.flood(), None);
    }

    #[test]
    fn time_earns_frames() {
        let mut allowance = Allowance::new(RESETS);
        assert!(allowance.spend(500));
        assert!(!allowance.spend(1));
        allowance.since -= Duration::from_secs(1);
        assert!(allowance.spend(49));
        assert!(!allowance.spend(49));
    }
}
