//! Where a body ends (RFC 9112 6 and 7). The decoder only watches: it says how many of the bytes belong
//! to the body, and shows the content in them; the bytes themselves go on as they are.

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Of a response: until the connection ends.
    UntilClose,
}

/// The chunks of a body are not as RFC 9112 7.1 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFraming(&'static str);

/// Bytes of one chunk's line beyond its size: extensions, which nobody needs long.
const EXTENSIONS: u32 = 4096;
/// Bytes of all trailers.
const TRAILERS: u32 = 64 * 1024;

/// What comes next of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// The size, of which this many digits were there.
    Size {
        digits: u8,
        size: u64,
    },
    /// Extensions of a chunk of that size, of which this many bytes were there; in quotes or not.
    Extension {
        size: u64,
        seen: u32,
        quote: Quote,
    },
    /// The LF of a chunk's line.
    SizeLf {
        size: u64,
    },
    /// Content of a chunk.
    Data {
        left: u64,
    },
    /// The CR after it.
    DataCr,
    /// The LF after it.
    DataLf,
    /// Start of a line after the last chunk: a trailer, or the end.
    Line {
        seen: u32,
    },
    /// Name of a trailer.
    Name {
        seen: u32,
    },
    /// Value of a trailer.
    Value {
        seen: u32,
    },
    /// The LF of a trailer's line.
    LineLf {
        seen: u32,
    },
    /// The last LF.
    EndLf,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    Outside,
    Inside,
    /// After a backslash inside.
    Escaped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    /// The connection has ended, as it should.
    Closed,
}

/// Watches one body go by.
#[derive(Clone, Copy, Debug)]
pub struct Decoder(State);

impl Decoder {
    /// At the beginning of a body.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Empty => State::Length(0),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunk::Size { digits: 0, size: 0 }),
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// True once nothing more belongs to the body.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.0, State::Length(0) | State::Chunked(Chunk::Done) | State::Closed)
    }

    /// The connection has ended: true where the body is whole with that.
    pub fn close(&mut self) -> bool {
        if self.0 == State::UntilClose {
            self.0 = State::Closed;
        }
        self.is_complete()
    }

    /// How many of `bytes` belong to the body: all of them, or those up to its end. What is content is
    /// shown to `content`, without the framing.
    ///
    /// # Errors
    /// [`BadFraming`]; nothing of `bytes` may go on then.
    pub fn advance(&mut self, bytes: &[u8], mut content: impl FnMut(&[u8])) -> Result<usize, BadFraming> {
        match &mut self.0 {
            State::Closed => Ok(0),
            State::UntilClose => {
                content(bytes);
                Ok(bytes.len())
            }
            State::Length(left) => {
                let mine = bytes.get(..usize::try_from(*left).unwrap_or(usize::MAX)).unwrap_or(bytes);
                *left -= mine.len() as u64;
                if !mine.is_empty() {
                    content(mine);
                }
                Ok(mine.len())
            }
            State::Chunked(chunk) => chunked(chunk, bytes, content),
        }
    }
}

fn chunked(state: &mut Chunk, bytes: &[u8], mut content: impl FnMut(&[u8])) -> Result<usize, BadFraming> {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if let Chunk::Data { left } = *state {
            let rest = bytes.get(at..).unwrap_or_default();
            let mine = rest.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(rest);
            content(mine);
            at += mine.len();
            let left = left - mine.len() as u64;
            *state = if left == 0 { Chunk::DataCr } else { Chunk::Data { left } };
            continue;
        }
        if *state == Chunk::Done {
            break;
        }
        *state = step(*state, byte)?;
        at += 1;
    }
    Ok(at)
}

/// One byte of framing.
fn step(state: Chunk, byte: u8) -> Result<Chunk, BadFraming> {
    let bad = |why| Err(BadFraming(why));
    Ok(match (state, byte) {
        (Chunk::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            // Sixteen digits of hexadecimal are what a size has; leading zeros are no reason for more.
            if digits == 16 {
                return bad("a chunk's size has too many digits");
            }
            let digit = (byte as char).to_digit(16).unwrap_or_default();
            Chunk::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
        }
        (Chunk::Size { digits: 0, .. }, _) => return bad("a chunk has no size"),
        (Chunk::Size { size, .. }, b'\r') => Chunk::SizeLf { size },
        (Chunk::Size { size, .. }, b';' | b' ' | b'\t') => {
            Chunk::Extension { size, seen: 1, quote: Quote::Outside }
        }
        (Chunk::Size { .. }, _) => return bad("a chunk's size is no hexadecimal number"),
        (Chunk::Extension { size, quote: Quote::Outside, .. }, b'\r') => Chunk::SizeLf { size },
        (Chunk::Extension { .. }, b'\r' | b'\n' | 0) => {
            return bad("a chunk's line has a bare CR, LF or NUL");
        }
        (Chunk::Extension { seen: EXTENSIONS, .. }, _) => return bad("a chunk's extensions are too long"),
        (Chunk::Extension { size, seen, quote }, _) => {
            let quote = match (quote, byte) {
                (Quote::Outside, b'"') | (Quote::Escaped, _) => Quote::Inside,
                (Quote::Inside, b'"') => Quote::Outside,
                (Quote::Inside, b'\\') => Quote::Escaped,
                (quote, _) => quote,
            };
            Chunk::Extension { size, seen: seen + 1, quote }
        }
        (Chunk::SizeLf { size: 0 }, b'\n') => Chunk::Line { seen: 0 },
        (Chunk::SizeLf { size }, b'\n') => Chunk::Data { left: size },
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::Size { digits: 0, size: 0 },
        (Chunk::DataCr | Chunk::DataLf, _) => return bad("a chunk does not end where it said"),
        (Chunk::Line { .. }, b'\r') => Chunk::EndLf,
        (Chunk::EndLf, b'\n') => Chunk::Done,
        (Chunk::Line { seen: TRAILERS.. } | Chunk::Name { seen: TRAILERS.. }, _) => {
            return bad("the trailers are too long");
        }
        (Chunk::Line { seen } | Chunk::Name { seen }, _) if is_token(byte) => Chunk::Name { seen: seen + 1 },
        (Chunk::Name { seen }, b':') => Chunk::Value { seen: seen + 1 },
        (Chunk::Line { .. } | Chunk::Name { .. }, _) => return bad("a trailer has no name"),
        (Chunk::Value { seen: TRAILERS.., .. }, _) => return bad("the trailers are too long"),
        (Chunk::Value { seen }, b'\r') => Chunk::LineLf { seen: seen + 1 },
        (Chunk::Value { .. }, b'\n' | 0) => return bad("a trailer has a bare LF or a NUL"),
        (Chunk::Value { seen }, _) => Chunk::Value { seen: seen + 1 },
        (Chunk::LineLf { seen }, b'\n') => Chunk::Line { seen: seen + 1 },
        (Chunk::SizeLf { .. } | Chunk::LineLf { .. } | Chunk::EndLf, _) => return bad("a CR without its LF"),
        (Chunk::Data { .. } | Chunk::Done, _) => state,
    })
}

