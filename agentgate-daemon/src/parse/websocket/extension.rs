//! What `Sec-WebSocket-Extensions` agrees on (RFC 6455 9.1, RFC 7692 7.1).

use super::Sender;

/// permessage-deflate as agreed on. What a parser needs of it: whether a sender's window outlives a message.
/// The sizes of windows are not needed, since 32 KiB read what any smaller one wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    pub server_no_context_takeover: bool,
    pub client_no_context_takeover: bool,
    /// Base-2 logarithm of the server's window, 8 to 15.
    pub server_max_window_bits: u8,
    /// Of the client's.
    pub client_max_window_bits: u8,
}

impl Default for Deflate {
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        }
    }
}

impl Deflate {
    /// True where messages of `sender` refer to those before.
    #[must_use]
    pub fn takeover(self, sender: Sender) -> bool {
        match sender {
            Sender::Client => !self.client_no_context_takeover,
            Sender::Server => !self.server_no_context_takeover,
        }
    }
}

/// The extensions in use on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    pub deflate: Option<Deflate>,
    /// True with an extension that is not known: reserved bits mean something, but not to us.
    pub unknown: bool,
}

/// Why an answer's extensions make no sense. A client that keeps to the standard fails the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExtensions {
    #[error("Sec-WebSocket-Extensions does not follow its grammar")]
    Grammar,
    #[error("the server chose an extension that the client did not offer")]
    NotOffered,
    #[error("permessage-deflate is there twice")]
    Twice,
    #[error("a parameter of permessage-deflate is unknown, repeated or out of range")]
    Parameter,
}

const DEFLATE: &[u8] = b"permessage-deflate";
/// Most extensions or parameters that are looked at; real offers have one or two.
const MOST: usize = 16;

/// One extension, and its parameters.
type Listed<'a> = (&'a [u8], Vec<(&'a [u8], Option<&'a [u8]>)>);

impl Extensions {
    /// From all values of the field in the request and in the response.
    ///
    /// # Errors
    /// [`InvalidExtensions`]. An offer alone is never an error: what the server did not choose does not count.
    pub fn agreed<'a>(
        offered: impl IntoIterator<Item = &'a [u8]>,
        answered: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, InvalidExtensions> {
        let mut offers = Vec::new();
        for value in offered {
            // An offer that cannot be read is one that no server can choose.
            offers.extend(
                list(value).unwrap_or_default().into_iter().map(|(name, _)| name.to_ascii_lowercase()),
            );
        }
        let mut agreed = Self::default();
        for value in answered {
            for (name, parameters) in list(value)? {
                let name = name.to_ascii_lowercase();
                if !offers.contains(&name) {
                    return Err(InvalidExtensions::NotOffered);
                }
                if name != DEFLATE {
                    agreed.unknown = true;
                } else if agreed.deflate.replace(deflate(&parameters)?).is_some() {
                    return Err(InvalidExtensions::Twice);
                }
            }
        }
        Ok(agreed)
    }
}

/// A response's parameters (RFC 7692 7.1).
fn deflate(parameters: &[(&[u8], Option<&[u8]>)]) -> Result<Deflate, InvalidExtensions> {
    let mut deflate = Deflate::default();
    let mut seen: Vec<&[u8]> = Vec::new();
    for (name, value) in parameters {
        if seen.contains(name) {
            return Err(InvalidExtensions::Parameter);
        }
        seen.push(name);
        match (*name, value) {
            (b"server_no_context_takeover", None) => deflate.server_no_context_takeover = true,
            (b"client_no_context_takeover", None) => deflate.client_no_context_takeover = true,
            (b"server_max_window_bits", Some(value)) => deflate.server_max_window_bits = bits(value)?,
            (b"client_max_window_bits", Some(value)) => deflate.client_max_window_bits = bits(value)?,
            _ => return Err(InvalidExtensions::Parameter),
        }
    }
    Ok(deflate)
}

