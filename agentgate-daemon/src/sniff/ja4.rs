//! JA4: which TLS library speaks, told by the shape of its hello (FoxIO's TLS client fingerprint).
//!
//! Only over TCP, and only the client's; what is random by design (GREASE, RFC 8701) is left out.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::client_hello::{EXT_ALPN, EXT_SERVER_NAME};

/// What the fingerprint is made of, in the order of the hello, GREASE included.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// The legacy version of the hello.
    pub(super) version: u16,
    /// Those of `supported_versions`; empty where it is missing.
    pub(super) versions: Vec<u16>,
    pub(super) ciphers: Vec<u16>,
    pub(super) extensions: Vec<u16>,
    /// Those of `signature_algorithms`.
    pub(super) signatures: Vec<u16>,
}

impl Inputs {
    /// The fingerprint: 36 characters. `alpn` is the first protocol that is offered.
    pub(super) fn fingerprint(mut self, alpn: Option<&[u8]>) -> String {
        for list in [&mut self.versions, &mut self.ciphers, &mut self.extensions, &mut self.signatures] {
            list.retain(|value| !is_grease(*value));
        }
        let version = version(self.versions.iter().copied().max().unwrap_or(self.version));
        let name = if self.extensions.contains(&EXT_SERVER_NAME) { 'd' } else { 'i' };
        let (ciphers, extensions) = (self.ciphers.len().min(99), self.extensions.len().min(99));
        let [first, last] = ends(alpn);
        self.ciphers.sort_unstable();
        self.extensions.retain(|kind| ![EXT_SERVER_NAME, EXT_ALPN].contains(kind));
        self.extensions.sort_unstable();
        let mut shape = hex(&self.extensions);
        if !shape.is_empty() && !self.signatures.is_empty() {
            shape.push('_');
            shape.push_str(&hex(&self.signatures));
        }
        let (b, c) = (short_hash(&hex(&self.ciphers)), short_hash(&shape));
        format!("t{version}{name}{ciphers:02}{extensions:02}{first}{last}_{b}_{c}")
    }
}

/// RFC 8701: 0x0a0a, 0x1a1a, … 0xfafa.
fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

fn version(number: u16) -> &'static str {
    match number {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// First and last character of the protocol's name, or of its hexadecimal form where one of them is
/// neither letter nor digit.
fn ends(alpn: Option<&[u8]>) -> [char; 2] {
    let Some((first, last)) = alpn.and_then(|name| Some((*name.first()?, *name.last()?))) else {
        return ['0', '0'];
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(first), char::from(last)];
    }
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 0x0f)]
}

fn hex(values: &[u16]) -> String {
    let mut text = String::with_capacity(values.len() * 5);
    for (index, value) in values.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _infallible = write!(text, "{comma}{value:04x}");
    }
    text
}

/// The first twelve digits of the SHA-256, or zeros for nothing.
fn short_hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    let mut short = String::with_capacity(12);
    for byte in digest(&SHA256, text.as_bytes()).as_ref().iter().take(6) {
        let _infallible = write!(short, "{byte:02x}");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: [u16; 16] = [
        0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
        0x009c, 0x009d, 0x002f, 0x0035,
    ];

    /// The example of FoxIO's specification: Chrome, with GREASE in each list.
    #[test]
    fn chrome_of_the_specification() {
        let inputs = Inputs {
            version: 0x0303,
            versions: vec![0xfafa, 0x0304, 0x0303],
            ciphers: CHROME.to_vec(),
            extensions: vec![
                0x2a2a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023,
                0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0xdada,
            ],
            signatures: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
        };
        assert_eq!(inputs.fingerprint(Some(b"h2")), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn old_bare_and_odd_hellos() {
        let rows: [(Inputs, Option<&[u8]>, &str); 5] = [
            (Inputs { version: 0x0301, ..Inputs::default() }, None, "t10i000000_000000000000_000000000000"),
            (
                Inputs { version: 0x0303, ciphers: CHROME.to_vec(), ..Inputs::default() },
                Some(b""),
                "t12i150000_8daaf6152771_000000000000",
            ),
            (
                Inputs {
                    version: 0x7f1c,
                    extensions: vec![0, 16],
                    signatures: vec![0x0403],
                    ..Inputs::default()
                },
                Some(b"http/1.1"),
                "t00d0002h1_000000000000_000000000000",
            ),
            (
                Inputs { version: 0x0300, ..Inputs::default() },
                Some(b"\xabX\xcd"),
                "ts3i0000ad_000000000000_000000000000",
            ),
            (
                Inputs { version: 0x0303, ciphers: vec![0x1301; 120], ..Inputs::default() },
                Some(b"x"),
                "t12i9900xx_",
            ),
        ];
        for (inputs, alpn, expect) in rows {
            let shown = format!("{inputs:?}");
            let got = inputs.fingerprint(alpn);
            assert!(got.starts_with(expect), "{got} for {shown}");
            assert_eq!(got.len(), 36);
        }
    }
}
