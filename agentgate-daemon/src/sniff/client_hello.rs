//! The TLS ClientHello, as far as the gate needs it: server name, ALPN, fingerprint, and whether the
//! real hello is encrypted (RFC 8446 4.1.2, RFC 6066 3, RFC 7301, RFC 9849).
//!
//! Parses records and handshake fragments itself, so that it can say *incomplete* and be tried on
//! every prefix; it copies nothing but what it returns.

use super::ja4::Inputs;
use crate::model::Host;

/// What a hello says, before anything is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The `host_name` of `server_name`, if there is one and it is a valid name.
    pub server_name: Option<Host>,
    /// Protocols offered by ALPN, in the client's order, the first [`MOST_ALPN`] of them; empty where
    /// the extension is missing.
    pub alpn: Vec<Box<[u8]>>,
    /// The client's JA4 fingerprint.
    pub ja4: String,
    /// True with an `encrypted_client_hello` extension: the name outside may not be the real one.
    pub ech: bool,
}

/// Why bytes can never become a hello that the gate accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHello {
    #[error("a TLS record that is not a handshake stands before the end of the ClientHello")]
    NotHandshake,
    #[error("an empty or oversized TLS record")]
    RecordLength,
    #[error("the first handshake message is not a ClientHello")]
    NotClientHello,
    #[error("the ClientHello is larger than 16 KiB")]
    TooLarge,
    #[error("a length in the ClientHello points outside of it")]
    Malformed,
    #[error("the server name is not a valid host name")]
    ServerName,
}

/// A parse that may need more bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Incomplete,
    Complete(ClientHello),
    Invalid(InvalidHello),
}

/// Largest handshake message accepted; real hellos with post-quantum keys are about 1.8 KB. Parsing
/// starts anew with every read, so this also bounds the work of a hello that comes byte by byte.
const MAX_HELLO: usize = 16 * 1024;
/// Protocols kept of an ALPN extension; real clients offer one to four.
pub const MOST_ALPN: usize = 32;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
pub(super) const EXT_SERVER_NAME: u16 = 0;
pub(super) const EXT_ALPN: u16 = 16;
const EXT_SIGNATURE_ALGORITHMS: u16 = 13;
const EXT_SUPPORTED_VERSIONS: u16 = 43;
const EXT_ECH: u16 = 0xfe0d;

/// Parses the start of a connection that began with a handshake record.
#[must_use]
pub fn parse(mut bytes: &[u8]) -> Parsed {
    // The message may be spread over records; collect fragments until its length is there.
    let mut message: Vec<u8> = Vec::new();
    loop {
        if let Some([kind, a, b, c]) = message.first_chunk::<4>() {
            if *kind != CLIENT_HELLO {
                return Parsed::Invalid(InvalidHello::NotClientHello);
            }
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if length > MAX_HELLO {
                return Parsed::Invalid(InvalidHello::TooLarge);
            }
            if let Some(body) = message.get(4..4 + length) {
                return match body_of(body) {
                    Ok(hello) => Parsed::Complete(hello),
                    Err(why) => Parsed::Invalid(why),
                };
            }
        }
        let Some(([kind, _major, _minor, hi, lo], rest)) = bytes.split_first_chunk::<5>() else {
            return match bytes.first() {
                Some(kind) if *kind != HANDSHAKE_RECORD => Parsed::Invalid(InvalidHello::NotHandshake),
                Some(_) | None => Parsed::Incomplete,
            };
        };
        if *kind != HANDSHAKE_RECORD {
            return Parsed::Invalid(InvalidHello::NotHandshake);
        }
        let length = usize::from(u16::from_be_bytes([*hi, *lo]));
        // RFC 8446 5.1: at most 2^14 bytes, and no empty handshake fragments.
        if length == 0 || length > 1 << 14 {
            return Parsed::Invalid(InvalidHello::RecordLength);
        }
        let here = rest.get(..length).unwrap_or(rest);
        message.extend_from_slice(here);
        if message.len() > MAX_HELLO + 4 {
            return Parsed::Invalid(InvalidHello::TooLarge);
        }
        // A wrong message type shows in the first byte, however little there is and whatever follows.
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Parsed::Invalid(InvalidHello::NotClientHello);
        }
        if here.len() < length {
            return Parsed::Incomplete;
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
}

/// A cursor over length-prefixed fields.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], InvalidHello> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(InvalidHello::Malformed)?;
        self.0 = tail;
        Ok(head)
    }
    fn u8(&mut self) -> Result<usize, InvalidHello> {
        let (byte, tail) = self.0.split_first().ok_or(InvalidHello::Malformed)?;
        self.0 = tail;
        Ok(usize::from(*byte))
    }
    fn u16(&mut self) -> Result<u16, InvalidHello> {
        let (bytes, tail) = self.0.split_first_chunk::<2>().ok_or(InvalidHello::Malformed)?;
        self.0 = tail;
        Ok(u16::from_be_bytes(*bytes))
    }
    fn vec8(&mut self) -> Result<&'a [u8], InvalidHello> {
        let length = self.u8()?;
        self.take(length)
    }
    fn vec16(&mut self) -> Result<&'a [u8], InvalidHello> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
    /// All that is left, as 16-bit numbers.
    fn numbers(self) -> Result<Vec<u16>, InvalidHello> {
        let (pairs, rest) = self.0.as_chunks::<2>();
        if rest.is_empty() {
            Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
        } else {
            Err(InvalidHello::Malformed)
        }
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn body_of(body: &[u8]) -> Result<ClientHello, InvalidHello> {
    let mut fields = Fields(body);
    let mut inputs = Inputs { version: fields.u16()?, ..Inputs::default() };
    let _random = fields.take(32)?;
    let _session_id = fields.vec8()?;
    inputs.ciphers = Fields(fields.vec16()?).numbers()?;
    let _compression = fields.vec8()?;
    let mut hello = ClientHello::default();
    // TLS 1.2 allows a hello without extensions.
    let mut extensions = Fields(if fields.is_empty() { &[] } else { fields.vec16()? });
    if !fields.is_empty() {
        return Err(InvalidHello::Malformed);
    }
    let mut named = false;
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vec16()?;
        inputs.extensions.push(kind);
        match kind {
            EXT_SERVER_NAME => {
                // Two server_name extensions could mean different things to two parsers.
                if named {
                    return Err(InvalidHello::ServerName);
                }
                named = true;
                hello.server_name = Some(server_name(data)?);
            }
            EXT_ALPN => {
                let mut list = Fields(Fields(data).vec16()?);
                while !list.is_empty() {
                    let name = list.vec8()?;
                    if hello.alpn.len() < MOST_ALPN {
                        hello.alpn.push(name.into());
                    }
                }
            }
            EXT_SIGNATURE_ALGORITHMS => {
                inputs.signatures = Fields(Fields(data).vec16()?).numbers()?;
            }
            EXT_SUPPORTED_VERSIONS => inputs.versions = Fields(Fields(data).vec8()?).numbers()?,
            EXT_ECH => hello.ech = true,
            _ => {}
        }
    }
    hello.ja4 = inputs.fingerprint(hello.alpn.first().map(AsRef::as_ref));
    Ok(hello)
}