/// 8 to 15, without leading zeros.
fn bits(value: &[u8]) -> Result<u8, InvalidExtensions> {
    match value {
        [digit @ b'8'..=b'9'] => Ok(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Ok(10 + digit - b'0'),
        _ => Err(InvalidExtensions::Parameter),
    }
}

/// `token *( ";" token [ "=" ( token / quoted-string ) ] )`, separated by commas.
fn list(value: &[u8]) -> Result<Vec<Listed<'_>>, InvalidExtensions> {
    let mut extensions = Vec::new();
    // No token has a comma, a semicolon or an equals sign, and a quoted value must be a token inside its
    // quotes, so plain splitting is the grammar.
    for extension in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
    {
        let mut parts = extension.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = token(parts.next().unwrap_or_default())?;
        let mut parameters = Vec::new();
        for part in parts {
            let mut sides = part.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
            let key = token(sides.next().unwrap_or_default())?;
            let value = sides.next().map(|value| {
                let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
                token(quoted.unwrap_or(value))
            });
            parameters.push((key, value.transpose()?));
        }
        extensions.push((name, parameters));
        if extensions.len() > MOST || extensions.last().is_some_and(|(_, parameters)| parameters.len() > MOST)
        {
            return Err(InvalidExtensions::Grammar);
        }
    }
    Ok(extensions)
}

/// RFC 9110 5.6.2.
fn token(bytes: &[u8]) -> Result<&[u8], InvalidExtensions> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if bytes.is_empty() || !bytes.iter().all(allowed) { Err(InvalidExtensions::Grammar) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_agreed() {
        let plain = Deflate::default();
        let with = |deflate| Ok(Extensions { deflate: Some(deflate), unknown: false });
        let codex = b"permessage-deflate; client_max_window_bits".as_slice();
        type Row = (&'static [u8], &'static [u8], Result<Extensions, InvalidExtensions>);
        let rows: Vec<Row> = vec![
            (b"", b"", Ok(Extensions::default())),
            (codex, b"", Ok(Extensions::default())),
            (codex, b"permessage-deflate", with(plain)),
            (codex, b"Permessage-Deflate", with(plain)),
            (
                codex,
                b"permessage-deflate; client_max_window_bits=\"10\" ;server_max_window_bits=8",
                with(Deflate { client_max_window_bits: 10, server_max_window_bits: 8, ..plain }),
            ),
            (
                b"x-webkit-deflate-frame, permessage-deflate",
                b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                with(Deflate { server_no_context_takeover: true, client_no_context_takeover: true, ..plain }),
            ),
            (b"mux, permessage-deflate", b"mux", Ok(Extensions { deflate: None, unknown: true })),
            (b"broken;;", b"", Ok(Extensions::default())),
            (b"", b"permessage-deflate", Err(InvalidExtensions::NotOffered)),
            (codex, b"permessage-deflate, permessage-deflate", Err(InvalidExtensions::Twice)),
            (codex, b"permessage-deflate;;", Err(InvalidExtensions::Grammar)),
            (codex, b"permessage-deflate; =1", Err(InvalidExtensions::Grammar)),
            (codex, b"permessage deflate", Err(InvalidExtensions::Grammar)),
            (codex, b"permessage-deflate; client_max_window_bits", Err(InvalidExtensions::Parameter)),
            (codex, b"permessage-deflate; client_max_window_bits=16", Err(InvalidExtensions::Parameter)),
            (codex, b"permessage-deflate; client_max_window_bits=7", Err(InvalidExtensions::Parameter)),
            (codex, b"permessage-deflate; client_max_window_bits=08", Err(InvalidExtensions::Parameter)),
            (codex, b"permessage-deflate; server_no_context_takeover=1", Err(InvalidExtensions::Parameter)),
            (codex, b"permessage-deflate; window=9", Err(InvalidExtensions::Parameter)),
            (
                codex,
                b"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
                Err(InvalidExtensions::Parameter),
            ),
        ];
        for (offered, answered, expect) in rows {
            assert_eq!(Extensions::agreed([offered], [answered]), expect, "{}", answered.escape_ascii());
        }
    }

    #[test]
    fn fields_may_be_split_over_lines() {
        let offered = [b"a".as_slice(), b"permessage-deflate"];
        let agreed = Extensions::agreed(offered, [b"a".as_slice(), b"permessage-deflate"]).unwrap();
        assert_eq!(agreed, Extensions { deflate: Some(Deflate::default()), unknown: true });
    }
}
