//! Random numbers and random bytes of HTTP.

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// `length` bytes out of `alphabet`.
    pub(crate) fn text(&mut self, alphabet: &[u8], length: usize) -> Vec<u8> {
        (0..length).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }

    /// Any bytes: mostly few, at times many.
    pub(crate) fn body(&mut self) -> Vec<u8> {
        let length = match self.below(40) {
            0 => self.below(2_000_000),
            1..=4 => self.below(100_000),
            5..=9 => 0,
            _ => self.below(300),
        };
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// How bytes are cut on their way out: pieces, most of them large.
    pub(crate) fn piece(&mut self, left: usize) -> usize {
        let most = match self.below(6) {
            0 => 1,
            1 => 16,
            2 => 1000,
            3 => 17_000,
            _ => usize::MAX,
        };
        left.min(1 + self.below(most.min(left.max(1))))
    }

    /// Lines of fields, with names and values that other parties' software sends.
    pub(crate) fn fields(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..self.below(9) {
            let name = match self.below(3) {
                0 => {
                    self.pick(&["Accept", "X-Stainless-OS", "user-agent", "COOKIE", "anthropic-Beta"]).into()
                }
                // The name of an earlier one, at times, in another case.
                1 => b"x-SAME"
                    .iter()
                    .map(|b| if self.once_in(2) { b.to_ascii_uppercase() } else { *b })
                    .collect(),
                _ => {
                    let length = 1 + self.below(12);
                    [b"x-".to_vec(), self.text(b"abcXYZ019!#$%&'*+-.^_`|~", length)].concat()
                }
            };
            out.extend_from_slice(&name);
            out.push(b':');
            out.extend_from_slice(self.pick(&["", " ", "  ", "\t", " \t "]).as_bytes());
            let length = if self.once_in(30) { 3000 } else { self.below(40) };
            let mut value = self.text(b"azAZ09 \t,;=\"\\/()<>@?{}[]~!\x80\xff\xc3\xa9", length);
            value = value.trim_ascii().to_vec();
            out.extend_from_slice(&value);
            out.extend_from_slice(self.pick(&["", "", " ", "\t "]).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    /// A body in chunks, with the freedoms that RFC 9112 7.1 gives.
    pub(crate) fn chunked(&mut self, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.piece(rest.len()));
            rest = later;
            let zeros = self.pick(&["", "", "0", "000"]);
            let size = if self.once_in(2) { format!("{:x}", now.len()) } else { format!("{:X}", now.len()) };
            let extension = self.pick(&["", "", "", ";a", ";a=b;c=\"d \\\" e\"", " ; x = y"]);
            out.extend_from_slice(format!("{zeros}{size}{extension}\r\n").as_bytes());
            out.extend_from_slice(now);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(self.pick(&["0", "0", "000", "0;last"]).as_bytes());
        out.extend_from_slice(b"\r\n");
        if self.once_in(4) {
            out.extend_from_slice(b"X-Checksum: abc\r\nx-checksum:\tdef \r\n");
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}
