//! Lines of JSON, as they come: NDJSON, JSON Lines. The JSON itself is not looked at.

use std::ops::Range;

use memchr::memchr;

/// One line that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where it is in the stream: from the end of the line before to past its line feed. Blank lines before
    /// it are in it, so ranges touch each other.
    pub range: Range<u64>,
    /// Without line feed, and without the carriage return before that.
    pub bytes: &'a [u8],
    /// True where `bytes` is only the start.
    pub truncated: bool,
    /// False for what stood after the last line feed.
    pub complete: bool,
}

/// Splits a stream into lines. A line that comes in one piece is not copied.
#[derive(Debug)]
pub struct Parser {
    /// Most bytes of a line.
    cap: usize,
    /// The start of a line whose end has not come.
    partial: Vec<u8>,
    /// True where `partial` is not all of it.
    cut: bool,
    /// Offset of the next byte.
    at: u64,
    /// Offset of the line's first byte.
    start: u64,
}

/// Room kept between lines.
const KEPT: usize = 16 * 1024;

impl Parser {
    /// A parser that keeps at most `cap` bytes of a line.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { cap, partial: Vec::new(), cut: false, at: 0, start: 0 }
    }

    /// Takes the next bytes and yields the lines that end in them.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Line<'_>)) {
        while let Some((line, rest)) = memchr(b'\n', bytes).and_then(|end| bytes.split_at_checked(end)) {
            bytes = rest.get(1..).unwrap_or_default();
            self.at += line.len() as u64 + 1;
            if self.partial.is_empty() && !self.cut {
                // As much as would be kept of a line that came in pieces, so that both are judged alike.
                let (kept, left) = line.split_at_checked(self.longest()).unwrap_or((line, &[]));
                self.line(kept, !left.is_empty(), true, sink);
            } else {
                self.append(line);
                let line = std::mem::take(&mut self.partial);
                let cut = std::mem::take(&mut self.cut);
                self.line(&line, cut, true, sink);
                self.partial = line;
                self.partial.clear();
                self.partial.shrink_to(KEPT);
            }
        }
        self.append(bytes);
        self.at += bytes.len() as u64;
    }

    /// Yields what stood after the last line feed.
    pub fn finish(mut self, sink: &mut dyn FnMut(Line<'_>)) {
        let (line, cut) = (std::mem::take(&mut self.partial), self.cut);
        self.line(&line, cut, false, sink);
    }

    /// One byte more than the cap is kept, for the carriage return.
    fn longest(&self) -> usize {
        self.cap.saturating_add(1)
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = self.longest().saturating_sub(self.partial.len());
        let (kept, left) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.partial.extend_from_slice(kept);
        self.cut |= !left.is_empty();
    }

    fn line(&mut self, line: &[u8], cut: bool, complete: bool, sink: &mut dyn FnMut(Line<'_>)) {
        let whole = if cut { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
        if whole.trim_ascii().is_empty() && !cut {
            return;
        }
        let bytes = whole.get(..self.cap).unwrap_or(whole);
        let truncated = cut || bytes.len() < whole.len();
        sink(Line { range: self.start..self.at, bytes, truncated, complete });
        self.start = self.at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Range, text, truncated, complete.
    type Seen = (u64, u64, String, bool, bool);

    fn lines(pieces: &[&[u8]], cap: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut sink = |line: Line<'_>| {
            let text = String::from_utf8_lossy(line.bytes).into_owned();
            seen.push((line.range.start, line.range.end, text, line.truncated, line.complete));
        };
        let mut parser = Parser::new(cap);
        for piece in pieces {
            parser.push(piece, &mut sink);
        }
        parser.finish(&mut sink);
        seen
    }

    fn row(start: u64, end: u64, text: &str, truncated: bool, complete: bool) -> Seen {
        (start, end, text.to_owned(), truncated, complete)
    }

    #[test]
    fn lines_however_they_are_cut() {
        let rows: Vec<(&[u8], Vec<Seen>)> = vec![
            (b"", vec![]),
            (b"\n\r\n \n", vec![]),
            (b"{}\n", vec![row(0, 3, "{}", false, true)]),
            (b"{}\r\n[]\n", vec![row(0, 4, "{}", false, true), row(4, 7, "[]", false, true)]),
            (b"{}\n\n[]", vec![row(0, 3, "{}", false, true), row(3, 6, "[]", false, false)]),
            (b"12345678\n", vec![row(0, 9, "12345678", false, true)]),
            (b"12345678\r\n", vec![row(0, 10, "12345678", false, true)]),
            (b"123456789\n1\n", vec![row(0, 10, "12345678", true, true), row(10, 12, "1", false, true)]),
            (b"123456789012\r", vec![row(0, 13, "12345678", true, false)]),
            (b"          x\n", vec![row(0, 12, "        ", true, true)]),
            // Found by fuzzing: blank as far as it is kept, whether it came in pieces or not.
            (b"\r\t\t\t\t\t\t\t\t\t\n", vec![row(0, 11, "\r\t\t\t\t\t\t\t", true, true)]),
            (b"a\rb\n", vec![row(0, 4, "a\rb", false, true)]),
        ];
        for (bytes, expect) in rows {
            assert_eq!(lines(&[bytes], 8), expect, "{}", bytes.escape_ascii());
            for at in 0..=bytes.len() {
                let (a, b) = bytes.split_at(at);
                assert_eq!(lines(&[a, b], 8), expect, "{} cut at {at}", bytes.escape_ascii());
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(lines(&single, 8), expect, "{} byte by byte", bytes.escape_ascii());
        }
    }
}
