//! Heads of requests and responses: read strictly, kept as bytes.

use std::{mem::MaybeUninit, ops::Range};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, request::Parts};

use super::Framing;

/// Fields in one head.
pub const FIELDS: usize = 256;

/// Why a head cannot be read, or may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    #[error("{0}")]
    Syntax(&'static str),
    /// A transfer coding besides `chunked`: what it hides could not be judged.
    #[error("a transfer coding other than chunked is not carried")]
    Coding,
    #[error("the head is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the head has more than {FIELDS} fields")]
    TooManyFields,
}

/// A head as it came: start line, fields, empty line.
#[derive(Clone, Debug)]
pub struct RawHead {
    bytes: Bytes,
    fields: Vec<Field>,
}

/// Where a field's name and value are; they are in order, and lines are not folded.
#[derive(Clone, Debug)]
struct Field {
    name: Range<u32>,
    value: Range<u32>,
}

/// What becomes of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    Keep,
    Drop,
    /// The same name with another value.
    Value(String),
}

impl RawHead {
    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Names, and values without the white space around them.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| {
            let name = std::str::from_utf8(slice(&self.bytes, &field.name)).unwrap_or_default();
            (name, slice(&self.bytes, &field.value))
        })
    }

    /// The request's target as it was sent.
    #[must_use]
    pub fn target(&self) -> &str {
        let line = self.bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        std::str::from_utf8(line).ok().and_then(|line| line.split(' ').nth(1)).unwrap_or_default()
    }

    /// The head with some fields edited and `more` lines at its end; every other byte stays as it is.
    #[must_use]
    pub fn edited(&self, mut edit: impl FnMut(&str, &[u8]) -> Edit, more: &str) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes.len() + more.len());
        let end = self.bytes.len().saturating_sub(2);
        let mut copied = 0;
        for (index, field) in self.fields.iter().enumerate() {
            let line =
                field.name.start as usize..self.fields.get(index + 1).map_or(end, |f| f.name.start as usize);
            let name = std::str::from_utf8(slice(&self.bytes, &field.name)).unwrap_or_default();
            match edit(name, slice(&self.bytes, &field.value)) {
                Edit::Keep => continue,
                Edit::Drop => out.extend_from_slice(self.bytes.get(copied..line.start).unwrap_or_default()),
                Edit::Value(value) => {
                    let kept = copied..field.name.end as usize;
                    out.extend_from_slice(self.bytes.get(kept).unwrap_or_default());
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(value.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
            copied = line.end;
        }
        out.extend_from_slice(self.bytes.get(copied..end).unwrap_or_default());
        out.extend_from_slice(more.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.into()
    }
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
}

/// A request's head.
#[derive(Debug)]
pub struct RequestHead {
    /// What is judged; the [`RawHead`] is among its extensions.
    pub parts: Parts,
    pub framing: Framing,
    /// The agent means to go on after this request.
    pub keep_alive: bool,
    /// It waits for leave to send its body.
    pub expects_continue: bool,
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    pub raw: RawHead,
    pub framing: Framing,
    /// The origin means to go on after this response.
    pub keep_alive: bool,
}

/// Bytes up to the end of the head that `bytes` begin with; those before `scanned` were looked at.
/// `None` while it is not there.
///
/// # Errors
/// A line that ends without CR, an empty line in place of the first, or a head of more than `most` bytes.
pub fn end_of_head(bytes: &[u8], scanned: usize, most: usize) -> Result<Option<usize>, BadHead> {
    if bytes.first() == Some(&b'\r') && bytes.len() > 2 {
        return Err(BadHead::Syntax("empty lines come before it"));
    }
    let mut from = scanned.saturating_sub(3);
    while let Some(found) = memchr::memchr(b'\n', bytes.get(from..).unwrap_or_default()) {
        let at = from + found;
        match bytes.get(..at) {
            Some([.., b'\r', b'\n', b'\r']) => {
                return if at < most { Ok(Some(at + 1)) } else { Err(BadHead::TooLarge(most)) };
            }
            Some([.., b'\r']) => from = at + 1,
            Some(_) | None => return Err(BadHead::Syntax("a line ends without CR")),
        }
    }
    if bytes.len() >= most { Err(BadHead::TooLarge(most)) } else { Ok(None) }
}

/// Empty lines that may come before a request (RFC 9112 2.2): how many bytes of them are there.
#[must_use]
pub fn empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take(2).take_while(|line| *line == b"\r\n").count() * 2
}

/// What fields say about the message, read as they are walked through.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Said {
    fn read(&mut self, name: &str, value: &[u8]) -> Result<(), BadHead> {
        match name.len() {
            // The lengths of the names below: most fields are none of them.
            6 if name.eq_ignore_ascii_case("expect") => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                if self.length.is_some() {
                    return Err(BadHead::Syntax("there is more than one Content-Length"));
                }
                self.length = Some(length(value).ok_or(BadHead::Syntax("Content-Length is no number"))?);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.chunked {
                    return Err(BadHead::Syntax("there is more than one Transfer-Encoding"));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadHead::Coding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// `None` where neither length nor coding is given.
    fn framing(&self, version: Version) -> Result<Option<Framing>, BadHead> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(BadHead::Syntax("there are both Content-Length and Transfer-Encoding")),
            (None, true) if version == Version::HTTP_10 => {
                Err(BadHead::Syntax("HTTP/1.0 has no Transfer-Encoding"))
            }
            (None, true) => Ok(Some(Framing::Chunked)),
            (Some(0), false) => Ok(Some(Framing::Empty)),
            (Some(length), false) => Ok(Some(Framing::Length(length))),
            (None, false) => Ok(None),
        }
    }

    fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

/// Digits only: no sign, no list, nothing that another reader might take for another number.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn version_of(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn syntax(error: httparse::Error) -> BadHead {
    BadHead::Syntax(match error {
        httparse::Error::HeaderName => "a field's name is not valid",
        httparse::Error::HeaderValue => "a field's value is not valid",
        httparse::Error::NewLine => "a bare CR or LF",
        httparse::Error::Status => "the status is not valid",
        httparse::Error::Token => "the first line is not valid",
        httparse::Error::Version => "the version is not HTTP/1.0 or HTTP/1.1",
        httparse::Error::TooManyHeaders => return BadHead::TooManyFields,
    })
}

/// Ranges of `fields` in `bytes`, of which they are slices.
fn located(bytes: &[u8], fields: &[httparse::Header<'_>]) -> Vec<Field> {
    let start = bytes.as_ptr() as usize;
    let range = |part: &[u8]| {
        let from = (part.as_ptr() as usize).saturating_sub(start);
        // A head has at most some hundred KiB.
        let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        at(from)..at(from + part.len())
    };
    fields
        .iter()
        .map(|field| Field { name: range(field.name.as_bytes()), value: range(field.value) })
        .collect()
}

/// Reads a request's head: exactly the bytes of `head`.
///
/// # Errors
/// [`BadHead`]; RFC 9112 would have some of it answered, and none forwarded.
pub fn request(head: BytesMut) -> Result<RequestHead, BadHead> {
    let bytes = head.freeze();
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(BadHead::Syntax("the head does not end where it should")),
        Err(error) => return Err(syntax(error)),
    }
    let version = version_of(parsed.version);
    let mut said = Said::default();
    let mut request = Request::new(());
    let headers = request.headers_mut();
    headers.reserve(parsed.headers.len());
    let located = located(&bytes, parsed.headers);
    for (field, at) in parsed.headers.iter().zip(&located) {
        said.read(field.name, field.value)?;
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| BadHead::Syntax("a field's name is not valid"))?;
        let value =
            HeaderValue::from_maybe_shared(bytes.slice(at.value.start as usize..at.value.end as usize))
                .map_err(|_| BadHead::Syntax("a field's value is not valid"))?;
        headers.append(name, value);
    }
    *request.method_mut() = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| BadHead::Syntax("the method is not valid"))?;
    *request.version_mut() = version;
    let target = parsed.path.unwrap_or_default();
    let from = target.as_ptr() as usize - bytes.as_ptr() as usize;
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice(from..from + target.len()))
        .map_err(|_| BadHead::Syntax("the target is not valid"))?;
    let framing = said.framing(version)?.unwrap_or(Framing::Empty);
    request.extensions_mut().insert(RawHead { bytes: bytes.clone(), fields: located });
    Ok(RequestHead {
        parts: request.into_parts().0,
        framing,
        keep_alive: said.keeps_alive(version),
        expects_continue: said.expects_continue && version == Version::HTTP_11 && framing != Framing::Empty,
    })
}

/// Reads a response's head: exactly the bytes of `head`; `method` is what it answers.
///
/// # Errors
/// [`BadHead`].
pub fn response(head: BytesMut, method: &Method) -> Result<ResponseHead, BadHead> {
    let bytes = head.freeze();
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, &bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(BadHead::Syntax("the head does not end where it should")),
        Err(error) => return Err(syntax(error)),
    }
    let version = version_of(parsed.version);
    let mut said = Said::default();
    for field in parsed.headers.iter() {
        said.read(field.name, field.value)?;
    }
    let status = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(BadHead::Syntax("the status is not valid"))?;
    let framing = said.framing(version)?;
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let framing = if bodiless { Framing::Empty } else { framing.unwrap_or(Framing::UntilClose) };
    let fields = located(&bytes, parsed.headers);
    Ok(ResponseHead {
        status,
        version,
        framing,
        keep_alive: framing != Framing::UntilClose && said.keeps_alive(version),
        raw: RawHead { bytes, fields },
    })
}

#[cfg(test)]
mod tests;
