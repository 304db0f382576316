//! Content codings (RFC 9110, section 8.4), chosen as a provider's front end chooses: the strongest that
//! the client names.

use std::io::{self, Read as _, Write as _};

use flate2::{
    Compression,
    read::{GzDecoder, ZlibDecoder},
    write::{GzEncoder, ZlibEncoder},
};

/// Most that a request body may decode to.
const MOST: u64 = 64 << 20;

/// A coding of whole bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Brotli,
    Gzip,
    /// The zlib format, as the RFC has it.
    Deflate,
}

impl Coding {
    const PREFERRED: [Self; 4] = [Self::Zstd, Self::Brotli, Self::Gzip, Self::Deflate];

    /// Its name in a header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The first of the server's own order that `accept` names with a weight above zero.
    pub(crate) fn chosen(accept: &str) -> Option<Self> {
        let named = |coding: &Self| {
            accept.split(',').any(|part| {
                let (name, weight) = part.split_once(";q=").unwrap_or((part, "1"));
                name.trim().eq_ignore_ascii_case(coding.name())
                    && weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0)
            })
        };
        Self::PREFERRED.into_iter().find(named)
    }

    /// The coding of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::PREFERRED.into_iter().find(|coding| name.trim().eq_ignore_ascii_case(coding.name()))
    }

    /// The bytes in this coding.
    pub(crate) fn encode(self, plain: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::encode_all(plain, 3),
            Self::Brotli => {
                let mut coded = Vec::new();
                let parameters = brotli::enc::BrotliEncoderParams { quality: 4, ..Default::default() };
                brotli::BrotliCompress(&mut &*plain, &mut coded, &parameters)?;
                Ok(coded)
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(plain)?;
                encoder.finish()
            }
        }
    }

    /// What the bytes say.
    ///
    /// # Errors
    /// When they are not in this coding, or say more than 64 MiB.
    pub(crate) fn decode(self, coded: &[u8]) -> io::Result<Vec<u8>> {
        let reader: Box<dyn io::Read + '_> = match self {
            Self::Zstd => Box::new(zstd::Decoder::new(coded)?),
            Self::Brotli => Box::new(brotli::Decompressor::new(coded, 4096)),
            Self::Gzip => Box::new(GzDecoder::new(coded)),
            Self::Deflate => Box::new(ZlibDecoder::new(coded)),
        };
        let mut plain = Vec::new();
        let len = reader.take(MOST + 1).read_to_end(&mut plain)?;
        if len as u64 > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "decodes to too much"));
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_that_is_accepted_is_chosen() {
        let rows = [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("br, gzip, deflate", Some(Coding::Brotli)),
            ("gzip, deflate", Some(Coding::Gzip)),
            ("GZIP;q=0.5, br;q=0", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("identity", None),
            ("", None),
        ];
        for (accept, expect) in rows {
            assert_eq!(Coding::chosen(accept), expect, "{accept}");
        }
    }

    #[test]
    fn what_is_coded_is_decoded() {
        let plain = b"{\"a\":1}".repeat(400);
        for coding in Coding::PREFERRED {
            let coded = coding.encode(&plain).unwrap();
            assert!(coded.len() < plain.len() && coded != plain, "{coding:?}");
            assert_eq!(coding.decode(&coded).unwrap(), plain, "{coding:?}");
            assert!(coding.decode(b"\0\x01nonsense").is_err(), "{coding:?}");
            assert_eq!(Coding::named(coding.name()), Some(coding));
        }
    }
}
