//! The origin's end of a WebSocket (RFC 6455), over HTTP/1.1 or an extended CONNECT (RFC 8441), with
//! compression of messages and its context kept (RFC 7692). Only what a server needs to talk to a client
//! that keeps the rules; one that does not is hung up on.

use std::{io, sync::Arc};

use bytes::{Buf as _, BufMut as _, BytesMut};
use data_encoding::BASE64;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::HeaderValue;
use hyper::{Request, Response, StatusCode, body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    body::{Body, whole},
    journal::{self, Journal},
    origin::Arrival,
    provider::openai_responses,
    world,
};

/// Most that one message may hold.
const MOST: usize = 16 << 20;
/// What the digest of the key is made with.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// What ends a deflated message and is not sent.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Vec<u8>),
}

/// What is served over a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Responses,
    /// Every message comes back.
    Echo,
}

fn service(site: &str, path: &str) -> Option<Service> {
    match (site, path) {
        (world::OPENAI, "/v1/responses") | (world::CHATGPT, "/backend-api/codex/responses") => {
            Some(Service::Responses)
        }
        (_, "/ws/echo") => Some(Service::Echo),
        _ => None,
    }
}

/// Whether the request asks for a socket, however it came.
fn asked(request: &Request<Incoming>) -> bool {
    let named = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match request.extensions().get::<hyper::ext::Protocol>() {
        Some(protocol) => protocol.as_str() == "websocket",
        None => named("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")),
    }
}

/// Takes a request for a socket up and serves it from here; `None` where it is none, or none that is
/// served.
pub(crate) fn accept(arrival: &Arrival, id: u64, request: &mut Request<Incoming>) -> Option<Response<Body>> {
    if !asked(request) {
        return None;
    }
    let service = service(arrival.origin.site, request.uri().path())?;
    let mut response = Response::new(whole(Vec::new()));
    let offered = request.headers().get("sec-websocket-extensions").and_then(|value| value.to_str().ok());
    let deflate = offered.is_some_and(|offers| {
        offers
            .split(',')
            .any(|offer| offer.split(';').next().is_some_and(|name| name.trim() == "permessage-deflate"))
    });
    if deflate {
        let agreed = HeaderValue::from_static("permessage-deflate");
        response.headers_mut().insert("sec-websocket-extensions", agreed);
    }
    if let Some(key) = request.headers().get("sec-websocket-key") {
        let digest = [key.as_bytes(), MAGIC.as_bytes()].concat();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &digest);
        let accept = HeaderValue::try_from(BASE64.encode(digest.as_ref())).ok()?;
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert("sec-websocket-accept", accept);
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
    }
    let upgrade = hyper::upgrade::on(request);
    let journal = Arc::clone(&arrival.origin.journal);
    tokio::spawn(async move {
        let ended = match upgrade.await {
            Ok(io) => {
                let socket = Socket::new(io, deflate, Arc::clone(&journal), id);
                match service {
                    Service::Responses => openai_responses::converse(socket).await,
                    Service::Echo => echo(socket).await,
                }
            }
            Err(error) => Err(io::Error::other(error)),
        };
        journal.update_request(id, |r| {
            r.complete = ended.is_ok();
            r.aborted = ended.is_err();
        });
    });
    Some(response)
}

async fn echo(mut socket: Socket) -> io::Result<()> {
    while let Some(message) = socket.receive().await? {
        match message {
            Message::Text(text) => socket.send_text(&text).await?,
            Message::Binary(bytes) => socket.send(2, &bytes).await?,
        }
    }
    Ok(())
}

/// Compression of both directions; contexts live as long as the socket.
struct Deflate {
    out: Compress,
    inward: Decompress,
}

/// An open socket.
pub(crate) struct Socket {
    io: TokioIo<Upgraded>,
    read: BytesMut,
    deflate: Option<Deflate>,
    /// What has come of a message that is not whole: its first opcode, whether it is deflated, its bytes.
    begun: Option<(u8, bool, Vec<u8>)>,
    journal: Arc<Journal>,
    request: u64,
}

