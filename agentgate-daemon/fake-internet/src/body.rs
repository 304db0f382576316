//! Bodies of answers: whole, streamed, and broken off.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use tokio::sync::mpsc;

/// Any body this crate sends.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// All bytes at once, with a length.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// The sending end of a streamed body: dropping it ends the body, sending an error breaks it off.
pub(crate) type Sender = mpsc::Sender<io::Result<Frame<Bytes>>>;

/// A body fed by a task. One frame is held back at a time, so that a slow reader slows the sender.
pub(crate) fn streamed() -> (Sender, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Fed { receiver }.boxed())
}

struct Fed {
    receiver: mpsc::Receiver<io::Result<Frame<Bytes>>>,
}

impl HttpBody for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.receiver.poll_recv(cx)
    }

    // So that the last frame says that it is the last, as a server's does that knows: a client that has what
    // it wants must not be seen to leave before the end.
    fn is_end_stream(&self) -> bool {
        self.receiver.is_closed() && self.receiver.is_empty()
    }
}
