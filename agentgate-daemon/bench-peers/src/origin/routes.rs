//! What the origin answers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::load::clock_ns;

/// One piece of a long answer.
const PIECE: usize = 64 * 1024;
static ZEROS: [u8; PIECE] = [b'z'; PIECE];

/// A body of this origin.
#[derive(Debug)]
pub(super) enum Answer {
    /// So many bytes more.
    Bytes(u64),
    /// All of it.
    Whole(Bytes),
    /// So many events more: the first at once, then one a tick.
    Events { left: u32, begun: bool, tick: Interval },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Self::Bytes(0) | Self::Events { left: 0, .. } => return Poll::Ready(None),
            Self::Bytes(left) => {
                let now = (*left).min(PIECE as u64);
                *left -= now;
                Bytes::from_static(ZEROS.get(..usize::try_from(now).unwrap_or(PIECE)).unwrap_or(&ZEROS))
            }
            Self::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Self::Whole(bytes) => std::mem::take(bytes),
            Self::Events { left, begun, tick } => {
                // Timers count in milliseconds: by one of theirs the first would come up to one later.
                if std::mem::replace(begun, true) {
                    ready!(tick.poll_tick(context));
                }
                *left -= 1;
                Bytes::from(format!("data: {}\n\n", clock_ns()))
            }
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(left) => *left == 0,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Events { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(left) => SizeHint::with_exact(*left),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events { .. } => SizeHint::default(),
        }
    }
}

pub(super) async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_start_matches('/').split('/');
    let number = |parts: &mut std::str::Split<'_, char>| parts.next().and_then(|n| n.parse::<u64>().ok());
    let answer = match (request.method(), parts.next()) {
        (&Method::GET, Some("1k")) => Some(("application/octet-stream", Answer::Bytes(1024))),
        (&Method::GET, Some("bytes")) => {
            number(&mut parts).map(|n| ("application/octet-stream", Answer::Bytes(n)))
        }
        (&Method::GET, Some("sse")) => match (number(&mut parts), number(&mut parts)) {
            (Some(n), Some(ms @ 1..)) => {
                let period = Duration::from_millis(ms);
                let mut tick = interval_at(Instant::now() + period, period);
                tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let left = u32::try_from(n).unwrap_or(u32::MAX);
                Some(("text/event-stream", Answer::Events { left, begun: false, tick }))
            }
            _ => None,
        },
        (&Method::POST, Some("sink")) => {
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                length += frame?.data_ref().map_or(0, |data| data.len() as u64);
            }
            Some(("text/plain", Answer::Whole(length.to_string().into())))
        }
        _ => None,
    };
    let mut response = Response::new(Answer::Whole(Bytes::new()));
    match answer {
        Some((kind, body)) => {
            *response.body_mut() = body;
            response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        }
        None => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}
