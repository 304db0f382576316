//! What one exchange over HTTP/2 will be: both sides know it beforehand, and hold what arrives against it.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use h2::{Reason, ext::Protocol};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use tokio::{sync::watch, time::timeout};

use crate::{generate::Random, setup::PATIENCE};

pub(super) const FIELD: &str = "x-fidelity";

/// Where END_STREAM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Head,
    LastData,
    EmptyData,
    Trailers,
}

pub(super) struct Body {
    pub(super) pieces: Vec<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) end: End,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} pieces to {:?}", self.length(), self.pieces.len(), self.end)
    }
}

impl Body {
    fn none() -> Self {
        Self { pieces: Vec::new(), trailers: None, end: End::Head }
    }

    fn new(random: &mut Random, most: usize) -> Self {
        let mut bytes = random.body();
        bytes.truncate(most);
        if random.once_in(4) {
            // As gRPC frames its messages.
            bytes.truncate(10_000);
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes = [&[0], &length[..], &bytes].concat();
        }
        let (mut rest, mut pieces) = (Bytes::from(bytes), Vec::new());
        while !rest.is_empty() {
            if random.once_in(50) {
                pieces.push(Bytes::new());
            }
            pieces.push(rest.split_to(random.piece(rest.len())));
        }
        let end = match random.below(3) {
            0 if !pieces.is_empty() => End::LastData,
            0 | 1 => End::EmptyData,
            _ => End::Trailers,
        };
        let trailers = (end == End::Trailers).then(|| {
            let mut trailers = fields(random);
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers
        });
        Self { pieces, trailers, end }
    }

    pub(super) fn length(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// When the origin resets a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    Unanswered,
    /// After so many bytes of its answer's body.
    Amid(usize),
    /// After all of its answer, because it wants no more of the request.
    Unwanted,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    /// The origin has given a head and its whole body, if true, but no end.
    Agent {
        answered: bool,
    },
    Origin(Stage),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Reset {
    pub(super) by: By,
    pub(super) reason: Reason,
    /// Only after all that was sent before has arrived; else at once, and some of that may get lost.
    pub(super) settled: bool,
    /// So much of its body the agent sends, and no end.
    pub(super) sends: usize,
}

pub(super) struct Plan {
    pub(super) id: u64,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) fields: HeaderMap,
    pub(super) protocol: Option<Protocol>,
    pub(super) up: Body,
    /// The agent sends its body after 100.
    pub(super) waits: bool,
    /// The origin answers while the body comes.
    pub(super) early: bool,
    pub(super) interim: Vec<(u16, HeaderMap)>,
    pub(super) status: u16,
    pub(super) answer: HeaderMap,
    pub(super) down: Body,
    pub(super) reset: Option<Reset>,
    /// How both cut and pause.
    pub(super) cuts: Random,
    pub(super) progress: Progress,
}

/// What came of a plan so far: 1 for the head, 1 for each byte, 1 for the end.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) at_origin: watch::Sender<usize>,
    pub(super) at_agent: watch::Sender<usize>,
    pub(super) begun: AtomicBool,
    /// The agent is about to close its connection.
    pub(super) gone: AtomicBool,
    pub(super) served: watch::Sender<bool>,
}

impl Progress {
    pub(super) fn is_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }
}

/// Waits until `much` has arrived.
pub(super) async fn arrived(at: &watch::Sender<usize>, much: usize) -> Result<(), String> {
    let mut at = at.subscribe();
    let waited = timeout(PATIENCE, at.wait_for(|at| *at >= much)).await.map(|found| found.map(|at| *at));
    match waited {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(format!("only {} of {much} arrived", *at.borrow())),
    }
}

fn fields(random: &mut Random) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for _ in 0..random.below(9) {
        let name = match random.below(3) {
            0 => random.pick(&["accept", "x-stainless-os", "user-agent", "anthropic-beta"]).to_owned(),
            1 => random.pick(&["cookie", "x-same"]).to_owned(),
            _ => {
                let length = 1 + random.below(12);
                format!("x-{}", String::from_utf8(random.text(b"abcxyz019!#$%&'*+-.^_`|~", length)).unwrap())
            }
        };
        let length = if random.once_in(30) { 3000 } else { random.below(40) };
        let value = random.text(b"azAZ09 \t,;=\"\\/()<>@?{}[]~!\x80\xff\xc3\xa9", length);
        let value = HeaderValue::from_bytes(value.trim_ascii()).unwrap();
        fields.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    fields
}