/// One frame, unmasked.
struct Frame {
    last: bool,
    deflated: bool,
    opcode: u8,
    payload: Vec<u8>,
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Socket {
    fn new(io: Upgraded, deflate: bool, journal: Arc<Journal>, request: u64) -> Self {
        let deflate = deflate.then(|| Deflate {
            out: Compress::new(Compression::default(), false),
            inward: Decompress::new(false),
        });
        Self { io: TokioIo::new(io), read: BytesMut::new(), deflate, begun: None, journal, request }
    }

    /// The next message; `None` when the client has closed in good order. May be dropped and called again:
    /// nothing that has come is lost.
    ///
    /// # Errors
    /// When the client breaks the rules, or off.
    pub(crate) async fn receive(&mut self) -> io::Result<Option<Message>> {
        loop {
            while let Some(frame) = self.frame()? {
                match frame.opcode {
                    8 => {
                        self.frame_out(8, false, &frame.payload).await?;
                        return Ok(None);
                    }
                    9 => self.frame_out(10, false, &frame.payload).await?,
                    10 => {}
                    _ => {
                        if let Some(message) = self.join(frame)? {
                            return Ok(Some(message));
                        }
                    }
                }
            }
            if self.io.read_buf(&mut self.read).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
    }

    /// Adds a frame to the message it belongs to, and gives the message when it is whole.
    fn join(&mut self, frame: Frame) -> io::Result<Option<Message>> {
        let (opcode, deflated, mut bytes) = match (self.begun.take(), frame.opcode) {
            (None, 1 | 2) => (frame.opcode, frame.deflated, Vec::new()),
            (Some(begun), 0) => begun,
            _ => return Err(broken("a frame out of order")),
        };
        bytes.extend_from_slice(&frame.payload);
        if bytes.len() > MOST {
            return Err(broken("a message too large"));
        }
        if !frame.last {
            self.begun = Some((opcode, deflated, bytes));
            return Ok(None);
        }
        if deflated {
            let deflate = self.deflate.as_mut().ok_or_else(|| broken("deflated, but that was not agreed"))?;
            bytes = inflate(&mut deflate.inward, &bytes)?;
        }
        let message = match opcode {
            1 => Message::Text(String::from_utf8(bytes).map_err(|_| broken("text is not UTF-8"))?),
            _ => Message::Binary(bytes),
        };
        let text = match &message {
            Message::Text(text) => text.clone(),
            Message::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        };
        self.journal.message(journal::Message { request: self.request, opcode, deflated, text });
        Ok(Some(message))
    }

    /// Takes a whole frame out of what was read.
    fn frame(&mut self) -> io::Result<Option<Frame>> {
        let &[first, second, ref rest @ ..] = &self.read[..] else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(broken("a client's frame is not masked"));
        }
        let (len, at) = match second & 0x7f {
            126 => match rest.first_chunk::<2>() {
                Some(len) => (u64::from(u16::from_be_bytes(*len)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(len) => (u64::from_be_bytes(*len), 10),
                None => return Ok(None),
            },
            len => (u64::from(len), 2),
        };
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= MOST)
            .ok_or_else(|| broken("a frame too large"))?;
        if self.read.len() < at + 4 + len {
            return Ok(None);
        }
        self.read.advance(at);
        let mask = self.read.split_to(4);
        let mut payload = self.read.split_to(len).to_vec();
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        Ok(Some(Frame {
            last: first & 0x80 != 0,
            deflated: first & 0x40 != 0,
            opcode: first & 0x0f,
            payload,
        }))
    }

    /// Sends one message of text.
    pub(crate) async fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send(1, text.as_bytes()).await
    }

    async fn send(&mut self, opcode: u8, bytes: &[u8]) -> io::Result<()> {
        match &mut self.deflate {
            Some(deflate) => {
                let bytes = deflated(&mut deflate.out, bytes)?;
                self.frame_out(opcode, true, &bytes).await
            }
            None => self.frame_out(opcode, false, bytes).await,
        }
    }

    async fn frame_out(&mut self, opcode: u8, deflated: bool, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 10);
        frame.put_u8(0x80 | if deflated { 0x40 } else { 0 } | opcode);
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(len), _) if len < 126 => frame.put_u8(len),
            (_, Ok(len)) => {
                frame.put_u8(126);
                frame.put_u16(len);
            }
            _ => {
                frame.put_u8(127);
                frame.put_u64(payload.len() as u64);
            }
        }
        frame.extend_from_slice(payload);
        self.io.write_all(&frame).await?;
        self.io.flush().await
    }
}

fn inflate(context: &mut Decompress, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let coded = [bytes, &TAIL].concat();
    let mut plain = Vec::with_capacity(coded.len() * 4);
    let before = context.total_in();
    loop {
        let taken = usize::try_from(context.total_in() - before).unwrap_or(usize::MAX);
        let rest = coded.get(taken..).unwrap_or_default();
        let had = plain.len();
        context.decompress_vec(rest, &mut plain, FlushDecompress::Sync).map_err(io::Error::other)?;
        let now = usize::try_from(context.total_in() - before).unwrap_or(usize::MAX);
        if now == coded.len() && plain.len() < plain.capacity() {
            return Ok(plain);
        }
        if plain.len() > MOST || now == taken && plain.len() == had && plain.len() < plain.capacity() {
            return Err(broken("a deflated message that does not end"));
        }
        plain.reserve(plain.capacity().max(1024));
    }
}

fn deflated(context: &mut Compress, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut coded = Vec::with_capacity(bytes.len() / 2 + 64);
    let before = context.total_in();
    loop {
        let taken = usize::try_from(context.total_in() - before).unwrap_or(usize::MAX);
        let rest = bytes.get(taken..).unwrap_or_default();
        let status = context.compress_vec(rest, &mut coded, FlushCompress::Sync).map_err(io::Error::other)?;
        let all = context.total_in() - before == bytes.len() as u64;
        if all && coded.len() < coded.capacity() && status != Status::StreamEnd {
            coded.truncate(coded.strip_suffix(&TAIL).map_or(coded.len(), <[u8]>::len));
            return Ok(coded);
        }
        coded.reserve(coded.capacity());
    }
}

#[cfg(test)]
mod tests;