/// RFC 9110 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `step`; gives the content, how many were taken, and whether that was all.
    fn fed(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), BadFraming> {
        let mut decoder = Decoder::new(framing);
        let (mut content, mut taken) = (Vec::new(), 0);
        for piece in bytes.chunks(step) {
            let mine = decoder.advance(piece, |data| content.extend_from_slice(data))?;
            taken += mine;
            if mine < piece.len() {
                break;
            }
        }
        Ok((content, taken, decoder.is_complete()))
    }

    #[test]
    fn bodies_end_where_they_say_in_whatever_pieces() {
        let rows: [(&[u8], &[u8], usize, bool); 9] = [
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello", 15, true),
            (b"5\r\nhello\r\n0\r\n\r\nGET / ", b"hello", 15, true),
            (b"5;a=b;c=\"x;y\\\"\"\r\nhello\r\n0\r\n\r\n", b"hello", 29, true),
            (b"00005 \r\nhello\r\n0\r\n\r\n", b"hello", 20, true),
            (b"A\r\n0123456789\r\n1\r\nx\r\n0;last\r\nX-Sum: 1\r\nb:\r\n\r\n", b"0123456789x", 45, true),
            (b"0\r\n\r\n", b"", 5, true),
            (b"0\r\n", b"", 3, false),
            (b"5\r\nhel", b"hel", 6, false),
            (b"", b"", 0, false),
        ];
        for (bytes, content, taken, complete) in rows {
            for step in 1..=bytes.len().max(1) {
                let expect = Ok((content.to_vec(), taken, complete));
                assert_eq!(fed(Framing::Chunked, bytes, step), expect, "{bytes:?} by {step}");
            }
        }
        assert_eq!(fed(Framing::Length(3), b"abcdef", 2), Ok((b"abc".to_vec(), 3, true)));
        assert_eq!(fed(Framing::Empty, b"abc", 3), Ok((Vec::new(), 0, true)));
        assert_eq!(fed(Framing::UntilClose, b"abc", 3), Ok((b"abc".to_vec(), 3, false)));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_bad() {
        for bytes in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-5\r\n",
            b"+5\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\rhello\r\n",
            b"5;a\nb\r\nhello",
            b"5;a\rb\r\nhello",
            b"5;\"\r\nhello",
            b"11112222333344445\r\n",
            b"0\r\n x: folded\r\n\r\n",
            b"0\r\nname\r\n\r\n",
            b"0\r\nna me: x\r\n\r\n",
            b"0\r\n: x\r\n\r\n",
            b"0\r\na: x\ny\r\n\r\n",
            b"0\r\na: x\ry\r\n\r\n",
            b"0\r\n\rX",
        ] {
            assert!(fed(Framing::Chunked, bytes, 1).is_err(), "{:?}", String::from_utf8_lossy(bytes));
            assert!(fed(Framing::Chunked, bytes, bytes.len()).is_err());
        }
        let long = [b"5;".as_slice(), &[b'a'; 5000]].concat();
        assert!(fed(Framing::Chunked, &long, 100).is_err());
        for trailer in [&b"a: b\r\n"[..], b"a:\r\n", b"a"] {
            let trailers = [b"0\r\n".as_slice(), &trailer.repeat(80_000)].concat();
            assert!(fed(Framing::Chunked, &trailers, 1000).is_err(), "{trailer:?}");
        }
    }

    #[test]
    fn an_end_of_the_connection_ends_only_what_it_should() {
        assert!(Decoder::new(Framing::UntilClose).close());
        assert!(!Decoder::new(Framing::Length(1)).close());
        assert!(!Decoder::new(Framing::Chunked).close());
    }
}
