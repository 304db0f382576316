//! The TLS ClientHello, as far as the gate needs it: server name, ALPN, and whether the real hello
//! is encrypted (RFC 8446 4.1.2, RFC 6066 3, RFC 7301, RFC 9849).
//!
//! Parses records and handshake fragments itself, so that it can say *incomplete* and be tried on
//! every prefix; it copies nothing but what it returns.

use crate::model::Host;

/// What a hello says, before anything is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The `host_name` of `server_name`, if there is one and it is a valid name.
    pub server_name: Option<Host>,
    /// Protocols offered by ALPN, in the client's order; empty where the extension is missing.
    pub alpn: Vec<Vec<u8>>,
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
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXT_SERVER_NAME: u16 = 0;
const EXT_ALPN: u16 = 16;
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
        if here.len() < length {
            // A wrong message type shows in the first byte, however little there is.
            return match message.first() {
                Some(kind) if *kind != CLIENT_HELLO => Parsed::Invalid(InvalidHello::NotClientHello),
                Some(_) | None => Parsed::Incomplete,
            };
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
        self.take(1).map(|b| b.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }
    fn u16(&mut self) -> Result<usize, InvalidHello> {
        self.take(2).map(|b| b.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }
    fn vec8(&mut self) -> Result<&'a [u8], InvalidHello> {
        let length = self.u8()?;
        self.take(length)
    }
    fn vec16(&mut self) -> Result<&'a [u8], InvalidHello> {
        let length = self.u16()?;
        self.take(length)
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn body_of(body: &[u8]) -> Result<ClientHello, InvalidHello> {
    let mut fields = Fields(body);
    let _version_and_random = fields.take(2 + 32)?;
    let _session_id = fields.vec8()?;
    let _cipher_suites = fields.vec16()?;
    let _compression = fields.vec8()?;
    let mut hello = ClientHello::default();
    if fields.is_empty() {
        return Ok(hello); // TLS 1.2 allows a hello without extensions.
    }
    let mut extensions = Fields(fields.vec16()?);
    if !fields.is_empty() {
        return Err(InvalidHello::Malformed);
    }
    let mut named = false;
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vec16()?;
        match u16::try_from(kind) {
            Ok(EXT_SERVER_NAME) => {
                // Two server_name extensions could mean different things to two parsers.
                if named {
                    return Err(InvalidHello::ServerName);
                }
                named = true;
                hello.server_name = Some(server_name(data)?);
            }
            Ok(EXT_ALPN) => {
                let mut list = Fields(Fields(data).vec16()?);
                while !list.is_empty() {
                    hello.alpn.push(list.vec8()?.to_vec());
                }
            }
            Ok(EXT_ECH) => hello.ech = true,
            Ok(_) | Err(_) => {}
        }
    }
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

    #[test]
    fn reads_a_real_hello_and_every_prefix_is_incomplete() {
        let bytes = real("API.Example.com", &[b"h2", b"http/1.1"]);
        let expect = ClientHello {
            server_name: Some(Host::parse("api.example.com").unwrap()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
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
        let Parsed::Complete(hello) = parse(&real("203.0.113.7", &[])) else { panic!("complete") };
        assert_eq!(hello.server_name, None);
    }

    #[test]
    fn refuses_what_is_not_a_hello() {
        let rows: [(&[u8], InvalidHello); 5] = [
            (&[23, 3, 3, 0, 1, 0], InvalidHello::NotHandshake),
            (&[22, 3, 1, 0, 0], InvalidHello::RecordLength),
            (&[22, 3, 1, 0xff, 0xff], InvalidHello::RecordLength),
            (&[22, 3, 1, 0, 4, 2, 0, 0, 0], InvalidHello::NotClientHello),
            (&[22, 3, 1, 0, 4, 1, 0xff, 0, 0], InvalidHello::TooLarge),
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
