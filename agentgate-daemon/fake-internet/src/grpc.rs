//! A gRPC service (over HTTP/2, as the protocol's own document has it) and gRPC-web, for bytes of any kind:
//! `/lab.Echo/` with methods that answer once, many times, as they are spoken to, late, and with an error.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt as _;
use hyper::{Request, Response, StatusCode, body::Frame, body::Incoming};

use crate::{
    body::{Body, Sender, streamed, whole},
    origin::Arrival,
    routes::{hex, respond},
};

const SERVICE: &str = "/lab.Echo/";
/// Between two messages of a stream.
const PAUSE: Duration = Duration::from_millis(10);
/// Length of the bytes before each message: a flag and a length.
const PREFIX: usize = 5;
/// Most that one message may hold, as of gRPC's own libraries.
const MOST: usize = 4 << 20;

/// Whether the request is one for the service.
pub(crate) fn asked(request: &Request<Incoming>) -> bool {
    request.uri().path().starts_with(SERVICE)
}

/// Answers, reading what is said as it comes.
pub(crate) async fn answer(arrival: &Arrival, id: u64, request: Request<Incoming>) -> Response<Body> {
    let method = request.uri().path().trim_start_matches(SERVICE).to_owned();
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let web = kind.is_some_and(|kind| kind.starts_with("application/grpc-web"));
    let encoding = request.headers().get("grpc-encoding").cloned();
    let mut heard = Heard {
        incoming: request.into_body(),
        buffer: BytesMut::new(),
        digest: Context::new(&SHA256),
        len: 0,
        arrival: arrival.clone(),
        id,
    };
    let mut response = match method.as_str() {
        "Unary" => match heard.all().await {
            Some(messages) => unary(messages, web),
            None => respond(StatusCode::BAD_REQUEST, "text/plain", whole("half a call\n")),
        },
        "Fail" => {
            let _all = heard.all().await;
            let mut response = respond(StatusCode::OK, "application/grpc", whole(Vec::new()));
            response.headers_mut().extend(ended(5, "nothing of that name: %C3%A4"));
            response
        }
        "Down" | "Both" | "Late" => stream(method, heard),
        _ => {
            let mut response = respond(StatusCode::OK, "application/grpc", whole(Vec::new()));
            response.headers_mut().extend(ended(12, "no such method"));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert("x-initial", HeaderValue::from_static("said before"));
    if let Some(encoding) = encoding {
        // Messages go back as they came.
        headers.insert("grpc-encoding", encoding);
    }
    response
}

fn ended(code: u16, message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    if !message.is_empty() {
        trailers.insert("grpc-message", HeaderValue::from_static(message));
    }
    trailers.insert("x-after-bin", HeaderValue::from_static("AAEC/w"));
    trailers
}

fn unary(messages: Vec<Bytes>, web: bool) -> Response<Body> {
    let mut all = messages.concat();
    if web {
        // Trailers are a last message of the body (gRPC-web's document, "HTTP/2 related differences").
        let trailers = "grpc-status:0\r\nx-after-bin:AAEC/w\r\n";
        all.push(0x80);
        all.extend_from_slice(&u32::try_from(trailers.len()).unwrap_or_default().to_be_bytes());
        all.extend_from_slice(trailers.as_bytes());
        return respond(StatusCode::OK, "application/grpc-web+proto", whole(all));
    }
    let (sender, body) = streamed();
    tokio::spawn(async move {
        if sender.send(Ok(Frame::data(all.into()))).await.is_ok() {
            let _gone = sender.send(Ok(Frame::trailers(ended(0, "")))).await;
        }
    });
    respond(StatusCode::OK, "application/grpc", body)
}

fn stream(method: String, heard: Heard) -> Response<Body> {
    let (sender, body) = streamed();
    tokio::spawn(async move {
        // Nobody listens any more: the journal has it from the body.
        let _gone = talk(&method, heard, &sender).await;
    });
    respond(StatusCode::OK, "application/grpc", body)
}

async fn talk(method: &str, mut heard: Heard, sender: &Sender) -> Option<()> {
    match method {
        "Both" => {
            while let Some(message) = heard.message().await? {
                sender.send(Ok(Frame::data(message))).await.ok()?;
            }
        }
        "Down" => {
            let messages = heard.all().await?;
            // The text of the message is how many are wanted.
            let wanted = messages.first().and_then(|message| message.get(PREFIX..));
            let wanted = wanted.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u32>().ok());
            for number in 0..wanted.unwrap_or_default() {
                let text = format!("message {number}");
                let mut message = vec![0];
                message.extend_from_slice(&u32::try_from(text.len()).ok()?.to_be_bytes());
                message.extend_from_slice(text.as_bytes());
                sender.send(Ok(Frame::data(message.into()))).await.ok()?;
                tokio::time::sleep(PAUSE).await;
            }
        }
        _ => {
            let _all = heard.all().await;
            // Until the client has had enough.
            sender.closed().await;
            return None;
        }
    }
    sender.send(Ok(Frame::trailers(ended(0, "")))).await.ok()
}

/// The client's half of a call.
struct Heard {
    incoming: Incoming,
    buffer: BytesMut,
    digest: Context,
    len: u64,
    arrival: Arrival,
    id: u64,
}

impl Heard {
    /// The next message with the bytes before it; `Some(None)` when there are no more, `None` when the call
    /// was broken off.
    async fn message(&mut self) -> Option<Option<Bytes>> {
        let journal = Arc::clone(&self.arrival.origin.journal);
        loop {
            if let Some(len) = self.buffer.get(1..PREFIX).and_then(|mut len| len.try_get_u32().ok()) {
                let len = usize::try_from(len).ok().filter(|len| *len <= MOST)?;
                if self.buffer.len() >= PREFIX + len {
                    return Some(Some(self.buffer.split_to(PREFIX + len).freeze()));
                }
            }
            match self.incoming.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.digest.update(&data);
                        self.len += data.len() as u64;
                        self.buffer.extend_from_slice(&data);
                        journal.update_request(self.id, |r| r.body_len = self.len);
                    }
                }
                Some(Err(_)) => {
                    journal.update_request(self.id, |r| r.aborted = true);
                    return None;
                }
                None => {
                    let digest = self.digest.clone();
                    journal.update_request(self.id, |r| {
                        r.body_sha256 = hex(digest.finish().as_ref());
                        r.complete = true;
                    });
                    return Some(None);
                }
            }
        }
    }

    async fn all(&mut self) -> Option<Vec<Bytes>> {
        let mut all = Vec::new();
        while let Some(message) = self.message().await? {
            all.push(message);
        }
        Some(all)
    }
}