fn server_name(data: &[u8]) -> Result<Host, InvalidHello> {
    let mut list = Fields(Fields(data).vec16()?);
    let mut found = None;
    while !list.is_empty() {
        let kind = list.u8()?;
        let name = list.vec16()?;
        // RFC 6066: at most one name of each type; only host_name (0) exists.
        if kind == 0 && found.replace(name).is_some() {
            return Err(InvalidHello::ServerName);
        }
    }
    let name = found.ok_or(InvalidHello::ServerName)?;
    let text = std::str::from_utf8(name).map_err(|_| InvalidHello::ServerName)?;
    Host::parse(text).map_err(|_| InvalidHello::ServerName)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello as rustls writes it.
    fn real(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let mut config =
            rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn parsed(bytes: &[u8]) -> ClientHello {
        let Parsed::Complete(hello) = parse(bytes) else { panic!("complete") };
        hello
    }

    #[test]
    fn reads_a_real_hello_and_every_prefix_is_incomplete() {
        let bytes = real("API.Example.com", &[b"h2", b"http/1.1"]);
        let expect = ClientHello {
            server_name: Some(Host::parse("api.example.com").unwrap()),
            alpn: vec![(*b"h2").into(), (*b"http/1.1").into()],
            ja4: parsed(&bytes).ja4,
            ech: false,
        };
        assert_eq!(parse(&bytes), Parsed::Complete(expect));
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::Incomplete, "prefix of {end}");
        }
    }

    #[test]
    fn joins_fragments() {
        let bytes = real("example.com", &[]);
        let message = &bytes[5..];
        let mut split = Vec::new();
        for chunk in message.chunks(7) {
            split.extend_from_slice(&[22, 3, 1, 0, chunk.len() as u8]);
            split.extend_from_slice(chunk);
        }
        assert_eq!(parse(&split), parse(&bytes));
        for end in 0..split.len() {
            assert_eq!(parse(&split[..end]), Parsed::Incomplete, "prefix of {end}");
        }
    }

    #[test]
    fn addresses_have_no_server_name() {
        let hello = parsed(&real("203.0.113.7", &[]));
        assert_eq!(hello.server_name, None);
        assert!(hello.ja4.starts_with("t13i"), "{}", hello.ja4);
    }

    #[test]
    fn many_protocols_are_cut() {
        let many: Vec<&[u8]> = vec![b"h2"; MOST_ALPN + 1];
        assert_eq!(parsed(&real("example.com", &many)).alpn.len(), MOST_ALPN);
    }

    #[test]
    fn refuses_what_is_not_a_hello() {
        let rows: [(&[u8], InvalidHello); 7] = [
            (&[23, 3, 3, 0, 1, 0], InvalidHello::NotHandshake),
            (&[22, 3, 1, 0, 0], InvalidHello::RecordLength),
            (&[22, 3, 1, 0xff, 0xff], InvalidHello::RecordLength),
            (&[22, 3, 1, 0, 4, 2, 0, 0, 0], InvalidHello::NotClientHello),
            (&[22, 3, 1, 0, 4, 1, 0xff, 0, 0], InvalidHello::TooLarge),
            // Found by fuzzing: what is wrong with the message does not depend on the record after it.
            (&[22, 3, 3, 0, 2, 0x86, 0, 23], InvalidHello::NotClientHello),
            (&[22, 3, 3, 0, 2, 0x86, 0], InvalidHello::NotClientHello),
        ];
        for (bytes, why) in rows {
            assert_eq!(parse(bytes), Parsed::Invalid(why), "{bytes:?}");
        }
    }

    #[test]
    fn no_flipped_byte_panics_or_reads_outside() {
        let bytes = real("api.example.com", &[b"h2"]);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _any = parse(&changed);
            }
        }
    }
}