const REASONS: [u32; 9] = [0, 1, 2, 7, 8, 11, 13, 0x10, 0xdead_beef];

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, method, up, status, down, waits, early, interim, reset, .. } = self;
        write!(f, "{id}: {method}, {up:?}; {status}, {down:?}")?;
        write!(f, "; waits {waits}, early {early}, interim {}, {reset:?}", interim.len())?;
        let at = |at: &watch::Sender<usize>| *at.borrow();
        write!(f, "; arrived {} and {}", at(&self.progress.at_origin), at(&self.progress.at_agent))
    }
}

impl Plan {
    /// `most` is what a body may have; `connect` makes it an Extended CONNECT.
    pub(super) fn new(random: &mut Random, id: u64, origin: &str, most: usize, connect: bool) -> Self {
        let methods = [
            Method::GET,
            Method::POST,
            Method::POST,
            Method::PUT,
            Method::HEAD,
            Method::OPTIONS,
            "PROPFIND".parse().unwrap(),
        ];
        let mut method = methods[random.below(methods.len())].clone();
        let (path, query) = (random.below(30), random.below(30));
        let mut target = b"/".to_vec();
        target.extend(random.text(b"azAZ09-._~!$&'()*+,;=:@/", path));
        if random.once_in(3) {
            target.extend_from_slice(b"%2f%C3%A9?q=");
            target.extend(random.text(b"azAZ09-._~!$&'()*+,;=:@/?{}|%25", query));
        }
        let uri: Uri = format!("{origin}{}", String::from_utf8(target).unwrap()).parse().unwrap();
        let mut sent = fields(random);
        sent.insert(FIELD, id.into());
        if random.once_in(3) {
            sent.insert("te", HeaderValue::from_static("trailers"));
            sent.insert("content-type", HeaderValue::from_static("application/grpc"));
        }
        let mut up = if random.once_in(2) { Body::none() } else { Body::new(random, most) };
        let statuses = [200, 200, 201, 204, 206, 299, 301, 304, 400, 404, 429, 500, 599];
        let mut status = statuses[random.below(statuses.len())];
        let mut protocol = None;
        if connect {
            method = Method::CONNECT;
            protocol = Some(Protocol::from_static("websocket"));
            up = Body::new(random, most);
            status = 200;
        }
        let bodiless = method == Method::HEAD || status == 204 || status == 304;
        let mut answer = fields(random);
        let down =
            if bodiless || !connect && random.once_in(5) { Body::none() } else { Body::new(random, most) };
        if !connect && up.end != End::Head && random.once_in(2) {
            sent.insert("content-length", up.length().into());
        }
        if status != 204 && !connect && random.once_in(2) {
            let length = if bodiless { random.below(1000) } else { down.length() };
            answer.insert("content-length", length.into());
        }
        let waits = !connect && up.end != End::Head && random.once_in(6);
        let mut interim = Vec::new();
        if random.once_in(8) {
            interim = (0..1 + random.below(3)).map(|_| (103, fields(random))).collect();
        }
        if waits {
            sent.insert("expect", HeaderValue::from_static("100-continue"));
            interim.push((100, HeaderMap::new()));
        }
        let reset = (!waits && random.once_in(4)).then(|| {
            let amid = random.below(down.length() + 1);
            let by = match random.below(5) {
                0 | 1 => By::Agent { answered: down.end != End::Head && random.once_in(2) },
                2 => By::Origin(Stage::Unanswered),
                3 if down.end != End::Head => By::Origin(Stage::Amid(amid)),
                _ if up.end != End::Head => By::Origin(Stage::Unwanted),
                _ => By::Origin(Stage::Unanswered),
            };
            let reason = REASONS[random.below(REASONS.len())].into();
            Reset { by, reason, settled: random.once_in(2), sends: random.below(up.length() + 1) }
        });
        Self {
            id,
            method,
            uri,
            fields: sent,
            protocol,
            up,
            waits,
            early: connect || !waits && random.once_in(4),
            interim,
            status,
            answer,
            down,
            reset,
            cuts: random.clone(),
            progress: Progress::default(),
        }
    }

    pub(super) fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.fields.clone();
        if let Some(protocol) = &self.protocol {
            request.extensions_mut().insert(protocol.clone());
        }
        request
    }

    pub(super) fn response(&self) -> Response<()> {
        head(self.status, &self.answer)
    }
}

pub(super) fn head(status: u16, fields: &HeaderMap) -> Response<()> {
    let mut response = Response::builder().status(status).body(()).unwrap();
    *response.headers_mut() = fields.clone();
    response
}

/// Everything that differed.
#[derive(Debug, Default)]
pub(super) struct Wrong(Mutex<Vec<String>>);

impl Wrong {
    pub(super) fn push(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
